"""A CrossValidation: its runs are counted and, where it is the root, planned and created."""

from collections.abc import Callable
from datetime import datetime

from crossfold_operator import names
from crossfold_operator.api.crossvalidation import CrossValidationSpec, CrossValidationStatus
from crossfold_operator.cluster.base import Cluster, Key, Obj, Refused, key_of
from crossfold_operator.names import Kind
from crossfold_operator.observe.metadata import parent_of
from crossfold_operator.observe.runs import Run, read_runs
from crossfold_operator.plan import crossvalidation as cv_plan
from crossfold_operator.plan.limits import Held, Limits, shared, within
from crossfold_operator.reconcile.slots import Slots
from crossfold_operator.reconcile.writing import LOOK_AGAIN, Blocked, Writer, fact_of, folder, stop_below
from crossfold_operator.status.crossvalidation import cross_validation_status
from crossfold_operator.status.facts import Fact, limited


class CrossValidationReconciler:
    """Brings CrossValidations closer to what their specs say."""

    def __init__(
        self, cluster: Cluster, writer: Writer, clock: Callable[[], datetime], slots: Slots, limits: Limits
    ) -> None:
        self._slots = slots
        self._limits = limits
        self._cluster = cluster
        self._writer = writer
        self._clock = clock

    async def __call__(self, cv: Obj, spec: CrossValidationSpec, previous: CrossValidationStatus) -> float | None:
        """Reconcile one; seconds after which to look again, or None."""
        meta = cv["metadata"]
        degraded: Fact | None = None
        held: list[Held] = []
        if parent_of(cv) is None:
            spec, held = within(spec, self._limits)
            runs = self._runs(cv, previous)
            await self._writer.steer_runs(meta["namespace"], runs, suspend=spec.suspend, stop=stop_below(spec.stop))
            in_flight = sum(not run.terminal for run in runs)
            slots = 0 if spec.suspend else max(0, spec.parallelism - in_flight)
            due = cv_plan.due(spec.cross_validation.units, runs, stopping=spec.stop is not None)[:slots]
            granted = self._slots.grant(key_of(cv), meta["uid"], in_flight, len(due))
            if granted < len(due):
                held.append(shared(self._limits))
            try:
                await self._writer.create_runs([(cv, unit) for unit in due[:granted]], spec, previous.image)
            except (Blocked, Refused) as problem:
                degraded = fact_of(problem)
        tune = meta.get("labels", {}).get(names.LABEL_TUNE, "")
        status = cross_validation_status(
            spec=spec,
            previous=previous,
            runs=self._runs(cv, previous),
            artifact_uri=folder(spec.artifacts.uri, meta["namespace"], tune, meta["name"]),
            degraded=degraded,
            limited=limited(held),
            now=self._clock(),
            generation=meta.get("generation"),
        )
        await self._writer.write(cv, previous, status)
        return LOOK_AGAIN if degraded else None

    def forget(self, key: Key) -> None:
        """Nothing need be remembered of one that is gone."""
        self._slots.forget(key)

    def _runs(self, cv: Obj, previous: CrossValidationStatus) -> list[Run]:
        return read_runs(self._cluster.children(Kind.TRAIN_RUN, cv["metadata"]["uid"]), previous.runs)
