"""--dev: the same run, tiny, to see whether it works at all."""

from collections.abc import Mapping
from typing import Any

from crossfold_operator.names import Kind

Obj = dict[str, Any]

SUFFIX = "-dev"
"""A tiny run has a name of its own: its results are not those of the real one."""
_LONGEST = 40
_TRIALS = 2
_FOLDS = 2
_TRAINER: Mapping[str, Any] = {
    "maxEpochs": 2,
    "checkValEveryNEpoch": 1,
    "limitTrainBatches": 2,
    "limitValBatches": 2,
    "detectAnomaly": True,
}


def tiny(obj: Obj) -> tuple[Obj, list[str]]:
    """A tiny version of an object, and what was set in it (``spec.maxTrials=2``)."""
    spec = dict(obj.get("spec") or {})
    told: list[str] = []

    def put(section: str, values: Mapping[str, Any]) -> None:
        spec[section] = {**(spec.get(section) or {}), **values}
        told.extend(f"spec.{section}.{name}={_text(value)}" for name, value in values.items())

    put("trainer", _TRAINER)
    if obj.get("kind") in (Kind.TUNE, Kind.CROSS_VALIDATION):
        folds = spec.get("crossValidation") or {}
        seeds = folds.get("seeds")
        changed: dict[str, Any] = {
            "runFolds": min(_FOLDS, _number(folds.get("runFolds") or folds.get("folds"), _FOLDS))
        }
        if isinstance(seeds, list) and len(seeds) > 1:
            changed["seeds"] = seeds[:1]
        if folds.get("randomSeeds"):
            changed["randomSeeds"] = 1
        put("crossValidation", changed)
    if obj.get("kind") == Kind.TUNE:
        trials = min(_TRIALS, _number(spec.get("maxTrials"), _TRIALS))
        spec["maxTrials"] = trials
        told.append(f"spec.maxTrials={trials}")
        if _number(spec.get("maxFailedTrials"), 0) > trials:
            spec["maxFailedTrials"] = trials
            told.append(f"spec.maxFailedTrials={trials}")
        if spec.get("pruning"):
            # It has no epochs to look at.
            spec["pruning"] = {"method": "None"}
            told.append("spec.pruning.method=None")
    metadata = dict(obj.get("metadata") or {})
    if isinstance(metadata.get("name"), str):
        metadata["name"] = metadata["name"][: _LONGEST - len(SUFFIX)] + SUFFIX
        told.insert(0, f"metadata.name={metadata['name']}")
    return {**obj, "metadata": metadata, "spec": spec}, told


def _number(value: Any, default: int) -> int:
    """A whole number; admission complains about anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) else default


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
