"""Which attempt of a run is due."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from crossfold_operator.api.fields import RetriesSpec
from crossfold_operator.api.trainrun import TrainRunSpec, TrainRunStatus
from crossfold_operator.names import Reason
from crossfold_operator.observe.attempts import Attempt, AttemptState, Failure, Waiting
from crossfold_operator.plan.trainrun import MAX_ATTEMPTS, History, TrainRunPlan, history, plan, stuck_failure, verdict
from crossfold_trainer.contract.result import FailureClass, RunResult
from tests.fakes.world import train_run

NOW = datetime(2026, 1, 1, 0, 10, tzinfo=UTC)
STARTING, RUNNING, ENDED = AttemptState.STARTING, AttemptState.RUNNING, AttemptState.ENDED
STOP = {"stop": {"reason": "Stopped"}}
RESULT = RunResult(digest="x", score=0.5)
GPU = {"template": {"resources": {"limits": {"nvidia.com/gpu": 2}}}}


def spec(**changes: Any) -> TrainRunSpec:
    return TrainRunSpec.model_validate(train_run()["spec"] | changes)


def status(**fields: Any) -> TrainRunStatus:
    return TrainRunStatus.model_validate(fields)


def attempt(number: int, state: AttemptState = RUNNING, **fields: Any) -> Attempt:
    defaults: dict[str, Any] = {"job": f"r-a{number}", "uid": f"u{number}", "created": "2026-01-01T00:00:00Z"}
    return Attempt(number=number, state=state, **defaults | fields)


def ended(number: int, kind: FailureClass | None = FailureClass.CRASH, **fields: Any) -> Attempt:
    failure = Failure(kind, "why") if kind else None
    outcome = {"failure": failure, "result": None if kind else RESULT, "seconds": 60}
    return attempt(number, ENDED, **outcome | fields)


def counted(*attempts: Attempt, previous: TrainRunStatus | None = None, **changes: Any) -> History:
    return history(spec(**changes), previous or status(), attempts, 300, NOW)


def planned(*attempts: Attempt, previous: TrainRunStatus | None = None, **changes: Any) -> TrainRunPlan:
    previous = previous or status()
    done = counted(*attempts, previous=previous, **changes)
    return plan(spec(**changes), previous, attempts, done)


def numbers(found: TrainRunPlan) -> tuple[int | None, list[int]]:
    return found.create, [a.number for a in found.delete]


IMAGE = Waiting(Reason.IMAGE_PULL, "no such image", structural=True)
FULL = Waiting(Reason.UNSCHEDULABLE, "0/3 nodes", structural=False)
CLASSES = FailureClass


@pytest.mark.parametrize(
    ("attempts", "changes", "previous", "create", "delete"),
    [
        # The first attempt, and those that follow.
        ([], {}, {}, 1, []),
        ([attempt(1, STARTING)], {}, {}, None, []),
        ([attempt(1)], {}, {}, None, []),
        ([ended(1)], {}, {}, 2, []),
        ([ended(1), attempt(2)], {}, {}, None, []),
        ([ended(1, None)], {}, {}, None, []),
        # Jobs that are gone: what was counted stays counted.
        ([], {}, {"ended": 3, "preemptions": 3, "attempt": 3}, 4, []),
        ([], {}, {"ended": 1, "attempt": 2, "current": {"attempt": 2}}, 2, []),
        ([ended(2)], {}, {"ended": 1, "preemptions": 1}, 3, []),
        ([ended(1)], {}, {"ended": 1, "crashes": 1}, 2, []),
        # Retries.
        ([ended(1), ended(2)], {}, {}, None, []),
        ([ended(1), ended(2)], {"retries": {"crash": 2}}, {}, 3, []),
        ([ended(1)], {"retries": {"crash": 0}}, {}, None, []),
        ([ended(n, CLASSES.INFRASTRUCTURE) for n in range(1, 6)], {}, {}, 6, []),
        ([ended(n, CLASSES.INFRASTRUCTURE) for n in range(1, 7)], {}, {}, None, []),
        ([ended(n, CLASSES.PREEMPTED) for n in range(1, 31)], {}, {}, 31, []),
        ([ended(1, CLASSES.CONFIG)], {}, {}, None, []),
        ([ended(1, CLASSES.OUT_OF_MEMORY)], {}, {}, None, []),
        ([ended(1, CLASSES.HOST_OUT_OF_MEMORY)], {}, {}, None, []),
        ([ended(1, CLASSES.TIMEOUT)], {}, {}, None, []),
        # A mixture: each class has its own count.
        ([ended(1), ended(2, CLASSES.PREEMPTED), ended(3, CLASSES.INFRASTRUCTURE)], {}, {}, 4, []),
        ([ended(1), ended(2, CLASSES.PREEMPTED), ended(3)], {}, {}, None, []),
        # Deletion under way holds the place.
        ([attempt(1, deleting=True)], {}, {}, None, []),
        ([ended(1), attempt(2, STARTING, deleting=True)], {}, {}, None, []),
        # Suspend and stop.
        ([], {"suspend": True}, {}, None, []),
        ([attempt(1)], {"suspend": True}, {}, None, [1]),
        ([attempt(1, STARTING)], {"suspend": True}, {}, None, [1]),
        ([attempt(1, deleting=True)], {"suspend": True}, {}, None, []),
        ([ended(1)], {"suspend": True}, {}, None, []),
        ([], STOP, {}, None, []),
        ([attempt(1)], STOP, {}, None, [1]),
        ([ended(1), attempt(2)], STOP, {}, None, [2]),
        # Resumed: the next attempt.
        ([], {}, {"ended": 1, "preemptions": 1, "phase": "Suspended"}, 2, []),
        # A run that is over is never run again.
        ([], {}, {"phase": "Succeeded", "ended": 1}, None, []),
        ([], {}, {"phase": "Failed", "ended": 1}, None, []),
        ([], {}, {"phase": "Stopped", "ended": 0}, None, []),
        ([attempt(2)], {}, {"phase": "Succeeded", "ended": 1}, None, [2]),
        ([ended(1, None), attempt(2)], {}, {}, None, [2]),
        # An attempt that cannot start is counted, deleted, and followed by the next one when it is gone.
        ([attempt(1, STARTING, waiting=IMAGE)], {}, {}, None, [1]),
        ([attempt(1, STARTING, waiting=IMAGE, deleting=True)], {}, {"ended": 1}, None, []),
        ([], {}, {"ended": 1, "infrastructureFailures": 1}, 2, []),
        ([attempt(1, STARTING, waiting=FULL)], {}, {}, None, []),
        ([attempt(1, STARTING, waiting=IMAGE, created="2026-01-01T00:09:00Z")], {}, {}, None, []),
        ([attempt(1, STARTING, waiting=IMAGE)], {"retries": {"infrastructure": 0}}, {}, None, [1]),
    ],
)
def test_plan(
    attempts: list[Attempt],
    changes: dict[str, Any],
    previous: dict[str, Any],
    create: int | None,
    delete: list[int],
) -> None:
    assert numbers(planned(*attempts, previous=status(**previous), **changes)) == (create, delete)


def test_the_last_attempt_has_the_last_number_that_a_name_can_hold() -> None:
    before = {"ended": MAX_ATTEMPTS - 1, "preemptions": MAX_ATTEMPTS - 1}
    assert numbers(planned(previous=status(**before))) == (MAX_ATTEMPTS, [])
    last = ended(MAX_ATTEMPTS, CLASSES.PREEMPTED)
    assert numbers(planned(last, previous=status(**before))) == (None, [])
    over = verdict(counted(last, previous=status(**before)), RetriesSpec())
    assert over is not None
    assert over.reason is Reason.LOST


def test_a_result_of_the_last_attempt_counts() -> None:
    before = status(ended=MAX_ATTEMPTS - 1, preemptions=MAX_ATTEMPTS - 1)
    assert verdict(counted(ended(MAX_ATTEMPTS, None), previous=before), RetriesSpec()) is None


# What is counted ------------------------------------------------------------------------------------------------------


def test_attempts_are_counted_in_order_and_once() -> None:
    first = counted(ended(1), ended(2, CLASSES.PREEMPTED), ended(3, CLASSES.INFRASTRUCTURE), attempt(4))
    assert (first.ended, first.crashes, first.preemptions, first.infrastructure) == (3, 1, 1, 1)
    remembered = status(
        ended=3,
        crashes=1,
        preemptions=1,
        infrastructureFailures=1,
        failure={"class": "Infrastructure", "message": "why"},
    )
    again = counted(ended(1), ended(2, CLASSES.PREEMPTED), ended(3, CLASSES.INFRASTRUCTURE), previous=remembered)
    assert replace(again, usage=first.usage) == first


def test_an_attempt_after_a_gap_waits_for_the_one_before() -> None:
    found = counted(ended(2))
    assert found.ended == 0
    assert numbers(planned(ended(2))) == (1, [])


def test_time_is_counted_by_what_became_of_it() -> None:
    spent = counted(
        ended(1, CLASSES.CRASH, seconds=10),
        ended(2, CLASSES.PREEMPTED, seconds=100),
        ended(3, None, seconds=1000),
        **GPU,
    ).usage
    assert spent.gpu_seconds.model_dump() == {"failed": 20, "preempted": 200, "useful": 2000, "pruned": 0}
    assert spent.run_seconds == 1110


@pytest.mark.parametrize(
    ("seen", "reason", "fate", "preemptions"),
    [
        (ended(1, CLASSES.PREEMPTED, seconds=100), "Pruned", "pruned", 0),
        (ended(1, CLASSES.PREEMPTED, seconds=100), "Stopped", "failed", 0),
        # A result that comes after a stop is of no use any more.
        (ended(1, None, seconds=100), "Pruned", "pruned", 0),
        (ended(1, None, seconds=100), "Stopped", "failed", 0),
        (ended(1, CLASSES.CRASH, seconds=100), "Pruned", "failed", 0),
        (ended(1, None, seconds=100), None, "useful", 0),
        (ended(1, CLASSES.PREEMPTED, seconds=100), None, "preempted", 1),
    ],
)
def test_time_of_a_run_that_was_stopped_counts_as_the_stop_says(
    seen: Attempt, reason: str | None, fate: str, preemptions: int
) -> None:
    stop = {"stop": {"reason": reason}} if reason else {}
    found = counted(seen, **stop, **GPU)
    spent = found.usage.gpu_seconds.model_dump()
    assert {name for name, seconds in spent.items() if seconds} == {fate}
    assert (spent[fate], found.preemptions) == (200, preemptions)


def test_a_run_without_a_gpu_counts_as_one_device() -> None:
    assert counted(ended(1, None, seconds=100)).usage.gpu_seconds.useful == 100


def test_the_end_of_the_latest_attempt_is_known() -> None:
    first, second = "2026-01-01T00:01:00Z", "2026-01-01T00:02:00Z"
    attempts = [replace(ended(1), ended=second), replace(ended(2), ended=first)]
    assert counted(*attempts).end_time == second
    assert counted(ended(1), previous=status(endTime=first)).end_time == first
    # A Job that is gone ended when it was last seen running.
    gone = status(current={"attempt": 1, "seconds": 40, "startTime": first})
    assert counted(previous=gone, suspend=True).end_time == "2026-01-01T00:01:40Z"


def test_a_job_that_went_away_under_suspend_was_interrupted() -> None:
    previous = status(current={"attempt": 1, "seconds": 40})
    found = counted(previous=previous, suspend=True, **GPU)
    assert (found.ended, found.preemptions, found.usage.gpu_seconds.preempted) == (1, 1, 80)
    assert counted(previous=previous, **STOP).ended == 1
    # Without either, somebody deleted it: it comes back under its number.
    assert counted(previous=previous).ended == 0
    # An attempt that was never seen was never there.
    assert counted(suspend=True).ended == 0
    assert counted(previous=status(ended=1, current={"attempt": 1}), suspend=True).ended == 1


def test_the_latest_failure_is_told() -> None:
    found = counted(ended(1), ended(2, CLASSES.TIMEOUT))
    assert found.last is not None
    assert found.last.failure_class is CLASSES.TIMEOUT
    assert counted(ended(1), ended(2, None)).last is None


@pytest.mark.parametrize(
    ("seen", "seconds", "stuck"),
    [
        (attempt(1, STARTING, waiting=IMAGE), 600, True),
        (attempt(1, STARTING, waiting=IMAGE), 601, False),
        (attempt(1, STARTING, waiting=FULL), 1, False),
        (attempt(1, STARTING), 1, False),
        (attempt(1, RUNNING, waiting=IMAGE), 1, False),
        (ended(1), 1, False),
    ],
)
def test_stuck(seen: Attempt, seconds: int, stuck: bool) -> None:
    failure = stuck_failure(seen, seconds, NOW)
    assert (failure is not None) is stuck
    if failure is not None:
        assert failure.failure_class is CLASSES.INFRASTRUCTURE
        assert failure.message == "ImagePull: no such image"


@pytest.mark.parametrize(
    ("failure", "counts", "reason"),
    [
        (Failure(CLASSES.CRASH, ""), {"crashes": 1}, None),
        (Failure(CLASSES.CRASH, ""), {"crashes": 2}, Reason.RUN_FAILED),
        (Failure(CLASSES.INFRASTRUCTURE, ""), {"infrastructure": 5}, None),
        (Failure(CLASSES.INFRASTRUCTURE, ""), {"infrastructure": 6}, Reason.LOST),
        (Failure(CLASSES.INFRASTRUCTURE, "", no_result=True), {"infrastructure": 6}, Reason.NO_RESULT),
        (Failure(CLASSES.PREEMPTED, ""), {"preemptions": 90}, None),
        (Failure(CLASSES.CONFIG, ""), {}, Reason.CONFIG_ERROR),
        (Failure(CLASSES.OUT_OF_MEMORY, ""), {}, Reason.RUN_FAILED),
        (Failure(CLASSES.HOST_OUT_OF_MEMORY, ""), {}, Reason.RUN_FAILED),
        (Failure(CLASSES.TIMEOUT, ""), {}, Reason.RUN_FAILED),
        # An earlier crash beyond its retries does not fail a run whose latest attempt was only interrupted.
        (Failure(CLASSES.PREEMPTED, ""), {"crashes": 1}, None),
    ],
)
def test_verdict(failure: Failure, counts: dict[str, int], reason: Reason | None) -> None:
    over = verdict(History(ended=3, last=failure, **counts), RetriesSpec())
    assert (over.reason if over else None) == reason
    assert verdict(History(ended=3, last=failure, result=RESULT, **counts), RetriesSpec()) is None
