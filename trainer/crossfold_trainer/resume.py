"""The training state in a checkpoint: packed, found again, and refused when it is torn or of another run.

Every random draw of training is a function of (seed, step) or (seed, epoch), so the state holds no generators:
weights, optimiser, position and what was best so far say everything.
"""

import io
import logging
import zipfile
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from crossfold_trainer.artifacts import BEST, LAST, PREVIOUS
from crossfold_trainer.store import Store
from crossfold_trainer.task import Identity

log = logging.getLogger(__name__)

FORMAT = 1
"""Of the checkpoint's content; another one is not read."""


@dataclass
class Best:
    """The kept validation."""

    epoch: int
    score: float
    metrics: dict[str, float]


@dataclass
class Progress:
    """Where training is. Changed by the training loop only."""

    epoch: int = 0
    """The epoch under way, from 0."""
    batch: int = 0
    """Batches of it that are done."""
    step: int = 0
    """Optimiser steps done, all epochs together."""
    wait: int = 0
    """Validations since the best one."""
    validations: int = 0
    best: Best | None = None
    last_metrics: dict[str, float] = field(default_factory=dict)
    """Of the last validation."""
    last_validated: int | None = None
    test: dict[str, float] = field(default_factory=dict)
    """Metrics of the test part, with the weights of the kept epoch."""
    history: list[dict[str, float]] = field(default_factory=list)
    """One row an epoch: what metrics.csv says."""


def pack(content: dict[str, Any], identity: Identity) -> bytes:
    """A checkpoint's bytes: tensors and plain values only, so that nothing in it is ever executed."""
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, "identity": asdict(identity), **content}, buffer)
    return buffer.getvalue()


def progress_from(content: dict[str, Any]) -> Progress:
    """The position that a checkpoint holds."""
    values = dict(content["progress"])
    best = values.pop("best")
    return Progress(best=Best(**best) if best else None, **values)


def find(store: Store, identity: Identity) -> dict[str, Any] | None:
    """The newest state to go on from: last.ckpt, else the one before it, else none.

    A state whose best epoch is not what best.ckpt holds is passed over, unless it is that epoch itself (then
    its own weights are the best ones): a result must never name a checkpoint that is not there.
    """
    best_epoch: int | None = None
    best_read = False
    for path in (LAST, PREVIOUS):
        content = _load(store, path, identity)
        if content is None:
            continue
        best = content["progress"]["best"]
        if best is None or content["validated"] == best["epoch"]:
            return content
        if not best_read:
            kept = _load(store, BEST, identity)
            best_epoch, best_read = (kept["epoch"] if kept else None), True
        if best_epoch == best["epoch"]:
            return content
        log.warning("%s is passed over: its best epoch %d is not the one in %s", path, best["epoch"] + 1, BEST)
    return None


def best_weights(store: Store, identity: Identity) -> dict[str, Any] | None:
    """The weights of the kept epoch; None when there are none to be read."""
    content = _load(store, BEST, identity)
    return None if content is None else content["model"]


def _load(store: Store, path: str, identity: Identity) -> dict[str, Any] | None:
    raw = store.read(path)
    if raw is None:
        return None
    try:
        content: dict[str, Any] = torch.load(io.BytesIO(raw), map_location="cpu", weights_only=True)
        found = content["identity"]
        of_this_format = content["format"] == FORMAT
    except (RuntimeError, ValueError, KeyError, TypeError, EOFError, OSError, zipfile.BadZipFile) as error:
        log.warning(
            "%s cannot be read and is passed over: %s", path, str(error).splitlines()[0] if str(error) else error
        )
        return None
    except Exception as error:  # noqa: BLE001 - unpickling a torn file may raise anything
        log.warning("%s cannot be read and is passed over: %s", path, type(error).__name__)
        return None
    if not of_this_format or found != asdict(identity):
        log.warning("%s belongs to another configuration or other data and is passed over", path)
        return None
    return content
