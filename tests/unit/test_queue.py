"""The keyed work queue, in virtual time."""

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable

import pytest

from crossfold_operator.cluster.base import Key, Unavailable
from crossfold_operator.names import Kind
from crossfold_operator.queue import TOLD_FAILURES, UNAVAILABLE_SECONDS, Backoff, Overdue, Silent, Spacing, WorkQueue

A, B = (Key(Kind.TUNE, "ns", name) for name in "ab")


class Script:
    """A reconcile that records when it ran, and does what a test says."""

    def __init__(self, act: Callable[[Key, int], Awaitable[float | None]] | None = None) -> None:
        self.act = act
        self.ran: list[tuple[str, float]] = []
        self.now: set[Key] = set()
        self.most = 0

    async def __call__(self, key: Key) -> float | None:
        assert key not in self.now, "two workers have one key"
        self.now.add(key)
        self.most = max(self.most, len(self.now))
        self.ran.append((key.name, round(asyncio.get_running_loop().time() - 1000, 3)))
        try:
            return await self.act(key, len(self.ran)) if self.act else None
        finally:
            self.now.discard(key)

    @property
    def times(self) -> list[float]:
        return [at for _, at in self.ran]


async def play(
    script: Script, begin: Callable[[WorkQueue], None], seconds: float = 10_000, **options: object
) -> WorkQueue:
    queue = WorkQueue(script, **{"workers": 4, **options})
    begin(queue)
    running = asyncio.create_task(queue.run())
    await asyncio.sleep(seconds)
    queue.stop()
    await running
    return queue


def test_each_key_once_however_often_it_was_added(virtual):
    script = Script()
    virtual(play(script, lambda q: [q.add(k) for k in (A, B, A, A)]))
    assert script.ran == [("a", 0), ("b", 0)]


def test_a_key_that_changes_while_it_is_worked_on_runs_once_more(virtual):
    async def act(key: Key, run: int) -> None:
        if run == 1:
            for _ in range(3):
                queue.add(key)
                await asyncio.sleep(1)

    script = Script(act)
    queue: WorkQueue

    def begin(q: WorkQueue) -> None:
        nonlocal queue
        queue = q
        q.add(A)

    virtual(play(script, begin))
    assert script.times == [0, 3]


def test_workers_run_different_keys_at_the_same_time_up_to_their_number(virtual):
    async def act(key: Key, run: int) -> None:
        await asyncio.sleep(1)

    script = Script(act)
    keys = [Key(Kind.TUNE, "ns", str(i)) for i in range(10)]
    virtual(play(script, lambda q: [q.add(k) for k in keys], workers=4))
    assert script.most == 4
    assert max(script.times) == 2


def test_asks_to_look_again(virtual):
    async def act(key: Key, run: int) -> float | None:
        return 30.0 if run < 3 else None

    script = Script(act)
    virtual(play(script, lambda q: q.add(A)))
    assert script.times == [0, 30, 60]


def test_a_change_comes_before_the_time_to_look_again_and_replaces_it(virtual):
    async def act(key: Key, run: int) -> float | None:
        return 30.0 if run == 1 else None

    script = Script(act)

    def begin(q: WorkQueue) -> None:
        q.add(A)
        asyncio.get_running_loop().call_later(10, q.add, A)

    virtual(play(script, begin))
    assert script.times == [0, 10]


@pytest.mark.parametrize("error", [Unavailable("away"), ValueError("bug"), asyncio.CancelledError()])
def test_failures_back_off_and_success_resets(virtual, error):
    async def act(key: Key, run: int) -> float | None:
        if run in (1, 2, 3, 5):
            raise error
        return 100.0 if run == 4 else None

    script = Script(act)
    virtual(play(script, lambda q: q.add(A), backoff=Backoff(first=1, last=60)))
    assert script.times == [0, 1, 3, 7, 107, 108]


def test_back_off_is_capped():
    backoff = Backoff(first=0.2, last=60)
    assert [backoff.seconds(n) for n in (1, 2, 3, 9, 10, 10_000)] == [0.2, 0.4, 0.8, 51.2, 60, 60]


def test_a_failed_key_waits_even_when_its_own_writes_changed_it(virtual):
    async def act(key: Key, run: int) -> None:
        if run < 3:
            queue.add(key)
            raise ValueError

    script = Script(act)
    queue: WorkQueue

    def begin(q: WorkQueue) -> None:
        nonlocal queue
        queue = q
        q.add(A)

    virtual(play(script, begin, backoff=Backoff(first=1, last=60)))
    assert script.times == [0, 1, 3]


def test_a_change_from_outside_does_not_wait_for_the_back_off(virtual):
    async def act(key: Key, run: int) -> None:
        if run == 1:
            raise Unavailable("conflict")

    script = Script(act)

    def begin(q: WorkQueue) -> None:
        q.add(A)
        asyncio.get_running_loop().call_later(0.5, q.add, A)

    virtual(play(script, begin, backoff=Backoff(first=50)))
    assert script.times == [0, 0.5]


def test_one_traceback_per_key_and_error_until_it_succeeds(virtual, caplog):
    errors = [ValueError("x"), ValueError("y"), KeyError("z"), None, ValueError("again")]

    async def act(key: Key, run: int) -> float | None:
        error = errors[run - 1] if run <= len(errors) else None
        if error:
            raise error
        return 1.0 if run < len(errors) else None

    with caplog.at_level(logging.INFO):
        virtual(play(Script(act), lambda q: q.add(A)))
    told = [r for r in caplog.records if r.exc_info]
    assert [str(r.exc_info[1]) for r in told] == ["x", "'z'", "again"]
    assert told[0].object == "Tune/ns/a"


def test_a_conflict_that_passes_is_not_worth_a_word(virtual, caplog):
    async def act(key: Key, run: int) -> None:
        if run < 3:
            raise Unavailable("conflict")

    with caplog.at_level(logging.INFO):
        virtual(play(Script(act), lambda q: q.add(A)))
    assert not caplog.records


def test_nothing_waits_long_for_a_cluster_that_is_back(virtual):
    async def act(key: Key, run: int) -> None:
        raise Unavailable("away")

    script = Script(act)
    virtual(play(script, lambda q: q.add(A)))
    assert max(b - a for a, b in itertools.pairwise(script.times)) == pytest.approx(UNAVAILABLE_SECONDS)


def test_an_absent_cluster_is_told_once(virtual, caplog):
    async def act(key: Key, run: int) -> None:
        raise Unavailable("away")

    with caplog.at_level(logging.INFO):
        virtual(play(Script(act), lambda q: q.add(A)))
    assert [r.levelname for r in caplog.records] == ["WARNING"]


def test_stop_lets_a_reconcile_end_and_begins_no_other(virtual):
    ended = []

    async def act(key: Key, run: int) -> None:
        await asyncio.sleep(3)
        ended.append(key.name)

    script = Script(act)
    virtual(play(script, lambda q: [q.add(A), q.add(B)], seconds=1, workers=1))
    assert ended == ["a"]
    assert script.ran == [("a", 0)]


def test_stop_cancels_a_reconcile_that_does_not_end(virtual):
    async def act(key: Key, run: int) -> None:
        await asyncio.sleep(10_000)

    async def main() -> float:
        queue = WorkQueue(Script(act), workers=2)
        queue.add(A)
        running = asyncio.create_task(queue.run(grace=5))
        await asyncio.sleep(1)
        queue.stop()
        await running
        return asyncio.get_running_loop().time() - 1000

    assert virtual(main()) == 6


def test_cancelling_ends_at_once(virtual):
    async def act(key: Key, run: int) -> None:
        await asyncio.sleep(10_000)

    async def main() -> bool:
        script = Script(act)
        queue = WorkQueue(script, workers=2)
        queue.add(A)
        running = asyncio.create_task(queue.run())
        await asyncio.sleep(1)
        running.cancel()
        await asyncio.wait([running])
        return running.cancelled() and not script.now and asyncio.get_running_loop().time() == 1001

    assert virtual(main())


def test_the_observer_hears_everything(virtual):
    class Heard(Silent):
        def __init__(self) -> None:
            self.told: list[object] = []

        def depth(self, keys: int) -> None:
            self.told.append(keys)

        def started(self, key: Key, waited: float) -> None:
            self.told.append(("started", key.name, waited))

        def ended(self, key: Key, seconds: float, error: BaseException | None) -> None:
            self.told.append(("ended", key.name, seconds, type(error)))

    async def act(key: Key, run: int) -> None:
        await asyncio.sleep(2)
        if run == 1:
            raise ValueError

    heard = Heard()
    virtual(play(Script(act), lambda q: [q.add(A), q.add(B)], workers=1, observer=heard, backoff=Backoff(first=10)))
    assert heard.told == [
        1, 2, 1, ("started", "a", 0), ("ended", "a", 2, ValueError),
        0, ("started", "b", 2), ("ended", "b", 2, type(None)),
        1, 0, ("started", "a", 0), ("ended", "a", 2, type(None)),
    ]  # fmt: skip


# Shares of the queue ------------------------------------------------------------------------------------------------


class Cpu:
    """CPU seconds that a test makes up."""

    def __init__(self) -> None:
        self.spent = 0.0

    def __call__(self) -> float:
        return self.spent


def test_looks_at_one_tune_are_apart_and_changes_meanwhile_are_one(virtual):
    script = Script()

    def begin(q: WorkQueue) -> None:
        loop = asyncio.get_running_loop()
        for at in (0, 0.05, 0.1, 0.15, 0.3, 5):
            loop.call_later(at, q.add, A)

    virtual(play(script, begin, spacing=Spacing(), cpu=lambda: 0.0))
    assert script.times == [0, 0.2, 0.4, 5]


def test_the_distance_grows_with_what_a_look_costs_so_that_nobody_takes_more_than_its_share(virtual):
    cpu = Cpu()

    async def act(key: Key, run: int) -> float:
        cpu.spent += 0.25 if key == A else 0.001
        await asyncio.sleep(0)
        cpu.spent += 0.25 if key == A else 0.001
        return 0.0

    script = Script(act)
    virtual(play(script, lambda q: [q.add(A), q.add(B)], seconds=101, spacing=Spacing(share=0.1), cpu=cpu))
    looks = [name for name, _ in script.ran]
    # 0.5 s a look, at most a tenth of the time: every 5 s. The other one is as cheap as ever: every 0.2 s.
    assert looks.count("a") == 21
    assert looks.count("b") == pytest.approx(505, abs=3)


def test_a_distance_is_bounded_and_other_kinds_wait_for_their_cost_alone():
    spacing = Spacing(share=0.1, most=30)
    run = Key(Kind.TRAIN_RUN, "ns", "r")
    assert [spacing.seconds(run, cost) for cost in (0, 0.002, 1, 100)] == [0, 0.02, 10, 30]
    assert spacing.seconds(A, 0.002) == 0.2


def test_a_key_that_waits_for_its_turn_is_work_to_do(virtual):
    script = Script()
    seen = []

    def begin(q: WorkQueue) -> None:
        loop = asyncio.get_running_loop()
        q.add(A)
        loop.call_later(0.1, lambda: (seen.append(q.idle), q.add(A), seen.append(q.idle)))
        loop.call_later(1, lambda: seen.append(q.idle))

    virtual(play(script, begin, spacing=Spacing(), cpu=lambda: 0.0))
    assert seen == [True, False, True]


def test_a_flood_of_one_namespace_delays_another_by_one_turn(virtual):
    async def act(key: Key, run: int) -> None:
        await asyncio.sleep(1)

    script = Script(act)
    flood = [Key(Kind.TRAIN_RUN, "many", f"t{n % 3}-{n}") for n in range(90)]
    others = [Key(Kind.TRAIN_RUN, "few", "u-0"), Key(Kind.TRAIN_RUN, "many", "v-0")]

    def owner(key: Key) -> tuple[str, str]:
        return key.namespace, key.name.partition("-")[0]

    virtual(play(script, lambda q: [q.add(key) for key in (*flood, *others)], workers=1, owner=owner))
    order = [name for name, _ in script.ran]
    assert order.index("u-0") <= 1
    assert order.index("v-0") <= 4
    assert len(order) == len(flood) + len(others)


def test_a_reconcile_that_hangs_is_cancelled_and_told_and_others_go_on(virtual):
    cancelled, told = [], []

    async def act(key: Key, run: int) -> None:
        if key == A:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.append(round(asyncio.get_running_loop().time() - 1000))
                raise

    async def tell(key: Key, error: BaseException, failures: int) -> None:
        told.append((key, type(error), failures))

    script = Script(act)
    options = {"deadline": 60.0, "tell": tell, "backoff": Backoff(first=10, last=60), "workers": 1}
    virtual(play(script, lambda q: [q.add(A), q.add(B)], seconds=150, **options))
    assert cancelled[:2] == [60, 130]
    assert script.ran[:3] == [("a", 0), ("b", 60), ("a", 70)]
    assert told == [(A, Overdue, 1), (A, Overdue, 2)]


def test_a_key_that_keeps_failing_is_told_once_and_a_cluster_that_is_away_never(virtual):
    told = []

    async def act(key: Key, run: int) -> None:
        raise ValueError("bug") if key == A else Unavailable("away")

    async def tell(key: Key, error: BaseException, failures: int) -> None:
        told.append((key, str(error), failures))
        raise Unavailable("this, too")

    script = Script(act)
    virtual(play(script, lambda q: [q.add(A), q.add(B)], seconds=1000, tell=tell))
    assert told == [(A, "bug", TOLD_FAILURES)]


def test_a_timeout_of_the_reconcile_itself_is_no_overdue(virtual):
    told = []

    async def act(key: Key, run: int) -> None:
        raise TimeoutError("its own")

    async def tell(key: Key, error: BaseException, failures: int) -> None:
        told.append((type(error), failures))

    virtual(play(Script(act), lambda q: q.add(A), seconds=100, tell=tell, deadline=60))
    assert told == [(TimeoutError, TOLD_FAILURES)]
