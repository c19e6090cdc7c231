"""The thread that uploads beside training: one at a time, the newest, again after a failure, never for ever."""

import threading
import time
from collections.abc import Callable
from typing import Any, cast

import pytest

from crossfold_trainer import artifacts
from crossfold_trainer.artifacts import Checkpoint, Item, Uploader
from crossfold_trainer.errors import ConfigError, Fenced, StoreError
from crossfold_trainer.store import Store
from tests.waiting import PATIENCE_S, eventually


class Recorder:
    """A store that remembers, fails when told to, and waits when told to."""

    def __init__(self) -> None:
        self.done: list[Any] = []
        self.errors: list[Exception] = []
        self.open = threading.Event()
        self.open.set()
        self.at_once = 0
        self.most = 0

    def write(self, path: str, content: bytes) -> None:
        self._do((path, content))

    def commit(self, state: bytes, best: bytes | None) -> None:
        self._do((state, best))

    def _do(self, what: object) -> None:
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        self.open.wait(PATIENCE_S)
        self.at_once -= 1
        if self.errors:
            raise self.errors.pop(0)
        self.done.append(what)


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    monkeypatch.setattr(artifacts, "ROUND_PAUSE_S", 0.0)
    monkeypatch.setattr(artifacts, "POLL_S", 0.01)
    return Recorder()


def uploader_on(store: Recorder) -> Uploader:
    return Uploader(cast("Store", store), store.commit)


def checkpoint(state: bytes, best: bytes | None = None) -> Checkpoint:
    return Checkpoint(lambda: state, (lambda: best) if best is not None else None)


def down(n: int) -> list[Exception]:
    return [StoreError("down")] * n


def test_what_waits_is_replaced_and_no_best_epoch_is_lost(store: Recorder) -> None:
    uploader = uploader_on(store)
    store.open.clear()
    uploader.submit([Item("log", b"1")])
    eventually(lambda: store.at_once, "an upload")
    uploader.submit([Item("csv", b"1")], checkpoint(b"s1", b"b1"))
    uploader.submit([Item("csv", b"2")], checkpoint(b"s2"))
    assert uploader.busy
    store.open.set()
    assert uploader.flush()
    assert store.done == [("log", b"1"), (b"s2", b"b1"), ("csv", b"2")]
    assert store.most == 1
    assert not uploader.busy


def test_a_failure_is_tried_again_with_the_next_upload(store: Recorder) -> None:
    uploader = uploader_on(store)
    store.errors = down(artifacts.WRITE_ROUNDS - 1)
    uploader.submit([Item("a", b"1")])
    assert uploader.flush()
    store.errors = down(1)
    uploader.submit(checkpoint=checkpoint(b"s1", b"b1"))  # a commit retries its own requests
    eventually(lambda: uploader._paused, "that it has failed")
    assert not uploader.busy
    uploader.submit(checkpoint=checkpoint(b"s2"))
    assert uploader.flush()
    assert store.done == [("a", b"1"), (b"s2", b"b1")]


def test_failures_in_a_row_and_a_failure_at_the_end_are_raised(store: Recorder) -> None:
    uploader = uploader_on(store)
    store.errors = down(artifacts.FAILED_UPLOADS)
    for _ in range(artifacts.FAILED_UPLOADS):
        uploader.submit(checkpoint=checkpoint(b"s"))
        eventually(lambda: uploader._paused, "that it has failed")
    with pytest.raises(StoreError):
        uploader.submit(checkpoint=checkpoint(b"s"))
    store.errors = down(2)
    with pytest.raises(StoreError):
        uploader.flush()


@pytest.mark.parametrize("error", [Fenced("fenced"), ConfigError("artifacts.secretRef", "revoked")])
def test_what_cannot_get_better_is_raised_at_once(store: Recorder, error: Exception) -> None:
    uploader = uploader_on(store)
    store.errors = [error]
    uploader.submit(checkpoint=checkpoint(b"s"))
    with pytest.raises(type(error)):
        uploader.flush()


def deadline_after(seconds: float) -> Callable[[], float]:
    end = time.monotonic() + seconds
    return lambda: end


def test_a_deadline_ends_the_waiting_for_a_store_that_fails_or_does_not_answer(store: Recorder) -> None:
    uploader = uploader_on(store)
    store.errors = down(10_000)
    uploader.submit(checkpoint=checkpoint(b"s"))
    assert not uploader.flush(deadline_after(0.05))
    store.errors = down(3 * artifacts.FAILED_UPLOADS)
    assert uploader.flush(deadline_after(PATIENCE_S)), "it is tried again until it works"
    assert store.done == [(b"s", None)]
    store.open.clear()
    uploader.submit(checkpoint=checkpoint(b"t"))
    assert not uploader.flush(deadline_after(0.05))
    store.open.set()


def test_a_deadline_may_come_while_one_waits(store: Recorder) -> None:
    uploader = uploader_on(store)
    store.open.clear()
    uploader.submit([Item("a", b"")])
    asked = iter([None, None, 0.0])
    assert not uploader.flush(lambda: next(asked))
    store.open.set()
