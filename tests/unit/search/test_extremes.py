"""Every algorithm can ask on every space that admission and the condition Valid let through, however odd it is."""

import json
import math
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossfold_operator import problems
from crossfold_operator.api.tune import TuneSpec
from crossfold_operator.cluster.admission import admit
from crossfold_operator.search.history import Trial, TrialState
from crossfold_operator.search.sampler import ask
from crossfold_operator.search.space import space_of
from crossfold_trainer.contract.metrics import Direction
from tests.fakes import world as w

EVERY = {
    "TPE": {"startupTrials": 1},
    "GP": {"startupTrials": 1},
    "CMAES": {"populationSize": 4},
    "Sobol": {},
    "Random": {},
    "Grid": {},
}
"""Settings with which models choose from the second trial on."""
EDGES = [0.0, 5e-324, 1e-300, 1e-12, 0.1, 0.3, 1 - 1e-9, 1 - 1e-10, 1.0, 2.0**52, 2.0**53, 2.0**63, 1e300, 1e301, 1e308]

SIZED = st.one_of(
    st.sampled_from(EDGES),
    st.floats(-320, 308).map(lambda exponent: 10**exponent),
    st.floats(-12, 0).map(lambda exponent: 1 - 10**exponent),
    st.integers(0, 2**53).map(float),
)
BOUND = st.tuples(SIZED, st.sampled_from([1, -1])).map(math.prod)
SHARE = st.floats(-12, 1).map(lambda exponent: 10**exponent)
CHOICE = st.sampled_from(
    [1, 1.0, True, "1", 0, False, "", None, 2**60, 1e300, -1e-300, [], [1], [True], {}, {"a": 1}, {"a": True}]
)
CATEGORICAL = st.lists(CHOICE, min_size=1, max_size=6).map(lambda values: {"type": "Categorical", "values": values})


@st.composite
def ranges(draw: st.DrawFn) -> dict[str, Any]:
    """A Float or Int range: wide, narrow, far from 0, near to 1, with any step."""
    low = draw(BOUND)
    high = draw(st.one_of(BOUND, SHARE.map(lambda share: low + abs(low) * share)))
    low, high = min(low, high), max(low, high)
    kind = draw(st.sampled_from(["Float", "Int"]))
    scale = draw(st.sampled_from([None, "Linear", "Log", "ReverseLog"]))
    step = None
    if scale in (None, "Linear"):
        step = draw(st.one_of(st.none(), SIZED, SHARE.map(lambda share: (high / 2 - low / 2) * share)))
    if kind == "Int" and math.isfinite(low) and math.isfinite(high):
        low, high, step = float(math.floor(low)), float(math.ceil(high)), step and float(max(1, math.floor(step)))
    found = {"type": kind, "min": low, "max": high, "scale": scale, "step": step}
    return {field: value for field, value in found.items() if value is not None}


def accepted(parameters: list[dict[str, Any]], algorithm: dict[str, Any]) -> TuneSpec | None:
    """The spec, where an API server and the operator would act on it."""
    admitted, found = admit(w.tune(parameters=parameters, algorithm=algorithm))
    if found:
        return None
    spec = TuneSpec.model_validate(admitted["spec"])
    return None if problems.of_spec(spec) else spec


def search(spec: TuneSpec, trials: int) -> None:
    """Ask, and tell some score, as long as the space has points: all different, all in the space, also as JSON."""
    space = space_of(spec.parameters)
    rng = Random(7)
    history: list[Trial] = []
    points = set()
    for number in range(trials):
        asked = ask(spec.parameters, spec.algorithm, Direction.MAXIMIZE, history, number)
        if asked is None:
            assert space.size == number
            return
        stored = json.loads(json.dumps(asked, allow_nan=False))
        point = space.point(stored)
        assert point is not None, stored
        assert point not in points, stored
        points.add(point)
        history.append(Trial(number, stored, TrialState.COMPLETE, rng.random()))


@pytest.mark.filterwarnings("error")
@settings(max_examples=40)
@given(st.lists(st.one_of(ranges(), ranges(), CATEGORICAL), min_size=1, max_size=3))
def test_what_is_accepted_can_be_asked(drawn: list[dict[str, Any]]) -> None:
    named = [{"name": f"x-{i}", **fields} for i, fields in enumerate(drawn)]
    good = [each for each in named if accepted([each], {"name": "Random"})]
    for name, set_to in EVERY.items():
        if good and (spec := accepted(good, {"name": name, "settings": set_to})):
            search(spec, 4)


FULL_INT = {"type": "Int", "min": -(2**53) + 1, "max": 2**53, "step": 1}
EXTREMES = [
    {"type": "Float", "min": -1e300, "max": 1e300},
    {"type": "Float", "min": 1e-300, "max": 1e300, "scale": "Log"},
    {"type": "Float", "min": -1e300, "max": 1 - 1e-9, "scale": "ReverseLog"},
    {"type": "Float", "min": 1, "max": 1 + 1.1e-6, "scale": "Log"},
    {"type": "Float", "min": 0, "max": 1e-299},
    {"type": "Float", "min": -1e300, "max": 1e300, "step": 1.1e289},
    {"type": "Float", "min": 0.2, "max": 0.3, "step": 0.1},
    FULL_INT,
    {"type": "Int", "min": 1, "max": 2**53, "scale": "Log"},
    {"type": "Int", "min": 2**53 - 2**34, "max": 2**53, "scale": "Log"},
    {"type": "Categorical", "values": [1, True, "1", None, [1], [True]]},
    {"type": "Categorical", "values": list(range(100))},
]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("fields", EXTREMES, ids=str)
def test_the_extremes(fields: dict[str, Any], name: str) -> None:
    spec = accepted([{"name": "x-a", **fields}], {"name": name, "settings": EVERY[name]})
    categorical, stepped = fields["type"] == "Categorical", "step" in fields
    if (name == "Grid" and not (categorical or stepped)) or (name == "CMAES" and categorical):
        assert spec is None
        return
    assert spec is not None
    search(spec, 8)


@pytest.mark.parametrize("name", EVERY)
def test_64_parameters_of_all_integers(name: str) -> None:
    parameters = [{"name": f"x-{i}", **FULL_INT} for i in range(64)]
    spec = accepted(parameters, {"name": name, "settings": EVERY[name]})
    assert spec is not None
    search(spec, 3)
