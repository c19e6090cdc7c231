"""The training state in a checkpoint: packed, found again, and refused when it is torn or of another run.

Every random draw of training is a function of (seed, step) or (seed, epoch), so the state holds no generators:
weights, optimiser, position and what was best so far say everything.
"""

import io
import logging
import zipfile
from dataclasses import asdict
from typing import Any, NamedTuple

import torch

from crossfold_trainer.checkpoints import CheckpointLog, Saved
from crossfold_trainer.store import Store
from crossfold_trainer.task import Identity

log = logging.getLogger(__name__)

FORMAT = 3
"""Of the checkpoint's content; another one is not read."""


def pack(content: dict[str, Any], identity: Identity) -> bytes:
    """A checkpoint's bytes: tensors and plain values only, so that nothing in it is ever executed."""
    buffer = io.BytesIO()
    torch.save({"format": FORMAT, "identity": asdict(identity), **content}, buffer)
    return buffer.getvalue()


class Found(NamedTuple):
    """A state to go on from."""

    content: dict[str, Any]
    best_lost: bool
    """The state is the best epoch's own, and the weights that were kept of it are not there."""


def find(store: Store, checkpoints: CheckpointLog, identity: Identity) -> Found | None:
    """The newest state to go on from, else the one before it, else none.

    A state whose best epoch's weights cannot be had is passed over, unless it is that epoch's own: a result must
    never name a checkpoint that is not there.
    """
    snapshots = checkpoints.snapshots
    sizes = checkpoints.sizes() if snapshots else {}
    for i, snapshot in enumerate(snapshots):
        content = _load(store, snapshot.state, identity)
        if content is None:
            continue
        best, kept = content["progress"]["best"], snapshot.best
        lost = best is not None and (kept is None or sizes.get(kept.path) != kept.size)
        if not lost or content["validated"] == best["epoch"]:
            checkpoints.use(snapshots[i:])
            return Found(content, lost)
        log.warning(
            "%s is passed over: the weights of its best epoch %d are not there", snapshot.state.path, best["epoch"] + 1
        )
    checkpoints.use(())
    return None


def best_weights(store: Store, checkpoints: CheckpointLog, identity: Identity) -> dict[str, Any] | None:
    """The weights of the kept epoch; None when there are none to be read."""
    saved = checkpoints.snapshots[0].best if checkpoints.snapshots else None
    content = _load(store, saved, identity) if saved is not None else None
    return None if content is None else content["model"]


def _load(store: Store, saved: Saved, identity: Identity) -> dict[str, Any] | None:
    path = saved.path
    raw = store.read(path)
    if raw is None or len(raw) != saved.size:
        log.warning("%s is not whole and is passed over", path)
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
