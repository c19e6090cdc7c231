"""What a run leaves behind, and the thread that uploads it beside training.

Every object is written whole (a reader sees the old one or the new one); `result.json` is written last, by
the caller, once everything else is there.
"""

import contextlib
import queue
import threading
import time
from collections.abc import Iterable
from typing import NamedTuple

from crossfold_trainer.contract.config import RunConfig
from crossfold_trainer.contract.result import RunResult
from crossfold_trainer.errors import StoreError
from crossfold_trainer.store import Store, check_uri, open_store

CONFIG = "config.json"
HPARAMS = "hparams.yaml"
METRICS = "metrics.csv"
SPLITS = "splits.parquet"
ENVIRONMENT = "environment.json"
LOG = "log.txt"
RESULT = "result.json"
TRACKERS = "trackers.json"
"""What trackers call the run, for the next attempt."""
WANDB = "wandb"
"""Folder of an offline run of Weights & Biases."""
BEST = "checkpoints/best.ckpt"
LAST = "checkpoints/last.ckpt"
PREVIOUS = "checkpoints/previous.ckpt"
"""The last.ckpt before: what is resumed from when last.ckpt cannot be read."""

WRITE_ROUNDS = 3
"""Each of them is a request with its own bounded retries (store.py)."""
ROUND_PAUSE_S = 2.0


class Item(NamedTuple):
    """An object to upload."""

    path: str
    content: bytes
    keep_as: str = ""
    """Where what was there before is kept; empty: nowhere."""


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


class Uploader:
    """Uploads in one background thread, in the order of submission, never two at once.

    An upload that fails in spite of retries is raised by the next call of `submit` or `flush`.
    """

    def __init__(self, store: Store) -> None:
        """Start the thread."""
        self._store = store
        self._todo: queue.Queue[tuple[Item, ...] | None] = queue.Queue()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._work, name="upload", daemon=True)
        self._thread.start()

    @property
    def store(self) -> Store:
        """Where it uploads to."""
        return self._store

    @property
    def busy(self) -> bool:
        """Whether something submitted is not uploaded yet."""
        return self._todo.unfinished_tasks > 0

    def submit(self, items: Iterable[Item]) -> None:
        """Upload these one after the other, after what was submitted before."""
        self._raise()
        self._todo.put(tuple(items))

    def flush(self) -> None:
        """Wait until everything is uploaded."""
        self._todo.join()
        self._raise()

    def close(self) -> None:
        """End the thread once everything is uploaded."""
        self._todo.put(None)
        self._thread.join()

    def _raise(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _work(self) -> None:
        while (items := self._todo.get()) is not None:
            try:
                for item in items:
                    write(self._store, item)
            except Exception as error:  # noqa: BLE001 - handed to the training thread
                self._error = self._error or error
            finally:
                self._todo.task_done()
        self._todo.task_done()


def write(store: Store, item: Item) -> None:
    """Put one object, in several rounds when the server fails."""
    for round_ in range(WRITE_ROUNDS):
        try:
            if item.keep_as:
                store.copy(item.path, item.keep_as)
            store.write(item.path, item.content)
        except StoreError:
            if round_ + 1 == WRITE_ROUNDS:
                raise
            time.sleep(ROUND_PAUSE_S * 2**round_)
        else:
            return
