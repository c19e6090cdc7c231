import logging
import math
import random
import statistics
import warnings
from collections.abc import Sequence
from hashlib import sha256
from itertools import pairwise
from typing import Any

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossfold_operator.api.algorithm import AlgorithmName, AlgorithmSpec
from crossfold_operator.api.parameters import InitialTrial, ParameterSpec
from crossfold_operator.search import cma_es
from crossfold_operator.search.history import Trial, TrialState
from crossfold_operator.search.sampler import ask, sampler_name
from crossfold_operator.search.space import space_of
from crossfold_operator.search.told import losses_of, window
from crossfold_trainer.contract.metrics import Direction


def parameter(name: str, **fields: Any) -> ParameterSpec:
    return ParameterSpec.model_validate({"name": name, **fields})


RATE = parameter("learning-rate", type="Float", min=1e-5, max=1e-2, scale="Log")
BATCH = parameter("batch_size", type="Int", min=4, max=16, step=4)
ENCODER = parameter("model_encoder", type="Categorical", values=["resnet18", "resnet34"])
AUGMENT = parameter("augment", type="Categorical", values=[[], ["D4"], ["HorizontalFlip", "Blur"]])
GAMMA = parameter("gamma", type="Float", min=0.1, max=0.5, step=0.1)
WIDTH = parameter("x-width", type="Int", min=1, max=300, scale="Log")
MOMENTUM = parameter("x-momentum", type="Float", min=0.5, max=0.999, scale="ReverseLog")
MIXED = [RATE, BATCH, ENCODER, AUGMENT, GAMMA, WIDTH, MOMENTUM]
FINITE = [BATCH, ENCODER, AUGMENT]  # 24 points

EVERY = ["TPE", "Random", "Grid", "Sobol", "CMAES", "GP"]
CHOOSING = [name for name in EVERY if name != "Grid"]


def algorithm(name: str, seed: int = 42, **set_to: float) -> AlgorithmSpec:
    return AlgorithmSpec.model_validate({"name": name, "seed": seed, "settings": set_to})


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


@pytest.mark.parametrize("name", CHOOSING)
def test_values_have_their_declared_type_and_lie_on_their_grid(name: str) -> None:
    for trial in search(MIXED, name, 40):
        asked = trial.parameters
        assert list(asked) == [
            "learning_rate",
            "batch_size",
            "model_encoder",
            "augment",
            "gamma",
            "x-width",
            "x-momentum",
        ]
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
        assert isinstance(asked["x-momentum"], float)
        assert 0.5 <= asked["x-momentum"] <= 0.999


@pytest.mark.parametrize("name", EVERY)
def test_a_finite_space_is_asked_once_each_and_then_exhausted(name: str) -> None:
    trials = search(FINITE, name, 100)
    assert len(set(canonical(trials))) == len(trials) == 24
    assert ask(FINITE, algorithm(name), Direction.MAXIMIZE, trials, len(trials)) is None


@settings(max_examples=25)
@given(
    st.sampled_from(["TPE", "Random", "Grid", "Sobol", "CMAES"]),
    st.integers(0, 2**31 - 1),
    st.integers(1, 4),
    st.integers(1, 5),
)
def test_no_duplicate_until_exhausted(name: str, seed: int, choices: int, steps: int) -> None:
    space = [
        parameter("x-c", type="Categorical", values=[None, [1], "a", 2.5][:choices]),
        parameter("x-i", type="Int", min=0, max=steps),
        parameter("x-f", type="Float", min=0, max=0.2, step=0.1),
    ]
    size = choices * (steps + 1) * 3
    trials = search(space, name, size + 1, seed)
    assert len(set(canonical(trials))) == len(trials) == size


@settings(max_examples=20)
@given(st.sampled_from(EVERY), st.integers(0, 2**31 - 1), st.randoms(use_true_random=False))
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
    for name in EVERY:
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


@pytest.mark.parametrize("name", CHOOSING)
def test_the_last_free_point_is_found(name: str) -> None:
    space = space_of(FINITE)
    for free in range(0, 24, 5):
        history = [Trial(i, space.parameters(space.at(i)), TrialState.RUNNING) for i in range(24) if i != free]
        assert ask(FINITE, algorithm(name), Direction.MAXIMIZE, history, 30) == space.parameters(space.at(free))


@pytest.mark.parametrize("name", CHOOSING)
@pytest.mark.parametrize("state", list(TrialState))
def test_a_point_is_used_whatever_became_of_it(name: str, state: TrialState) -> None:
    two = [parameter("batch_size", type="Int", min=4, max=8, step=4)]
    first = ask(two, algorithm(name), Direction.MAXIMIZE, [], 0)
    assert first is not None
    second = ask(two, algorithm(name), Direction.MAXIMIZE, [Trial(0, first, state, 0.5)], 1)
    assert second is not None
    assert second != first


def test_trials_that_do_not_fit_are_passed_over() -> None:
    foreign = [
        Trial(0, {}, TrialState.COMPLETE, 0.9),
        Trial(1, {"batch_size": 8}, TrialState.COMPLETE, 0.9),
        Trial(2, {"batch_size": 7, "model_encoder": "resnet18", "augment": []}, TrialState.COMPLETE, 0.9),
        Trial(3, {"x-else": 1}, TrialState.RUNNING),
    ]
    for name in CHOOSING:
        assert ask(FINITE, algorithm(name), Direction.MAXIMIZE, foreign, 9) == ask(
            FINITE, algorithm(name), Direction.MAXIMIZE, [], 9
        )


@pytest.mark.parametrize("name", ["TPE", "CMAES", "GP"])
@pytest.mark.parametrize("score", [None, math.nan, math.inf, -math.inf])
def test_a_score_that_is_no_number_counts_as_unstable(name: str, score: float | None) -> None:
    trials = search(MIXED, "Random", 30)
    history = [Trial(t.number, t.parameters, TrialState.COMPLETE, t.number / 30) for t in trials]
    odd = [*history[:-1], Trial(29, trials[29].parameters, TrialState.COMPLETE, score)]
    unstable = [*history[:-1], Trial(29, trials[29].parameters, TrialState.UNSTABLE)]
    assert ask(MIXED, algorithm(name), Direction.MAXIMIZE, odd, 30) == ask(
        MIXED, algorithm(name), Direction.MAXIMIZE, unstable, 30
    )


@pytest.mark.parametrize("name", ["TPE", "GP"])
def test_unstable_regions_are_avoided(name: str) -> None:
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
    asked = [ask(space, algorithm(name, seed), Direction.MAXIMIZE, history, 40) for seed in range(10)]
    assert sum(a is not None and a["x-a"] > 0.5 for a in asked) >= 9


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


@pytest.mark.parametrize("name", ["CMAES", "GP"])
def test_a_regression_is_told_the_mean_that_a_pruned_trial_was_predicted_to_reach(name: str) -> None:
    trials = search(MIXED, "Random", 30)
    complete = [Trial(t.number, t.parameters, TrialState.COMPLETE, t.number / 30) for t in trials]
    pruned = [
        Trial(t.number, t.parameters, TrialState.PRUNED if t.number % 3 else t.state, t.value, 2) for t in complete
    ]
    answers = [ask(MIXED, algorithm(name), Direction.MAXIMIZE, history, 30) for history in (complete, pruned)]
    assert answers[0] == answers[1]
    other = [Trial(t.number, t.parameters, t.state, 0.9 if t.number % 3 else t.value, 2) for t in pruned]
    assert ask(MIXED, algorithm(name), Direction.MAXIMIZE, other, 30) != answers[0]


@pytest.mark.parametrize("name", ["TPE", "CMAES", "GP"])
def test_failed_trials_say_nothing_about_quality(name: str) -> None:
    trials = search(MIXED, "Random", 30)
    history = [Trial(t.number, t.parameters, TrialState.COMPLETE, t.number / 30) for t in trials]
    extra = search(MIXED, "Random", 3, seed=7)
    for state in (TrialState.FAILED, TrialState.STOPPED, TrialState.DELETED):
        more = [*history, *(Trial(30 + t.number, t.parameters, state) for t in extra)]
        assert ask(MIXED, algorithm(name), Direction.MAXIMIZE, more, 40) == ask(
            MIXED, algorithm(name), Direction.MAXIMIZE, history, 40
        )


@pytest.mark.parametrize("name", ["TPE", "GP"])
def test_running_trials_are_kept_clear_of(name: str) -> None:
    """Eight workers that ask one after the other do not all go to the same place."""
    space = [parameter("x-a", type="Float", min=0, max=1)]
    history = [Trial(i, {"x-a": i / 30}, TrialState.COMPLETE, -abs(i / 30 - 0.3)) for i in range(30)]
    for number in range(30, 42):
        asked = ask(space, algorithm(name), Direction.MAXIMIZE, history, number)
        assert asked is not None
        history.append(Trial(number, asked, TrialState.RUNNING))
    running = sorted(t.parameters["x-a"] for t in history[30:])
    assert min(b - a for a, b in pairwise(running)) > 1e-6
    assert statistics.pstdev(running) > 0.01


def _bowl(parameters: dict[str, Any]) -> float:
    """A loss whose least value is 0, at a momentum of 0.99."""
    miss = (math.log10(parameters["learning_rate"]) + 3) ** 2 + ((parameters["batch_size"] - 8) / 4) ** 2
    return miss + (parameters["model_encoder"] != "resnet34") + (math.log10(1 - parameters["x-momentum"]) + 2) ** 2


@pytest.mark.parametrize(
    ("name", "direction", "trials", "seeds"),
    [
        ("TPE", Direction.MAXIMIZE, 40, 6),
        ("TPE", Direction.MINIMIZE, 40, 6),
        ("CMAES", Direction.MAXIMIZE, 40, 6),
        ("GP", Direction.MINIMIZE, 24, 3),
    ],
)
def test_models_beat_random(name: str, direction: Direction, trials: int, seeds: int) -> None:
    sign = 1 if direction is Direction.MINIMIZE else -1
    space = [RATE, BATCH, ENCODER, MOMENTUM]

    def best(name: str, seed: int) -> float:
        history: list[Trial] = []
        for number in range(trials):
            asked = ask(space, algorithm(name, seed), direction, history, number)
            assert asked is not None
            history.append(Trial(number, asked, TrialState.COMPLETE, sign * _bowl(asked)))
        return min(sign * (t.value or 0) for t in history)

    model, rand = ([best(chosen, seed) for seed in range(seeds)] for chosen in (name, "Random"))
    assert statistics.median(model) < 0.6 * statistics.median(rand)


class _Seeded(optuna.samplers.TPESampler):
    """Optuna's own sampler, as one would use it, with random numbers that follow from the search's seed and the trial."""

    def __init__(self, seed: int) -> None:
        super().__init__(multivariate=True, constant_liar=True)
        self._search = seed

    def before_trial(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        number = int.from_bytes(sha256(f"{self._search}/{trial.number}".encode()).digest()[:4])
        self._rng.rng.seed(number)
        self._random_sampler._rng.rng.seed(number)


@pytest.mark.parametrize("direction", list(Direction))
def test_tpe_is_optuna_s_with_random_numbers_of_each_trial(direction: Direction) -> None:
    """The same points to the last digits that count: neither the transforms nor the history change what it does."""
    # by name, as Optuna has them
    space = sorted([RATE, BATCH, ENCODER, AUGMENT, WIDTH, MOMENTUM], key=lambda p: p.name.replace("-", "_"))
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sign = 1 if direction is Direction.MINIMIZE else -1
    study = optuna.create_study(sampler=_Seeded(7), direction=f"{direction}".lower())
    history: list[Trial] = []
    for number in range(30):
        trial = study.ask()
        augment = trial.suggest_categorical("augment", [0, 1, 2])
        plain = {
            "augment": AUGMENT.values[augment] if AUGMENT.values else None,
            "batch_size": trial.suggest_int("batch_size", 4, 16, step=4),
            "learning_rate": trial.suggest_float("learning_rate", 1e-5, 1e-2, log=True),
            "model_encoder": trial.suggest_categorical("model_encoder", ["resnet18", "resnet34"]),
            "x-momentum": 1 - trial.suggest_float("x-momentum", 0.001, 0.5, log=True),
            "x-width": trial.suggest_int("x-width", 1, 300, log=True),
        }
        asked = ask(space, algorithm("TPE", 7), direction, history, number)
        assert asked is not None
        assert asked == {
            name: pytest.approx(value, rel=1e-9) if isinstance(value, float) else value for name, value in plain.items()
        }
        loss = sign * (_bowl(asked) + 0.1 * augment + 0.001 * asked["x-width"])
        if number % 5 == 4:
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
            history.append(Trial(number, asked, TrialState.FAILED))
        else:
            study.tell(trial, loss)
            history.append(Trial(number, asked, TrialState.COMPLETE, loss))


@pytest.mark.parametrize("name", ["TPE", "GP"])
def test_many_running_trials_cost_little(name: str) -> None:
    """What is weighed is bounded whatever runs: the same answer with and without the older ones of too many."""
    space = [parameter(f"x-{i}", type="Float", min=0, max=1) for i in range(2)]
    rng = random.Random(5)
    history = [
        Trial(i, {"x-0": rng.random(), "x-1": rng.random()}, TrialState.COMPLETE, rng.random()) for i in range(20)
    ]
    older, latest = (
        [Trial(20 + first + i, {"x-0": rng.random(), "x-1": rng.random()}, TrialState.RUNNING) for i in range(250)]
        for first in (0, 250)
    )
    few = ask(space, algorithm(name), Direction.MAXIMIZE, [*history, *latest], 520)
    assert ask(space, algorithm(name), Direction.MAXIMIZE, [*history, *older, *latest], 520) == few


@pytest.mark.parametrize("name", ["TPE", "GP"])
def test_a_long_history_is_reduced_and_its_best_trials_are_not_forgotten(name: str) -> None:
    space = [parameter("x-a", type="Float", min=0, max=1), parameter("x-b", type="Float", min=0, max=1)]
    rng = random.Random(1)
    history = []
    for i in range(1000):
        a, b = rng.random(), rng.random()
        late = i >= 500
        value = -9.0 if late else -((a - 0.8) ** 2) - (b - 0.2) ** 2
        history.append(Trial(i, {"x-a": a / 4 if late else a, "x-b": b}, TrialState.COMPLETE, value))
    asked = [ask(space, algorithm(name, seed), Direction.MAXIMIZE, history, 1000) for seed in range(4)]
    assert all(a is not None and abs(a["x-a"] - 0.8) < 0.2 and abs(a["x-b"] - 0.2) < 0.2 for a in asked)


def test_the_window_is_the_best_and_the_latest_trials_of_any_history() -> None:
    rng = random.Random(3)
    states = [TrialState.COMPLETE, TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAILED, TrialState.RUNNING]
    history = [Trial(i, {}, rng.choice(states), round(rng.random(), 2)) for i in range(400)]
    for direction, sign in ((Direction.MAXIMIZE, -1), (Direction.MINIMIZE, 1)):
        kept = window(history, losses_of(direction, history), best=10, recent=40, running=7)
        assert [t.number for t in kept] == sorted(t.number for t in kept)
        ended = [t for t in kept if t.state is not TrialState.RUNNING]
        assert len(ended) == 50
        running = [t for t in history if t.state is TrialState.RUNNING]
        assert [t for t in kept if t.state is TrialState.RUNNING] == running[-7:]
        complete = [t for t in history if t.state is TrialState.COMPLETE]
        best = sorted(complete, key=lambda t: (sign * (t.value or 0), t.number))[:10]
        assert {t.number for t in best} <= {t.number for t in ended}
        others = [t for t in history if t.state in (TrialState.COMPLETE, TrialState.PRUNED) and t not in best]
        assert {t.number for t in ended} - {t.number for t in best} == {t.number for t in others[-40:]}
    few = history[:50]
    assert window(few, losses_of(Direction.MAXIMIZE, few), best=10, recent=40, running=50) == [
        t for t in history[:50] if t.state is not TrialState.FAILED
    ]


def test_nothing_is_logged_or_warned(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings(), caplog.at_level(logging.DEBUG):
        warnings.simplefilter("error")
        for name in EVERY:
            search(FINITE if name == "Grid" else MIXED, name, 15)
    assert capfd.readouterr() == ("", "")


def test_sampler_names() -> None:
    assert sampler_name(AlgorithmName.TPE).startswith("TPE (Optuna ")
    assert sampler_name(AlgorithmName.RANDOM) == "Random"
    assert sampler_name(AlgorithmName.GRID) == "Grid"
    assert sampler_name(AlgorithmName.CMAES).startswith("CMAES (cmaes ")
    assert sampler_name(AlgorithmName.GP).startswith("GP (SciPy ")
    assert sampler_name(AlgorithmName.SOBOL).startswith("Sobol (SciPy ")


def test_settings_are_used() -> None:
    trials = search(MIXED, "Random", 12)
    history = [Trial(t.number, t.parameters, TrialState.COMPLETE, t.number / 12) for t in trials]
    for name, variants in {
        "TPE": [{}, {"startupTrials": 13}, {"candidates": 2}],
        "GP": [{}, {"startupTrials": 13}],
        "CMAES": [{}, {"populationSize": 5}, {"sigma": 0.9}],
    }.items():
        answers = {repr(ask(MIXED, algorithm(name, **s), Direction.MAXIMIZE, history, 12)) for s in variants}
        assert len(answers) == len(variants), name


def test_sobol_points_are_spread_more_evenly_than_random_ones() -> None:
    space = [parameter("x-a", type="Float", min=0, max=1), parameter("x-b", type="Float", min=0, max=1)]

    def cells(name: str, seed: int) -> int:
        found = (ask(space, algorithm(name, seed), Direction.MAXIMIZE, [], number) for number in range(64))
        return len({(int(a["x-a"] * 8), int(a["x-b"] * 8)) for a in found if a is not None})

    assert all(cells("Sobol", seed) == 64 for seed in range(3))
    assert all(cells("Random", seed) < 50 for seed in range(3))


def test_cma_es_restarts_and_rebuilds_to_the_same_point() -> None:
    """What is kept between two questions decides nothing: dropped, the answer is the same."""
    space = [parameter("x-a", type="Float", min=0, max=1), parameter("x-b", type="Float", min=0, max=1)]
    history: list[Trial] = []
    cold: list[dict[str, Any] | None] = []
    for number in range(60):
        cma_es._paths.clear()
        cold.append(ask(space, algorithm("CMAES"), Direction.MINIMIZE, history, number))
        warm = ask(space, algorithm("CMAES"), Direction.MINIMIZE, history, number)
        assert warm == cold[-1]
        assert warm is not None
        history.append(Trial(number, warm, TrialState.COMPLETE, (warm["x-a"] - 0.7) ** 2 + (warm["x-b"] - 0.1) ** 2))
    cma_es._paths.clear()
    assert [ask(space, algorithm("CMAES"), Direction.MINIMIZE, history[:n], n) for n in (60, 12, 47)][1:] == [
        cold[12],
        cold[47],
    ]
    late = [history[n].parameters for n in range(50, 60)]
    assert all(abs(p["x-a"] - 0.7) < 0.15 and abs(p["x-b"] - 0.1) < 0.15 for p in late)


def test_cma_es_starts_anew_where_nothing_is_left_to_gain() -> None:
    space = [parameter("x-a", type="Float", min=0, max=1)]
    history = [Trial(i, {"x-a": (i % 97) / 97}, TrialState.COMPLETE, 0.5) for i in range(400)]
    cma_es._paths.clear()
    assert ask(space, algorithm("CMAES"), Direction.MINIMIZE, history, 400) is not None
    assert next(iter(cma_es._paths.values())).restarts > 0


# Trials to ask first, and other Tunes' trials --------------------------------------------------------------------------


def first(**values: Any) -> InitialTrial:
    return InitialTrial.model_validate({"parameters": [{"name": n, "value": v} for n, v in values.items()]})


@pytest.mark.parametrize("name", EVERY)
def test_initial_trials_are_asked_first_and_what_they_leave_open_is_chosen(name: str) -> None:
    initial = [first(batch_size=8, model_encoder="resnet34", augment=["D4"]), first(augment=[]), first(augment=[])]
    history: list[Trial] = []
    for number in range(24):
        asked = ask(FINITE, algorithm(name), Direction.MAXIMIZE, history, number, initial=initial)
        assert asked is not None
        history.append(Trial(number, asked, TrialState.COMPLETE, number / 24))
    assert history[0].parameters == {"batch_size": 8, "model_encoder": "resnet34", "augment": ["D4"]}
    assert history[1].parameters["augment"] == history[2].parameters["augment"] == []
    assert len(set(canonical(history))) == 24
    assert ask(FINITE, algorithm(name), Direction.MAXIMIZE, history, 24, initial=initial) is None


@pytest.mark.parametrize("name", ["TPE", "Grid"])
def test_initial_trials_that_leave_too_little_open_go_elsewhere(name: str) -> None:
    initial = [first(batch_size=8, augment=["D4"])] * 3  # which two encoders can fill
    history: list[Trial] = []
    for number in range(4):
        asked = ask(FINITE, algorithm(name), Direction.MAXIMIZE, history, number, initial=initial)
        assert asked is not None
        history.append(Trial(number, asked, TrialState.RUNNING))
    assert [t.parameters["augment"] == ["D4"] and t.parameters["batch_size"] == 8 for t in history[:3]] == [
        True,
        True,
        False,
    ]
    assert len(set(canonical(history))) == 4


def test_grid_with_initial_trials_needs_no_history() -> None:
    initial = [first(batch_size=8), first(model_encoder="resnet34", augment=[])]
    asked = [ask(FINITE, algorithm("Grid"), Direction.MAXIMIZE, [], n, initial=initial) for n in range(25)]
    assert asked[24] is None
    assert len({repr(a) for a in asked[:24]}) == 24


@pytest.mark.parametrize("name", ["TPE", "CMAES", "GP"])
def test_trials_of_another_tune_inform_and_their_points_may_be_asked_again(name: str) -> None:
    space = [parameter("x-a", type="Float", min=0, max=1), parameter("x-b", type="Float", min=0, max=1)]
    rng = random.Random(5)
    pilot = []
    for i in range(60):
        a, b = rng.random(), rng.random()
        pilot.append(Trial(i, {"x-a": a, "x-b": b}, TrialState.COMPLETE, -abs(a - 0.8) - abs(b - 0.3), source="pilot"))
    informed = [ask(space, algorithm(name, seed), Direction.MAXIMIZE, pilot, 0) for seed in range(8)]
    misses = [abs(a["x-a"] - 0.8) + abs(a["x-b"] - 0.3) for a in informed if a is not None]
    assert statistics.median(misses) < 0.35  # 0.65 at random
    full = [Trial(i, {"batch_size": 4 + 4 * i}, TrialState.COMPLETE, i / 4, source="pilot") for i in range(4)]
    assert ask([BATCH], algorithm(name), Direction.MAXIMIZE, full, 0) is not None
