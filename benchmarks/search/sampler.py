"""How long the sampler takes, and how well it chooses beside plain Optuna.

``ask_ms`` is the median CPU time of one question with so many finished trials, of TPE as a Tune has it by default and
of the other algorithms; ``rebuild_s`` that from the CrossValidations of 10,000 trials to the answer to the next
question, in a process that remembers nothing. ``against_optuna`` pairs searches of the same length on the same
objectives, one with the operator's sampler and one with Optuna's own study, seed by seed.
"""

import math
import random
import statistics
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from functools import cache, partial
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import optuna
from scipy import stats
from sklearn import datasets, svm

from crossfold_operator.api.algorithm import AlgorithmName, AlgorithmSpec
from crossfold_operator.api.parameters import ParameterSpec
from crossfold_operator.observe.reader import TrialReader
from crossfold_operator.plan import tune as tune_plan
from crossfold_operator.search import history, sampler
from crossfold_operator.search.history import Trial, TrialState
from crossfold_trainer.contract.metrics import Direction

SIZES = (100, 1_000, 10_000)
"""Finished trials with which a question is timed."""
WORSE = 0.05
"""A search counts as worse than Optuna's when chance would make it look so in less than this share of comparisons."""
_QUESTIONS = 15

Values = Mapping[str, Any]


def parameter(name: str, **fields: Any) -> ParameterSpec:
    """A parameter of a search space."""
    return ParameterSpec.model_validate({"name": name, **fields})


SPACE = [
    parameter("learning_rate", type="Float", min=1e-5, max=1e-2, scale="Log"),
    parameter("batch_size", type="Int", min=4, max=32, step=4),
    parameter("model_encoder", type="Categorical", values=["resnet18", "resnet34", "resnet50"]),
    parameter("augment", type="Categorical", values=[[], ["D4"], ["HorizontalFlip", "Blur"]]),
    parameter("gamma", type="Float", min=0.5, max=0.99, scale="ReverseLog"),
    parameter("focal_loss_gamma", type="Float", min=0, max=5),
]
"""A search space with one parameter of every kind."""


# Objectives: losses, the least of which is 0 ------------------------------------------------------------------------


def segmentation(values: Values) -> float:
    """A loss as a segmentation model's may depend on SPACE: mild slopes, and parameters that depend on each other."""
    rate = math.log10(values["learning_rate"]) + 3 - 0.5 * math.log2(values["batch_size"] / 16)
    encoder = {"resnet18": 0.05, "resnet34": 0.0, "resnet50": 0.02}[values["model_encoder"]]
    augment = 0.0 if values["augment"] == ["D4"] else 0.03 if values["augment"] else 0.06
    decay = math.log10(1 - values["gamma"]) + 1.3
    return 0.1 * rate**2 + encoder + augment + 0.05 * decay**2 + 0.01 * (values["focal_loss_gamma"] - 2) ** 2


def rosenbrock(values: Values) -> float:
    """A curved valley in four dimensions."""
    x = [3 * values[f"x-{i}"] - 1.5 for i in range(4)]
    return sum(100 * (b - a * a) ** 2 + (1 - a) ** 2 for a, b in pairwise(x))


def levy(values: Values) -> float:
    """Many local minima in six dimensions."""
    w = [1 + (20 * values[f"x-{i}"] - 10 - 1) / 4 for i in range(6)]
    middle = sum((v - 1) ** 2 * (1 + 10 * math.sin(math.pi * v + 1) ** 2) for v in w[:-1])
    return math.sin(math.pi * w[0]) ** 2 + middle + (w[-1] - 1) ** 2 * (1 + math.sin(2 * math.pi * w[-1]) ** 2)


def _unit(dimensions: int) -> list[ParameterSpec]:
    return [parameter(f"x-{i}", type="Float", min=0, max=1) for i in range(dimensions)]


SVR_SPACE = [
    parameter("cost", type="Float", min=1e-2, max=1e4, scale="Log"),
    parameter("epsilon", type="Float", min=1e-2, max=1e2, scale="Log"),
    parameter("kernel", type="Categorical", values=["rbf", "poly", "sigmoid", "linear"]),
    parameter("width", type="Float", min=1e-5, max=1, scale="Log"),
    parameter("degree", type="Int", min=2, max=5),
    parameter("offset", type="Float", min=0, max=2),
]


@cache
def _diabetes() -> tuple[np.ndarray, np.ndarray]:
    x, y = datasets.load_diabetes(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))[:150]
    return (x[order] - x[order].mean(0)) / x[order].std(0), y[order]


def diabetes_svr(values: Values) -> float:
    """A real model's cross-validated error, in standard deviations: support vectors on how a disease progressed."""
    x, y = _diabetes()
    errors = []
    for fold in range(3):
        test = np.arange(len(x)) % 3 == fold
        model = svm.SVR(
            C=values["cost"],
            epsilon=values["epsilon"],
            kernel=values["kernel"],
            gamma=values["width"],
            degree=values["degree"],
            coef0=values["offset"],
            max_iter=2_000,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # one that has not converged is a bad one
            predicted = model.fit(x[~test], y[~test]).predict(x[test])
        errors.append(float(np.sqrt(np.mean((predicted - y[test]) ** 2)) / y.std()))
    return min(statistics.fmean(errors), 10.0)


class Comparison(NamedTuple):
    """Searches to compare."""

    space: list[ParameterSpec]
    objective: Callable[[Values], float]
    trials: int
    seeds: int


COMPARISONS = {
    "segmentation": Comparison(SPACE, segmentation, 100, 300),
    "rosenbrock": Comparison(_unit(4), rosenbrock, 100, 300),
    "levy": Comparison(_unit(6), levy, 100, 300),
    "diabetes-svr": Comparison(SVR_SPACE, diabetes_svr, 60, 300),
    # longer than the window, which the others never fill
    "levy-long": Comparison(_unit(6), levy, 300, 30),
}
FIRST_SEED = 1_000
"""Searches below it have been looked at before: what they suggested is to be tested on others."""
MARGIN = 0.2
"""The difference that would matter, in standard deviations of Optuna's results from seed to seed: a small effect."""


def ours(name: str, seed: int) -> float:
    """The least loss that the operator's TPE finds."""
    space, objective, trials, _ = COMPARISONS[name]
    algorithm = AlgorithmSpec(seed=seed)
    told: list[Trial] = []
    for number in range(trials):
        asked = sampler.ask(space, algorithm, Direction.MINIMIZE, told, number)
        assert asked is not None, "the spaces have continuous ranges"  # noqa: S101
        told.append(Trial(number, asked, TrialState.COMPLETE, objective(asked)))
    return min(trial.value for trial in told if trial.value is not None)


def plain(name: str, seed: int) -> float:
    """The least loss that Optuna finds by itself, with the same kind of sampler."""
    space, objective, trials, _ = COMPARISONS[name]
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        sampler=optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True), direction="minimize"
    )
    study.optimize(lambda trial: objective(_suggested(trial, space)), n_trials=trials)
    return float(study.best_value)


def _suggested(trial: optuna.Trial, space: list[ParameterSpec]) -> dict[str, Any]:
    """A point as someone would have Optuna suggest it."""
    values: dict[str, Any] = {}
    for spec in space:
        if spec.values is not None:
            values[spec.name] = spec.values[trial.suggest_categorical(spec.name, range(len(spec.values)))]
            continue
        low, high = spec.min or 0.0, spec.max or 0.0
        if spec.type == "Int":
            values[spec.name] = trial.suggest_int(spec.name, int(low), int(high), step=int(spec.step or 1))
        elif spec.scale == "ReverseLog":
            values[spec.name] = 1 - trial.suggest_float(spec.name, 1 - high, 1 - low, log=True)
        else:
            values[spec.name] = trial.suggest_float(spec.name, low, high, log=spec.scale == "Log")
    return values


class Pairs(NamedTuple):
    """The least losses of searches on one objective, seed by seed."""

    ours: list[float]
    optuna: list[float]

    @property
    def differences(self) -> list[float]:
        """Ours - Optuna's, in standard deviations of Optuna's from seed to seed."""
        scale = statistics.stdev(self.optuna) or 1.0
        return [(a - b) / scale for a, b in zip(self.ours, self.optuna, strict=True)]


def searched(pool: Executor, name: str, seeds: int) -> Pairs:
    """Searches of both kinds on one objective."""
    numbers = range(FIRST_SEED, FIRST_SEED + seeds)
    return Pairs(*(list(pool.map(search, [name] * seeds, numbers)) for search in (ours, plain)))


def verdict(differences: Sequence[float]) -> dict[str, Any]:
    """What paired differences say.

    Returns:
        Their mean; ``upper95``, the one-sided 95 % upper bound of it by Student's t; ``p_worse``, the one-sided
        Wilcoxon signed-rank test of whether ours is worse; ``power``, the probability that the bound of a sampler that
        is no worse and no better stays below MARGIN; ``not_worse``: p_worse is above WORSE.
    """
    n = len(differences)
    mean, error = statistics.fmean(differences), statistics.stdev(differences) / math.sqrt(n)
    reach = float(stats.t.ppf(0.95, n - 1))
    p_worse = float(stats.wilcoxon(differences, alternative="greater").pvalue) if any(differences) else 1.0
    return {
        "seeds": n,
        "difference": mean,
        "upper95": mean + reach * error,
        "power": float(stats.t.cdf(MARGIN / error - reach, n - 1)) if error else 1.0,
        "p_worse": p_worse,
        "not_worse": p_worse > WORSE,
    }


def compared(pool: Executor) -> dict[str, Any]:
    """The comparison, as it goes into the results."""
    return against_optuna({name: searched(pool, name, of.seeds) for name, of in COMPARISONS.items()})


def against_optuna(found: Mapping[str, Pairs]) -> dict[str, Any]:
    """The comparison on each objective, and on all of them together."""
    report: dict[str, Any] = {
        name: {
            "trials": COMPARISONS[name].trials,
            "ours_mean": statistics.fmean(pairs.ours),
            "optuna_mean": statistics.fmean(pairs.optuna),
            **verdict(pairs.differences),
        }
        for name, pairs in found.items()
    }
    report["all"] = verdict([difference for pairs in found.values() for difference in pairs.differences])
    report["all"]["margin"] = MARGIN
    report["all"]["no_matter"] = report["all"]["upper95"] < MARGIN
    return report


# Time ---------------------------------------------------------------------------------------------------------------


def finished(count: int) -> list[Trial]:
    """A history of trials at random points, some of which were pruned, failed or unstable."""
    rng = random.Random(0)
    states = [TrialState.COMPLETE] * 6 + [TrialState.PRUNED] * 3 + [TrialState.FAILED, TrialState.UNSTABLE]
    told: list[Trial] = []
    for number in range(count):
        asked = sampler.ask(SPACE, AlgorithmSpec(name=AlgorithmName.RANDOM), Direction.MAXIMIZE, [], number) or {}
        state = rng.choice(states)
        scored = state in (TrialState.COMPLETE, TrialState.PRUNED)
        told.append(Trial(number, asked, state, rng.random() if scored else None, 2 if scored else 0))
    return told


class Cost(NamedTuple):
    """How long something takes: of this process's CPU time, and by the clock, which other processes make longer."""

    cpu: float
    wall: float


def timed(work: Callable[[], Any]) -> Cost:
    """Seconds of some work."""
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    return Cost(time.process_time() - cpu, time.perf_counter() - wall)


def ask_ms(name: AlgorithmName, told: list[Trial]) -> Cost:
    """Median milliseconds of a question, after one whose time goes into imports."""
    algorithm, first = AlgorithmSpec(name=name), len(told)
    costs = [
        timed(partial(sampler.ask, SPACE, algorithm, Direction.MAXIMIZE, told, number))
        for number in range(first, first + _QUESTIONS + 1)
    ]
    cpu, wall = (1000 * statistics.median(cost[i] for cost in costs[1:]) for i in range(2))
    return Cost(cpu, wall)


def child(trial: Trial) -> dict[str, Any]:
    """The CrossValidation of a finished trial, as the API server has it."""
    phase = {TrialState.COMPLETE: "Complete", TrialState.UNSTABLE: "Unstable"}.get(trial.state, "Failed")
    score = {"score": repr(trial.value), "std": "0.01", "stable": True} if phase == "Complete" else {}
    name = f"t-cv{trial.number}"
    runs = [
        {"fold": fold, "seed": 42, "run": f"{name}-f{fold}s42", "phase": "Succeeded", **score, "stable": True}
        for fold in range(5)
    ]
    return {
        "metadata": {"name": name, "namespace": "d", "uid": name, "resourceVersion": str(trial.number)},
        "spec": {"hyperparameters": [{"name": n, "value": v} for n, v in trial.parameters.items()]},
        "status": {"phase": phase, "runs": [{k: v for k, v in r.items() if k != "std"} for r in runs], **score},
    }


def rebuild_s(told: list[Trial]) -> Cost:
    """Seconds from the children of a Tune to the answer to its next question, with nothing remembered."""
    children = [child(trial) for trial in told]
    sampler.forget()

    def rebuild() -> None:
        trials = TrialReader("t", [spec.name for spec in SPACE]).read(children, lambda _: [])
        known = tune_plan.history(trials, len(trials))
        sampler.ask(SPACE, AlgorithmSpec(), Direction.MAXIMIZE, known, len(known))
        history.digest(known)

    return timed(rebuild)


def times() -> dict[str, Any]:
    """The times, as they go into the results: CPU time for the bars, and by the clock."""
    told = finished(max(SIZES))
    costs = {
        str(name): {str(size): ask_ms(name, told[:size]) for size in SIZES}
        for name in AlgorithmName
        if name is not AlgorithmName.GRID  # SPACE has no cells
    }
    rebuilt = rebuild_s(told)
    return {
        "ask_ms": {size: round(cost.cpu, 1) for size, cost in costs[AlgorithmName.TPE].items()},
        "ask_ms_by_the_clock": {size: round(cost.wall, 1) for size, cost in costs[AlgorithmName.TPE].items()},
        "ask_ms_of": {name: {size: round(cost.cpu, 1) for size, cost in of.items()} for name, of in costs.items()},
        "rebuild_s": round(rebuilt.cpu, 2),
        "rebuild_s_by_the_clock": round(rebuilt.wall, 2),
    }
