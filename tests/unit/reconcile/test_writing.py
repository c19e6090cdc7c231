"""What a reconcile writes to a cluster that takes its time over it."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from crossfold_operator.api.crossvalidation import CrossValidationSpec
from crossfold_operator.cluster.base import Creation, Key, Obj, Refused, Unavailable, key_of
from crossfold_operator.names import Kind, Reason
from crossfold_operator.reconcile.writing import CREATES, Blocked, Writer
from tests.fakes.memory_cluster import MemoryCluster
from tests.fakes.world import NAMESPACE, cross_validation

Virtual = Callable[[Coroutine[Any, Any, Any]], Any]
SLOW = 5.0
RUNS = [Key(Kind.TRAIN_RUN, NAMESPACE, f"c-f{fold}s42") for fold in range(3)]


class SlowCluster(MemoryCluster):
    """A create takes 5 seconds; some meet a problem, each after a time of its own."""

    def __init__(self, problems: dict[Key, tuple[float, Exception]]) -> None:
        super().__init__()
        self.problems = problems

    async def create(self, manifest: Obj) -> Creation:
        seconds, problem = self.problems.get(key_of(manifest), (SLOW, None))
        await asyncio.sleep(seconds)
        if problem is not None:
            raise problem
        return await super().create(manifest)


async def create_three(cluster: SlowCluster) -> tuple[Exception | None, list[Key], float]:
    """The error of creating three runs, the runs that exist when it is raised, and the seconds that it took."""
    cv = cluster.apply(cross_validation())
    spec = CrossValidationSpec.model_validate(cv["spec"])
    clock = asyncio.get_running_loop().time
    began, error = clock(), None
    try:
        await Writer(cluster).create_runs([(cv, (fold, 42)) for fold in range(3)], spec, "registry/trainer:1")
    except (Refused, Blocked, Unavailable) as raised:
        error = raised
    return error, [key_of(run) for run in cluster.of(Kind.TRAIN_RUN)], clock() - began


def test_runs_are_created_side_by_side(virtual: Virtual) -> None:
    assert virtual(create_three(SlowCluster({}))) == (None, RUNS, SLOW)


@pytest.mark.parametrize("refused", RUNS, ids=lambda key: key.name)
def test_one_that_is_refused_is_told_when_the_slow_ones_exist(virtual: Virtual, refused: Key) -> None:
    problem = Refused(422, "spec.fold: no")
    error, found, seconds = virtual(create_three(SlowCluster({refused: (0.0, problem)})))
    assert error is problem
    assert found == [run for run in RUNS if run != refused]
    assert seconds == SLOW


def test_of_several_problems_that_of_the_first_run_is_told_however_late_it_came(virtual: Virtual) -> None:
    full = Refused(403, "exceeded quota: runs")
    away = Unavailable("no answer")
    error, found, _ = virtual(create_three(SlowCluster({RUNS[0]: (9.0, full), RUNS[2]: (0.0, away)})))
    assert isinstance(error, Blocked)
    assert error.reason is Reason.QUOTA_EXCEEDED
    assert found == [RUNS[1]]


def test_many_runs_are_created_some_at_a_time(virtual: Virtual) -> None:
    async def scene() -> tuple[int, float]:
        cluster = SlowCluster({})
        cv = cluster.apply(cross_validation())
        spec = CrossValidationSpec.model_validate(cv["spec"])
        clock = asyncio.get_running_loop().time
        began = clock()
        wanted = [(cv, (0, seed)) for seed in range(2 * CREATES + 1)]
        await Writer(cluster).create_runs(wanted, spec, "registry/trainer:1")
        return len(cluster.of(Kind.TRAIN_RUN)), clock() - began

    assert virtual(scene()) == (2 * CREATES + 1, 3 * SLOW)
