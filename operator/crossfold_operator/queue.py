"""Keyed work queue: one worker per key, many keys at a time, retries with back-off. Pure asyncio."""

import asyncio
import logging
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Protocol

from crossfold_operator.cluster.base import Key, Reconcile, Unavailable

logger = logging.getLogger(__name__)

QUIET_FAILURES = 3
"""Times in a row that the cluster may be unavailable to a key before it is worth a word: conflicts pass at once."""
UNAVAILABLE_SECONDS = 15.0
"""Longest delay after Unavailable: when the cluster is back, nothing has long to wait."""


@dataclass(frozen=True)
class Backoff:
    """Seconds before a failed key is tried again: doubling from first to last."""

    first: float = 0.2
    last: float = 60.0

    def seconds(self, failures: int) -> float:
        """Delay after this many failures in a row, counted from 1."""
        # The exponent is bounded: 2.0**1024 overflows.
        return min(self.last, self.first * 2.0 ** min(failures - 1, 64))


class Observer(Protocol):
    """Told what happens in the queue."""

    def depth(self, keys: int) -> None:
        """So many keys wait for a worker."""
        ...

    def started(self, key: Key, waited: float) -> None:
        """A worker took a key that was ready for so many seconds."""
        ...

    def ended(self, key: Key, seconds: float, error: BaseException | None) -> None:
        """A reconcile ended, with or without an error."""
        ...


class Silent:
    """An observer that does nothing."""

    def depth(self, keys: int) -> None:
        """See Observer."""

    def started(self, key: Key, waited: float) -> None:
        """See Observer."""

    def ended(self, key: Key, seconds: float, error: BaseException | None) -> None:
        """See Observer."""


@dataclass
class _Failures:
    count: int = 0
    told: set[type[BaseException]] = field(default_factory=set)
    """Errors that were logged with their traceback since the last success."""


class WorkQueue:
    """Runs a reconcile for every key that was added.

    A key is worked on by one worker at a time. Added while it waits, it is one run; added while it is worked on, it
    is run once more after that. What a reconcile asks for (to be called again in so many seconds) replaces what it
    asked for before. A reconcile that fails is tried again with back-off, whatever the error: the queue never dies
    of one. All methods belong to the thread of one event loop.
    """

    def __init__(
        self,
        reconcile: Reconcile,
        *,
        workers: int,
        backoff: Backoff | None = None,
        observer: Observer | None = None,
    ) -> None:
        self._reconcile = reconcile
        self._workers = workers
        self._backoff = backoff or Backoff()
        self._observer: Observer = observer or Silent()
        self._ready: asyncio.Queue[Key | None] = asyncio.Queue()
        """Keys that wait for a worker; None wakes an idle worker so that it ends."""
        self._since: dict[Key, float] = {}
        """Keys that are in _ready, and since when."""
        self._active: set[Key] = set()
        self._changed: set[Key] = set()
        """Keys that were added while they were worked on."""
        self._timers: dict[Key, asyncio.TimerHandle] = {}
        self._failures: defaultdict[Key, _Failures] = defaultdict(_Failures)
        self._stopping = asyncio.Event()

    def __len__(self) -> int:
        """How many keys wait for a worker."""
        return len(self._since)

    @property
    def idle(self) -> bool:
        """Whether nothing waits for a worker and nothing is worked on; timers may still run."""
        return not self._since and not self._active

    def add(self, key: Key) -> None:
        """Have a key reconciled as soon as a worker is free."""
        if key in self._active:
            self._changed.add(key)
        elif key not in self._since:
            self._cancel_timer(key)
            self._since[key] = _now()
            self._ready.put_nowait(key)
            self._observer.depth(len(self._since))

    def add_after(self, key: Key, seconds: float) -> None:
        """Have a key reconciled in so many seconds, in place of the time that was set for it before."""
        self._cancel_timer(key)
        self._timers[key] = asyncio.get_running_loop().call_later(max(0.0, seconds), self._due, key)

    async def run(self, *, grace: float = 5.0) -> None:
        """Work until ``stop``; what is being worked on then has ``grace`` seconds to end.

        Cancelled, it ends at once, and so do the reconciles.
        """
        workers = [asyncio.create_task(self._work(), name=f"worker {i}") for i in range(self._workers)]
        try:
            await self._stopping.wait()
            for _ in workers:
                self._ready.put_nowait(None)
            await asyncio.wait(workers, timeout=grace)
        finally:
            for timer in self._timers.values():
                timer.cancel()
            self._timers.clear()
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)

    def stop(self) -> None:
        """Begin no further reconcile, and have ``run`` return."""
        self._stopping.set()

    async def _work(self) -> None:
        while True:
            key = await self._ready.get()
            if key is None or self._stopping.is_set():
                return
            waited = _now() - self._since.pop(key)
            self._active.add(key)
            self._observer.depth(len(self._since))
            self._observer.started(key, waited)
            started = _now()
            failure: BaseException | None = None
            again: float | None = None
            try:
                again = await self._reconcile(key)
            except asyncio.CancelledError as error:
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    raise
                # Nobody cancelled this worker: something inside the reconcile was, which is its error.
                failure = error
            except Exception as error:  # noqa: BLE001 -- the queue never dies of a reconcile
                failure = error
            finally:
                self._active.discard(key)
            self._observer.ended(key, _now() - started, failure)
            self._after(key, again, failure)

    def _after(self, key: Key, again: float | None, failure: BaseException | None) -> None:
        """Decide when a key that was worked on is looked at next."""
        changed = key in self._changed
        self._changed.discard(key)
        if failure is not None:
            # Also when it changed meanwhile: its own writes may be what changed it.
            self.add_after(key, self._delay_after(key, failure))
            return
        self._failures.pop(key, None)
        if changed:
            self.add(key)
        elif again is not None:
            self.add_after(key, again)
        else:
            self._cancel_timer(key)

    def _delay_after(self, key: Key, failure: BaseException) -> float:
        failures = self._failures[key]
        failures.count += 1
        seconds = self._backoff.seconds(failures.count)
        if isinstance(failure, Unavailable):
            seconds = min(seconds, UNAVAILABLE_SECONDS)
        about = {"object": str(key), "attempt": failures.count, "retry_in": seconds}
        if isinstance(failure, Unavailable):
            level = logging.WARNING if failures.count == QUIET_FAILURES else logging.DEBUG
            logger.log(level, "the cluster is unavailable, trying again: %s", failure, extra=about)
        elif type(failure) not in failures.told:
            failures.told.add(type(failure))
            logger.error("reconcile failed, trying again: %r", failure, exc_info=failure, extra=about)
        else:
            logger.debug("reconcile failed again: %r", failure, extra=about)
        return seconds

    def _due(self, key: Key) -> None:
        self._timers.pop(key, None)
        self.add(key)

    def _cancel_timer(self, key: Key) -> None:
        if timer := self._timers.pop(key, None):
            timer.cancel()


def _now() -> float:
    return asyncio.get_running_loop().time()
