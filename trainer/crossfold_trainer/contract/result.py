"""What a trainer says at its end: the result, or the failure, as JSON in the termination message."""

import json
from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field, ValidationError

from crossfold_trainer.contract.base import Model
from crossfold_trainer.contract.curve import MOST_POINTS, CurvePoint

MESSAGE_LIMIT = 4096
"""Bytes of a termination message that Kubernetes keeps."""
FAILURE_TEXT_LIMIT = 1500
"""Characters of a failure's text."""


Digest = Annotated[str, Field(max_length=64)]
MOST = 2**53
"""Greatest count that JSON numbers still tell from its neighbours."""


class Outcome(StrEnum):
    """How a finished run ended."""

    TRAINED = "Trained"
    """Training ended by itself and a checkpoint was kept."""
    DIVERGED = "Diverged"
    """The loss became non-finite: a finished run without a score."""


Share = Annotated[float, Field(ge=0, le=1)]


class Performance(Model):
    """How fast the last attempt trained, and what held it up."""

    device: Annotated[str, Field(max_length=128)] = ""
    """The accelerator's name; cpu without one."""
    patches_per_second: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    """Patches trained per second of training (validation not counted); null without a step."""
    data_wait_share: Share | None = None
    """Share of training in which it waited for data, in [0, 1]: on a GPU the most that it can have been."""
    checkpoint_wait_share: Share | None = None
    """Share of the time since training began in which it waited for checkpoints, in [0, 1]."""
    device_utilisation: Share | None = None
    """Mean share of the time in which the GPU was at work, in [0, 1]; null without one, or where NVML is mute."""
    peak_memory_bytes: Annotated[int, Field(ge=0, le=MOST)] | None = None
    """The most GPU memory that was taken at a time; null without a GPU."""


class RunResult(Model):
    """A finished run. Numbers are taken at the epoch of the checkpoint that was kept."""

    outcome: Outcome = Outcome.TRAINED
    """Trained, or Diverged (score null)."""
    digest: Digest
    """configDigest that the result belongs to; a result with another digest is never read."""
    data_digest: Digest = ""
    """Digest of the data set that was read."""
    splits_digest: Digest = ""
    """Digest of the membership of train, validation and test part."""
    score: Annotated[float, Field(allow_inf_nan=False)] | None = None
    """The run's combined score; null when it is not stable."""
    stable: bool = True
    """Whether the score may be compared."""
    values: Annotated[dict[str, float | None], Field(max_length=64)] = {}
    """The objective's metrics by full name; null for a non-finite value."""
    metrics: dict[str, float | None] = {}
    """All other metrics by full name, at the kept epoch; null for a non-finite value."""
    epoch: Annotated[int, Field(ge=0, le=MOST)] | None = None
    """The kept epoch, counted from 0."""
    epochs: Annotated[int, Field(ge=0, le=MOST)] = 0
    """Epochs trained, all attempts together."""
    steps: Annotated[int, Field(ge=0, le=MOST)] = 0
    """Optimiser steps, all attempts together."""
    curve: Annotated[list[CurvePoint], Field(max_length=MOST_POINTS)] = []
    """The scores at the epochs that the configuration names, as far as training came."""
    ignored_pixels: Annotated[int, Field(ge=0, le=MOST)] = 0
    """Pixels of the patches that were read which were ignored for a NaN or infinite value (data.nonFinite: Ignore)."""
    halvings: Annotated[int, Field(ge=0, le=64)] = 0
    """How often the micro-batch was halved because the accelerator's memory did not suffice; steps stayed as large."""
    duration_seconds: Annotated[float, Field(ge=0)] = 0.0
    """Wall-clock seconds from the start of the last attempt to its result."""
    performance: Performance | None = None
    """How fast the last attempt trained, and what held it up."""
    checkpoint_uri: Annotated[str, Field(max_length=2048)] = ""
    """The kept checkpoint."""
    artifact_uri: Annotated[str, Field(max_length=2048)] = ""
    """The run's folder."""
    reason: str = ""
    """Why training ended, in words."""
    notes: Annotated[list[Annotated[str, Field(max_length=512)]], Field(max_length=16)] = []
    """What did not work and cost the run nothing, such as a tracker that was away."""

    def message(self) -> str:
        """JSON of at most 4 KB: metrics outside the objective are left out, last first, when it would be more.

        Only then is the curve left out, the reason cut, and places too (the trainer's result object has them all).
        """
        content = self.model_dump(mode="json")
        names = list(self.metrics)
        if len(_json({"result": content})) > MESSAGE_LIMIT:
            content["notes"] = []
        while names and len(_json({"result": content})) > MESSAGE_LIMIT:
            del content["metrics"][names.pop()]
        if len(_json({"result": content})) > MESSAGE_LIMIT:
            content["curve"] = []
        for field in ("reason", "artifactUri", "checkpointUri"):
            while (excess := len(_json({"result": content})) - MESSAGE_LIMIT) > 0 and content[field]:
                content[field] = _shorter(content[field], excess) if field == "reason" else ""
        return _json({"result": content})


class FailureClass(StrEnum):
    """Why an attempt ended without a result."""

    PREEMPTED = "Preempted"
    INFRASTRUCTURE = "Infrastructure"
    OUT_OF_MEMORY = "OutOfMemory"
    HOST_OUT_OF_MEMORY = "HostOutOfMemory"
    CONFIG = "Config"
    TIMEOUT = "Timeout"
    CRASH = "Crash"


class RunFailure(Model):
    """An attempt that ended without a result, in the trainer's own words."""

    failure_class: Annotated[FailureClass, Field(alias="class")]
    """The class that the exit code says too."""
    message: Annotated[str, Field(max_length=FAILURE_TEXT_LIMIT)]
    """What went wrong, naming the field and the remedy."""

    def text(self) -> str:
        """The termination message: JSON of at most 4 KB."""
        content = self.model_dump(mode="json")
        while (excess := len(_json({"failure": content})) - MESSAGE_LIMIT) > 0:
            content["message"] = _shorter(content["message"], excess)
        return _json({"failure": content})


def parse_message(text: str) -> RunResult | RunFailure | None:
    """Read a termination message; None for anything that a trainer of this contract did not write."""
    try:
        content: Any = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(content, dict):
        return None
    try:
        if "result" in content:
            return RunResult.model_validate(content["result"])
        if "failure" in content:
            return RunFailure.model_validate(content["failure"])
    except ValidationError:
        return None
    return None


def _shorter(text: str, excess: int) -> str:
    """A text without its end; no character takes more than 12 bytes of JSON, so that little is lost in vain."""
    return text[: -(excess // 12 + 1)]


def _json(content: dict[str, Any]) -> str:
    return json.dumps(content, separators=(",", ":"), allow_nan=False)
