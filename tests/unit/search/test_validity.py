from typing import Any

import pytest

from crossfold_operator.api.algorithm import SETTINGS, AlgorithmName, AlgorithmSpec
from crossfold_operator.api.parameters import TOO_LARGE, InitialTrial, ParameterSpec, ParameterType
from crossfold_operator.search.validity import initial_problems, search_problems, value_problems


def parameter(name: str = "x-p", **fields: Any) -> ParameterSpec:
    return ParameterSpec.model_validate({"name": name, **fields})


def trial(*values: tuple[str, Any]) -> InitialTrial:
    return InitialTrial.model_validate({"parameters": [{"name": name, "value": value} for name, value in values]})


@pytest.mark.parametrize(
    ("parameters", "problems"),
    [
        ([parameter("learning_rate", type="Float", min=1e-5, max=1e-2, scale="Log")], []),
        ([parameter("focal_loss_alpha", type="Categorical", values=[None, 0.25])], []),
        ([parameter("x-mine", type="Categorical", values=[{"a": 1}, [1], "b", None])], []),
        (
            [parameter("batch_size", type="Categorical", values=[8, "x"])],
            [
                "spec.parameters[0].values[1]: hyperparameter 'batch_size' must be an integer of at least 1, not 'x': change or remove it"
            ],
        ),
        (
            [parameter("batch_size", type="Categorical", values=[8, 4, 8.0])],
            ["spec.parameters[0].values[2]: 8.0 is the same value as values[0]: remove one"],
        ),
        (
            [parameter("x-a", type="Categorical", values=[1, 1.0])],
            ["spec.parameters[0].values[1]: 1.0 is the same value as values[0]: remove one"],
        ),
        ([parameter("x-a", type="Categorical", values=[True, 1, 0, False, None, ""])], []),
        (
            [parameter("model_arch", type="Float", min=0, max=1)],
            [
                "spec.parameters[0].type: 'model_arch' must be the name of an architecture: use type Categorical and list the values"
            ],
        ),
        (
            [parameter("batch_size", type="Float", min=4, max=16, step=4)],
            ["spec.parameters[0].type: 'batch_size' must be an integer of at least 1: use type Int"],
        ),
        (
            [parameter("gamma", type="Float", min=0.5, max=1.5)],
            ["spec.parameters[0].max: hyperparameter 'gamma' must be a number in (0, 1], not 1.5: change max"],
        ),
        (
            [parameter("batch_size", type="Int", min=0, max=16, step=4)],
            ["spec.parameters[0].min: hyperparameter 'batch_size' must be an integer of at least 1, not 0: change min"],
        ),
        (
            [
                parameter("learning-rate", type="Float", min=1e-5, max=1e-2),
                parameter("learning_rate", type="Float", min=1e-5, max=1e-2),
            ],
            ["spec.parameters[1].name: 'learning_rate' is parameters[0] once more ('-' equals '_'): remove one"],
        ),
        (
            [parameter("learning_rate", type="Float", min=0.001, max=0.001 + 1e-13)],
            [
                "spec.parameters[0]: min and max are almost the same: widen the range, or move 'learning_rate' to spec.fixed"
            ],
        ),
        (
            [parameter("x-a", type="Float", min=1e6, max=1e6 + 1, step=1e-9)],
            ["spec.parameters[0].step: 1e-09 is too fine: values must differ in their first 12 digits; raise it"],
        ),
        (
            [parameter("x-a", type="Int", min=0, max=2**60)],
            [f"spec.parameters[0]: {TOO_LARGE[ParameterType.INT]}"],
        ),
        *(
            (
                [parameter("x-a", type="Float", min=low, max=high)],
                [f"spec.parameters[0]: {TOO_LARGE[ParameterType.FLOAT]}"],
            )
            for low, high in ((0, float("inf")), (float("nan"), 1), (-1e308, 1e308), (-1.1e300, 0))
        ),
        ([parameter("x-a", type="Float", min=-1e300, max=1e300)], []),
        ([parameter("x-a", type="Int", min=-(2**53), max=2**53)], []),
        # Distances from 1 count under ReverseLog: 1 - 1e-20 is 1.
        (
            [parameter("x-a", type="Float", min=-1e-20, max=1e-20, scale="ReverseLog")],
            ["spec.parameters[0]: min and max are almost the same: widen the range, or move 'x-a' to spec.fixed"],
        ),
        (
            [parameter("x-a", type="Float", min=0, max=1e-310)],
            ["spec.parameters[0]: min and max are almost the same: widen the range, or move 'x-a' to spec.fixed"],
        ),
        (
            [parameter("x-a", type="Float", min=0, max=1, step=1e-305)],
            ["spec.parameters[0].step: 1e-305 is too fine: values must differ in their first 12 digits; raise it"],
        ),
        (
            [parameter("x-a", type="Int", min=10**15, max=10**15 + 5, scale="Log")],
            [
                "spec.parameters[0]: min and max are almost the same on a logarithmic scale: widen the range, or use scale Linear"
            ],
        ),
        ([parameter("x-a", type="Int", min=10**15, max=10**15 + 5)], []),
        # The remedy of the next one.
        ([parameter("x-a", type="Float", min=0.5, max=0.999999999, scale="ReverseLog")], []),
        (
            [parameter("x-a", type="Float", min=0.5, max=1 - 1e-11, scale="ReverseLog")],
            ["spec.parameters[0].max: values so near to 1 cannot be told apart: lower it to 0.999999999 or less"],
        ),
    ],
)
def test_value_problems(parameters: list[ParameterSpec], problems: list[str]) -> None:
    assert value_problems(parameters) == problems


SPACE = [
    parameter("batch_size", type="Int", min=4, max=16, step=4),
    parameter("gamma", type="Float", min=0.5, max=0.99, scale="ReverseLog"),
    parameter("x-cut", type="Categorical", values=[[], ["D4"], None]),
]


@pytest.mark.parametrize(
    ("initial", "problems"),
    [
        ([trial(("batch-size", 8), ("gamma", 0.9), ("x-cut", None)), trial(("x-cut", None))], []),
        (
            [trial(("gamma", 0.9)), trial(("batch_size", 6))],
            [
                "spec.initialTrials[1].parameters[0]: 'batch_size' must be a number from 4 to 16 in steps of 4, not 6: change it"
            ],
        ),
        (
            [trial(("gamma", 1.0), ("x-cut", ["Blur"]))],
            [
                "spec.initialTrials[0].parameters[0]: 'gamma' must be a number from 0.5 to 0.99, not 1.0: change it",
                "spec.initialTrials[0].parameters[1]: 'x-cut' must be one of [], [\"D4\"], null, not ['Blur']: change it",
            ],
        ),
        (
            [trial(("depth", 3))],
            [
                "spec.initialTrials[0].parameters[0]: 'depth' is no parameter of the search: use batch_size, gamma, x-cut"
            ],
        ),
        (
            [trial(("batch_size", 4), ("batch-size", 8))],
            ["spec.initialTrials[0].parameters[1]: 'batch_size' is given twice ('-' equals '_'): remove one"],
        ),
        (
            [trial(("batch_size", 4), ("gamma", 0.9), ("x-cut", []))] * 2,
            ["spec.initialTrials[1]: is initialTrials[0] once more: remove one"],
        ),
    ],
)
def test_initial_problems(initial: list[InitialTrial], problems: list[str]) -> None:
    assert initial_problems(SPACE, initial) == problems


@pytest.mark.parametrize(
    "fields",
    [
        {"type": "Float", "min": 0, "max": 1},
        {"type": "Float", "min": 0, "max": 1, "step": 0.5},
        {"type": "Float", "min": 0, "max": 0.5, "scale": "ReverseLog"},
        {"type": "Int", "min": 1, "max": 9, "scale": "Log"},
        {"type": "Categorical", "values": [1]},
    ],
)
def test_an_initial_value_that_no_float_holds(fields: dict[str, Any]) -> None:
    (problem,) = initial_problems([parameter("x-a", **fields)], [trial(("x-a", 10**400))])
    assert problem.startswith("spec.initialTrials[0].parameters[0]: 'x-a' must be ")


def test_initial_trials_are_judged_by_a_space_that_is_in_order() -> None:
    broken = [parameter("batch_size", type="Categorical", values=[8, "x"])]
    found = search_problems(broken, AlgorithmSpec(), [trial(("batch_size", 3))])
    assert len(found) == 1
    assert found[0].startswith("spec.parameters[0].values[1]")


def test_settings_of_a_spec_that_was_stored_before_the_rules() -> None:
    stored = AlgorithmSpec.model_construct(name=AlgorithmName.GP, settings={"candidates": 5.0, "startupTrials": 0.0})
    assert search_problems(SPACE, stored, []) == [
        "spec.algorithm.settings: algorithm GP has the settings startupTrials (a whole number from 1 to 1000): remove 'candidates'",
        "spec.algorithm.settings: setting startupTrials must be a whole number from 1 to 1000",
    ]


def test_defaults_fit_and_a_name_has_one_range() -> None:
    ranges: dict[str, tuple[float, float, bool]] = {}
    for settings in SETTINGS.values():
        for name, setting in settings.items():
            assert setting.default is None or setting.fits(setting.default)
            found = (setting.low, setting.high, setting.whole)
            assert ranges.setdefault(name, found) == found
