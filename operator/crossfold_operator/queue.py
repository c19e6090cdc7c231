"""Keyed work queue: one worker per key, many keys at a time, in turn, retries with back-off. Pure asyncio."""

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from crossfold_operator.cluster.base import Key, Reconcile, Unavailable
from crossfold_operator.fair import FairQueue, Path
from crossfold_operator.names import Kind

logger = logging.getLogger(__name__)

QUIET_FAILURES = 3
"""Times in a row that the cluster may be unavailable to a key before it is worth a word: conflicts pass at once."""
UNAVAILABLE_SECONDS = 15.0
"""Longest delay after Unavailable: when the cluster is back, nothing has long to wait."""
TOLD_FAILURES = 3
"""Failures in a row after which a key's own status is to say so."""
TELLING_SECONDS = 10.0
"""How long that may take."""
_REMEMBERED = 4096
"""Keys whose next look has an earliest time, after which those whose time has come are forgotten."""


@dataclass(frozen=True)
class Backoff:
    """Seconds before a failed key is tried again: doubling from first to last."""

    first: float = 0.2
    last: float = 60.0

    def seconds(self, failures: int) -> float:
        """Delay after this many failures in a row, counted from 1."""
        # The exponent is bounded: 2.0**1024 overflows.
        return min(self.last, self.first * 2.0 ** min(failures - 1, 64))


@dataclass(frozen=True)
class Spacing:
    """How long a key that was just worked on must wait: changes that come meanwhile are one look.

    Attributes:
        share: of the loop's time that one key may have at most.
        least: seconds, by kind, however cheap a look is; other kinds: none.
        most: seconds.
    """

    share: float = 0.1
    least: Mapping[Kind, float] = field(default_factory=lambda: {Kind.TUNE: 0.2})
    most: float = 30.0

    def seconds(self, key: Key, cost: float) -> float:
        """From the end of a look that cost so many seconds to the next one."""
        return min(self.most, max(self.least.get(key.kind, 0.0), cost / self.share))


class Overdue(Exception):
    """A reconcile took longer than it may, and was cancelled."""


Tell = Callable[[Key, BaseException, int], Awaitable[None]]
"""Told of a key that failed so many times in a row, or took too long: its status is to say so."""


def _own(key: Key) -> Path:
    return key.namespace, key.name


class _Metered:
    """Awaits something, and counts the CPU seconds that it takes on the loop."""

    def __init__(self, work: Awaitable[float | None], clock: Callable[[], float]) -> None:
        self._work = work
        self._clock = clock
        self.cost = 0.0

    def __await__(self) -> Generator[Any, Any, float | None]:
        steps = self._work.__await__()
        sent: Any = None
        error: BaseException | None = None
        while True:
            began = self._clock()
            try:
                # What is awaited is a generator of futures; a plain one is sent nothing, and thrown what went wrong.
                yielded = steps.send(sent) if error is None else steps.throw(error)
            except StopIteration as ended:
                found: float | None = ended.value
                return found
            finally:
                self.cost += self._clock() - began
            sent = error = None
            try:
                sent = yield yielded
            except BaseException as thrown:  # noqa: BLE001 -- handed on
                error = thrown


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
    is run once more after that. Keys are served in turn: by namespace, and in it by what they belong to. One whose
    looks are expensive waits between them (``Spacing``). What a reconcile asks for (to be called again in so many
    seconds) replaces what it asked for before. A reconcile that fails is tried again with back-off, whatever the error:
    the queue never dies of one. All methods belong to the thread of one event loop.
    """

    def __init__(
        self,
        reconcile: Reconcile,
        *,
        workers: int,
        backoff: Backoff | None = None,
        observer: Observer | None = None,
        owner: Callable[[Key], Path] = _own,
        spacing: Spacing | None = None,
        deadline: float | None = None,
        tell: Tell | None = None,
        cpu: Callable[[], float] = time.thread_time,
    ) -> None:
        """A queue that is empty.

        Args:
            reconcile: what is to be done with a key.
            workers: keys that are worked on at a time.
            backoff: of keys that fail.
            observer: is told what happens.
            owner: the namespace and name of what a key belongs to.
            spacing: of looks at one key; None: none.
            deadline: seconds after which a reconcile is cancelled; None: never.
            tell: is told of keys that fail for long, or take too long.
            cpu: a clock of this thread's CPU seconds.
        """
        self._owner = owner
        self._spacing = spacing
        self._deadline = deadline
        self._tell = tell
        self._cpu = cpu
        self._reconcile = reconcile
        self._workers = workers
        self._backoff = backoff or Backoff()
        self._observer: Observer = observer or Silent()
        self._ready: FairQueue[Key] = FairQueue()
        """Keys that wait for a worker."""
        self._idle: set[asyncio.Task[Any]] = set()
        """Workers that wait for a key."""
        self._earliest: dict[Key, float] = {}
        """When a key that was just worked on may be again."""
        self._held: dict[Key, asyncio.TimerHandle] = {}
        """Keys that were added before that."""
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
        """Whether nothing waits for a worker or for its turn and nothing is worked on; timers may still run."""
        return not self._since and not self._active and not self._held

    def add(self, key: Key) -> None:
        """Have a key reconciled as soon as a worker is free."""
        if key in self._active:
            self._changed.add(key)
        elif key not in self._since and key not in self._held:
            self._cancel_timer(key)
            wait = self._earliest.pop(key, 0.0) - _now()
            if wait > 0:
                self._held[key] = asyncio.get_running_loop().call_later(wait, self._put, key)
            else:
                self._put(key)

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
            for worker in self._idle:
                worker.cancel()
            await asyncio.wait(workers, timeout=grace)
        finally:
            for timer in (*self._timers.values(), *self._held.values()):
                timer.cancel()
            self._timers.clear()
            self._held.clear()
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)

    def stop(self) -> None:
        """Begin no further reconcile, and have ``run`` return."""
        self._stopping.set()

    async def _work(self) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 -- run() makes it
        while not self._stopping.is_set():
            self._idle.add(task)
            key = await self._ready.get()
            self._idle.discard(task)
            if self._stopping.is_set():
                return
            waited = _now() - self._since.pop(key)
            self._active.add(key)
            self._observer.depth(len(self._since))
            self._observer.started(key, waited)
            started = _now()
            failure: BaseException | None = None
            again: float | None = None
            metered = _Metered(self._reconcile(key), self._cpu)
            try:
                async with asyncio.timeout(self._deadline) as limit:
                    again = await metered
            except asyncio.CancelledError as error:
                if task.cancelling():
                    raise
                # Nobody cancelled this worker: something inside the reconcile was, which is its error.
                failure = error
            except Exception as error:  # noqa: BLE001 -- the queue never dies of a reconcile
                failure = error
                if isinstance(error, TimeoutError) and limit.expired():
                    failure = Overdue(f"it took longer than {self._deadline:g} s and was cancelled")
            finally:
                if failure is None or task.cancelling():
                    self._active.discard(key)
            self._observer.ended(key, _now() - started, failure)
            if failure is not None:
                # Its own worker tells, while no other one has the key.
                await self._told(key, failure)
                self._active.discard(key)
            self._space(key, metered.cost)
            self._after(key, again, failure)

    async def _told(self, key: Key, failure: BaseException) -> None:
        """Have a status say what is wrong, once it is worth telling."""
        failures = self._failures[key].count + 1
        if self._tell is None or isinstance(failure, Unavailable):
            return
        if failures != TOLD_FAILURES and not isinstance(failure, Overdue):
            return
        try:
            async with asyncio.timeout(TELLING_SECONDS):
                await self._tell(key, failure, failures)
        except asyncio.CancelledError:
            self._active.discard(key)
            raise
        except Exception as error:  # noqa: BLE001 -- what is wrong is in the log in any case
            logger.debug("a failure could not be told: %r", error, extra={"object": str(key)})

    def _space(self, key: Key, cost: float) -> None:
        """Have a key wait until its next look."""
        seconds = 0.0 if self._spacing is None else self._spacing.seconds(key, cost)
        if seconds <= 0:
            return
        now = _now()
        self._earliest[key] = now + seconds
        if len(self._earliest) > _REMEMBERED:
            self._earliest = {one: at for one, at in self._earliest.items() if at > now}

    def _put(self, key: Key) -> None:
        """Have a key wait for a worker."""
        self._held.pop(key, None)
        self._since[key] = _now()
        self._ready.put(self._owner(key), key)
        self._observer.depth(len(self._since))

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
