"""A world in which runs train epoch by epoch, and say so."""

from collections.abc import Callable
from typing import Any

from crossfold_operator import names
from crossfold_operator.cluster.base import Key, Obj
from crossfold_operator.names import Kind
from crossfold_operator.reconcile.reconciler import Reconciler
from crossfold_trainer.contract.curve import CurvePoint, curve_of
from crossfold_trainer.contract.progress import ProgressReport
from crossfold_trainer.contract.scoring import score_direction
from tests.fakes import world as w
from tests.fakes.memory_cluster import MemoryCluster
from tests.fakes.world import World

Score = Callable[[str, int], float]
"""(run, epoch from 1) -> the score of its validation, which there is after each epoch."""


class Training(World):
    """A world whose Jobs end when they have trained all their epochs, those behind first.

    Runs that are not asked for their scores train in one go. What runs report reaches the operator as it is then, and a new one has to wait for the next word.
    """

    score: Score
    """Set by whoever makes one of it."""
    heard: bool = True
    """Whether reports arrive."""

    def __init__(self, cluster: MemoryCluster, script: w.Script | None = None, score: Score | None = None) -> None:
        if score is not None:
            self.score = score
        self.trained: dict[str, int] = {}
        super().__init__(cluster, script)

    def restart(self) -> None:
        self.reports: dict[str, ProgressReport] = {}
        super().restart()

    def operator(self) -> Reconciler:
        """A new operator, which hears from runs that train."""
        return Reconciler(self.cluster, self.settings, self.cluster.clock, live=self.reports.get)

    async def step(self) -> bool:
        """Start every Job, then let the one that is least far train an epoch, and end when it was the last."""
        await self.start_all()
        jobs = self.unfinished()
        if not jobs:
            return False
        job = min(jobs, key=lambda one: self.trained.get(one["metadata"]["name"], 0))
        name, config = job["metadata"]["name"], w.config_of(job)
        epoch = self.trained.get(name, 0) + 1 if config.curve_epochs else config.trainer.max_epochs
        self.trained[name] = epoch
        self.cluster.clock.advance(w.SECONDS)
        if epoch >= config.trainer.max_epochs:
            self.end(job)
        elif self.heard:
            self._report(job, epoch)
        await self.settle()
        return True

    def _ending(self, job: Obj) -> w.Ending:
        """Scored by its best epoch, with its curve."""
        ending = super()._ending(job)
        config = w.config_of(job)
        if ending.exit_code or ending.changes:
            return ending
        (metric,) = config.objective.metrics
        best = self._curve(job, [config.trainer.max_epochs])[0].best
        curve = [point.model_dump() for point in self._curve(job, config.curve_epochs)]
        return w.Ending(changes={"score": best, "values": {metric.name: best}, "curve": curve})

    def _curve(self, job: Obj, epochs: list[int]) -> list[CurvePoint]:
        run, config = job["metadata"]["labels"][names.LABEL_TRAIN_RUN], w.config_of(job)
        scores = [(epoch, self.score(run, epoch)) for epoch in range(1, config.trainer.max_epochs + 1)]
        return curve_of(scores, epochs, score_direction(config.objective))

    def _report(self, job: Obj, epoch: int) -> None:
        run, config = job["metadata"]["labels"][names.LABEL_TRAIN_RUN], w.config_of(job)
        report: dict[str, Any] = {
            "digest": config.digest,
            "epoch": epoch,
            "epochs": config.trainer.max_epochs,
            "step": 10 * epoch,
            "fraction": epoch / config.trainer.max_epochs,
            "score": self._curve(job, [epoch])[0].best,
            "curve": self._curve(job, [e for e in config.curve_epochs if e <= epoch]),
        }
        key = Key(Kind.TRAIN_RUN, job["metadata"]["namespace"], run)
        self.reports[self.cluster.objects[key]["metadata"]["uid"]] = ProgressReport.model_validate(report)
        self.cluster.woken[key] = None
