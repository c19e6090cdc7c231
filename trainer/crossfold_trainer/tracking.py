"""Where a run's numbers go while it trains: one line an epoch, log.txt, metrics.csv and TensorBoard events."""

import csv
import io
import logging
import math
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from crossfold_trainer.artifacts import LOG, METRICS, Item
from crossfold_trainer.contract.result import Performance
from crossfold_trainer.contract.scoring import Score


def epoch_line(
    epoch: int,
    epochs: int,
    *,
    loss: float,
    metrics: Mapping[str, float],
    score: Score | None,
    best: bool,
    seconds: float,
) -> str:
    """The line that each epoch prints, for people and for whoever follows the log.

    ``epoch 3/6 loss=0.1234 val/JaccardIndex=0.7123 score=0.7123 best 1.2s``: epochs count from 1; metrics and
    score only where the epoch was validated, ``unstable`` for a score that does not count, ``best`` for a new best.
    """
    parts = [f"epoch {epoch}/{epochs}", f"loss={loss:.4g}"]
    if score is not None:
        parts += [f"{name}={value:.4f}" for name, value in metrics.items()]
        parts.append("score=none" if score.value is None else f"score={score.value:.4f}")
        if not score.stable:
            parts.append("unstable")
    if best:
        parts.append("best")
    return " ".join([*parts, f"{seconds:.1f}s"])


def speed_line(performance: Performance) -> str:
    """How fast an attempt trained, for the log: ``31.4 patches/s on cpu, waiting for data 2%, for checkpoints 1%``."""
    shares = (
        ("busy", performance.device_utilisation),
        ("waiting for data", performance.data_wait_share),
        ("for checkpoints", performance.checkpoint_wait_share),
    )
    rate = performance.patches_per_second
    parts = [f"{0 if rate is None else rate:.4g} patches/s on {performance.device}"]
    parts += [f"{name} {share:.0%}" for name, share in shares if share is not None]
    if performance.peak_memory_bytes is not None:
        parts.append(f"peak memory {performance.peak_memory_bytes / 2**30:.1f} GiB")
    return ", ".join(parts)


class LogText:
    """The run's log: plain lines on stdout, the same with times for log.txt."""

    def __init__(self) -> None:
        """Take over the logging of the trainer's own packages."""
        self._text = io.StringIO()
        console, file = logging.StreamHandler(sys.stdout), logging.StreamHandler(self._text)
        console.setFormatter(logging.Formatter("%(message)s"))
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        logger = logging.getLogger("crossfold_trainer")
        logger.handlers = [console, file]
        logger.setLevel(logging.INFO)
        logger.propagate = False

    def add(self, text: str) -> None:
        """Add text for log.txt only."""
        self._text.write(text)

    def item(self) -> Item:
        """log.txt as it is now."""
        return Item(LOG, self._text.getvalue().encode())


def metrics_csv(history: Sequence[Mapping[str, float]]) -> bytes:
    """One row an epoch; columns in the order of their first appearance."""
    columns = list(dict.fromkeys(name for row in history for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    return text.getvalue().encode()


class TensorBoard:
    """Scalars as TensorBoard events, written to a temporary folder and uploaded from there."""

    def __init__(self, *, enabled: bool) -> None:
        """Open the event file, unless it is not wanted."""
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        if not enabled:
            return
        from tensorboard.summary.writer.event_file_writer import EventFileWriter  # noqa: PLC0415 - only where wanted

        self._folder = tempfile.TemporaryDirectory(prefix="crossfold-events-")
        self._writer = EventFileWriter(self._folder.name)

    def __enter__(self) -> Self:
        """Nothing more to open."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file and remove the folder."""
        if self._folder is not None:
            self._writer.close()
            self._folder.cleanup()

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Record numbers at an optimiser step; non-finite ones are left out."""
        if self._folder is None:
            return
        from tensorboard.compat.proto.event_pb2 import Event  # noqa: PLC0415
        from tensorboard.compat.proto.summary_pb2 import Summary  # noqa: PLC0415

        found = [Summary.Value(tag=name, simple_value=value) for name, value in values.items() if math.isfinite(value)]
        if found:
            self._writer.add_event(Event(step=step, wall_time=time.time(), summary=Summary(value=found)))

    def items(self) -> list[Item]:
        """The event files as they are now."""
        if self._folder is None:
            return []
        self._writer.flush()
        return [Item(path.name, path.read_bytes()) for path in sorted(Path(self._folder.name).iterdir())]


def csv_item(history: Sequence[Mapping[str, float]]) -> Item:
    """metrics.csv as it is now."""
    return Item(METRICS, metrics_csv(history))
