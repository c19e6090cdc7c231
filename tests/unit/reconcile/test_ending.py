"""What ends a search before its time, in whole trees: each rule with its own reason, and none is overshot."""

from typing import Any

from crossfold_operator.cluster.base import Obj
from crossfold_operator.names import Kind
from tests.fakes import world as w
from tests.fakes.memory_cluster import MemoryCluster
from tests.fakes.world import SECONDS, World, tune

SINGLE = {"folds": 1, "foldMethod": "None"}
"""One run a trial."""
SPACE = [{"name": "learning_rate", "type": "Float", "min": 1e-5, "max": 1e-2}]


def search(**changes: Any) -> Obj:
    content: dict[str, Any] = {
        "algorithm": {"name": "Random"},
        "parameters": SPACE,
        "maxTrials": 10,
        "parallelism": 1,
        "crossValidation": SINGLE,
    }
    return tune(**(content | changes))


def scored(*scores: float) -> w.Script:
    """The score of each trial; the last one holds for all that follow."""

    def script(run: str, attempt: int) -> w.Ending:
        trial = int(run.removeprefix("t-cv").partition("-")[0])
        value = scores[min(trial, len(scores) - 1)]
        return w.Ending(changes={"score": value, "values": {"val/JaccardIndex": value}})

    return script


async def ran(manifest: Obj, script: w.Script) -> World:
    it = World(MemoryCluster(), script)
    it.cluster.apply(manifest)
    await it.run()
    return it


def edit(it: World, **spec: Any) -> None:
    head = {key: value for key, value in search().items() if key != "spec"}
    it.cluster.apply({**head, "spec": spec})


def complete(it: World) -> tuple[str, str]:
    status = it.cluster.status(Kind.TUNE, "t")
    found = next(c for c in status["conditions"] if c["type"] == "Complete")
    assert (found["status"], status["phase"]) == ("True", "Complete")
    return found["reason"], found["message"]


def phases(it: World) -> list[str]:
    return [obj["status"]["phase"] for obj in it.cluster.of(Kind.CROSS_VALIDATION)]


async def test_the_target_ends_the_search() -> None:
    it = await ran(search(target=0.9), scored(0.5, 0.6, 0.9, 0.7))
    assert complete(it) == ("TargetReached", "trial 2 scores 0.9, which reaches spec.target = 0.9")
    assert phases(it) == ["Complete"] * 3
    assert it.cluster.status(Kind.TUNE, "t")["best"]["trial"] == 2


async def test_the_target_of_a_loss_is_reached_from_above() -> None:
    def script(run: str, attempt: int) -> w.Ending:
        value = 0.5 - 0.1 * int(run.removeprefix("t-cv").partition("-")[0])
        return w.Ending(changes={"score": value, "values": {"val/loss": value}})

    it = await ran(search(target=0.25, objective={"metrics": [{"name": "val/loss"}]}), script)
    assert complete(it)[0] == "TargetReached"
    assert len(phases(it)) == 4


async def test_what_is_under_way_is_stopped_when_the_target_is_reached() -> None:
    it = await ran(search(target=0.9, parallelism=3), scored(0.95))
    assert sorted(phases(it)) == ["Complete", "Stopped", "Stopped"]
    status = it.cluster.status(Kind.TUNE, "t")
    assert (status["trials"]["stopped"], status["runs"]["stopped"]) == (2, 2)
    stopped = it.cluster.of(Kind.CROSS_VALIDATION)[1]["spec"]["stop"]
    assert stopped["message"].startswith("the search has ended: trial 0 scores 0.95")
    assert status["usage"]["gpuSeconds"]["failed"] == 2 * SECONDS


async def test_early_stopping_counts_trials_without_a_new_best() -> None:
    it = await ran(search(earlyStopping={"patience": 3}), scored(0.5, 0.7, 0.6, 0.71, 0.6))
    assert complete(it) == ("EarlyStopped", "3 trials in a row are not better than 0.71: see spec.earlyStopping")
    assert len(phases(it)) == 7


async def test_a_little_better_is_no_new_best() -> None:
    it = await ran(search(earlyStopping={"patience": 3, "minDelta": 0.05}), scored(0.5, 0.7, 0.6, 0.71, 0.6))
    reason, message = complete(it)
    assert (reason, len(phases(it))) == ("EarlyStopped", 5)
    assert "not better than 0.7 by more than 0.05" in message


async def test_failed_trials_do_not_count_as_trials_without_a_new_best() -> None:
    plain = scored(0.7, 0.6)
    script: w.Script = lambda run, attempt: w.OOM_KILLED if run.startswith("t-cv1-") else plain(run, attempt)  # noqa: E731
    it = await ran(search(earlyStopping={"patience": 2}), script)
    assert complete(it)[0] == "EarlyStopped"
    assert phases(it) == ["Complete", "Failed", "Complete", "Complete"]


async def test_gpu_hours_end_the_search_and_what_is_in_flight_finishes() -> None:
    # Two runs at a time of a minute each on two GPUs: 0.1 h are three minutes of one of them.
    gpus = {"resources": {"limits": {"nvidia.com/gpu": 2}}}
    it = await ran(search(budget={"gpuHours": 0.1}, parallelism=2, template=gpus), scored(0.5))
    assert complete(it) == ("BudgetSpent", "spec.budget.gpuHours = 0.1 are spent")
    status = it.cluster.status(Kind.TUNE, "t")
    assert set(phases(it)) == {"Complete"}
    spent = status["usage"]["gpuSeconds"]["useful"]
    # At most by the runs that were in flight.
    assert 360 <= spent <= 360 + 2 * 2 * 2 * SECONDS
    assert status["summary"]["gpu"] == f"{spent / 3600:.1f}h"


async def test_a_trial_that_cannot_be_finished_within_the_budget_is_stopped() -> None:
    it = await ran(search(budget={"gpuHours": 0.1}, crossValidation={"folds": 5}), scored(0.5))
    assert complete(it)[0] == "BudgetSpent"
    assert phases(it) == ["Complete", "Stopped"]
    assert len(it.cluster.of(Kind.TRAIN_RUN)) == 6


async def test_a_budget_without_any_score_fails_the_search() -> None:
    it = await ran(search(budget={"gpuHours": 0.02}, crossValidation={"folds": 5}), scored(0.5))
    status = it.cluster.status(Kind.TUNE, "t")
    failed = next(c for c in status["conditions"] if c["type"] == "Failed")
    assert (status["phase"], failed["reason"]) == ("Failed", "NoScore")
    assert "spec.budget.gpuHours = 0.02 are spent" in failed["message"]


async def test_wall_clock_counts_while_something_runs() -> None:
    it = await ran(search(budget={"wallClock": "3m"}), scored(0.5))
    assert complete(it) == ("BudgetSpent", "spec.budget.wallClock = 3m is over")
    status = it.cluster.status(Kind.TUNE, "t")
    assert (len(phases(it)), status["wallClock"]["seconds"]) == (3, 180)
    assert "runningSince" not in status["wallClock"]


async def test_suspended_time_is_not_counted() -> None:
    it = World(MemoryCluster(), scored(0.5))
    it.cluster.apply(search(budget={"wallClock": "3m"}))
    await it.step()
    await it.settle()
    edit(it, suspend=True)
    await it.run()
    it.cluster.clock.advance(10_000)
    edit(it, suspend=False)
    await it.run()
    assert complete(it)[0] == "BudgetSpent"
    assert len(phases(it)) == 3
    assert it.cluster.status(Kind.TUNE, "t")["wallClock"]["seconds"] == 180


async def test_the_operator_looks_again_when_the_budget_ends() -> None:
    it = World(MemoryCluster(), scored(0.5))
    it.cluster.apply(search(budget={"wallClock": "100s"}, crossValidation={"folds": 5}, parallelism=2))
    await it.settle()
    for job in it.unfinished():
        it.start(job)
    await it.settle()
    key = w.Key(Kind.TUNE, w.NAMESPACE, "t")
    assert it.again[key] == 60
    it.cluster.clock.advance(60)
    it.cluster.woken[key] = None
    await it.settle()
    assert it.again[key] == 40
    it.cluster.clock.advance(40)
    it.cluster.woken[key] = None
    await it.settle()
    # The trial cannot be finished any more: three of its runs are not started.
    assert it.unfinished() == []
    assert len(it.cluster.of(Kind.TRAIN_RUN)) == 2


# Edits while it runs -----------------------------------------------------------------------------------------------


async def test_a_greater_budget_goes_on() -> None:
    it = await ran(search(budget={"wallClock": "2m"}, maxTrials=4), scored(0.5))
    assert len(phases(it)) == 2
    edit(it, budget={"wallClock": "1h"})
    await it.run()
    assert (complete(it)[0], len(phases(it))) == ("MaxTrialsReached", 4)


async def test_a_lower_target_ends_the_search_at_once() -> None:
    it = World(MemoryCluster(), scored(0.5, 0.6))
    it.cluster.apply(search(target=0.9))
    await it.step()
    await it.step()
    edit(it, target=0.55)
    await it.run()
    assert (complete(it)[0], phases(it)) == ("TargetReached", ["Complete", "Complete", "Stopped"])


async def test_a_higher_target_goes_on() -> None:
    it = await ran(search(target=0.5, maxTrials=3), scored(0.5, 0.6))
    assert len(phases(it)) == 1
    edit(it, target=0.9)
    await it.run()
    assert (complete(it)[0], len(phases(it))) == ("MaxTrialsReached", 3)


async def test_parallelism_up_and_down() -> None:
    it = World(MemoryCluster(), scored(0.5))
    it.cluster.apply(search())
    await it.step()
    assert it.most_running == 1
    edit(it, parallelism=3)
    await it.step()
    assert it.most_running == 3
    edit(it, parallelism=1)
    # What runs is let go on, and nothing new starts before there is room.
    for running in (2, 1, 1):
        await it.step()
        assert len(it.unfinished()) == running
    it.most_running = 0
    await it.run()
    assert (it.most_running, complete(it)[0], len(phases(it))) == (1, "MaxTrialsReached", 10)


async def test_max_trials_down_and_up() -> None:
    it = World(MemoryCluster(), scored(0.5))
    it.cluster.apply(search(parallelism=3))
    await it.step()
    edit(it, maxTrials=2, maxFailedTrials=0)
    await it.run()
    # Nothing new starts, and what runs finishes.
    assert (complete(it)[0], set(phases(it)), len(phases(it))) == ("MaxTrialsReached", {"Complete"}, 4)
    edit(it, maxTrials=6)
    await it.run()
    assert (complete(it)[0], len(phases(it))) == ("MaxTrialsReached", 6)
