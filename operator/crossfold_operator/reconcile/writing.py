"""What a reconcile does to the cluster: children are created and steered, statuses written, Events told."""

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from crossfold_operator import objects
from crossfold_operator.api.crossvalidation import CrossValidationSpec
from crossfold_operator.api.trainrun import StopSpec
from crossfold_operator.api.tune import TuneSpec
from crossfold_operator.cluster.base import Cluster, Key, Obj, Refused, key_of
from crossfold_operator.events import AnyStatus, Event, between
from crossfold_operator.names import Condition, Kind, Reason
from crossfold_operator.observe.metadata import controller_of, is_deleting
from crossfold_operator.observe.runs import Run
from crossfold_operator.observe.trials import Trial
from crossfold_operator.plan.crossvalidation import Unit
from crossfold_operator.status.facts import Fact
from crossfold_operator.status.patch import dump, merge_patch

log = logging.getLogger(__name__)

CREATES = 16
"""Runs of one parent that are created at the same time."""
LOOK_AGAIN = 10.0
"""Seconds after which a run that does not start, or a create that met a problem, is looked at again."""


class Blocked(Exception):
    """A child could not be created for now; the reason goes into the parent's Degraded condition."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def fact_of(problem: Blocked | Refused) -> Fact:
    """The Degraded condition that a problem makes."""
    reason = problem.reason if isinstance(problem, Blocked) else Reason.REFUSED
    return Fact(Condition.DEGRADED, status=True, reason=reason, message=str(problem))


class Writer:
    """Writes for one Reconciler."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster

    async def create_runs(
        self, wanted: Sequence[tuple[Obj, Unit]], spec: TuneSpec | CrossValidationSpec, image: str
    ) -> None:
        """Create runs, some of them side by side; the first problem is raised when all of them have been tried."""
        free = asyncio.Semaphore(CREATES)

        async def create(cv: Obj, unit: Unit) -> None:
            async with free:
                await self.create(cv, objects.train_run(cv, spec, cv["spec"].get("hyperparameters", []), unit, image))

        outcomes = await asyncio.gather(*(create(cv, unit) for cv, unit in wanted), return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome

    async def create(self, owner: Obj, manifest: Obj) -> tuple[Obj, bool]:
        """Create a child, or find that it exists.

        Raises:
            Blocked: the name is taken by something that is not ours (never adopted), or a quota is full.
            Refused: the manifest itself was refused.
        """
        key = key_of(manifest)
        try:
            made = await self.cluster.create(manifest)
        except Refused as refused:
            if refused.code != 403:
                raise
            quota = "exceeded quota" in refused.message
            raise Blocked(Reason.QUOTA_EXCEEDED if quota else Reason.REFUSED, refused.message) from refused
        if not made.existed:
            log.info("created", extra={"object": str(key), "owner": owner["metadata"]["name"]})
            return made.obj, False
        holder = controller_of(made.obj)
        if holder is not None and holder["uid"] == owner["metadata"]["uid"] and not is_deleting(made.obj):
            return made.obj, True
        if is_deleting(made.obj):
            raise Blocked(Reason.NAME_CONFLICT, f"waiting for {key.kind} {key.name} to be deleted")
        if holder is not None and (holder["kind"], holder["name"]) == (owner["kind"], owner["metadata"]["name"]):
            text = f"waiting for {key.kind} {key.name} of an earlier {owner['kind']} of the same name to be deleted"
            raise Blocked(Reason.NAME_CONFLICT, text)
        text = f"{key.kind} {key.name} exists and is not ours: delete or rename it"
        raise Blocked(Reason.NAME_CONFLICT, text)

    async def steer_runs(
        self, namespace: str, runs: Iterable[Run], *, suspend: bool, stop: Mapping[str, Any] | None
    ) -> None:
        """Write suspend and stop on the runs that are under way."""
        for run in runs:
            if run.terminal or run.deleting or not run.uid:
                continue
            if wanted := unlike(run, suspend=suspend, stop=stop):
                await self.cluster.patch(Key(Kind.TRAIN_RUN, namespace, run.record.run), run.uid, {"spec": wanted})

    async def write(self, obj: Obj, previous: AnyStatus, status: AnyStatus, events: Sequence[Event] = ()) -> Obj | None:
        """Write the status when it changed, then tell what happened. None when the object is gone."""
        key = key_of(obj)
        patch = merge_patch(obj.get("status") or {}, dump(status))
        written: Obj | None = obj
        if patch:
            written = await self.cluster.patch(key, obj["metadata"]["uid"], {"status": patch}, status=True)
        for event in (*events, *between(previous, status)):
            level = logging.WARNING if event.warning else logging.INFO
            log.log(level, event.message, extra={"object": str(key), "reason": event.reason})
            await self.cluster.event(obj, warning=event.warning, reason=event.reason, message=event.message)
        return written


def unlike(child: Trial | Run, *, suspend: bool, stop: Mapping[str, Any] | None) -> dict[str, Any]:
    """What the root wants of a child's spec and is not there yet. A stop, once set, stays."""
    wanted: dict[str, Any] = {}
    if child.suspended != suspend:
        wanted["suspend"] = suspend
    if stop is not None and not child.stopping:
        wanted["stop"] = stop
    return wanted


def stop_below(stop: StopSpec | None) -> dict[str, Any] | None:
    """What a run is told of why its trial ends: the reason, and not the numbers behind it."""
    return None if stop is None else {"reason": str(stop.reason), "message": stop.message}


def folder(uri: str, *parts: str) -> str:
    """A folder below an URI; empty parts are left out."""
    return "/".join([uri.rstrip("/"), *(part for part in parts if part)])
