"""Suggestions for each Tune: asked for beside the reconciles, one question of a Tune at a time, and kept until used."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

from crossfold_operator import metrics
from crossfold_operator.cluster.base import Key
from crossfold_operator.names import Condition, Reason
from crossfold_operator.plan.tune import Suggestions
from crossfold_operator.search.history import Trial, TrialState
from crossfold_operator.search.suggest import Answer, SearchSettings, suggest
from crossfold_operator.status.facts import Fact
from crossfold_operator.workers.pool import Question, SearchError

MOST_WANTED = 8
"""Trials that are asked for at a time."""
FIRST_PAUSE = 2.0
LONGEST_PAUSE = 300.0
"""Seconds after which a Tune whose question failed asks again: doubling from the first to the longest."""

Wake = Callable[[Key], None]


def silent(_: Key) -> None:
    """Nobody need be woken."""


class Search(Protocol):
    """Answers questions to samplers."""

    def submit(self, question: Question) -> "asyncio.Future[Answer]":
        """Have a question answered. The future raises SearchError."""
        ...


class InlineSearch:
    """Answers at once, in this process."""

    def submit(self, question: Question) -> "asyncio.Future[Answer]":
        """See Search."""
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        try:
            q = question
            answer.set_result(suggest(q.settings, q.told, q.first, q.count, float("inf")))
        except Exception as error:  # noqa: BLE001 -- whatever a sampler's package raises
            answer.set_exception(SearchError(f"{type(error).__name__}: {error}"))
        return answer


@dataclass
class _State:
    """How it stands with one Tune.

    Attributes:
        uid: of the Tune.
        pending: the answer under way.
        at: when the last question was asked.
        first: number of the first trial that it asked for.
        told: the history that went with it.
        answer: to it.
        used: it was handed out before.
        failures: in a row.
        problem: what the last one was.
        again: when to ask again.
    """

    uid: str
    pending: "asyncio.Future[Answer] | None" = None
    at: datetime | None = None
    first: int = 0
    told: Sequence[Trial] = ()
    answer: Answer | None = None
    used: bool = False
    failures: int = 0
    problem: SearchError | None = None
    again: datetime | None = None


@dataclass(frozen=True)
class Wanted:
    """What a look wants to know.

    Attributes:
        key: of the Tune.
        uid: of the Tune.
        settings: of its search.
        told: the trials so far, reckoned when they are needed.
        first: number of the next trial.
        count: trials for which there is a slot.
    """

    key: Key
    uid: str
    settings: SearchSettings
    told: Callable[[], Sequence[Trial]] = field(repr=False)
    first: int
    count: int


class Asker:
    """Asks for Tunes. All methods belong to the thread of one event loop."""

    def __init__(self, search: Search, clock: Callable[[], datetime], wake: Wake) -> None:
        """With a search; ``wake`` is told the Tune whose answer has come."""
        self._search = search
        self._clock = clock
        self._wake = wake
        self._states: dict[Key, _State] = {}

    def forget(self, key: Key) -> None:
        """A Tune is gone, or is over."""
        state = self._states.pop(key, None)
        if state is not None and state.pending is not None:
            state.pending.cancel()

    def suggestions(self, wanted: Wanted) -> Suggestions:
        """What has been answered; what has not is asked for, and the Tune is woken when the answer comes."""
        state = self._states.get(wanted.key)
        if state is None or state.uid != wanted.uid:
            self.forget(wanted.key)
            state = self._states[wanted.key] = _State(wanted.uid)
        self._take_in(state)
        found = self._left(state, wanted)
        if found is not None or state.pending is not None:
            return found or Suggestions()
        if state.again is not None and self._clock() < state.again:
            return Suggestions(paused=True)
        self._ask(state, wanted)
        self._take_in(state)
        return self._left(state, wanted) or Suggestions(paused=state.pending is None)

    def idle(self, key: Key) -> None:
        """A Tune has no use for an answer now: by the time that it has one, more may be known."""
        state = self._states.get(key)
        if state is not None:
            self._take_in(state)
            state.used, state.problem, state.again = True, None, None

    def asked_at(self, key: Key) -> datetime | None:
        """When the parameters that a Tune was given last were asked for."""
        state = self._states.get(key)
        return None if state is None else state.at

    def pause(self, key: Key) -> float | None:
        """Seconds until a Tune whose question failed asks again; None for another one."""
        state = self._states.get(key)
        if state is None or state.again is None:
            return None
        return max(0.0, (state.again - self._clock()).total_seconds())

    def problem(self, key: Key, algorithm: str) -> Fact | None:
        """What keeps a Tune from further trials, as a condition."""
        state = self._states.get(key)
        if state is None or state.problem is None:
            return None
        error = state.problem
        reason = Reason.SEARCH_TIMED_OUT if error.timed_out else Reason.SEARCH_FAILED
        text = f"spec.algorithm: {algorithm} gave no parameters for trial {state.first} ({error}); it is asked again"
        remedy = "with growing pauses. "
        if error.timed_out:
            remedy += "If it stays so, raise the chart's operator.searchSeconds, or search with TPE, Sobol or Random"
        else:
            remedy += "If it stays so, search with another algorithm, and report this with the operator's log"
        return Fact(Condition.DEGRADED, True, reason, f"{text} {remedy}")

    def _ask(self, state: _State, wanted: Wanted) -> None:
        state.told = wanted.told()
        state.first, state.at, state.answer = wanted.first, self._clock(), None
        count = min(wanted.count, MOST_WANTED)
        question = Question(wanted.key.namespace, wanted.uid, wanted.settings, state.told, wanted.first, count)
        state.pending = self._search.submit(question)
        if not state.pending.done():
            key = wanted.key
            state.pending.add_done_callback(lambda future: None if future.cancelled() else self._wake(key))

    def _take_in(self, state: _State) -> None:
        """An answer, or a failure, that has come."""
        if state.pending is None or not state.pending.done():
            return
        pending, state.pending = state.pending, None
        state.answer, state.used = None, False
        error = pending.exception()
        if error is None:
            state.answer = pending.result()
            state.failures, state.problem, state.again = 0, None, None
            return
        state.problem = error if isinstance(error, SearchError) else SearchError(repr(error))
        state.failures += 1
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(state.failures - 1, 16))
        state.again = self._clock() + timedelta(seconds=pause)
        metrics.SEARCH_FAILURES.labels("timeout" if state.problem.timed_out else "error").inc()

    @staticmethod
    def _left(state: _State, wanted: Wanted) -> Suggestions | None:
        """What is left of the last answer.

        It is used whatever has ended while it was made, and what is left of it afterwards as long as nothing has: it
        is then what another question would bring.
        """
        if state.answer is None:
            return None
        points, used = state.answer.points, wanted.first - state.first
        if not 0 <= used <= len(points) or (used == len(points) and not state.answer.exhausted):
            return None
        if state.used and not _same(wanted.told(), state.told):
            return None
        state.used = True
        return Suggestions(points[used:], state.answer.exhausted)


def _same(now: Sequence[Trial], then: Sequence[Trial]) -> bool:
    """Whether nothing has been learned since: later trials alone were added, and run."""
    return list(now[: len(then)]) == list(then) and all(t.state is TrialState.RUNNING for t in now[len(then) :])
