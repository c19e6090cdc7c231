"""Score matrices of real tasks: every configuration on every fold with every seed, computed once and kept.

Eight pairs of a data set that comes with scikit-learn and a kind of model, small enough for a laptop. A task's
configurations are drawn at random from its space, as a search would in the beginning; seeds decide how a model starts,
shuffles and samples, never how the data are split.
"""

import json
import os
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import sklearn
from numpy.typing import NDArray
from sklearn import datasets, ensemble, linear_model, metrics, neural_network, pipeline, preprocessing
from sklearn.model_selection import KFold, StratifiedKFold

CONFIGURATIONS, FOLDS, SEEDS = 120, 10, 3
"""Of a matrix: twice as many configurations as a search has trials, so that one odd one weighs half as much."""
_VERSION = 1
"""Part of the cache's key: to be raised with any change of a task."""

Scores = NDArray[np.float64]
Draw = Callable[[np.random.Generator], dict[str, Any]]


@dataclass(frozen=True)
class Task:
    """A data set, a kind of model, a space and a metric."""

    name: str
    load: Callable[[], Any]
    model: Callable[..., Any]
    draw: Draw
    metric: str
    """accuracy, log_loss or rmse."""
    rows: int | None = None
    """Rows of the data set that are used; all without."""

    @property
    def direction(self) -> str:
        """Which scores are better."""
        return "maximize" if self.metric == "accuracy" else "minimize"


def _log(rng: np.random.Generator, low: float, high: float) -> float:
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _mlp(rng: np.random.Generator) -> dict[str, Any]:
    return {
        "hidden_layer_sizes": (int(rng.choice([4, 8, 16, 32])),),
        "alpha": _log(rng, 1e-5, 1e-1),
        "learning_rate_init": _log(rng, 1e-3, 5e-2),
        "batch_size": int(rng.choice([32, 64])),
        "max_iter": 10,
        "activation": str(rng.choice(["relu", "tanh"])),
    }


def _sgd(rng: np.random.Generator) -> dict[str, Any]:
    return {
        "loss": "log_loss",
        "alpha": _log(rng, 1e-5, 1e-1),
        "eta0": _log(rng, 1e-3, 1e-1),
        "learning_rate": str(rng.choice(["constant", "invscaling", "optimal"])),
        "penalty": str(rng.choice(["l1", "l2", "elasticnet"])),
        "max_iter": 8,
        "tol": None,
    }


def _trees(rng: np.random.Generator) -> dict[str, Any]:
    return {
        "n_estimators": int(rng.choice([5, 8, 12])),
        "max_depth": int(rng.integers(2, 14)),
        "min_samples_leaf": int(rng.integers(1, 9)),
        "max_features": float(rng.uniform(0.1, 1)),
    }


def _boosting(rng: np.random.Generator) -> dict[str, Any]:
    return {
        "n_estimators": int(rng.choice([10, 15, 25])),
        "learning_rate": _log(rng, 0.02, 0.5),
        "max_depth": int(rng.integers(1, 5)),
        "subsample": float(rng.uniform(0.4, 0.95)),
        "max_features": float(rng.uniform(0.2, 1)),
    }


TASKS = (
    Task("digits-mlp", datasets.load_digits, neural_network.MLPClassifier, _mlp, "accuracy", rows=600),
    Task("digits-linear", datasets.load_digits, linear_model.SGDClassifier, _sgd, "accuracy", rows=600),
    Task("digits-trees", datasets.load_digits, ensemble.ExtraTreesClassifier, _trees, "accuracy", rows=900),
    Task("cancer-mlp", datasets.load_breast_cancer, neural_network.MLPClassifier, _mlp, "log_loss"),
    Task("cancer-boosting", datasets.load_breast_cancer, ensemble.GradientBoostingClassifier, _boosting, "log_loss"),
    Task("diabetes-trees", datasets.load_diabetes, ensemble.ExtraTreesRegressor, _trees, "rmse"),
    Task("diabetes-boosting", datasets.load_diabetes, ensemble.GradientBoostingRegressor, _boosting, "rmse"),
    Task("wine-mlp", datasets.load_wine, neural_network.MLPClassifier, _mlp, "log_loss"),
)


def scores(task: Task, cache_folder: Path, workers: int) -> Scores:
    """The full score matrix, (configurations, folds, seeds), from the cache or computed."""
    what = [_VERSION, task.name, CONFIGURATIONS, sklearn.__version__, np.__version__]
    key = sha256(json.dumps(what).encode()).hexdigest()[:12]
    path = cache_folder / f"{task.name}-{key}.npy"
    if not path.exists():
        cache_folder.mkdir(parents=True, exist_ok=True)
        with ProcessPoolExecutor(workers) as pool:
            rows = list(pool.map(_row, [task.name] * CONFIGURATIONS, range(CONFIGURATIONS)))
        part = path.with_suffix(f".{os.getpid()}.npy")
        np.save(part, np.array(rows))
        part.replace(path)
    return np.asarray(np.load(path), dtype=np.float64)


@cache
def _data(name: str) -> tuple[Any, Any, Sequence[Any]]:
    """Inputs, targets and the ten splits of a task."""
    task = next(task for task in TASKS if task.name == name)
    x, y = task.load(return_X_y=True)  # type: ignore[call-arg]
    order = np.random.default_rng(0).permutation(len(x))[: task.rows]
    x, y = x[order], y[order]
    split = (KFold if task.metric == "rmse" else StratifiedKFold)(FOLDS, shuffle=True, random_state=0)
    return x, y, list(split.split(x, y))


def _row(name: str, configuration: int) -> list[list[float]]:
    """Scores of one configuration, (folds, seeds)."""
    task = next(task for task in TASKS if task.name == name)
    x, y, splits = _data(name)
    settings = task.draw(np.random.default_rng([7, configuration]))
    row = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Models that have not converged are part of a search.
        for train, test in splits:
            row.append([])
            for seed in range(SEEDS):
                model = pipeline.make_pipeline(
                    preprocessing.StandardScaler(), task.model(**settings, random_state=seed)
                ).fit(x[train], y[train])
                row[-1].append(_score(task.metric, model, x[test], y[test]))
    return row


def _score(metric: str, model: Any, x: Any, y: Any) -> float:
    match metric:
        case "accuracy":
            return float(metrics.accuracy_score(y, model.predict(x)))
        case "log_loss":
            return float(metrics.log_loss(y, model.predict_proba(x), labels=model.classes_))
        case "rmse":
            return float(metrics.root_mean_squared_error(y, model.predict(x)))
        case _:
            raise ValueError(metric)
