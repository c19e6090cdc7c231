"""How far a run is, in its trainer's own words: what it tells the operator while it trains.

A report is a snapshot: the newest one says all, and one that gets lost is missed by nobody.
"""

import json
from typing import Annotated

from pydantic import Field

from crossfold_trainer.contract.base import Model
from crossfold_trainer.contract.curve import MOST_POINTS, CurvePoint
from crossfold_trainer.contract.result import MOST, Digest

URL_VARIABLE = "CROSSFOLD_PROGRESS_URL"
"""The environment variable with the URL that a trainer posts its reports to; unset: it posts nothing."""
FILE_VARIABLE = "CROSSFOLD_PROGRESS_FILE"
"""The environment variable with the file that a trainer writes its reports to instead (local mode)."""
TOKEN_FOLDER = "/var/run/secrets/crossfold.dev/progress"  # noqa: S105 -- a place, not a password
"""Where a pod finds the token that says which pod it is."""
TOKEN_FILE = "token"  # noqa: S105
"""Its file there; renewed by the kubelet, so that it is read for each report."""
AUDIENCE = "crossfold.dev/progress"
"""Whom the token is for: it is worth nothing to the API server."""
REPORT_LIMIT = 4096
"""Bytes that a report has at most."""

MOST_METRICS = 64
NAME_LIMIT = 63
MetricName = Annotated[str, Field(min_length=1, max_length=NAME_LIMIT)]
Finite = Annotated[float, Field(allow_inf_nan=False)]


class ProgressReport(Model):
    """Where training is, all attempts together."""

    digest: Digest
    """configDigest of the run."""
    epoch: Annotated[int, Field(ge=0, le=MOST)]
    """Epochs trained to their end."""
    epochs: Annotated[int, Field(ge=1, le=MOST)]
    """Epochs after which training ends at the latest."""
    step: Annotated[int, Field(ge=0, le=MOST)]
    """Optimiser steps done."""
    fraction: Annotated[float, Field(ge=0, le=1)]
    """Share of all epochs that is trained, the one under way included."""
    eta_seconds: Annotated[float, Field(ge=0, le=1e9)] | None = None
    """Seconds until the last epoch ends, at the pace so far; null while there is none. Training may end sooner."""
    patches_per_second: Annotated[float, Field(ge=0, le=1e9)] | None = None
    """Patches trained per second of training; null before the first step."""
    score: Finite | None = None
    """The best score so far; null before the first that counts."""
    epoch_of_score: Annotated[int, Field(ge=0, le=MOST)] | None = None
    """Its epoch, counted from 0."""
    metrics: Annotated[dict[MetricName, Finite | None], Field(max_length=MOST_METRICS)] = {}
    """Metrics of that epoch (of the last validation where no score counts) by full name; null: not finite."""
    curve: Annotated[list[CurvePoint], Field(max_length=MOST_POINTS)] = []
    """The scores so far at the epochs that the configuration names, all of them each time."""

    def text(self) -> bytes:
        """JSON of at most 4 KB: metrics are left out, last first, when it would be more."""
        content = self.model_dump(mode="json", exclude_defaults=True)
        names = list(self.metrics)
        while len(text := json.dumps(content, separators=(",", ":"), allow_nan=False)) > REPORT_LIMIT:
            del content["metrics"][names.pop()]
        return text.encode()
