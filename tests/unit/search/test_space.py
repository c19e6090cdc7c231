from decimal import Decimal
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossfold_operator.api.parameters import ParameterSpec
from crossfold_operator.search.history import Trial, TrialState
from crossfold_operator.search.space import space_of


def parameter(name: str = "x-p", **fields: Any) -> ParameterSpec:
    return ParameterSpec.model_validate({"name": name, **fields})


def values(**fields: Any) -> list[Any]:
    space = space_of([parameter(**fields)])
    assert space.size is not None
    return [next(iter(space.parameters(space.at(i)).values())) for i in range(space.size)]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"type": "Float", "min": 0.1, "max": 0.5, "step": 0.1}, [0.1, 0.2, 0.3, 0.4, 0.5]),
        ({"type": "Float", "min": 0, "max": 1, "step": 0.3}, [0.0, 0.3, 0.6, 0.9]),
        ({"type": "Float", "min": -0.3, "max": 0.3, "step": 0.1}, [-0.3, -0.2, -0.1, 0.0, 0.1, 0.2, 0.3]),
        ({"type": "Float", "min": 1e-5, "max": 3e-5, "step": 1e-5}, [1e-5, 2e-5, 3e-5]),
        ({"type": "Float", "min": 0, "max": 1, "step": 3}, [0.0]),
        ({"type": "Int", "min": 4, "max": 16, "step": 4}, [4, 8, 12, 16]),
        ({"type": "Int", "min": 4, "max": 15, "step": 4}, [4, 8, 12]),
        ({"type": "Int", "min": -1, "max": 1}, [-1, 0, 1]),
        ({"type": "Int", "min": 1, "max": 5, "scale": "Log"}, [1, 2, 3, 4, 5]),
        (
            {"type": "Categorical", "values": ["a", None, ["b", "c"], {"k": 1}, True, 1]},
            ["a", None, ["b", "c"], {"k": 1}, True, 1],
        ),
        ({"name": "batch_size", "type": "Categorical", "values": [8.0, 16]}, [8, 16]),
        ({"name": "learning_rate", "type": "Categorical", "values": [1, 0.1]}, [1.0, 0.1]),
    ],
)
def test_counted_values(fields: dict[str, Any], expected: list[Any]) -> None:
    found = values(**fields)
    assert found == expected
    assert [type(value) for value in found] == [type(value) for value in expected]


def test_two_points_are_one_when_their_values_are() -> None:
    space = space_of(
        [
            parameter("learning-rate", type="Float", min=1e-5, max=1e-2, scale="Log"),
            parameter("batch_size", type="Int", min=4, max=16, step=4),
            parameter("augment", type="Categorical", values=[[], ["D4"], ["Blur", "D4"]]),
        ]
    )
    point = space.point({"learning_rate": 0.001, "batch_size": 8, "augment": ["D4"]})
    assert point is not None
    assert point == space.point(
        {"learning-rate": 0.0010000000000000002, "batch-size": 8.0, "augment": ("D4",), "x-more": 1}
    )
    assert point != space.point({"learning_rate": 0.00100000000001, "batch_size": 8, "augment": ["D4"]})


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"learning_rate": 0.001},
        {"learning_rate": 0.001, "batch_size": 9},
        {"learning_rate": 0.001, "batch_size": 20},
        {"learning_rate": 0.02, "batch_size": 8},
        {"learning_rate": "0.001", "batch_size": 8},
        {"learning_rate": None, "batch_size": True},
        {"learning_rate": float("nan"), "batch_size": [8]},
    ],
)
def test_values_of_another_space_have_no_point(parameters: dict[str, Any]) -> None:
    space = space_of(
        [
            parameter("learning_rate", type="Float", min=1e-5, max=1e-2, scale="Log"),
            parameter("batch_size", type="Int", min=4, max=16, step=4),
        ]
    )
    assert space.point(parameters) is None


def test_great_integers_are_told_apart_to_their_last_digit() -> None:
    base = 10**15
    (steps,) = space_of([parameter(type="Int", min=base, max=2 * base, step=10)]).dimensions
    assert [steps.coordinate(base + i) for i in (10, 3, 11)] == [1, None, None]
    assert steps.coordinate(float(base + 10)) == 1
    (choices,) = space_of([parameter(type="Categorical", values=[base, base + 1])]).dimensions
    assert choices.coordinate(float(base + 1)) == 1


def test_sizes() -> None:
    grid = [parameter(f"x-{i}", type="Int", min=1, max=1000) for i in range(4)]
    assert space_of(grid).size == 10**12
    assert space_of([*grid, parameter("x-f", type="Float", min=0, max=1)]).size is None
    with pytest.raises(ValueError, match="x-f"):
        space_of([*grid, parameter("x-f", type="Float", min=0, max=1)]).at(0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"type": "Float", "min": 1}, "needs min and max"),
        ({"type": "Int", "min": 2, "max": 1}, "min below max"),
        ({"type": "Categorical"}, "no values"),
        ({"type": "Float", "min": 0.1, "max": 1, "scale": "ReverseLog"}, "ReverseLog"),
    ],
)
def test_a_spec_that_admission_would_refuse_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        space_of([parameter(**fields)])


bounds = st.floats(-1e6, 1e6, allow_subnormal=False).map(lambda v: round(v, 3))


@given(bounds, st.floats(0.01, 1e4), st.floats(0.001, 10), st.integers(0, 2**32))
def test_stepped_floats_stay_on_their_grid(low: float, width: float, step: float, seed: int) -> None:
    high, step = round(low + width, 3), round(step, 3)
    if high <= low or step == 0:
        return
    space = space_of([parameter(type="Float", min=low, max=high, step=step)])
    point = space.draw(Random(seed))
    value = space.parameters(point)["x-p"]
    assert low <= value <= high
    assert (Decimal(repr(value)) - Decimal(repr(low))) % Decimal(repr(step)) == 0
    assert space.point({"x-p": value}) == point
    assert space.at(space.index(point)) == point
    assert len(repr(value)) <= 14


@given(st.floats(1e-9, 1e3), st.floats(1.01, 1e6), st.booleans(), st.integers(0, 2**32))
def test_ranges_stay_inside_their_bounds(low: float, ratio: float, log: bool, seed: int) -> None:
    space = space_of([parameter(type="Float", min=low, max=low * ratio, scale="Log" if log else "Linear")])
    point = space.draw(Random(seed))
    value = space.parameters(point)["x-p"]
    assert low <= value <= low * ratio
    assert space.point({"x-p": value}) == point


@given(st.integers(1, 100), st.integers(1, 10_000), st.integers(0, 2**32))
def test_log_integers_are_integers_inside_their_bounds(low: int, width: int, seed: int) -> None:
    space = space_of([parameter(type="Int", min=low, max=low + width, scale="Log")])
    value = space.parameters(space.draw(Random(seed)))["x-p"]
    assert isinstance(value, int)
    assert low <= value <= low + width


@given(st.floats(-10, 0.9), st.floats(1e-6, 0.99), st.floats(0, 1))
def test_reverse_log_stays_inside_its_bounds(low: float, share: float, position: float) -> None:
    high = low + (1 - low) * share
    space = space_of([parameter(type="Float", min=low, max=high, scale="ReverseLog")])
    (dimension,) = space.dimensions
    value = dimension.value(dimension.at(position))
    assert low <= value <= high
    coordinate = dimension.coordinate(value)
    assert coordinate is not None
    assert dimension.value(coordinate) == value
    assert dimension.coordinate(dimension.value(coordinate)) == coordinate
    assert dimension.coordinate(high + (1 - high) / 2) is None


def test_reverse_log_prefers_values_near_one() -> None:
    space = space_of([parameter(type="Float", min=0, max=0.999, scale="ReverseLog")])
    rng = Random(4)
    drawn = [space.parameters(space.draw(rng))["x-p"] for _ in range(3000)]
    for low, high in ((0, 0.9), (0.9, 0.99), (0.99, 0.999)):
        assert 0.29 < sum(low <= value <= high for value in drawn) / 3000 < 0.38
    assert space.dimensions[0].value(space.dimensions[0].at(1.0)) == 0.0
    assert space.point({"x-p": 0.9}) == (0.1,)
    assert space.point({"x-p": 1}) is None


@pytest.mark.parametrize(
    "fields",
    [
        {"type": "Float", "min": 1e-5, "max": 1e-2, "scale": "Log"},
        {"type": "Float", "min": -3, "max": 7},
        {"type": "Float", "min": 0.1, "max": 0.995, "scale": "ReverseLog"},
        {"type": "Int", "min": 2, "max": 300, "scale": "Log"},
        {"type": "Int", "min": 4, "max": 32, "step": 4},
        {"type": "Categorical", "values": ["a", None, [1]]},
    ],
)
def test_a_position_leads_back_to_its_coordinate(fields: dict[str, Any]) -> None:
    (dimension,) = space_of([parameter(**fields)]).dimensions
    for i in range(101):
        coordinate = dimension.at(i / 100)
        position = dimension.position(coordinate)
        assert 0 <= position <= 1
        again = dimension.at(position)
        assert again == coordinate if dimension.size else again == pytest.approx(coordinate, rel=1e-9)
        assert dimension.coordinate(dimension.value(coordinate)) is not None
    assert dimension.value(dimension.at(0)) == dimension.value(dimension.first)
    assert dimension.value(dimension.at(1)) == dimension.value(dimension.last)


def test_who_is_at_a_point() -> None:
    mixed = space_of(
        [
            parameter("batch_size", type="Int", min=4, max=16, step=4),
            parameter("learning_rate", type="Float", min=1e-5, max=1e-2),
            parameter("augment", type="Categorical", values=[[], ["D4"]]),
        ]
    )
    here = {"batch_size": 8, "learning_rate": 0.001, "augment": ["D4"]}
    point = mixed.point(here)
    assert point is not None
    others = [here | {"batch_size": 4}, here | {"learning_rate": 0.00100000000002}, here | {"augment": []}, {}]
    assert not mixed.has([Trial(i, other, TrialState.RUNNING) for i, other in enumerate(others)], point)
    for same in (here, {"batch-size": 8.0, "learning-rate": 0.0010000000000000002, "augment": ("D4",)}):
        assert mixed.has([Trial(0, others[0], TrialState.RUNNING), Trial(1, same, TrialState.FAILED)], point)


def test_who_is_at_a_point_of_a_finite_space() -> None:
    finite = space_of(
        [
            parameter("batch_size", type="Int", min=4, max=16, step=4),
            parameter("augment", type="Categorical", values=[[], ["D4"]]),
        ]
    )
    here = {"batch_size": 8, "augment": ["D4"]}
    point = finite.point(here)
    assert point is not None
    others = [here | {"batch_size": 4}, here | {"augment": []}, {"augment": ["D4"]}, {}]
    assert not finite.has([Trial(i, other, TrialState.RUNNING) for i, other in enumerate(others)], point)
    for same in (here, {"batch-size": 8.0, "augment": ("D4",)}):
        assert finite.has([Trial(0, others[0], TrialState.RUNNING), Trial(1, same, TrialState.FAILED)], point)


def test_log_prefers_small_values() -> None:
    space = space_of([parameter(type="Int", min=1, max=1000, scale="Log")])
    drawn = [space.parameters(space.draw(Random(i)))["x-p"] for i in range(300)]
    assert 80 <= sum(value <= 10 for value in drawn) <= 160
