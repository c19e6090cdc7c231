"""What is wrong with a spec that the API server let through."""

from typing import Any

import pytest
from pydantic import ValidationError

from crossfold_operator import problems
from crossfold_operator.api.crossvalidation import CrossValidationSpec
from crossfold_operator.api.fields import NamedValue
from crossfold_operator.api.trainrun import TrainRunSpec
from crossfold_operator.api.tune import TuneSpec
from crossfold_operator.names import Kind
from tests.fakes import world as w

SPECS: dict[Kind, tuple[Any, Any]] = {
    Kind.TUNE: (TuneSpec, w.tune),
    Kind.CROSS_VALIDATION: (CrossValidationSpec, w.cross_validation),
    Kind.TRAIN_RUN: (TrainRunSpec, w.train_run),
}


def of(kind: Kind, **changes: Any) -> list[str]:
    model, base = SPECS[kind]
    return problems.of_spec(model.model_validate(base(**changes)["spec"]))


@pytest.mark.parametrize("kind", SPECS)
def test_a_good_spec_has_none(kind: Kind) -> None:
    assert of(kind) == []


def values(*pairs: tuple[str, Any]) -> list[dict[str, Any]]:
    return [{"name": name, "value": value} for name, value in pairs]


@pytest.mark.parametrize(
    ("kind", "field", "path"),
    [
        (Kind.TUNE, "fixed", "spec.fixed"),
        (Kind.CROSS_VALIDATION, "hyperparameters", "spec.hyperparameters"),
        (Kind.TRAIN_RUN, "hyperparameters", "spec.hyperparameters"),
    ],
)
def test_each_problem_names_its_place(kind: Kind, field: str, path: str) -> None:
    found = of(kind, **{field: values(("gamma", 0.5), ("gamma", 0.6), ("learning-rate", "fast"), ("depth", 3))})
    assert found[:2] == [
        f"{path}[1]: hyperparameter 'gamma' is given twice",
        f"{path}[2]: hyperparameter 'learning_rate' must be a number above 0, not 'fast'",
    ]
    assert found[2].startswith(f"{path}[3]: unknown hyperparameter 'depth'; did you mean '")
    assert len(found) == 3


def test_problems_end_somewhere() -> None:
    assert len(of(Kind.TRAIN_RUN, hyperparameters=values(*((f"x-{i}", 1) for i in range(50))))) == 0
    many = [NamedValue(name="gamma", value=9)] * 50
    assert len(problems.of_values(many, "p")) == 50
    assert len(of(Kind.TRAIN_RUN, hyperparameters=values(*(("gamma", 9) for _ in range(50))))) == problems.MAX_PROBLEMS


def test_a_models_complaints_name_the_field() -> None:
    with pytest.raises(ValidationError) as caught:
        TuneSpec.model_validate(w.tune(maxTrials=0, parameters=[{"name": "gamma", "type": "Real"}])["spec"])
    found = problems.of_error(caught.value)
    assert any(text.startswith("spec.maxTrials: ") for text in found)
    assert any(text.startswith("spec.parameters[0].type: ") for text in found)
    assert not any("pydantic" in text for text in found)


@pytest.mark.parametrize(
    ("kind", "changes", "words"),
    [
        (Kind.TUNE, {"objective": {"metrics": [{"name": "val/Mine"}]}}, "val/Mine is unknown and must say its direction"),
        (Kind.TRAIN_RUN, {"objective": {"metrics": [{"name": "val/Mine"}]}}, "must say its direction"),
        (Kind.TRAIN_RUN, {"fold": 5}, "spec.fold: must be below folds"),
        (Kind.TUNE, {"crossValidation": {"folds": 93, "randomSeeds": 14}}, "spec.crossValidation: folds run times"),
        (Kind.CROSS_VALIDATION, {"crossValidation": {"folds": 31, "randomSeeds": 10}}, "must not exceed 300"),
        (Kind.TUNE, {"parameters": [{"name": "gamma", "type": "Float", "min": 0.1}]}, "needs min and max"),
        (Kind.TUNE, {"parameters": [{"name": "x-a", "type": "Float", "min": 2, "max": 1}]}, "min"),
        (Kind.TUNE, {"parameters": [{"name": "x-a", "type": "Float", "min": 0, "max": 1, "scale": "Log"}],
                     "algorithm": {"name": "Random"}}, "min above 0"),
        (Kind.TUNE, {"parameters": [{"name": "x-a", "type": "Float", "min": 0, "max": 1}]}, "algorithm Grid needs"),
        (Kind.TUNE, {"parameters": [{"name": "x-a", "type": "Categorical"}]}, "needs values"),
    ],
)  # fmt: skip
def test_what_earlier_rules_may_have_let_through(kind: Kind, changes: dict[str, Any], words: str) -> None:
    (found,) = of(kind, **changes)
    assert found.startswith("spec")
    assert words in found
