"""observe > plan > apply > status, once, for one key. The same for every Cluster."""

import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

from pydantic import ValidationError

from crossfold_operator import problems
from crossfold_operator.api.crossvalidation import CrossValidationSpec, CrossValidationStatus
from crossfold_operator.api.fields import ConditionStatus
from crossfold_operator.api.trainrun import TrainRunSpec, TrainRunStatus
from crossfold_operator.api.tune import TuneSpec, TuneStatus
from crossfold_operator.cluster.base import Cluster, Key, Obj, key_of
from crossfold_operator.events import AnyStatus
from crossfold_operator.live import Shown, nothing
from crossfold_operator.names import TERMINAL_TRAIN_RUN, Condition, Kind, Reason
from crossfold_operator.observe.metadata import is_deleting, parent_of
from crossfold_operator.plan.limits import Limits
from crossfold_operator.queue import Overdue
from crossfold_operator.reconcile.asking import Asker, InlineSearch, Search, Wake, silent
from crossfold_operator.reconcile.crossvalidation import CrossValidationReconciler
from crossfold_operator.reconcile.slots import Slots
from crossfold_operator.reconcile.trainrun import TrainRunReconciler
from crossfold_operator.reconcile.tune import TuneReconciler
from crossfold_operator.reconcile.writing import Writer
from crossfold_operator.settings import Settings
from crossfold_operator.status.facts import Fact, conditions, valid

log = logging.getLogger(__name__)

AnySpec = TuneSpec | CrossValidationSpec | TrainRunSpec
SpecT = TypeVar("SpecT", TuneSpec, CrossValidationSpec, TrainRunSpec)
StatusT = TypeVar("StatusT", TuneStatus, CrossValidationStatus, TrainRunStatus)

_STATUSES: dict[Kind, type[TuneStatus] | type[CrossValidationStatus] | type[TrainRunStatus]] = {
    Kind.TUNE: TuneStatus,
    Kind.CROSS_VALIDATION: CrossValidationStatus,
    Kind.TRAIN_RUN: TrainRunStatus,
}


def utc_now() -> datetime:
    """The time."""
    return datetime.now(UTC)


class Reconciler:
    """Brings one object, and what it owns, closer to what its spec says."""

    def __init__(
        self,
        cluster: Cluster,
        settings: Settings,
        clock: Callable[[], datetime] = utc_now,
        live: Shown = nothing,
        *,
        search: Search | None = None,
        wake: Wake = silent,
    ) -> None:
        """A reconciler that remembers nothing.

        Args:
            cluster: the objects.
            settings: of the operator.
            clock: the time.
            live: the report that a run's status shows.
            search: answers questions to samplers; None: at once, in this process.
            wake: is told a key that may go on: an answer has come, or a slot is free.
        """
        limits = Limits(settings.trials_per_tune, settings.parallelism_per_tune, settings.runs_per_namespace)
        self._slots = slots = Slots(limits.runs, lambda: cluster.all(Kind.TRAIN_RUN), wake, clock)
        asker = Asker(search or InlineSearch(), clock, wake)
        self._cluster = cluster
        self._settings = settings
        self._clock = clock
        self._writer = writer = Writer(cluster)
        self._tune = TuneReconciler(
            cluster, writer, clock, asker=asker, slots=slots, limits=limits, reporting=live is not nothing
        )
        self._cross_validation = CrossValidationReconciler(cluster, writer, clock, slots, limits)
        self._train_run = TrainRunReconciler(cluster, writer, settings, clock, live)

    async def __call__(self, key: Key) -> float | None:
        """Reconcile one object.

        Returns:
            Seconds after which to look again even when nothing changes, or None.

        Raises:
            Unavailable: the cluster could not answer.
        """
        obj = self._cluster.get(key)
        if obj is None:
            self._tune.forget(key)
            self._cross_validation.forget(key)
            return None
        if is_deleting(obj):
            return None
        match key.kind:
            case Kind.TUNE:
                return await self._reconcile(obj, TuneSpec, TuneStatus, self._tune)
            case Kind.CROSS_VALIDATION:
                return await self._reconcile(obj, CrossValidationSpec, CrossValidationStatus, self._cross_validation)
            case Kind.TRAIN_RUN:
                if not _owned(obj):
                    in_flight = (obj.get("status") or {}).get("phase") not in TERMINAL_TRAIN_RUN
                    self._slots.grant(key, obj["metadata"]["uid"], int(in_flight), 0)
                return await self._reconcile(obj, TrainRunSpec, TrainRunStatus, self._train_run)
            case Kind.JOB | Kind.POD | Kind.SERVICE:
                return None

    async def tell(self, key: Key, error: BaseException, failures: int) -> None:
        """Have the status of an object that cannot be reconciled say so, until a reconcile succeeds.

        Args:
            key: of the object.
            error: what went wrong.
            failures: in a row.
        """
        obj = self._cluster.get(key)
        model = _STATUSES.get(key.kind)
        if obj is None or is_deleting(obj) or model is None:
            return
        previous = model.model_validate(obj.get("status") or {})
        overdue = isinstance(error, Overdue)
        what = str(error) if overdue else f"it failed {failures} times in a row: {type(error).__name__}: {error}"
        text = f"the operator cannot reconcile this {key.kind} now, and tries again with growing pauses: {what}. The"
        text += " operator's log has the details; other objects go on"
        reason = Reason.RECONCILE_TIMED_OUT if overdue else Reason.RECONCILE_FAILED
        fact = Fact(Condition.DEGRADED, True, reason, text)
        changed = conditions(previous.conditions, [fact], self._clock(), obj["metadata"].get("generation"))
        kept = [condition for condition in previous.conditions if condition.type != fact.type]
        await self._writer.write(obj, previous, previous.model_copy(update={"conditions": [*kept, *changed]}))

    async def _reconcile(
        self,
        obj: Obj,
        spec_model: type[SpecT],
        status_model: type[StatusT],
        act: Callable[[Obj, SpecT, StatusT], Any],
    ) -> float | None:
        try:
            previous = status_model.model_validate(obj.get("status") or {})
        except ValidationError:
            log.exception("status cannot be read and is made anew", extra={"object": str(key_of(obj))})
            previous = status_model()
        spec, found = self._read(obj, spec_model, previous)
        if spec is None:
            await self._writer.write(obj, previous, self._invalid(obj, previous, found))
            return None
        if not isinstance(previous, CrossValidationStatus) or not _owned(obj):
            resolved = self._resolve(spec, previous)
            if resolved is not previous:
                written = await self._writer.write(obj, previous, resolved)
                if written is None:
                    return None
                obj, previous = written, resolved
        again: float | None = await act(obj, spec, previous)
        return again

    def _read(self, obj: Obj, model: type[SpecT], previous: AnyStatus) -> tuple[SpecT | None, list[str]]:
        try:
            spec = model.model_validate(obj.get("spec", {}))
        except ValidationError as error:
            return None, problems.of_error(error)
        found = problems.of_spec(spec)
        image = spec.template.image or previous.image or self._settings.trainer_image
        if not image and not _owned(obj):
            found.append("spec.template.image: set it, since the operator was installed without a trainer image")
        return (None, found) if found else (spec, [])

    def _invalid(self, obj: Obj, previous: StatusT, found: Sequence[str]) -> StatusT:
        generation: int | None = obj["metadata"].get("generation")
        fact = valid(found)
        changed: list[ConditionStatus] = conditions(previous.conditions, [fact], self._clock(), generation)
        kept: list[ConditionStatus] = [condition for condition in previous.conditions if condition.type != fact.type]
        summary = previous.summary.model_copy(update={"reason": fact.message[:253]})
        update: dict[str, Any] = {
            "observed_generation": generation,
            "conditions": [*changed, *kept],
            "summary": summary,
        }
        return previous.model_copy(update=update)

    def _resolve(self, spec: AnySpec, previous: StatusT) -> StatusT:
        """The image is chosen at first sight, and written down before anything is created from it."""
        if previous.image:
            return previous
        return previous.model_copy(update={"image": spec.template.image or self._settings.trainer_image})


def _owned(obj: Obj) -> bool:
    """Whether a root above the object decides for it."""
    return parent_of(obj) is not None
