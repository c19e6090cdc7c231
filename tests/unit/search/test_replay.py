"""A history determines the suggestion that follows it, whatever was asked before and however it was stored."""

import json
import random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from crossfold_operator.api.algorithm import AlgorithmSpec
from crossfold_operator.api.parameters import InitialTrial, ParameterSpec
from crossfold_operator.search import sampler
from crossfold_operator.search.history import Trial, TrialState, digest
from crossfold_operator.search.sampler import ask
from crossfold_trainer.contract.metrics import Direction


def parameter(name: str, **fields: Any) -> ParameterSpec:
    return ParameterSpec.model_validate({"name": name, **fields})


SPACE = [
    parameter("learning_rate", type="Float", min=1e-5, max=1e-2, scale="Log"),
    parameter("batch_size", type="Int", min=4, max=16, step=4),
    parameter("gamma", type="Float", min=0.5, max=0.99, scale="ReverseLog"),
    parameter("augment", type="Categorical", values=[[], ["D4"], None]),
    parameter("x-width", type="Int", min=1, max=300, scale="Log"),
]
INITIAL = [InitialTrial.model_validate({"parameters": [{"name": "augment", "value": None}]})]
scores = st.floats(-1, 1, width=32)
outcomes = st.lists(
    st.tuples(st.sampled_from(list(TrialState)), scores, st.integers(1, 4), st.booleans()), min_size=0, max_size=40
)


def told(seed: int, found: list[tuple[TrialState, float, int, bool]]) -> list[Trial]:
    """Trials at random points, some of them of another Tune."""
    points = [ask(SPACE, AlgorithmSpec(name="Random", seed=seed), Direction.MAXIMIZE, [], n) for n in range(len(found))]
    return [
        Trial(
            number,
            {} if state is TrialState.DELETED else points[number] or {},
            TrialState.COMPLETE if foreign else state,
            score if foreign or state in (TrialState.COMPLETE, TrialState.PRUNED) else None,
            step if state is TrialState.PRUNED and not foreign else 0,
            "pilot" if foreign else "",
        )
        for number, (state, score, step, foreign) in enumerate(found)
    ]


def stored(trials: list[Trial], rng: random.Random) -> list[Trial]:
    """As a restarted operator reads them: through JSON, in any order."""
    back = [Trial(t.number, json.loads(json.dumps(t.parameters)), t.state, t.value, t.step, t.source) for t in trials]
    rng.shuffle(back)
    return back


@settings(max_examples=40)
@given(
    st.builds(
        lambda name, seed: AlgorithmSpec.model_validate({"name": name, "seed": seed}),
        st.sampled_from(["TPE", "Random", "Sobol", "CMAES", "GP"]),
        st.integers(0, 2**31 - 1),
    ),
    st.sampled_from(list(Direction)),
    outcomes,
    st.integers(0, 60),
    st.randoms(use_true_random=False),
)
def test_the_history_determines_the_suggestion(
    algorithm: AlgorithmSpec,
    direction: Direction,
    found: list[tuple[TrialState, float, int, bool]],
    number: int,
    rng: random.Random,
) -> None:
    trials = told(algorithm.seed, found)
    sampler.forget()
    cold = ask(SPACE, algorithm, direction, trials, number, initial=INITIAL)
    # Other questions leave something behind: those of a part of the history, and the next one.
    ask(SPACE, algorithm, direction, trials[: len(trials) // 2], number, initial=INITIAL)
    ask(SPACE, algorithm, direction, trials, number + 1, initial=INITIAL)
    assert ask(SPACE, algorithm, direction, trials, number, initial=INITIAL) == cold
    known = digest(trials)
    sampler.forget()
    back = stored(trials, rng)
    assert ask(SPACE, algorithm, direction, back, number, initial=INITIAL) == cold
    assert digest(back) == known
