"""Worker processes that answer questions to samplers."""

import asyncio
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from crossfold_operator.api.algorithm import AlgorithmSpec
from crossfold_operator.api.parameters import ParameterSpec
from crossfold_operator.search.history import Trial, TrialState
from crossfold_operator.search.suggest import Answer, SearchSettings, suggest
from crossfold_operator.workers import frames
from crossfold_operator.workers.pool import WORKER, Question, SearchError, SearchPool
from crossfold_operator.workers.worker import Histories
from crossfold_trainer.contract.metrics import Direction

SPACE = (ParameterSpec.model_validate({"name": "learning_rate", "type": "Float", "min": 0.001, "max": 0.1}),)
SLEEPS = (
    "import sys, time, os; from crossfold_operator.workers import frames;"
    "sys.stdout.buffer.write(frames.packed(frames.READY)); sys.stdout.buffer.flush(); "
)


def settings(name: str = "TPE") -> SearchSettings:
    return SearchSettings(SPACE, AlgorithmSpec.model_validate({"name": name, "seed": 5}), Direction.MAXIMIZE)


def told(count: int) -> list[Trial]:
    return [Trial(n, {"learning_rate": 0.001 + 0.0001 * n}, TrialState.COMPLETE, 0.5 + 0.001 * n) for n in range(count)]


def question(history: list[Trial], count: int = 3, search: str = "u", **more: Any) -> Question:
    return Question("n", search, settings(**more), history, len(history), count)


def expected(asked: Question) -> Answer:
    return suggest(asked.settings, asked.told, asked.first, asked.count, float("inf"))


async def check(pool: SearchPool, asked: Question) -> None:
    """The pool's answer is the one that a question here has, as far as there was time for it."""
    answer, whole = await pool.submit(asked), expected(asked)
    assert answer.points
    assert answer.points == whole.points[: len(answer.points)]


async def test_a_worker_answers_as_a_question_here_is_answered() -> None:
    pool = SearchPool(size=1, seconds=60)
    try:
        history = told(14)
        for _ in range(3):
            asked = question(history)
            await check(pool, asked)
            # A trial ends, one is pruned, one is new: the worker is told of these alone.
            history = [*history[:-1], Trial(13, {"learning_rate": 0.05}, TrialState.PRUNED, 0.2, 1)]
            history.append(Trial(len(history), {"learning_rate": 0.07 + len(history) / 1e4}, TrialState.RUNNING))
        shorter = question(history[:12])
        await check(pool, shorter)
        other = question(told(3), search="v", name="Random")
        await check(pool, other)
    finally:
        await pool.close()


def test_a_worker_is_told_what_has_changed() -> None:
    histories = Histories()
    first = told(3)

    def request(kept: int | None, changes: list[tuple[int, Trial]], *forget: str) -> frames.Request:
        sent = tuple((place, frames.plain(trial)) for place, trial in changes)
        return frames.Request("u", settings(), kept, sent, 0, 1, 1.0, forget)

    assert histories.updated(request(None, list(enumerate(first)))) == first
    changed = Trial(1, {"learning_rate": 0.002}, TrialState.PRUNED, 0.3, 2, "other")
    assert histories.updated(request(3, [(1, changed)])) == [first[0], changed, first[2]]
    assert histories.updated(request(2, [(2, changed)])) == [first[0], changed, changed]
    assert histories.updated(request(1, [])) == [first[0]]
    assert histories.updated(request(None, [(0, changed)], "u")) == [changed]


async def test_a_sampler_that_raises_ends_no_worker() -> None:
    pool = SearchPool(size=1, seconds=60)
    broken = Question("n", "u", SearchSettings((), AlgorithmSpec(), Direction.MAXIMIZE), [], 0, 1)
    try:
        with pytest.raises(SearchError) as caught:
            await pool.submit(broken)
        assert not caught.value.timed_out
        worker = pool._workers[0]._process
        assert worker is not None
        good = question(told(2), name="Random")
        await check(pool, good)
        assert pool._workers[0]._process is worker
    finally:
        await pool.close()
    assert worker.returncode is not None


async def test_a_question_that_cannot_be_sent_is_answered_with_that() -> None:
    pool = SearchPool(size=1, seconds=60)
    unsent = question([Trial(0, {"learning_rate": lambda: 0.01}, TrialState.RUNNING)])
    good = question(told(2), name="Random")
    try:
        with pytest.raises(SearchError):
            await pool.submit(unsent)
        await check(pool, good)
    finally:
        await pool.close()


async def test_a_question_that_takes_too_long_is_given_up_and_its_worker_replaced(tmp_path: Path) -> None:
    """The first worker never answers; the next one is a real one."""
    mark = tmp_path / "started"
    script = f"{SLEEPS} open({str(mark)!r}, 'a').close(); time.sleep(600)"
    program = tmp_path / "worker.py"
    program.write_text(
        f"import os\nif os.path.exists({str(mark)!r}):\n"
        "    from crossfold_operator.workers.worker import main\n    main()\n"
        f"else:\n    {script}\n"
    )
    pool = SearchPool(size=1, seconds=5, command=(sys.executable, str(program)))
    try:
        slow = question(told(1), name="Random")
        with pytest.raises(SearchError) as caught:
            await pool.submit(slow)
        assert caught.value.timed_out
        assert mark.exists()
        await check(pool, slow)
    finally:
        await pool.close()


async def test_a_worker_that_is_killed_is_told_and_replaced() -> None:
    pool = SearchPool(size=1, seconds=60, command=(sys.executable, "-c", f"{SLEEPS} time.sleep(600)"))
    try:
        answer = pool.submit(question(told(1)))
        while (process := pool._workers[0]._process) is None:  # noqa: ASYNC110 -- nothing tells of it
            await asyncio.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)
        with pytest.raises(SearchError, match="the worker process ended"):
            await answer
        pool._workers[0]._command = WORKER
        good = question(told(1), name="Random")
        await check(pool, good)
    finally:
        await pool.close()


async def test_the_loop_turns_while_a_process_of_24_dimensions_is_fitted() -> None:
    """A real question that takes long: nothing here waits for it."""
    space = tuple(
        ParameterSpec.model_validate({"name": f"x-{i}", "type": "Float", "min": 0, "max": 1}) for i in range(24)
    )
    gp = SearchSettings(space, AlgorithmSpec.model_validate({"name": "GP"}), Direction.MAXIMIZE)
    history = [
        Trial(n, {f"x-{i}": ((7 * n + 3 * i) % 97) / 97 for i in range(24)}, TrialState.COMPLETE, ((11 * n) % 89) / 89)
        for n in range(60)
    ]
    pool = SearchPool(size=1, seconds=120)
    try:
        answer = pool.submit(Question("n", "u", gp, history, 60, 2))
        spent, turns = time.thread_time(), 0
        while not answer.done():
            await asyncio.sleep(0.01)
            turns += 1
        spent = time.thread_time() - spent
        assert len((await answer).points) >= 1
        assert turns > 10
        asked, elsewhere = time.thread_time(), suggest(gp, history, 60, 1, 0.0)
        asked = time.thread_time() - asked
        assert (await answer).points[0] == elsewhere.points[0]
        # What this thread did meanwhile is little beside what the question costs.
        assert spent < max(asked, 0.5)
    finally:
        await pool.close()


def test_asking_stops_when_its_time_is_over() -> None:
    times = iter([0.0, 0.5, 1.0, 9.0])
    answer = suggest(settings("Random"), told(2), 2, 8, 1.0, lambda: next(times))
    assert len(answer.points) == 2
    assert not answer.exhausted
    one = suggest(settings("Random"), told(2), 2, 8, 0.0)
    assert len(one.points) == 1


def test_a_pool_works_in_any_thread() -> None:
    """The operator works on an event loop that is not the main thread's."""
    found: list[Answer] = []
    asked = question(told(2), count=1, name="Random")

    async def ask_and_close() -> None:
        pool = SearchPool(size=1, seconds=60)
        try:
            found.append(await pool.submit(asked))
        finally:
            await pool.close()

    thread = threading.Thread(target=lambda: asyncio.run(ask_and_close()))
    thread.start()
    thread.join()
    assert found == [expected(asked)]
