from dataclasses import replace
from typing import Any

import pytest

from crossfold_operator.api.fields import NamedValue
from crossfold_operator.api.parameters import ParameterSpec
from crossfold_operator.search.history import Trial, TrialState
from crossfold_operator.search.warm_start import Source, warm_start
from crossfold_trainer.contract.objective import ObjectiveSpec

OBJECTIVE = ObjectiveSpec.model_validate({"metrics": [{"name": "val/JaccardIndex"}]})
SPACE = [
    ParameterSpec.model_validate(p)
    for p in (
        {"name": "learning-rate", "type": "Float", "min": 1e-5, "max": 1e-2, "scale": "Log"},
        {"name": "batch_size", "type": "Int", "min": 4, "max": 16, "step": 4},
    )
]
FIXED = [NamedValue(name="model-arch", value="Unet"), NamedValue(name="x-tag", value=1)]
FITS = {"learning_rate": 1e-3, "batch_size": 8, "model_arch": "Unet", "x-tag": 1.0}


def trial(number: int = 0, state: TrialState = TrialState.COMPLETE, **changes: Any) -> Trial:
    return Trial(number, FITS | {n.replace("x_", "x-"): v for n, v in changes.items()}, state, 0.5)


def started(*trials: Trial, objective: ObjectiveSpec = OBJECTIVE) -> Any:
    return warm_start(SPACE, FIXED, OBJECTIVE, [Source("pilot", objective, trials)])


def test_what_fits_is_used_with_the_parameters_that_are_searched_here() -> None:
    pruned = Trial(3, FITS | {"batch_size": 12}, TrialState.PRUNED, 0.4, step=2)
    found = started(trial(), pruned)
    assert found.trials == (
        Trial(0, {"learning_rate": 1e-3, "batch_size": 8}, TrialState.COMPLETE, 0.5, source="pilot"),
        Trial(3, {"learning_rate": 1e-3, "batch_size": 12}, TrialState.PRUNED, 0.4, step=2, source="pilot"),
    )
    assert found.unfit == {}
    assert found.message == ""


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"learning_rate": 0.1}, "its 'learning_rate' is not a number from 1e-05 to 0.01"),
        ({"batch_size": 6}, "its 'batch_size' is not a number from 4 to 16 in steps of 4"),
        ({"model_arch": "FPN"}, "its 'model_arch' is 'FPN', and 'Unet' here"),
        ({"x_tag": 2}, "its 'x-tag' is 2, and 1 here"),
        ({"x_more": "a"}, "its 'x-more' is 'a', and None here"),
        ({"gamma": 0.5}, "its 'gamma' is 0.5, and 0.9 here"),
    ],
)
def test_what_does_not_fit_is_counted_and_named(changes: dict[str, Any], reason: str) -> None:
    found = started(trial(0, **changes), trial(1), trial(2, **changes))
    assert [t.number for t in found.trials] == [1]
    assert found.unfit == {f"Tune pilot: {reason}": 2}
    assert found.message == f"2 of 3 trials do not fit: Tune pilot: {reason} (2 trials)"


def test_a_hyperparameter_that_a_trial_does_not_name_had_its_default() -> None:
    found = started(Trial(0, {"learning-rate": 1e-3, "model_arch": "Unet", "x-tag": 1}, TrialState.COMPLETE, 0.5))
    assert found.trials[0].parameters == {"learning_rate": 1e-3, "batch_size": 8}
    assert started(trial(gamma=0.9)).trials


def test_an_extension_has_no_default() -> None:
    space = [ParameterSpec.model_validate({"name": "x-own", "type": "Int", "min": 1, "max": 4})]
    found = warm_start(space, [], OBJECTIVE, [Source("a", OBJECTIVE, [Trial(0, {}, TrialState.COMPLETE, 0.5)])])
    assert found.unfit == {"Tune a: it has no 'x-own'": 1}


def test_scores_of_another_objective_say_nothing() -> None:
    other = ObjectiveSpec.model_validate({"metrics": [{"name": "val/Recall"}]})
    found = started(trial(0), trial(1), objective=other)
    assert found.unfit == {"Tune pilot: its objective is another one": 2}
    spelled = {"metrics": [{"name": "val/JaccardIndex", "direction": "Maximize"}], "combine": "Min"}
    assert started(trial(0), objective=ObjectiveSpec.model_validate(spelled)).trials


@pytest.mark.parametrize("state", [s for s in TrialState if s not in ("Complete", "Pruned", "Unstable")])
def test_trials_that_say_nothing_are_not_counted(state: TrialState) -> None:
    found = started(trial(0, state), trial(1, state, learning_rate=0.5))
    assert found.trials == ()
    assert found.unfit == {}


def test_several_tunes() -> None:
    sources = [Source(name, OBJECTIVE, [trial(0), trial(1, learning_rate=0.5)]) for name in ("b", "a")]
    found = warm_start(SPACE, FIXED, OBJECTIVE, sources)
    assert [(t.source, t.number) for t in found.trials] == [("b", 0), ("a", 0)]
    assert sum(found.unfit.values()) == 2
    assert replace(found.trials[0], source="a") == found.trials[1]
