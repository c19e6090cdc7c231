"""Where a run's numbers go while it trains: one line an epoch, log.txt, metrics.csv, TensorBoard, other trackers."""

import csv
import hashlib
import io
import json
import logging
import math
import os
import re
import struct
import sys
import tempfile
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from crossfold_trainer.artifacts import LOG, METRICS, TRACKERS, WANDB, Item
from crossfold_trainer.contract.config import CREDENTIALS_DIR, CREDENTIALS_VARIABLE, RunConfig
from crossfold_trainer.contract.result import Performance, end_of_log
from crossfold_trainer.contract.scoring import Score, decimals_of
from crossfold_trainer.trackers.base import RunFacts
from crossfold_trainer.trackers.remote import Remote

log = logging.getLogger(__name__)


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
        parts += [f"{name}={_shown(value)}" for name, value in metrics.items()]
        parts.append("score=none" if score.value is None else f"score={_shown(score.value)}")
        if not score.stable:
            parts.append("unstable")
    if best:
        parts.append("best")
    return " ".join([*parts, f"{seconds:.1f}s"])


def _shown(value: float) -> str:
    return f"{value:.{decimals_of(value, 4)}f}"


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

    def end(self) -> str:
        """Its last lines, as many as a failure keeps."""
        return end_of_log(self._text.getvalue())

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
    """TensorBoard events, written to a temporary folder and uploaded from there."""

    def __init__(self, *, enabled: bool) -> None:
        """Open the event file, unless it is not wanted."""
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        if not enabled:
            return
        from tensorboard.summary.writer.event_file_writer import EventFileWriter  # noqa: PLC0415 - only where wanted

        self._folder = tempfile.TemporaryDirectory(prefix="crossfold-events-")
        self._writer = EventFileWriter(self._folder.name)

    def close(self) -> None:
        """Close the file and remove the folder."""
        if self._folder is not None:
            self._writer.close()
            self._folder.cleanup()

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Record finite numbers at an optimiser step."""
        if self._folder is None:
            return
        from tensorboard.compat.proto.summary_pb2 import Summary  # noqa: PLC0415

        self._add(step, Summary(value=[Summary.Value(tag=name, simple_value=value) for name, value in values.items()]))

    def image(self, name: str, png: bytes, step: int) -> None:
        """Record a picture at an optimiser step."""
        if self._folder is None:
            return
        from tensorboard.compat.proto.summary_pb2 import Summary  # noqa: PLC0415

        width, height = struct.unpack(">II", png[16:24])  # a PNG begins with its header
        image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=png)
        self._add(step, Summary(value=[Summary.Value(tag=name, image=image)]))

    def hparams(self, hyperparameters: Mapping[str, Any], metrics: Mapping[str, float], step: int) -> None:
        """Record the hyperparameters, and what came of them, for the table of HPARAMS."""
        if self._folder is None:
            return
        from torch.utils.tensorboard.summary import hparams  # noqa: PLC0415

        plain = {name: v if isinstance(v, (bool, int, float, str)) else str(v) for name, v in hyperparameters.items()}
        scored = {f"hparam/{name}": value for name, value in metrics.items()}
        for summary in hparams(plain, scored):  # type: ignore[no-untyped-call]
            self._add(step, summary)
        self.scalars(scored, step)

    def graph(self, model: Any, example: Any) -> None:
        """Record a model's graph, traced with an example of its input; the model must be in evaluation mode."""
        if self._folder is None:
            return
        from tensorboard.compat.proto.event_pb2 import Event  # noqa: PLC0415
        from torch.utils.tensorboard._pytorch_graph import graph  # noqa: PLC0415

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # tracing warns of what a fixed size makes constant
            drawn, _ = graph(model, (example,))  # type: ignore[no-untyped-call]
        self._writer.add_event(Event(wall_time=time.time(), graph_def=drawn.SerializeToString()))

    def items(self) -> list[Item]:
        """The event files as they are now."""
        if self._folder is None:
            return []
        self._writer.flush()
        return [Item(path.name, path.read_bytes()) for path in sorted(Path(self._folder.name).iterdir())]

    def _add(self, step: int, summary: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event  # noqa: PLC0415

        self._writer.add_event(Event(step=step, wall_time=time.time(), summary=summary))


class Tracking:
    """All that a run's numbers and pictures go to while it trains. Nothing of it raises, and nothing is waited for."""

    def __init__(self, config: RunConfig, hyperparameters: Mapping[str, Any], known: Mapping[str, str]) -> None:
        """Open what the configuration asks for.

        Args:
            config: of the run.
            hyperparameters: all of them.
            known: what trackers called the run in a former attempt.
        """
        self._hyperparameters = hyperparameters
        self._board = TensorBoard(enabled=config.tracking.tensorboard)
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._remote: Remote | None = None
        wanted = config.tracking.model_dump(mode="json", exclude_none=True, include={"wandb", "aim", "mlflow"})
        if wanted:
            self._folder = tempfile.TemporaryDirectory(prefix="crossfold-trackers-", ignore_cleanup_errors=True)
            self._remote = Remote(facts_of(config, hyperparameters, self._folder.name, known), wanted)
        self._last_step = 0

    def __enter__(self) -> Self:
        """Nothing more to open."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close all, and remove what is only local."""
        if self._remote is not None:
            self._remote.finish({}, ended=False)
        self._board.close()
        if self._folder is not None:
            self._folder.cleanup()

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Numbers at an optimiser step; those that are not finite are left out."""
        finite = {name: float(value) for name, value in values.items() if math.isfinite(value)}
        self._last_step = step
        if finite:
            self._board.scalars(finite, step)
            if self._remote is not None:
                self._remote.scalars(finite, step)

    def image(self, name: str, png: bytes) -> None:
        """A picture, at the step of the latest numbers."""
        self._board.image(name, png, self._last_step)
        if self._remote is not None:
            self._remote.image(name, png, self._last_step)

    def images(self, figures: list[Item]) -> list[Item]:
        """Figures as pictures, by their names (those of an epoch share one); returns them as they are."""
        for figure in figures:
            self.image(re.sub(r"-epoch\d+$", "", Path(figure.path).stem), figure.content)
        return figures

    def graph(self, model: Any, example: Any) -> None:
        """The model's graph."""
        try:
            self._board.graph(model, example)
        except Exception as error:  # noqa: BLE001 - not every model can be traced
            log.warning("warning: the graph could not be written: %s", error)

    def finish(self, metrics: Mapping[str, float | None], values: Mapping[str, Any]) -> list[str]:
        """The end of the run: the kept metrics and what else is worth a note. Returns what did not work."""
        scored = {name: value for name, value in metrics.items() if value is not None}
        self._board.hparams(self._hyperparameters, scored, self._last_step)
        if self._remote is None:
            return []
        self._remote.finish({**scored, **values}, ended=True)
        return [f"tracking.{name}: {why}" for name, why in sorted(self._remote.problems.items())]

    def interrupted(self) -> None:
        """The end of this attempt only."""
        if self._remote is not None:
            self._remote.finish({}, ended=False)

    def items(self) -> list[Item]:
        """What is to be uploaded now."""
        ids = self._remote.ids if self._remote is not None else {}
        return [*self._board.items(), *([Item(TRACKERS, json.dumps(ids).encode())] if ids else [])]

    def files(self) -> list[Item]:
        """What trackers left in files, once they have ended."""
        if self._folder is None:
            return []
        root = Path(self._folder.name)
        found = (path for path in sorted((root / WANDB).glob("offline-run-*/**/*")) if path.is_file())
        return [Item(path.relative_to(root).as_posix(), path.read_bytes()) for path in found]


def facts_of(config: RunConfig, hyperparameters: Mapping[str, Any], folder: str, known: Mapping[str, str]) -> RunFacts:
    """The run as trackers know it."""
    return RunFacts(
        id=hashlib.sha256(config.artifact_uri.encode()).hexdigest()[:16],
        name=config.run,
        namespace=config.namespace,
        tune=config.tune,
        cross_validation=config.cross_validation,
        fold=config.fold,
        seed=config.seed,
        uri=config.artifact_uri,
        hyperparameters=dict(hyperparameters),
        folder=folder,
        credentials=os.environ.get(CREDENTIALS_VARIABLE) or CREDENTIALS_DIR,
        known=dict(known),
    )


def read_known(raw: bytes | None) -> dict[str, str]:
    """What trackers called the run, from trackers.json; nothing where it cannot be read."""
    try:
        content = json.loads(raw or b"{}")
    except ValueError:
        return {}
    return {str(name): str(known) for name, known in content.items()} if isinstance(content, dict) else {}


def csv_item(history: Sequence[Mapping[str, float]]) -> Item:
    """metrics.csv as it is now."""
    return Item(METRICS, metrics_csv(history))
