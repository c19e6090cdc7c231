"""A status as it is stored, and the patch that gets it there. Pure."""

from collections.abc import Mapping
from typing import Any

from crossfold_operator.api.crossvalidation import CrossValidationStatus, RunRecord
from crossfold_operator.api.tune import TuneStatus
from crossfold_trainer.contract.base import Model


def dump(status: Model) -> dict[str, Any]:
    """A status as it is stored: without nulls and empty texts, lists and objects; counters stay."""
    content: dict[str, Any] = _compact(status.model_dump(mode="json", exclude_none=True))
    if isinstance(status, CrossValidationStatus) and status.runs:
        content["runs"] = [_record(record, status.data_digest) for record in status.runs]
    if isinstance(status, TuneStatus) and status.best is not None:
        # Values that look like nothing are values here. A null is the value of a name that has none: the API server
        # takes nulls out of what it stores.
        parameters = _without_none(status.best.model_dump(mode="json", include={"parameters"}))["parameters"]
        content["best"] |= {"parameters": parameters} if parameters else {}
    return content


def _record(record: RunRecord, data_digest: str) -> dict[str, Any]:
    """A run in brief; the digest of the data is told where it is not the one that all runs share."""
    same = {"data_digest"} if record.data_digest == data_digest else None
    return record.model_dump(mode="json", exclude_defaults=True, exclude=same)


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_none(v) for k, v in value.items() if v is not None}
    if isinstance(value, list):
        return [_without_none(item) for item in value]
    return value


def _compact(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: compacted for k, v in value.items() if (compacted := _compact(v)) not in ("", [], {})}
    return value


def merge_patch(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """The merge patch (RFC 7386) that turns old into new; empty when nothing changed."""
    patch: dict[str, Any] = {key: None for key in old if key not in new}
    for key, value in new.items():
        before = old.get(key)
        if isinstance(value, dict) and isinstance(before, dict):
            if inner := merge_patch(before, value):
                patch[key] = inner
        elif key not in old or before != value:
            patch[key] = value
    return patch
