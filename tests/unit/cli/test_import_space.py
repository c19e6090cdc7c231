"""A Tune samples what its source means: every point lies in the source's space, and both ends of a range are in it.

What the source means is reckoned here from its documentation, apart from the importers.
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from crossfold_cli.importers.convert import FORMATS
from crossfold_cli.importers.located import from_yaml
from crossfold_cli.importers.shape import Reading
from crossfold_cli.importers.tune import Options, tune_of
from crossfold_operator.api.parameters import ParameterSpec
from crossfold_operator.search.space import Space, space_of

DRAWS = 30
CLOSE = 1e-9


@dataclass(frozen=True)
class Meaning:
    """A parameter as its source writes it, and what its documentation says of its values."""

    written: Any
    holds: Callable[[Any], bool]
    ends: tuple[Any, ...] = ()
    """Values that must be among the possible ones."""
    size: int | None = None
    """How many values there are, if they can be counted."""
    median: float | None = None
    """Half of the draws lie below: tells a scale from another."""


WHOLE = st.integers(-50, 50)
DECIMAL = st.floats(-50, 50, allow_nan=False).map(lambda x: round(x, 3))
POSITIVE = st.floats(1e-6, 50, allow_nan=False).map(lambda x: float(f"{x:.3g}"))


def pair(values: st.SearchStrategy[Any], least: float = 1e-2) -> st.SearchStrategy[tuple[Any, Any]]:
    return st.tuples(values, values).map(lambda p: (min(p), max(p))).filter(lambda p: p[1] - p[0] >= least)


def between(low: float, high: float) -> Callable[[Any], bool]:
    return lambda x: low - CLOSE <= x <= high + CLOSE


def whole_between(low: int, high: int) -> Callable[[Any], bool]:
    return lambda x: isinstance(x, int) and low <= x <= high


def continuous(written: Any, low: float, high: float, *, log: bool = False) -> Meaning:
    median = math.sqrt(low * high) if log else (low + high) / 2
    return Meaning(written, between(low, high), ends=(float(low), float(high)), median=median)


def reversed_log(written: Any, low: float, high: float) -> Meaning:
    """1 - x is log-uniform."""
    median = 1 - math.sqrt((1 - low) * (1 - high))
    return Meaning(written, between(low, high), ends=(low, high), median=median)


def integers(written: Any, low: int, high: int, step: int = 1) -> Meaning:
    values = range(low, high + 1, step)
    return Meaning(
        written, lambda x: isinstance(x, int) and x in values, ends=(values[0], values[-1]), size=len(values)
    )


def one_of(written: Any, values: list[Any]) -> Meaning:
    return Meaning(written, lambda x: x in values, ends=tuple(values), size=len(values))


def quantised(written: Any, low: float, high: float, q: float) -> Meaning:
    """Multiples of q that are within the bounds."""
    return Meaning(
        written,
        lambda x: between(low, high)(x) and abs(x / q - round(x / q)) < 1e-6,
        ends=(round(math.ceil(low / q - CLOSE) * q, 9), round(math.floor(high / q + CLOSE) * q, 9)),
    )


CHOICES = st.lists(st.sampled_from(["a", "1e-5", "yes", 1, 2.5, True, None]), min_size=1, max_size=4, unique_by=repr)
TEXTS = st.lists(st.sampled_from(["a", "1e-5", "yes", "16", ""]), min_size=1, max_size=4, unique=True)

DARTS = st.one_of(
    pair(WHOLE).map(lambda p: integers({"low": p[0], "high": p[1]}, *p)),
    pair(WHOLE).map(lambda p: integers({"distribution": "intuniform", "low": p[0], "high": p[1]}, *p)),
    pair(DECIMAL).map(lambda p: continuous({"low": p[0], "high": p[1]}, *p)),
    pair(st.one_of(WHOLE, DECIMAL)).map(
        lambda p: continuous({"distribution": "uniform", "low": p[0], "high": p[1]}, *p)
    ),
    pair(POSITIVE).map(lambda p: continuous({"distribution": "loguniform", "low": p[0], "high": p[1]}, *p, log=True)),
    pair(st.floats(0, 0.999).map(lambda x: round(x, 3)), least=0.05).map(
        lambda p: reversed_log({"distribution": "reversed_loguniform", "low": p[0], "high": p[1]}, *p)
    ),
    CHOICES.map(lambda v: one_of(v, v)),
    CHOICES.map(lambda v: one_of({"distribution": "choice", "choices": v}, v)),
)
WANDB = st.one_of(
    pair(WHOLE).map(lambda p: integers({"min": p[0], "max": p[1]}, *p)),
    pair(DECIMAL).map(lambda p: continuous({"min": p[0], "max": p[1]}, *p)),
    st.tuples(st.integers(-9, 0), st.floats(0.5, 9).map(lambda x: round(x, 2))).map(
        lambda p: continuous({"min": p[0], "max": p[1]}, *p)
    ),
    pair(POSITIVE).flatmap(
        lambda p: st.sampled_from(["log_uniform_values", "inv_log_uniform_values"]).map(
            lambda name: continuous({"distribution": name, "min": p[0], "max": p[1]}, *p, log=True)
        )
    ),
    st.tuples(pair(DECIMAL, least=10), st.sampled_from([0.1, 0.25, 2.5])).map(
        lambda p: quantised({"distribution": "q_uniform", "min": p[0][0], "max": p[0][1], "q": p[1]}, *p[0], p[1])
    ),
    CHOICES.map(lambda v: one_of({"values": v}, v)),
)
KATIB = st.one_of(
    st.tuples(pair(WHOLE), st.integers(1, 3))
    .filter(lambda p: p[0][1] - p[0][0] >= p[1])
    .map(
        lambda p: integers(
            ("int", {"min": str(p[0][0]), "max": str(p[0][1]), "step": str(p[1])}), p[0][0], p[0][1], p[1]
        )
    ),
    pair(st.one_of(WHOLE, DECIMAL)).map(lambda p: continuous(("double", {"min": str(p[0]), "max": str(p[1])}), *p)),
    pair(POSITIVE).map(
        lambda p: continuous(
            ("double", {"min": str(p[0]), "max": str(p[1]), "distribution": "logUniform"}), *p, log=True
        )
    ),
    TEXTS.map(lambda v: one_of(("categorical", {"list": v}), v)),
    st.lists(WHOLE, min_size=1, max_size=4, unique=True).map(
        lambda v: one_of(("discrete", {"list": [str(x) for x in v]}), v)
    ),
)
JOB = st.one_of(
    pair(st.one_of(WHOLE, DECIMAL)).map(lambda p: continuous({"uniform": {"min": str(p[0]), "max": str(p[1])}}, *p)),
    pair(WHOLE).map(lambda p: integers({"uniform": {"min": str(p[0]), "max": str(p[1]), "type": "Int"}}, *p)),
    pair(POSITIVE).map(lambda p: continuous({"logUniform": {"min": str(p[0]), "max": str(p[1])}}, *p, log=True)),
    TEXTS.map(lambda v: one_of({"categorical": {"choices": v}}, v)),
)


def judge(source: str, document: dict[str, Any], meanings: dict[str, Meaning]) -> None:
    reading = Reading()
    (located,) = from_yaml(json.dumps(document))
    search = FORMATS[source].read(located, reading)
    assert reading.errors == []
    spec = tune_of(search, Options(), "a").tune["spec"]
    space = space_of([ParameterSpec.model_validate(parameter) for parameter in spec["parameters"]])
    assert {dimension.name for dimension in space.dimensions} == set(meanings)
    drawn = [space.parameters(space.draw(rng)) for rng in (Random(seed) for seed in range(DRAWS))]
    for i, dimension in enumerate(space.dimensions):
        meaning = meanings[dimension.name]
        values = [point[dimension.name] for point in drawn]
        assert all(meaning.holds(value) for value in values), (meaning.written, values)
        assert all(has(space, i, value) for value in meaning.ends), (meaning.written, spec)
        if meaning.size is not None:
            assert dimension.size == meaning.size
        if meaning.median is not None:
            # On another scale the draws would pile up on one side. The examples are the same every time.
            below = sum(value < meaning.median for value in values)
            assert 4 <= below <= DRAWS - 4, (meaning.written, values)


def has(space: Space, index: int, value: Any) -> bool:
    return space.dimensions[index].coordinate(value) is not None


def named(values: st.SearchStrategy[Meaning]) -> st.SearchStrategy[dict[str, Meaning]]:
    return st.lists(values, min_size=1, max_size=5).map(lambda found: {f"x-p{i}": m for i, m in enumerate(found)})


@settings(max_examples=25, derandomize=True)
@given(named(DARTS))
def test_darts(meanings: dict[str, Meaning]) -> None:
    judge("darts", {"hyperparameters": {name: m.written for name, m in meanings.items()}}, meanings)


@settings(max_examples=25, derandomize=True)
@given(named(WANDB))
def test_wandb(meanings: dict[str, Meaning]) -> None:
    judge("wandb", {"method": "random", "parameters": {name: m.written for name, m in meanings.items()}}, meanings)


@settings(max_examples=25, derandomize=True)
@given(named(KATIB))
def test_katib(meanings: dict[str, Meaning]) -> None:
    parameters = [
        {"name": name, "parameterType": m.written[0], "feasibleSpace": m.written[1]} for name, m in meanings.items()
    ]
    judge(
        "katib",
        {"apiVersion": "kubeflow.org/v1beta1", "kind": "Experiment", "spec": {"parameters": parameters}},
        meanings,
    )


@settings(max_examples=25, derandomize=True)
@given(named(JOB))
def test_optimization_job(meanings: dict[str, Meaning]) -> None:
    parameters = [{"name": name, "searchSpace": m.written} for name, m in meanings.items()]
    judge(
        "optimizationjob",
        {
            "apiVersion": "trainer.kubeflow.org/v1alpha1",
            "kind": "OptimizationJob",
            "spec": {"objectives": [{"metric": "loss"}], "parameters": parameters},
        },
        meanings,
    )
