"""What a run says of itself: the result, and the records of its hyperparameters and its parts."""

import math
from typing import TYPE_CHECKING, Any

from crossfold_trainer import artifacts
from crossfold_trainer.artifacts import Item
from crossfold_trainer.contract.result import Outcome, Performance, RunResult
from crossfold_trainer.contract.scoring import run_score
from crossfold_trainer.curve import scores_so_far
from crossfold_trainer.meter import Meter
from crossfold_trainer.progress import Progress
from crossfold_trainer.task import Task

if TYPE_CHECKING:
    from crossfold_trainer.devicewatch import DeviceWatch


def performance(meter: Meter, watch: "DeviceWatch") -> Performance:
    """What a finished attempt says of its speed."""
    rate, used = meter.patches_per_second, watch.utilisation
    return Performance(
        device=watch.name[:128],
        patches_per_second=None if rate is None else round(rate, 3),
        data_wait_share=_share(meter.data_wait_share),
        checkpoint_wait_share=_share(meter.checkpoint_wait_share),
        device_utilisation=None if used is None else _share(min(1.0, used)),
        peak_memory_bytes=watch.peak_memory_bytes,
    )


def _share(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def make_result(
    task: Task, progress: Progress, outcome: Outcome, reason: str, *, seconds: float, speed: Performance
) -> RunResult:
    """The result, with the numbers of the kept epoch (of the last validation where none was stable)."""
    config, identity = task.config, task.identity
    best = progress.best
    kept = best.metrics if best is not None else progress.last_metrics
    names = [metric.name for metric in config.objective.metrics]
    score = run_score(kept, config.objective)
    stable = score.stable and outcome is Outcome.TRAINED
    checkpoint = artifacts.BEST if best is not None else artifacts.LAST if progress.last_validated is not None else ""
    return RunResult(
        outcome=outcome,
        digest=identity.digest,
        data_digest=identity.data_digest,
        splits_digest=identity.splits_digest,
        score=score.value if stable else None,
        stable=stable,
        values={name: _finite(kept.get(name)) for name in names},
        metrics={name: _finite(value) for name, value in (kept | progress.test).items() if name not in names},
        epoch=best.epoch if best is not None else progress.last_validated,
        epochs=progress.epoch,
        steps=progress.step,
        curve=scores_so_far(config, progress),
        ignored_pixels=sum(progress.ignored.values()),
        duration_seconds=round(seconds, 3),
        performance=speed,
        checkpoint_uri=f"{config.artifact_uri}/{checkpoint}" if checkpoint else "",
        artifact_uri=config.artifact_uri,
        reason=reason if score.stable or outcome is Outcome.DIVERGED else f"{reason}; unstable: {score.reason}",
    )


def with_halvings(result: RunResult, halvings: int, batch_size: int) -> RunResult:
    """The result of a run whose micro-batches were halved, saying so."""
    size = max(1, math.ceil(batch_size / 2**halvings))
    words = f"{size} instead of {batch_size} patches at a time, for want of accelerator memory"
    return result.model_copy(update={"halvings": halvings, "reason": f"{result.reason}; {words}"})


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def hparams(task: Task) -> Item:
    """hparams.yaml: which run this is, and all its hyperparameters."""
    import yaml  # noqa: PLC0415 - a repeated result needs none

    config = task.config
    facts = {"run": config.run, "fold": config.fold, "seed": config.seed, "hyperparameters": task.hyperparameters}
    return Item(artifacts.HPARAMS, yaml.safe_dump(facts, sort_keys=False).encode())


def splits_table(task: Task) -> Item:
    """splits.parquet: patch, part, and the columns that splits depend on."""
    import pyarrow as pa  # noqa: PLC0415
    from pyarrow import parquet  # noqa: PLC0415

    metadata, n = task.data.metadata, len(task.data)
    columns: dict[str, Any] = {
        "patch": range(n),
        "part": task.splits.parts(n).tolist(),
        "empty": metadata.empty,
    }
    for name, column in (("region", metadata.region), ("sample_id", metadata.sample_id)):
        if column is not None:
            columns[name] = column.tolist()
    sink = pa.BufferOutputStream()
    parquet.write_table(pa.table(columns), sink)
    return Item(artifacts.SPLITS, bytes(sink.getvalue()))
