"""How long the rest of a search takes."""

import pytest

from crossfold_operator.api.crossvalidation import RunRecord
from crossfold_operator.api.fields import Usage
from crossfold_operator.api.tune import TuneSpec
from crossfold_operator.names import CrossValidationPhase, TrainRunPhase
from crossfold_operator.observe.runs import Run
from crossfold_operator.observe.trials import Ended, Trial
from crossfold_operator.status.eta import eta, text
from tests.fakes.world import tune

SPEC = TuneSpec.model_validate(tune(maxTrials=10, parallelism=2, crossValidation={"folds": 5})["spec"])


def ended(number: int, created: int) -> Trial:
    one = Ended(succeeded=created, created=created, expected=5)
    return Trial(number, f"t-cv{number}", str(number), CrossValidationPhase.COMPLETE, {}, ended=one)


def under_way(number: int, *phases: str) -> Trial:
    runs = tuple(
        Run(RunRecord(fold=fold, seed=42, run="r", phase=TrainRunPhase(phase))) for fold, phase in enumerate(phases)
    )
    return Trial(number, f"t-cv{number}", str(number), CrossValidationPhase.RUNNING, {}, runs=runs)


def test_nothing_is_known_before_a_run_has_ended() -> None:
    assert eta(SPEC, [under_way(0, "Running")], 1, Usage(), ending=False) == ""


def test_trials_to_come_take_as_many_runs_as_those_so_far() -> None:
    # 8 runs of 60 s in 2 trials, one of them pruned: 4 runs a trial; 8 trials to come, two at a time.
    trials = [ended(0, 5), ended(1, 3)]
    assert eta(SPEC, trials, 2, Usage(run_seconds=8 * 60), ending=False) == "16m"
    # None to come.
    assert eta(SPEC, trials, 2, Usage(run_seconds=8 * 60), ending=True) == "0s"
    # More were asked than are allowed by now.
    assert eta(SPEC, trials, 12, Usage(run_seconds=8 * 60), ending=False) == "0s"
    # A trial under way with one run done: three more.
    trials.append(under_way(2, "Succeeded", "Running"))
    assert eta(SPEC, trials, 10, Usage(run_seconds=9 * 60), ending=False) == "2m"


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0, "0s"), (89, "89s"), (91, "2m"), (3600, "60m"), (5 * 3600, "5h"), (47 * 3600, "47h"), (72 * 3600, "3d")],
)
def test_text(seconds: float, told: str) -> None:
    assert text(seconds) == told
