"""Runs of a Tune that have ended, as their trainers leave them among the artifacts."""

from typing import Any

from crossfold_trainer import artifacts
from crossfold_trainer.contract.config import RunConfig, with_digest
from crossfold_trainer.contract.result import Outcome, RunResult
from crossfold_trainer.store import Store
from tests.trainer_data import run_config

ROOT = "11111111-uid"


def run_of(
    artifacts_uri: str,
    trial: int,
    fold: int = 0,
    seed: int = 42,
    *,
    tune: str = "t",
    runs: int = 3,
    root: str = ROOT,
    **replace: Any,
) -> RunConfig:
    """The configuration of a run; trials differ in their learning rate. Without a Tune the CrossValidation is `c`."""
    cv = f"{tune}-cv{trial}" if tune else "c"
    content: dict[str, Any] = {
        "run": f"{cv}-f{fold}s{seed}",
        "tune": tune,
        "crossValidation": cv,
        "root": root,
        "trial": trial if tune else None,
        "runs": runs,
        "fold": fold,
        "seed": seed,
        "hyperparameters": {"learning_rate": 1e-3 / (1 + trial), "batch_size": 4, "augment": ["D4"], "x-width": trial},
    }
    config = run_config("data", artifacts_uri, **(content | replace))
    return with_digest(config, "/".join(part for part in ("default", tune, cv) if part))


def result_of(config: RunConfig, score: float | None = 0.5, **changes: Any) -> RunResult:
    """A result with this score; None: it diverged."""
    content: dict[str, Any] = {
        "outcome": Outcome.DIVERGED if score is None else Outcome.TRAINED,
        "digest": config.digest,
        "data_digest": "d" * 64,
        "score": score,
        "stable": score is not None,
        "values": {"val/JaccardIndex": score},
        "metrics": {"val/Recall": 0.5, "train/loss": 0.25, "val/loss": None},
        "epoch": None if score is None else 2,
        "epochs": 3,
        "steps": 12,
        "duration_seconds": 1.5,
        "checkpoint_uri": f"{config.artifact_uri}/{artifacts.BEST}",
        "artifact_uri": config.artifact_uri,
        "reason": "maxEpochs reached",
    }
    return RunResult.model_validate(content | changes)


def begin(store: Store, config: RunConfig, path: str = "") -> str:
    """A run's folder as it is while it trains; the path of the folder below the store's root."""
    path = path or config.artifact_path.partition("/")[2].partition("/")[2]
    store.write(f"{path}/{artifacts.CONFIG}", config.model_dump_json().encode())
    return path


def finish(store: Store, config: RunConfig, score: float | None = 0.5, **changes: Any) -> None:
    """A run's folder as it is once its result is there."""
    path = begin(store, config)
    store.write(f"{path}/{artifacts.RESULT}", result_of(config, score, **changes).model_dump_json().encode())
