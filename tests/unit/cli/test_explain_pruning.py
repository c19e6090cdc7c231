"""The looks into first runs, taken once more: they are those that the operator took."""

import asyncio
import copy
import json
from typing import Any

import pytest

from crossfold_cli.asjson import as_json
from crossfold_cli.explain import words
from crossfold_cli.explain.inside import inside
from crossfold_cli.explain.past import Past, Seen, past_of
from crossfold_cli.explain.story import trial_story
from crossfold_operator.names import Kind
from crossfold_operator.plan import pruning as plan_pruning
from crossfold_operator.search.pruning import Verdict, text
from tests.fakes.memory_cluster import MemoryCluster
from tests.fakes.training import Training
from tests.fakes.world import tune

LEVELS = (0.8, 0.79, 0.78, 0.81, 0.6, 0.805, 0.5, 0.79)
BAD = 6


def score(run: str, epoch: int) -> float:
    """A level, an effect of the fold, and what training adds; the fifth trial is slow at first."""
    trial, fold = int(run[4]), int(run[7])
    late = 0.2 if trial == 4 and epoch > 4 else 0
    return round(LEVELS[trial] + late + 0.02 * fold + 0.003 * ((trial * 7 + fold * 5) % 3) - 0.3 / epoch, 6)


Taken = set[tuple[int, Verdict]]


def searched(method: str, parallelism: int, **changes: Any) -> tuple[MemoryCluster, Taken]:
    """A search that has ended, and every look that the operator took."""
    taken: Taken = set()
    real = plan_pruning.looks

    def recording(spec: Any, trials: Any) -> Any:
        found = real(spec, trials)
        taken.update((trial.number, verdict) for trial, verdict in found)
        return found

    cluster = MemoryCluster()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(plan_pruning, "looks", recording)
        cluster.apply(
            tune(
                algorithm={"name": "Random"},
                parameters=[{"name": "learning_rate", "type": "Float", "min": 1e-5, "max": 1e-2}],
                maxTrials=len(LEVELS),
                parallelism=parallelism,
                crossValidation={"folds": 5},
                trainer={"maxEpochs": 7, "checkValEveryNEpoch": 1},
                pruning={"method": method, "minEpochs": 3, **changes},
            )
        )
        asyncio.run(Training(cluster, score=score).run())
    return cluster, taken


def past(cluster: MemoryCluster, crossvalidations: list[Any] | None = None) -> Past:
    (found,) = cluster.of(Kind.TUNE)
    return past_of(found, crossvalidations or cluster.of(Kind.CROSS_VALIDATION), cluster.of(Kind.TRAIN_RUN))


def trial(it: Past, number: int) -> Seen:
    seen = it.get(number)
    assert seen is not None
    return seen


@pytest.fixture(scope="module", params=["MedianStop", "ASHA"])
def pruned(request: pytest.FixtureRequest) -> tuple[MemoryCluster, Taken]:
    return searched("MedianStop", 1) if request.param == "MedianStop" else searched("ASHA", 3, reductionFactor=2)


def test_every_look_is_one_that_the_operator_took(pruned: tuple[MemoryCluster, Taken]) -> None:
    cluster, taken = pruned
    it = past(cluster)
    decided = judged = 0
    for seen in it.trials:
        words_of = {text(verdict) for number, verdict in taken if number == seen.trial.number}
        for look in inside(it, seen):
            assert look.text in words_of
            assert look.reproduced is (True if look.recorded else None)
            decided += look.recorded
            judged += 1
    assert decided == sum("runLook" in cv["spec"].get("stop", {}) for cv in cluster.of(Kind.CROSS_VALIDATION)) > 0
    assert judged > decided


def test_the_story_of_a_pruned_trial(pruned: tuple[MemoryCluster, Taken]) -> None:
    cluster, _ = pruned
    it = past(cluster)
    told = trial_story(it, trial(it, BAD))
    stop = next(o for o in cluster.of(Kind.CROSS_VALIDATION) if o["metadata"]["name"] == "t-cv6")["spec"]["stop"]
    assert (told.phase, told.outcome) == ("Pruned", stop["message"])
    last, look = told.inside[-1], stop["runLook"]
    assert (last.recorded, last.reproduced, last.prune) == (True, True, True)
    assert (last.epoch, last.best, last.threshold, last.peers) == tuple(
        look[name] for name in ("epoch", "best", "threshold", "peers")
    )
    lines = words.of_trial(told)
    place = lines.index("What pruning saw inside its first run")
    assert any(stop["message"] in line for line in lines[place:])
    assert any("looked at once more: the same numbers" in line for line in lines[place:])
    assert json.loads(json.dumps(as_json(told)))["inside"][-1]["threshold"] == look["threshold"]


def test_a_number_that_was_changed_is_found_out(pruned: tuple[MemoryCluster, Taken]) -> None:
    cluster, _ = pruned
    altered = copy.deepcopy(cluster.of(Kind.CROSS_VALIDATION))
    next(o for o in altered if o["metadata"]["name"] == "t-cv6")["spec"]["stop"]["runLook"]["threshold"] = 0.123
    it = past(cluster, altered)
    told = trial_story(it, trial(it, BAD))
    assert told.inside[-1].reproduced is False
    assert "other numbers" in "\n".join(words.of_trial(told))


def test_an_audited_trial_says_what_it_would_have_been() -> None:
    cluster, _ = searched("MedianStop", 1, audit=1)
    it = past(cluster)
    told = trial_story(it, trial(it, BAD))
    assert told.phase == "Complete"
    assert told.outcome.startswith("would have been pruned at epoch 3 of its first run")
    assert told.inside[-1].reproduced


def test_where_pruning_is_off_there_is_no_word_of_it() -> None:
    cluster = MemoryCluster()
    cluster.apply(tune(maxTrials=1))
    asyncio.run(Training(cluster, score=lambda run, epoch: 0.5).run())
    it = past(cluster)
    told = trial_story(it, trial(it, 0))
    assert (told.inside, told.pruning) == ((), "pruning is off: spec.pruning.method is None")
    assert not any("pruning saw" in line for line in words.of_trial(told))
