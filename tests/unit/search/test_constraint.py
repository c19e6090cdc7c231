"""Trials that did not fit into the accelerator's memory: the search keeps away from where they are."""

import optuna
import pytest

from crossfold_operator.api.algorithm import AlgorithmSpec
from crossfold_operator.api.parameters import ParameterSpec
from crossfold_operator.search import tpe
from crossfold_operator.search.history import Trial, TrialState, digest
from crossfold_operator.search.sampler import ask, forget
from crossfold_trainer.contract.metrics import Direction

SPACE = [
    ParameterSpec.model_validate({"name": "batch_size", "type": "Int", "min": 1, "max": 64}),
    ParameterSpec.model_validate({"name": "learning_rate", "type": "Float", "min": 1e-5, "max": 1e-1, "scale": "Log"}),
]
FITS = 40
"""The greatest batch that fits."""


def quality(batch: int, rate: float) -> float:
    """Better the larger the batch, so that the search is drawn towards what does not fit."""
    return batch / 64 - 0.01 * abs(rate - 1e-3) / 1e-3


def search(name: str, seed: int, state: TrialState, trials: int = 40) -> list[Trial]:
    """One trial after the other, those that do not fit told as this state."""
    algorithm = AlgorithmSpec.model_validate({"name": name, "seed": seed})
    history: list[Trial] = []
    for number in range(trials):
        asked = ask(SPACE, algorithm, Direction.MAXIMIZE, history, number)
        assert asked is not None
        if asked["batch_size"] > FITS:
            history.append(Trial(number, asked, state))
        else:
            history.append(
                Trial(number, asked, TrialState.COMPLETE, quality(asked["batch_size"], asked["learning_rate"]))
            )
    return history


def beyond(trials: list[Trial]) -> int:
    return sum(trial.parameters["batch_size"] > FITS for trial in trials)


@pytest.mark.parametrize(("name", "share"), [("TPE", 0.6), ("GP", 0.6), ("CMAES", 0.9)])
def test_the_search_keeps_away_from_what_does_not_fit(name: str, share: float) -> None:
    """Told as failed such trials teach nothing, and the search goes on being drawn to them.

    A generation of CMA-ES is drawn before its outcomes are known, so that it learns more slowly.
    """
    seeds = range(2 if name == "GP" else 5)
    told = {
        state: [search(name, seed, state) for seed in seeds] for state in (TrialState.FAILED, TrialState.INFEASIBLE)
    }
    lost = {state: sum(map(beyond, found)) / len(found) for state, found in told.items()}
    assert lost[TrialState.INFEASIBLE] <= share * lost[TrialState.FAILED], lost
    # And it still finds what is good: close to the limit.
    for found in told[TrialState.INFEASIBLE]:
        assert max(t.value for t in found if t.value is not None) >= 0.85 * FITS / 64


@pytest.mark.parametrize("name", ["TPE", "GP", "CMAES"])
def test_a_restart_asks_the_same(name: str) -> None:
    algorithm = AlgorithmSpec.model_validate({"name": name, "seed": 3})
    history = search(name, 3, TrialState.INFEASIBLE, 25)
    assert 0 < beyond(history) < 25
    forget()
    for number in (12, 18, 24):
        asked = ask(SPACE, algorithm, Direction.MAXIMIZE, list(reversed(history[:number])), number)
        assert asked == history[number].parameters


def test_it_is_part_of_what_the_sampler_is_told() -> None:
    parameters = {"batch_size": 64}
    states = (TrialState.FAILED, TrialState.INFEASIBLE)
    assert len({digest([Trial(0, parameters, state)]) for state in states}) == 2


@pytest.mark.parametrize("name", ["TPE", "GP", "CMAES", "Random", "Sobol"])
def test_a_search_in_which_nothing_fits_goes_on(name: str) -> None:
    algorithm = AlgorithmSpec(name=name)
    history: list[Trial] = []
    for number in range(15):
        asked = ask(SPACE, algorithm, Direction.MAXIMIZE, history, number)
        assert asked is not None
        history.append(Trial(number, asked, TrialState.INFEASIBLE))


def test_optuna_takes_the_constraint_for_one() -> None:
    """Its key is that of a trial that was told by Optuna's own means."""
    study = optuna.create_study()
    study.ask().set_constraint("acceleratorMemory", 1.0)
    assert study.trials[0].system_attrs == tpe._VIOLATION
    assert optuna.trial.create_trial(value=0.0, system_attrs=tpe._VIOLATION).constraints == {"acceleratorMemory": 1.0}
