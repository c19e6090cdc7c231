import logging
import math
import random
import statistics
import time
import warnings
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossfold_operator.api.parameters import ParameterSpec
from crossfold_operator.api.tune import AlgorithmSpec
from crossfold_operator.search.history import Trial, TrialState
from crossfold_operator.search.sampler import ask, sampler_name
from crossfold_operator.search.space import space_of
from crossfold_trainer.contract.metrics import Direction


def parameter(name: str, **fields: Any) -> ParameterSpec:
    return ParameterSpec.model_validate({"name": name, **fields})


RATE = parameter("learning-rate", type="Float", min=1e-5, max=1e-2, scale="Log")
BATCH = parameter("batch_size", type="Int", min=4, max=16, step=4)
ENCODER = parameter("model_encoder", type="Categorical", values=["resnet18", "resnet34"])
AUGMENT = parameter("augment", type="Categorical", values=[[], ["D4"], ["HorizontalFlip", "Blur"]])
GAMMA = parameter("gamma", type="Float", min=0.1, max=0.5, step=0.1)
WIDTH = parameter("x-width", type="Int", min=1, max=300, scale="Log")
MIXED = [RATE, BATCH, ENCODER, AUGMENT, GAMMA, WIDTH]
FINITE = [BATCH, ENCODER, AUGMENT]  # 24 points


def algorithm(name: str, seed: int = 42) -> AlgorithmSpec:
    return AlgorithmSpec.model_validate({"name": name, "seed": seed})


def search(parameters: Sequence[ParameterSpec], name: str, trials: int, seed: int = 42) -> list[Trial]:
    """A Tune in which every trial ends before the next one starts; states and scores are made up."""
    rng = random.Random(seed)
    history: list[Trial] = []
    for number in range(trials):
        asked = ask(parameters, algorithm(name, seed), Direction.MAXIMIZE, history, number)
        if asked is None:
            break
        state = rng.choice(list(TrialState))
        scored = state in (TrialState.COMPLETE, TrialState.PRUNED)
        step = 2 if state is TrialState.PRUNED else 0
        history.append(Trial(number, asked, state, rng.random() if scored else None, step))
    return history


def canonical(trials: Sequence[Trial]) -> list[str]:
    return [repr(sorted(trial.parameters.items())) for trial in trials]


@pytest.mark.parametrize("name", ["TPE", "Random"])
def test_values_have_their_declared_type_and_lie_on_their_grid(name: str) -> None:
    for trial in search(MIXED, name, 40):
        asked = trial.parameters
        assert list(asked) == ["learning_rate", "batch_size", "model_encoder", "augment", "gamma", "x-width"]
        assert isinstance(asked["learning_rate"], float)
        assert 1e-5 <= asked["learning_rate"] <= 1e-2
        assert float(f"{asked['learning_rate']:.12g}") == asked["learning_rate"]
        assert asked["batch_size"] in (4, 8, 12, 16)
        assert isinstance(asked["batch_size"], int)
        assert asked["model_encoder"] in ("resnet18", "resnet34")
        assert asked["augment"] in ([], ["D4"], ["HorizontalFlip", "Blur"])
        assert asked["gamma"] in (0.1, 0.2, 0.3, 0.4, 0.5)
        assert isinstance(asked["x-width"], int)
        assert 1 <= asked["x-width"] <= 300


@pytest.mark.parametrize("name", ["TPE", "Random", "Grid"])
def test_a_finite_space_is_asked_once_each_and_then_exhausted(name: str) -> None:
    trials = search(FINITE, name, 100)
    assert len(set(canonical(trials))) == len(trials) == 24
    assert ask(FINITE, algorithm(name), Direction.MAXIMIZE, trials, len(trials)) is None


@settings(deadline=None, max_examples=25)
@given(st.sampled_from(["TPE", "Random", "Grid"]), st.integers(0, 2**31 - 1), st.integers(1, 4), st.integers(1, 5))
def test_no_duplicate_until_exhausted(name: str, seed: int, choices: int, steps: int) -> None:
    space = [
        parameter("x-c", type="Categorical", values=[None, [1], "a", 2.5][:choices]),
        parameter("x-i", type="Int", min=0, max=steps),
        parameter("x-f", type="Float", min=0, max=0.2, step=0.1),
    ]
    size = choices * (steps + 1) * 3
    trials = search(space, name, size + 1, seed)
    assert len(set(canonical(trials))) == len(trials) == size


@settings(deadline=None, max_examples=20)
@given(st.sampled_from(["TPE", "Random", "Grid"]), st.integers(0, 2**31 - 1), st.randoms(use_true_random=False))
def test_the_order_of_the_history_is_irrelevant_and_a_rebuild_gives_the_same(
    name: str, seed: int, rng: random.Random
) -> None:
    trials = search(FINITE, name, 18, seed)
    for number in (3, 12, 17):
        history = trials[:number]
        rng.shuffle(history)
        assert ask(FINITE, algorithm(name, seed), Direction.MAXIMIZE, history, number) == trials[number].parameters


def test_what_the_api_stores_is_what_was_asked() -> None:
    """Parameters come back as JSON does: 8 as 8.0, a tuple as a list, under another spelling of the name."""
    trials = search(MIXED, "TPE", 30)
    stored = [
        Trial(
            t.number,
            {
                n.replace("batch_size", "batch-size"): float(v) if isinstance(v, int) else v
                for n, v in t.parameters.items()
            },
            t.state,
            t.value,
        )
        for t in trials
    ]
    for direction in Direction:
        assert ask(MIXED, algorithm("TPE"), direction, stored, 30) == ask(
            MIXED, algorithm("TPE"), direction, trials, 30
        )


def test_the_seed_counts() -> None:
    for name in ("TPE", "Random", "Grid"):
        space = FINITE if name == "Grid" else MIXED
        firsts = {repr(ask(space, algorithm(name, seed), Direction.MAXIMIZE, [], 0)) for seed in range(8)}
        assert len(firsts) > 3, name


def test_grid_needs_no_history() -> None:
    trials = search(FINITE, "Grid", 24)
    for number in range(24):
        assert ask(FINITE, algorithm("Grid"), Direction.MAXIMIZE, [], number) == trials[number].parameters


def test_grid_of_a_trillion_cells() -> None:
    space = [parameter(f"x-{i}", type="Int", min=1, max=1000) for i in range(4)]
    asked = [ask(space, algorithm("Grid"), Direction.MAXIMIZE, [], n) for n in range(200)]
    assert len({repr(a) for a in asked}) == 200
    assert ask(space, algorithm("Grid"), Direction.MAXIMIZE, [], 10**12) is None


def test_grid_of_a_continuous_range_is_refused() -> None:
    with pytest.raises(ValueError, match="step"):
        ask([RATE], algorithm("Grid"), Direction.MAXIMIZE, [], 0)


@pytest.mark.parametrize("name", ["TPE", "Random"])
def test_the_last_free_point_is_found(name: str) -> None:
    space = space_of(FINITE)
    for free in range(24):
        history = [Trial(i, space.parameters(space.at(i)), TrialState.RUNNING) for i in range(24) if i != free]
        assert ask(FINITE, algorithm(name), Direction.MAXIMIZE, history, 30) == space.parameters(space.at(free))


@pytest.mark.parametrize("name", ["TPE", "Random"])
@pytest.mark.parametrize("state", list(TrialState))
def test_a_point_is_used_whatever_became_of_it(name: str, state: TrialState) -> None:
    first = ask([ENCODER], algorithm(name), Direction.MAXIMIZE, [], 0)
    assert first is not None
    second = ask([ENCODER], algorithm(name), Direction.MAXIMIZE, [Trial(0, first, state, 0.5)], 1)
    assert second is not None
    assert second != first


def test_trials_that_do_not_fit_are_passed_over() -> None:
    foreign = [
        Trial(0, {}, TrialState.COMPLETE, 0.9),
        Trial(1, {"batch_size": 8}, TrialState.COMPLETE, 0.9),
        Trial(2, {"batch_size": 7, "model_encoder": "resnet18", "augment": []}, TrialState.COMPLETE, 0.9),
        Trial(3, {"x-else": 1}, TrialState.RUNNING),
    ]
    for name in ("TPE", "Random"):
        assert ask(FINITE, algorithm(name), Direction.MAXIMIZE, foreign, 9) == ask(
            FINITE, algorithm(name), Direction.MAXIMIZE, [], 9
        )


@pytest.mark.parametrize("score", [None, math.nan, math.inf, -math.inf])
def test_a_score_that_is_no_number_counts_as_unstable(score: float | None) -> None:
    trials = search(MIXED, "Random", 30)
    history = [Trial(t.number, t.parameters, TrialState.COMPLETE, t.number / 30) for t in trials]
    odd = [*history[:-1], Trial(29, trials[29].parameters, TrialState.COMPLETE, score)]
    unstable = [*history[:-1], Trial(29, trials[29].parameters, TrialState.UNSTABLE)]
    assert ask(MIXED, algorithm("TPE"), Direction.MAXIMIZE, odd, 30) == ask(
        MIXED, algorithm("TPE"), Direction.MAXIMIZE, unstable, 30
    )


def test_unstable_regions_are_avoided() -> None:
    space = [parameter("x-a", type="Float", min=0, max=1)]
    history = [
        Trial(
            i,
            {"x-a": i / 40},
            TrialState.UNSTABLE if i < 20 else TrialState.COMPLETE,
            None if i < 20 else 0.5 + i / 1000,
        )
        for i in range(40)
    ]
    asked = [ask(space, algorithm("TPE", seed), Direction.MAXIMIZE, history, 40) for seed in range(20)]
    assert sum(a is not None and a["x-a"] > 0.5 for a in asked) >= 18


def test_pruned_trials_inform_and_those_that_came_further_count_as_better() -> None:
    space = [parameter("x-a", type="Float", min=0, max=1)]

    def asked(history: list[Trial]) -> list[float]:
        answers = (ask(space, algorithm("TPE", seed), Direction.MAXIMIZE, history, 40) for seed in range(20))
        return [a["x-a"] for a in answers if a is not None]

    low = [Trial(i, {"x-a": i / 40}, TrialState.PRUNED, 0.3, step=1) for i in range(20)]
    high = [Trial(i, {"x-a": i / 40}, TrialState.PRUNED, 0.3, step=3) for i in range(20, 40)]
    assert sum(a > 0.5 for a in asked(low + high)) >= 18
    better = [Trial(t.number, t.parameters, t.state, 0.4, step=3) for t in low]
    assert sum(a < 0.5 for a in asked(better + high)) >= 18


def test_failed_trials_say_nothing_about_quality() -> None:
    trials = search(MIXED, "Random", 30)
    history = [Trial(t.number, t.parameters, TrialState.COMPLETE, t.number / 30) for t in trials]
    extra = search(MIXED, "Random", 3, seed=7)
    for state in (TrialState.FAILED, TrialState.STOPPED, TrialState.DELETED):
        more = [*history, *(Trial(30 + t.number, t.parameters, state) for t in extra)]
        assert ask(MIXED, algorithm("TPE"), Direction.MAXIMIZE, more, 40) == ask(
            MIXED, algorithm("TPE"), Direction.MAXIMIZE, history, 40
        )


def test_running_trials_are_kept_clear_of() -> None:
    """Constant liar: eight workers that ask one after the other do not all go to the same place."""
    space = [parameter("x-a", type="Float", min=0, max=1)]
    history = [Trial(i, {"x-a": i / 30}, TrialState.COMPLETE, -abs(i / 30 - 0.3)) for i in range(30)]
    for number in range(30, 42):
        asked = ask(space, algorithm("TPE"), Direction.MAXIMIZE, history, number)
        assert asked is not None
        history.append(Trial(number, asked, TrialState.RUNNING))
    running = sorted(t.parameters["x-a"] for t in history[30:])
    assert min(b - a for a, b in pairwise(running)) > 1e-6
    assert statistics.pstdev(running) > 0.01


def _sphere(parameters: dict[str, Any]) -> float:
    miss = (math.log10(parameters["learning_rate"]) + 3) ** 2 + ((parameters["batch_size"] - 8) / 4) ** 2
    return miss + (parameters["model_encoder"] != "resnet34") + 4 * (parameters["gamma"] - 0.3) ** 2


@pytest.mark.parametrize("direction", list(Direction))
def test_tpe_beats_random(direction: Direction) -> None:
    sign = 1 if direction is Direction.MINIMIZE else -1
    space = [RATE, BATCH, ENCODER, GAMMA]

    def best(name: str, seed: int) -> float:
        history: list[Trial] = []
        for number in range(50):
            asked = ask(space, algorithm(name, seed), direction, history, number)
            assert asked is not None
            history.append(Trial(number, asked, TrialState.COMPLETE, sign * _sphere(asked)))
        return min(sign * (t.value or 0) for t in history)

    tpe, rand = ([best(name, seed) for seed in range(6)] for name in ("TPE", "Random"))
    assert statistics.median(tpe) < 0.5 * statistics.median(rand)


def test_a_long_history_is_answered_quickly_and_its_best_trials_are_not_forgotten() -> None:
    space = [parameter("x-a", type="Float", min=0, max=1), parameter("x-b", type="Float", min=0, max=1)]
    rng = random.Random(1)
    history = [Trial(i, {"x-a": rng.random(), "x-b": rng.random()}, TrialState.COMPLETE, 0.0) for i in range(1000)]
    history = [
        Trial(t.number, t.parameters, t.state, -((t.parameters["x-a"] - 0.8) ** 2) - (t.parameters["x-b"] - 0.2) ** 2)
        for t in history
    ]
    history[500:] = [
        Trial(t.number, {"x-a": t.parameters["x-a"] / 4, "x-b": t.parameters["x-b"]}, t.state, -9.0)
        for t in history[500:]
    ]
    ask(space, algorithm("TPE"), Direction.MAXIMIZE, history, 1000)  # Optuna is imported
    started = time.perf_counter()
    asked = [ask(space, algorithm("TPE", seed), Direction.MAXIMIZE, history, 1000) for seed in range(5)]
    assert (time.perf_counter() - started) / 5 < 0.5  # 0.05 on an idle core
    assert all(a is not None and abs(a["x-a"] - 0.8) < 0.2 and abs(a["x-b"] - 0.2) < 0.2 for a in asked)


def test_nothing_is_logged_or_warned(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings(), caplog.at_level(logging.DEBUG):
        warnings.simplefilter("error")
        search(MIXED, "TPE", 15)
    assert capfd.readouterr() == ("", "")


def test_sampler_names() -> None:
    assert sampler_name(algorithm("TPE")).startswith("TPE (Optuna ")
    assert sampler_name(algorithm("Random")) == "Random"
    assert sampler_name(algorithm("Grid")) == "Grid"
