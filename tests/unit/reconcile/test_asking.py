"""Questions to samplers beside the reconciles: late answers, failures, and what is left of an answer."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from crossfold_cli.explain.past import past_of
from crossfold_operator.cluster.base import Key, Obj
from crossfold_operator.names import Condition, Kind
from crossfold_operator.reconcile.asking import MOST_WANTED
from crossfold_operator.reconcile.reconciler import Reconciler
from crossfold_operator.search.suggest import Answer, suggest
from crossfold_operator.workers.pool import Question, SearchError
from tests.fakes import world as w
from tests.fakes.memory_cluster import MemoryCluster
from tests.fakes.world import NAMESPACE, World, tune

RATE = [{"name": "learning_rate", "type": "Float", "min": 1e-5, "max": 1e-2, "scale": "Log"}]


class Later:
    """A search whose answers come when a test says so."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Question, asyncio.Future[Answer]]] = []
        self.questions: list[Question] = []

    def submit(self, question: Question) -> "asyncio.Future[Answer]":
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.waiting.append((question, answer))
        self.questions.append(question)
        return answer

    async def answer(self, error: SearchError | None = None) -> None:
        waiting, self.waiting = self.waiting, []
        for question, answer in waiting:
            if answer.cancelled():
                continue
            if error is not None:
                answer.set_exception(error)
            else:
                q = question
                answer.set_result(suggest(q.settings, q.told, q.first, q.count, float("inf")))
        await asyncio.sleep(0)


class Beside(World):
    """A world whose operator asks beside its reconciles."""

    def __init__(self, cluster: MemoryCluster, **more: Any) -> None:
        self.search = Later()
        super().__init__(cluster, **more)

    def operator(self) -> Reconciler:
        def wake(key: Key) -> None:
            self.cluster.woken[key] = None

        return Reconciler(self.cluster, self.settings, self.cluster.clock, search=self.search, wake=wake)

    def trials(self, name: str = "t") -> list[Obj]:
        prefix = f"{name}-cv"
        found = [cv for cv in self.cluster.of(Kind.CROSS_VALIDATION) if cv["metadata"]["name"].startswith(prefix)]
        return sorted(found, key=lambda cv: int(cv["metadata"]["labels"]["crossfold.dev/trial"]))

    def degraded(self, name: str = "t") -> tuple[str, str, str]:
        status = self.cluster.status(Kind.TUNE, name)
        found = next(c for c in status["conditions"] if c["type"] == Condition.DEGRADED)
        return found["status"], found["reason"], found.get("message", "")


def searched(name: str = "t", **changes: Any) -> Obj:
    content = {"algorithm": {"name": "TPE", "seed": 3}, "parameters": RATE, "racing": {"enabled": False}}
    return tune(name, **{**content, "crossValidation": {"folds": 2}, "maxTrials": 6, "parallelism": 2, **changes})


def parameters(trials: Sequence[Obj]) -> list[Any]:
    return [cv["spec"]["hyperparameters"] for cv in trials]


async def test_a_question_keeps_no_other_tune_waiting() -> None:
    it = Beside(MemoryCluster())
    it.cluster.apply(searched("slow"))
    await it.settle()
    assert len(it.search.waiting) == 1
    assert it.trials("slow") == []
    it.cluster.apply(searched("quick", algorithm={"name": "Grid"}, parameters=w.tune()["spec"]["parameters"]))
    await it.settle()
    question, answer = it.search.waiting.pop()
    answer.set_result(suggest(question.settings, question.told, question.first, question.count, 1.0))
    await asyncio.sleep(0)
    await it.settle()
    assert len(it.trials("quick")) == 1
    assert it.trials("slow") == []
    assert it.cluster.status(Kind.TUNE, "slow")["phase"] == "Pending"


async def test_a_look_asks_for_few_however_many_slots_are_free() -> None:
    it = Beside(MemoryCluster())
    it.cluster.apply(searched(maxTrials=500, parallelism=500))
    await it.settle()
    assert [q.count for q in it.search.questions] == [MOST_WANTED]
    for _ in range(3):
        await it.search.answer()
        await it.settle()
    assert len(it.trials()) == 3 * MOST_WANTED
    # One question of a Tune at a time, each with what was given out before it.
    assert [(q.first, q.count, len(q.told)) for q in it.search.questions] == [
        (n * MOST_WANTED, MOST_WANTED, n * MOST_WANTED) for n in range(4)
    ]


async def test_answers_beside_lead_to_the_same_trials_as_answers_at_once() -> None:
    plain, it = World(MemoryCluster()), Beside(MemoryCluster())
    for world in (plain, it):
        world.cluster.apply(searched())
    await plain.run()
    for _ in range(60):
        await it.settle()
        if it.search.waiting:
            await it.search.answer()
        elif not await it.step():
            break
    assert it.cluster.status(Kind.TUNE, "t")["phase"] == "Complete"
    assert w.tree(it.cluster) == w.tree(plain.cluster)


async def test_a_trial_says_when_its_parameters_were_asked_for() -> None:
    it = Beside(MemoryCluster())
    it.cluster.apply(searched(algorithm={"name": "TPE", "seed": 3, "settings": {"startupTrials": 1}}))
    await it.settle()
    await it.search.answer()
    await it.start_all()
    assert all("annotations" not in cv["metadata"] for cv in it.trials())
    # Both runs of the first trial end: the next trial is asked for, and its answer comes only after another has ended.
    it.cluster.clock.advance(60)
    for job in it.unfinished():
        it.end(job)
    await it.settle()
    asked = it.cluster.clock.text
    assert len(it.search.waiting) == 1
    it.cluster.clock.advance(30)
    await it.search.answer()
    await it.settle()
    last = it.trials()[-1]
    assert last["metadata"]["annotations"]["crossfold.dev/asked-at"] == asked
    assert last["metadata"]["creationTimestamp"] == it.cluster.clock.text
    (obj,) = it.cluster.of(Kind.TUNE)
    seen = past_of(obj, it.cluster.of(Kind.CROSS_VALIDATION), it.cluster.of(Kind.TRAIN_RUN)).trials[-1]
    assert seen.asked.strftime("%Y-%m-%dT%H:%M:%SZ") == asked


@pytest.mark.parametrize(
    ("error", "reason", "remedy"),
    [
        (SearchError("took longer than 60 s", timed_out=True), "SearchTimedOut", "operator.searchSeconds"),
        (SearchError("LinAlgError: not positive definite"), "SearchFailed", "another algorithm"),
    ],
)
async def test_a_search_that_fails_degrades_its_tune_alone(error: SearchError, reason: str, remedy: str) -> None:
    it = Beside(MemoryCluster())
    it.cluster.apply(searched())
    await it.settle()
    waits: list[float] = []
    for _ in range(4):
        await it.search.answer(error)
        await it.settle()
        status, told, message = it.degraded()
        assert (status, told) == ("True", reason)
        assert all(part in message for part in ("TPE", "trial 0", str(error), remedy))
        wait = it.again[Key(Kind.TUNE, NAMESPACE, "t")]
        waits.append(wait)
        # Nothing is asked before its time, whatever wakes the Tune.
        it.cluster.woken[Key(Kind.TUNE, NAMESPACE, "t")] = None
        await it.settle()
        assert it.search.waiting == []
        it.cluster.clock.advance(wait)
        it.cluster.woken[Key(Kind.TUNE, NAMESPACE, "t")] = None
        await it.settle()
        assert len(it.search.waiting) == 1
    assert waits == [2, 4, 8, 16]
    await it.search.answer()
    await it.settle()
    assert it.degraded()[:2] == ("False", "AsExpected")
    assert len(it.trials()) == 1


async def test_while_a_search_fails_trials_that_exist_go_on() -> None:
    it = Beside(MemoryCluster())
    it.cluster.apply(searched(parallelism=3, racing={"enabled": True, "warmupTrials": 4}, crossValidation={"folds": 3}))
    await it.settle()
    await it.search.answer()
    await it.start_all()
    runs = len(it.cluster.of(Kind.TRAIN_RUN))
    assert runs == 3
    it.end(it.unfinished()[0])
    await it.settle()
    await it.search.answer(SearchError("no"))
    await it.settle()
    assert it.search.waiting == []


async def test_a_tune_that_wants_no_more_trials_is_not_degraded_by_its_search() -> None:
    it = Beside(MemoryCluster())
    it.cluster.apply(searched())
    await it.settle()
    await it.search.answer()
    await it.start_all()
    for job in it.unfinished():
        it.end(job)
    await it.settle()
    await it.search.answer(SearchError("no"))
    await it.settle()
    assert it.degraded()[1] == "SearchFailed"
    (obj,) = it.cluster.of(Kind.TUNE)
    it.cluster.apply({**obj, "spec": {**obj["spec"], "maxTrials": 1}})
    await it.settle()
    assert it.cluster.status(Kind.TUNE, "t")["phase"] == "Complete"
    assert it.degraded()[1] == "AsExpected"


async def test_a_tune_that_is_deleted_is_not_woken_by_its_answer() -> None:
    it = Beside(MemoryCluster())
    it.cluster.apply(searched())
    await it.settle()
    it.cluster.remove(Key(Kind.TUNE, NAMESPACE, "t"))
    await it.settle()
    assert it.search.waiting[0][1].cancelled()
    await it.search.answer()
    await it.settle()
    assert it.trials() == []


async def test_an_exhausted_space_is_asked_once() -> None:
    it = Beside(MemoryCluster())
    values = [{"name": "batch_size", "type": "Categorical", "values": [4, 8]}]
    it.cluster.apply(searched(parameters=values, maxTrials=5, parallelism=9))
    for _ in range(4):
        await it.settle()
        await it.search.answer()
    assert len(it.trials()) == 2
    assert len(it.search.questions) == 1
    assert it.cluster.status(Kind.TUNE, "t")["search"]["exhausted"] is True


async def test_an_answer_that_nobody_needs_now_is_not_used_later() -> None:
    it = Beside(MemoryCluster())
    it.cluster.apply(searched())
    await it.settle()
    (obj,) = it.cluster.of(Kind.TUNE)
    it.cluster.apply({**obj, "spec": {**obj["spec"], "suspend": True}})
    await it.search.answer()
    await it.settle()
    assert it.trials() == []
    (obj,) = it.cluster.of(Kind.TUNE)
    it.cluster.apply({**obj, "spec": {**obj["spec"], "suspend": False}})
    await it.settle()
    # Nothing was learned meanwhile: it is what another question would bring.
    assert len(it.search.questions) == 1
    assert len(it.trials()) == 1


async def test_a_sampler_that_raises_is_no_failed_reconcile(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr("crossfold_operator.search.suggest.ask", broken)
    it = World(MemoryCluster())
    it.cluster.apply(searched())
    await it.settle()
    conditions = it.cluster.status(Kind.TUNE, "t")["conditions"]
    found = next(c for c in conditions if c["type"] == Condition.DEGRADED)
    assert (found["reason"], "ZeroDivisionError" in found["message"]) == ("SearchFailed", True)
