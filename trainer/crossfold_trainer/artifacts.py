"""What a run leaves behind, and the thread that uploads it beside training.

Every object is written whole (a reader sees the old one or the new one); `result.json` is written last, by
the caller, once everything else is there.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple, TypeVar

from crossfold_trainer.contract.config import RunConfig
from crossfold_trainer.contract.result import RunResult
from crossfold_trainer.errors import Fenced, StoreError
from crossfold_trainer.store import Store, check_uri, open_store

log = logging.getLogger(__name__)
T = TypeVar("T")

CONFIG = "config.json"
HPARAMS = "hparams.yaml"
METRICS = "metrics.csv"
SPLITS = "splits.parquet"
ENVIRONMENT = "environment.json"
LOG = "log.txt"
RESULT = "result.json"
TRACKERS = "trackers.json"
"""What trackers call the run, for the next attempt."""
HALVINGS = "halvings.txt"
"""How often micro-batches are halved when several ranks begin: what one of them found out in an earlier attempt."""
WANDB = "wandb"
"""Folder of an offline run of Weights & Biases."""
BEST = "checkpoints/best.ckpt"
LAST = "checkpoints/last.ckpt"

WRITE_ROUNDS = 3
"""Each of them is a request with its own bounded retries (store.py)."""
ROUND_PAUSE_S = 2.0
POLL_S = 0.1
"""How often a waiting flush looks at its deadline, which a signal may bring."""
FAILED_UPLOADS = 5
"""Uploads that may fail one after the other, each after all its rounds, before a run that trains on gives up."""


class Item(NamedTuple):
    """An object to upload."""

    path: str
    content: bytes


def open_run_folder(config: RunConfig) -> Store:
    """The store of the run's own folder."""
    check_uri(config.artifacts, "artifacts")
    return open_store(config.artifacts.model_copy(update={"uri": config.artifact_uri}), "artifacts")


def read_result(store: Store, digest: str) -> RunResult | None:
    """The result that a former attempt left, if it is whole and belongs to this digest."""
    raw = store.read(RESULT)
    if raw is None:
        return None
    with contextlib.suppress(ValueError):
        result = RunResult.model_validate_json(raw)
        return result if result.digest == digest else None
    return None


def write_result(store: Store, result: RunResult) -> RunResult:
    """Write the result, unless there is one of the same digest: then that one stands. Returns the one that stands."""
    content = (result.model_dump_json(indent=2) + "\n").encode()
    if not retried(lambda: store.create(RESULT, content)):
        there = read_result(store, result.digest)
        if there is not None:
            return there
        write(store, Item(RESULT, content))
    return result


def read_halvings(store: Store) -> int:
    """How often micro-batches are to be halved from the beginning."""
    raw = store.read(HALVINGS) or b""
    return int(raw) if raw.strip().isdigit() else 0


class Checkpoint(NamedTuple):
    """A checkpoint to upload, packed by the thread that uploads it."""

    state: Callable[[], bytes]
    best: Callable[[], bytes] | None = None
    """The best epoch's weights, where this is the best epoch."""


class Batch(NamedTuple):
    """What is uploaded together: the checkpoint first, then objects by their paths."""

    checkpoint: Checkpoint | None
    items: dict[str, Item]

    def before(self, newer: "Batch") -> "Batch":
        """This batch and a newer one in one: of each object the newer version, and no best epoch forgotten."""
        checkpoint = newer.checkpoint or self.checkpoint
        if checkpoint is not None and checkpoint.best is None and self.checkpoint is not None:
            checkpoint = checkpoint._replace(best=self.checkpoint.best)
        return Batch(checkpoint, self.items | newer.items)


NOTHING = Batch(None, {})


class Uploader:
    """Uploads in one background thread, never two at once; what waits is replaced by what is newer.

    An upload that fails in spite of retries is tried again with the next one; after `FAILED_UPLOADS` failures in a
    row, and at once when it is no matter of trying again, the error is raised by the next `submit` or `flush`.
    """

    def __init__(self, store: Store, commit: Callable[[bytes, bytes | None], None]) -> None:
        """Start the thread. `commit` saves a checkpoint: a state and, where they are new, the best weights."""
        self._store = store
        self._commit = commit
        self._changed = threading.Condition()
        self._waiting = NOTHING
        self._working = self._paused = self._closed = False
        self._failures = 0
        self._error: Exception | Fenced | None = None
        self._thread = threading.Thread(target=self._work, name="upload", daemon=True)
        self._thread.start()

    @property
    def store(self) -> Store:
        """Where it uploads to."""
        return self._store

    @property
    def busy(self) -> bool:
        """Whether an upload is under way or waits to begin."""
        with self._changed:
            return self._working or (self._waiting != NOTHING and not self._paused)

    def submit(self, items: Iterable[Item] = (), checkpoint: Checkpoint | None = None) -> None:
        """Upload these once what is under way is uploaded. They are taken even when an earlier error is raised."""
        with self._changed:
            self._waiting = self._waiting.before(Batch(checkpoint, {item.path: item for item in items}))
            self._paused = False
            self._changed.notify_all()
            self._raise()

    def flush(self, deadline: Callable[[], float | None] = lambda: None) -> bool:
        """Wait until everything is uploaded; False when it is not by the deadline.

        Args:
            deadline: the time (`time.monotonic`) until which failed uploads are tried again; None: they raise.

        Raises:
            StoreError: an upload failed and there is no deadline.
            ConfigError, Fenced: trying again would not help.
        """
        with self._changed:
            while True:
                end = deadline()
                if end is not None and time.monotonic() >= end:
                    return False
                if isinstance(self._error, StoreError) and end is not None:
                    self._error, self._paused = None, False
                self._raise()
                if self._paused and self._waiting != NOTHING:
                    self._paused, self._failures = False, FAILED_UPLOADS - 1  # one more time, then it is an error
                self._changed.notify_all()
                if not self._working and self._waiting == NOTHING:
                    return True
                self._changed.wait(POLL_S)

    def close(self) -> None:
        """End the thread after what is under way; what waits is not uploaded."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _raise(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or (self._waiting != NOTHING and not self._paused))
                if self._closed:
                    return
                batch, self._waiting, self._working = self._waiting, NOTHING, True
            error: Exception | Fenced | None = None
            try:
                self._upload(batch)
            except (Exception, Fenced) as caught:  # noqa: BLE001 - handed to the training thread
                error = caught
            with self._changed:
                self._working = False
                self._note(batch, error)
                self._changed.notify_all()

    def _note(self, batch: Batch, error: Exception | Fenced | None) -> None:
        """After an upload: what failed waits for the next one."""
        if error is None:
            self._failures = 0
            return
        self._failures += 1
        self._waiting, self._paused = batch.before(self._waiting), True
        if not isinstance(error, StoreError) or self._failures >= FAILED_UPLOADS:
            self._error = error
        else:
            log.warning("an upload failed and is tried again with the next one: %s", error)

    def _upload(self, batch: Batch) -> None:
        if batch.checkpoint is not None:
            best = batch.checkpoint.best
            self._commit(batch.checkpoint.state(), best() if best is not None else None)
        for item in batch.items.values():
            write(self._store, item)


def write(store: Store, item: Item) -> None:
    """Put one object, in several rounds when the server fails."""
    retried(lambda: store.write(item.path, item.content))


def retried(action: Callable[[], T]) -> T:
    """Do something with the store, in several rounds when the server fails."""
    for round_ in range(WRITE_ROUNDS - 1):
        try:
            return action()
        except StoreError:
            time.sleep(ROUND_PAUSE_S * 2**round_)
    return action()
