"""A run, for a trainer of one's own: what to train, and how to report what became of it. Needs pydantic alone.

A trainer is three lines: import ``main``, define ``train(run)``, which returns ``{"val/acc": 0.9}``, call ``main``.
"""

import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import FrameType
from typing import NoReturn

from pydantic import JsonValue, ValidationError

from crossfold_trainer.contract.config import CONFIG_VARIABLE, RunConfig
from crossfold_trainer.contract.exits import Exit
from crossfold_trainer.contract.progress import ProgressReport
from crossfold_trainer.contract.result import (
    FAILURE_LOG_LIMIT,
    FAILURE_TEXT_LIMIT,
    FailureClass,
    RunFailure,
    RunResult,
)
from crossfold_trainer.contract.scoring import run_score, unreported
from crossfold_trainer.contract.sending import sender
from crossfold_trainer.contract.termination import write_termination_message

CRASH = 1


class WrongConfig(Exception):
    """The configuration or the data is wrong, and trying again would not help: the message says what to do."""


class Run:
    """One fold with one seed of one set of hyperparameters."""

    def __init__(self, config: RunConfig) -> None:
        self.config = config
        """All that the operator says of the run."""
        self.hyperparameters: dict[str, JsonValue] = dict(config.hyperparameters)
        """Hyperparameters by name."""
        self.checkpoint_uri = ""
        """Where the best checkpoint is; whoever writes one says so here."""
        self._send = sender(config)

    @property
    def fold(self) -> int:
        """Which fold is held out for validation, in [0, folds)."""
        return self.config.fold

    @property
    def folds(self) -> int:
        """How many folds the data are cut into."""
        return self.config.folds

    @property
    def seed(self) -> int:
        """What all randomness is drawn from."""
        return self.config.seed

    def report(self, epoch: int, epochs: int, metrics: Mapping[str, float | None], *, step: int = 0) -> None:
        """Report live progress. Nothing is raised where it cannot be delivered.

        Args:
            epoch: epochs trained so far.
            epochs: epochs after which training ends at the latest, at least 1.
            metrics: the metrics of this epoch by full name, such as val/acc.
            step: optimiser steps so far.
        """
        if self._send is None:
            return
        report = ProgressReport(
            digest=self.config.digest,
            epoch=epoch,
            epochs=epochs,
            step=step,
            fraction=min(1.0, epoch / epochs),
            score=run_score(metrics, self.config.objective).value,
            epoch_of_score=epoch - 1 if epoch else None,
            metrics=dict(metrics),
        )
        with suppress(OSError):
            self._send(report.text())

    def result(self, metrics: Mapping[str, float | None]) -> RunResult:
        """What the run came to.

        Args:
            metrics: final values by full name; those of the objective must be there.

        Raises:
            WrongConfig: the objective names a metric that is not there.
        """
        wanted = [metric.name for metric in self.config.objective.metrics]
        if missing := [name for name in wanted if name not in metrics]:
            raise WrongConfig(unreported(missing, metrics))
        score = run_score(metrics, self.config.objective)
        return RunResult(
            digest=self.config.digest,
            score=score.value,
            stable=score.stable,
            values={name: metrics[name] for name in wanted},
            metrics={name: value for name, value in metrics.items() if name not in wanted},
            checkpoint_uri=self.checkpoint_uri,
            artifact_uri=self.config.artifact_uri,
            reason=score.reason,
        )


def read(environment: Mapping[str, str] = os.environ) -> Run:
    """The run that the environment describes.

    Raises:
        WrongConfig: it describes none.
    """
    text = environment.get(CONFIG_VARIABLE)
    if not text:
        raise WrongConfig(f"{CONFIG_VARIABLE} is not set: the operator sets it in the pods that it makes")
    try:
        return Run(RunConfig.model_validate_json(text))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        raise WrongConfig(f"{CONFIG_VARIABLE}: {field}: {first['msg']}") from error


def main(train: Callable[[Run], Mapping[str, float | None]]) -> NoReturn:
    """Run a training function, write how it ended into the termination message, and exit as the contract says.

    SIGTERM raises SystemExit in the main thread: a ``finally`` block has the pod's grace period to save a checkpoint.
    The next attempt gets the same configuration.

    Args:
        train: takes the run and returns its final metrics by full name.

    Raises:
        SystemExit: always. 0: there is a result. 78: WrongConfig. 75: SIGTERM. 1: any other error.
    """
    signal.signal(signal.SIGTERM, _interrupted)
    try:
        run = read()
        message = run.result(train(run)).message()
    except WrongConfig as error:
        _fail(Exit.CONFIG, FailureClass.CONFIG, str(error))
    except Exception as error:  # noqa: BLE001 -- whatever it is, it is reported
        trace = traceback.format_exc()
        sys.stderr.write(trace)
        _fail(CRASH, FailureClass.CRASH, "".join(traceback.format_exception_only(error)), trace)
    except SystemExit as end:
        if end.code == Exit.INTERRUPTED:
            _fail(Exit.INTERRUPTED, FailureClass.PREEMPTED, "interrupted by SIGTERM")
        raise
    write_termination_message(message)
    sys.exit(Exit.OK)


def _interrupted(_number: int, _frame: FrameType | None) -> NoReturn:
    sys.exit(Exit.INTERRUPTED)


def _fail(code: int, kind: FailureClass, text: str, log: str = "") -> NoReturn:
    words = " ".join(text.split())
    sys.stderr.write(f"{kind}: {words}\n")
    failure = RunFailure(failure_class=kind, message=words[:FAILURE_TEXT_LIMIT], log=log[-FAILURE_LOG_LIMIT:])
    write_termination_message(failure.text())
    sys.exit(code)
