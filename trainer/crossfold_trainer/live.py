"""Live progress: the newest report goes to the operator, from a thread that training never waits for.

Nothing depends on it: a report that cannot be delivered is dropped, and the next one says all.
"""

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from crossfold_trainer.contract import progress as contract
from crossfold_trainer.contract.config import RunConfig
from crossfold_trainer.contract.curve import CurvePoint
from crossfold_trainer.contract.progress import ProgressReport
from crossfold_trainer.contract.sending import Send
from crossfold_trainer.curve import scores_so_far
from crossfold_trainer.meter import Meter
from crossfold_trainer.progress import Progress

log = logging.getLogger(__name__)

EVERY_S = 5.0
"""Seconds from one report to the next, at least."""
LONGEST_PAUSE_S = 60.0
"""Seconds from one failed delivery to the next try, at most."""


class Live:
    """Holds the newest report until its thread has delivered it.

    `due` says whether a report is worth making: it may be asked at every step.
    """

    def __init__(
        self, send: Send | None, *, every: float = EVERY_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Start the thread, unless there is nobody to send to."""
        self._send = send
        self._every = every
        self._clock = clock
        self._next = clock()
        self._report: ProgressReport | None = None
        self._news = threading.Condition()
        self._closed = False
        self._failures = 0
        self.delivered = 0
        """Reports that arrived."""
        if send is not None:
            threading.Thread(target=self._work, name="live", daemon=True).start()

    @property
    def due(self) -> bool:
        """Whether a report given now would be sent now."""
        return self._send is not None and self._clock() >= self._next

    def give(self, report: ProgressReport) -> None:
        """Send this as soon as it is time; it takes the place of one that is not sent yet."""
        if self._send is None:
            return
        with self._news:
            self._report = report
            self._news.notify()

    def close(self) -> None:
        """Send nothing more, and wait for nothing: the result says the rest."""
        with self._news:
            self._closed = True
            self._news.notify()

    def _work(self) -> None:
        while (report := self._take()) is not None:
            try:
                self._deliver(report)
            except Exception as error:  # noqa: BLE001 - a report is never worth an end
                self._failed(error)

    def _take(self) -> ProgressReport | None:
        """The newest report once it is time; None at the end."""
        with self._news:
            while not self._closed:
                wait = self._next - self._clock()
                if wait <= 0 and self._report is not None:
                    report, self._report = self._report, None
                    return report
                self._news.wait(wait if wait > 0 else None)
        return None

    def _deliver(self, report: ProgressReport) -> None:
        assert self._send is not None  # noqa: S101 - there is no thread otherwise
        self._next = self._clock() + self._every
        self._send(report.text())
        self.delivered += 1
        if self._failures:
            log.debug("progress is delivered again")
        self._failures = 0

    def _failed(self, error: Exception) -> None:
        pause = min(LONGEST_PAUSE_S, self._every * 2.0 ** min(self._failures + 1, 16))
        self._next = self._clock() + pause
        self._failures += 1
        if self._failures == 1:
            log.info("live progress is not delivered, which does not matter to the run: %s", error)


class Reports:
    """Reports where the training of one attempt is."""

    def __init__(self, live: Live, config: RunConfig, meter: Meter, batches: int) -> None:
        """Nothing is reported yet.

        Args:
            live: takes the reports.
            config: the run's.
            meter: the time of this attempt.
            batches: of an epoch.
        """
        self._live = live
        self._config = config
        self._meter = meter
        self._batches = batches
        self._start: float | None = None
        self._reached = -1
        """Epochs of the curve, at the last report."""
        self._curve: list[CurvePoint] = []

    @property
    def due(self) -> bool:
        """Whether a report given now would be sent now."""
        return self._live.due

    def give(self, progress: Progress) -> None:
        """Report; the first report says where this attempt began."""
        config = self._config
        if self._start is None:
            self._start = fraction_of(progress, self._batches, config.trainer.max_epochs)
        reached = sum(epoch <= progress.epoch for epoch in config.curve_epochs)
        if reached != self._reached:
            self._reached, self._curve = reached, scores_so_far(config, progress)
        self._live.give(report_of(config, progress, self._batches, self._meter, self._start, curve=self._curve))


def report_of(
    config: RunConfig,
    progress: Progress,
    batches: int,
    meter: Meter,
    start: float,
    *,
    curve: Sequence[CurvePoint] = (),
) -> ProgressReport:
    """What is reported of a run.

    Args:
        config: its configuration.
        progress: where its training is.
        batches: batches of an epoch.
        meter: the time of this attempt.
        start: the fraction at which this attempt began.
        curve: its scores so far, as `curve.scores_so_far` says.
    """
    epochs = config.trainer.max_epochs
    fraction = fraction_of(progress, batches, epochs)
    gained = fraction - start
    best = progress.best
    kept = best.metrics if best is not None else progress.last_metrics
    return ProgressReport(
        digest=config.digest,
        epoch=progress.epoch,
        epochs=epochs,
        step=progress.step,
        fraction=fraction,
        eta_seconds=round(meter.elapsed * (1 - fraction) / gained, 1) if gained > 0 else None,
        patches_per_second=meter.patches_per_second,
        score=best.score if best is not None else None,
        epoch_of_score=best.epoch if best is not None else None,
        metrics=_reported(kept),
        curve=list(curve),
    )


def _reported(metrics: Mapping[str, float]) -> dict[str, float | None]:
    fitting = [name for name in metrics if len(name) <= contract.NAME_LIMIT][: contract.MOST_METRICS]
    return {name: metrics[name] if math.isfinite(metrics[name]) else None for name in fitting}


def fraction_of(progress: Progress, batches: int, epochs: int) -> float:
    """Share of all epochs that is trained, in [0, 1]."""
    return min(1.0, (progress.epoch + progress.batch / max(1, batches)) / epochs)
