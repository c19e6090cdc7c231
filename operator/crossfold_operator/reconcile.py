"""observe > plan > apply > status, once, for one key. The same for every Cluster."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, TypeVar

from pydantic import ValidationError

from crossfold_operator import names, objects, observe, problems
from crossfold_operator.api.crossvalidation import CrossValidationSpec, CrossValidationStatus
from crossfold_operator.api.fields import ConditionStatus
from crossfold_operator.api.trainrun import TrainRunSpec, TrainRunStatus
from crossfold_operator.api.tune import TuneSpec, TuneStatus
from crossfold_operator.cluster.base import Cluster, Key, Obj, Refused, key_of
from crossfold_operator.events import AnyStatus, Event, between
from crossfold_operator.names import Condition, Kind, Reason
from crossfold_operator.observe import AttemptState, Failure, Run, Trial
from crossfold_operator.plan import crossvalidation as cv_plan
from crossfold_operator.plan import trainrun as run_plan
from crossfold_operator.plan import tune as tune_plan
from crossfold_operator.search.sampler import ask, sampler_name
from crossfold_operator.settings import Settings
from crossfold_operator.status.crossvalidation import cross_validation_status
from crossfold_operator.status.facts import Fact, conditions, valid
from crossfold_operator.status.patch import dump, merge_patch
from crossfold_operator.status.trainrun import train_run_status
from crossfold_operator.status.tune import tune_status
from crossfold_trainer.contract.config import RunConfig
from crossfold_trainer.contract.result import FailureClass
from crossfold_trainer.contract.scoring import score_direction

log = logging.getLogger(__name__)

LOOK_AGAIN = 10.0
"""Seconds after which a run that does not start, or a create that met a problem, is looked at again."""
UNEXPLAINED = 5
"""Seconds that a pod may take to start before its Warning Events are asked for."""

AnySpec = TuneSpec | CrossValidationSpec | TrainRunSpec
SpecT = TypeVar("SpecT", TuneSpec, CrossValidationSpec, TrainRunSpec)
StatusT = TypeVar("StatusT", TuneStatus, CrossValidationStatus, TrainRunStatus)


def utc_now() -> datetime:
    """The time."""
    return datetime.now(UTC)


class Blocked(Exception):
    """A child could not be created for now; the reason goes into the parent's Degraded condition."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def _fact(problem: Blocked | Refused) -> Fact:
    reason = problem.reason if isinstance(problem, Blocked) else Reason.REFUSED
    return Fact(Condition.DEGRADED, status=True, reason=reason, message=str(problem))


class Reconciler:
    """Brings one object, and what it owns, closer to what its spec says."""

    def __init__(self, cluster: Cluster, settings: Settings, clock: Callable[[], datetime] = utc_now) -> None:
        self._cluster = cluster
        self._settings = settings
        self._clock = clock

    async def __call__(self, key: Key) -> float | None:
        """Reconcile one object.

        Returns:
            Seconds after which to look again even when nothing changes, or None.

        Raises:
            Unavailable: the cluster could not answer.
        """
        obj = self._cluster.get(key)
        if obj is None or observe.is_deleting(obj):
            return None
        match key.kind:
            case Kind.TUNE:
                return await self._reconcile(obj, TuneSpec, TuneStatus, self._tune)
            case Kind.CROSS_VALIDATION:
                return await self._reconcile(obj, CrossValidationSpec, CrossValidationStatus, self._cross_validation)
            case Kind.TRAIN_RUN:
                return await self._reconcile(obj, TrainRunSpec, TrainRunStatus, self._train_run)
            case Kind.JOB | Kind.POD:
                return None

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
            await self._write(obj, previous, self._invalid(obj, previous, found))
            return None
        if not isinstance(previous, CrossValidationStatus) or not _owned(obj):
            resolved = self._resolve(spec, previous)
            if resolved is not previous:
                written = await self._write(obj, previous, resolved)
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

    # Tune -------------------------------------------------------------------------------------------------------

    def _trials(self, tune: Obj, spec: TuneSpec) -> list[Trial]:
        searched = [parameter.name for parameter in spec.parameters]
        found = []
        for child in self._cluster.children(Kind.CROSS_VALIDATION, tune["metadata"]["uid"]):
            number = names.trial_of(tune["metadata"]["name"], child["metadata"]["name"])
            if number is not None:
                runs = self._cluster.children(Kind.TRAIN_RUN, child["metadata"]["uid"])
                found.append(observe.trial(child, number, searched, runs))
        return sorted(found, key=lambda trial: trial.number)

    async def _tune(self, tune: Obj, spec: TuneSpec, previous: TuneStatus) -> float | None:
        direction = score_direction(spec.objective)

        def choose(history: Sequence[Any], number: int) -> dict[str, Any] | None:
            return ask(spec.parameters, spec.algorithm, direction, history, number)

        trials = self._trials(tune, spec)
        asked = _asked(previous, trials)
        planned = tune_plan.plan(spec, trials, asked, choose)
        exhausted = planned.exhausted or (previous.search.exhausted and not planned.trials)
        verdict = tune_plan.verdict(spec, trials, asked, exhausted=exhausted)
        degraded: Fact | None = None
        events: list[Event] = []
        await self._steer(tune, spec, trials, failed=verdict.message if verdict and verdict.failed else None)
        try:
            namespace = tune["metadata"]["namespace"]
            parents = (self._cluster.get(Key(Kind.CROSS_VALIDATION, namespace, r.trial.name)) for r in planned.runs)
            pairs = [(cv, run.unit) for cv, run in zip(parents, planned.runs, strict=True) if cv is not None]
            await self._create_runs(pairs, spec, previous.image)
            for trial in planned.trials:
                manifest = objects.cross_validation(tune, spec, trial.number, trial.parameters)
                cv, existed = await self._create(tune, manifest)
                if not existed:
                    chosen = ", ".join(f"{name}={value}" for name, value in trial.parameters.items())
                    events.append(Event(False, Reason.TRIAL_ASKED, f"trial {trial.number}: {chosen}"))
                await self._create_runs([(cv, unit) for unit in trial.units], spec, previous.image)
        except (Blocked, Refused) as problem:
            degraded = _fact(problem)
        trials = self._trials(tune, spec)
        status = tune_status(
            spec=spec,
            previous=previous,
            trials=trials,
            asked=_asked(previous, trials),
            exhausted=exhausted,
            sampler=sampler_name(spec.algorithm),
            artifact_uri=_folder(spec.artifacts.uri, tune["metadata"]["namespace"], tune["metadata"]["name"]),
            degraded=degraded,
            now=self._clock(),
            generation=tune["metadata"].get("generation"),
        )
        await self._write(tune, previous, status, events)
        return LOOK_AGAIN if degraded else None

    async def _steer(self, tune: Obj, spec: TuneSpec, trials: Sequence[Trial], failed: str | None) -> None:
        """Write suspend and stop on what is under way."""
        namespace = tune["metadata"]["namespace"]
        for trial in trials:
            if trial.terminal or trial.deleting:
                continue
            stop = None
            if failed is not None:
                stop = {"reason": str(Reason.STOPPED), "message": f"the Tune failed: {failed}"[:1024]}
            elif trial.stopping:
                stop = {"reason": str(Reason.STOPPED), "message": "its CrossValidation was stopped"}
            if wanted := _unlike(trial, suspend=spec.suspend, stop=stop):
                key = Key(Kind.CROSS_VALIDATION, namespace, trial.name)
                await self._cluster.patch(key, trial.uid, {"spec": wanted})
            await self._steer_runs(namespace, trial.runs, suspend=spec.suspend, stop=stop)

    async def _steer_runs(
        self, namespace: str, runs: Iterable[Run], *, suspend: bool, stop: dict[str, str] | None
    ) -> None:
        for run in runs:
            if run.terminal or run.deleting or not run.uid:
                continue
            if wanted := _unlike(run, suspend=suspend, stop=stop):
                await self._cluster.patch(Key(Kind.TRAIN_RUN, namespace, run.record.run), run.uid, {"spec": wanted})

    # CrossValidation --------------------------------------------------------------------------------------------

    async def _cross_validation(
        self, cv: Obj, spec: CrossValidationSpec, previous: CrossValidationStatus
    ) -> float | None:
        meta = cv["metadata"]
        degraded: Fact | None = None
        if not _owned(cv):
            runs = self._runs(cv, previous)
            stop = spec.stop.model_dump(mode="json") if spec.stop else None
            await self._steer_runs(meta["namespace"], runs, suspend=spec.suspend, stop=stop)
            slots = 0 if spec.suspend else spec.parallelism - sum(not run.terminal for run in runs)
            due = cv_plan.due(spec.cross_validation.units, runs, stopping=spec.stop is not None)
            try:
                await self._create_runs([(cv, unit) for unit in due[: max(0, slots)]], spec, previous.image)
            except (Blocked, Refused) as problem:
                degraded = _fact(problem)
        tune = meta.get("labels", {}).get(names.LABEL_TUNE, "")
        status = cross_validation_status(
            spec=spec,
            previous=previous,
            runs=self._runs(cv, previous),
            artifact_uri=_folder(spec.artifacts.uri, meta["namespace"], tune, meta["name"]),
            degraded=degraded,
            now=self._clock(),
            generation=meta.get("generation"),
        )
        await self._write(cv, previous, status)
        return LOOK_AGAIN if degraded else None

    def _runs(self, cv: Obj, previous: CrossValidationStatus) -> list[Run]:
        return observe.runs(self._cluster.children(Kind.TRAIN_RUN, cv["metadata"]["uid"]), previous.runs)

    # TrainRun ---------------------------------------------------------------------------------------------------

    async def _train_run(self, run: Obj, spec: TrainRunSpec, previous: TrainRunStatus) -> float | None:
        meta = run["metadata"]
        config = objects.run_config(run, spec)
        attempts = await self._attempts(run, config)
        done = run_plan.history(spec, previous, attempts, self._settings.startup_seconds, self._clock())
        planned = run_plan.plan(spec, previous, attempts, done)
        degraded: Fact | None = None
        events: list[Event] = []
        for attempt in planned.delete:
            await self._cluster.delete(Key(Kind.JOB, meta["namespace"], attempt.job), attempt.uid)
        if planned.create is not None:
            manifest = objects.job(run, spec, config, planned.create, previous.image)
            try:
                job, existed = await self._create(run, manifest)
                if not existed:
                    text = f"attempt {planned.create} as Job {job['metadata']['name']}"
                    events.append(Event(False, Reason.JOB_CREATED, text))
            except Blocked as blocked:
                degraded = _fact(blocked)
            except Refused as refused:
                # The template does not make a pod: trying again would not help.
                text = f"spec.template makes no Job that the API server accepts: {refused.message}"
                done = replace(done, last=Failure(FailureClass.CONFIG, text))
        if planned.create is not None or planned.delete:
            attempts = await self._attempts(run, config)
        status = train_run_status(
            spec=spec,
            config=config,
            previous=previous,
            attempts=attempts,
            done=done,
            degraded=degraded,
            now=self._clock(),
            generation=meta.get("generation"),
        )
        await self._write(run, previous, status, events)
        starting = any(a.state is AttemptState.STARTING and a.number > done.ended for a in attempts)
        return LOOK_AGAIN if starting or degraded else None

    async def _attempts(self, run: Obj, config: RunConfig) -> list[observe.Attempt]:
        jobs = self._cluster.children(Kind.JOB, run["metadata"]["uid"])
        pods = {job["metadata"]["uid"]: self._cluster.children(Kind.POD, job["metadata"]["uid"]) for job in jobs}
        now = self._clock()
        attempts = observe.attempts(run["metadata"]["name"], jobs, pods, config.digest, now)
        by_uid = {job["metadata"]["uid"]: job for job in jobs}
        for index, attempt in enumerate(attempts):
            if (
                attempt.state is AttemptState.STARTING
                and attempt.waiting is None
                and not attempt.deleting
                and observe.seconds_between(attempt.created, None, now) >= UNEXPLAINED
            ):
                about = dict(attempt.pod) if attempt.pod is not None else by_uid[attempt.uid]
                attempts[index] = observe.explain(attempt, await self._cluster.warnings(about))
        return attempts

    # Writing ----------------------------------------------------------------------------------------------------

    async def _create_runs(
        self, wanted: Sequence[tuple[Obj, cv_plan.Unit]], spec: TuneSpec | CrossValidationSpec, image: str
    ) -> None:
        """Create runs side by side; the first problem is raised when all of them have been tried."""
        outcomes = await asyncio.gather(
            *(
                self._create(cv, objects.train_run(cv, spec, cv["spec"].get("hyperparameters", []), unit, image))
                for cv, unit in wanted
            ),
            return_exceptions=True,
        )
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome

    async def _create(self, owner: Obj, manifest: Obj) -> tuple[Obj, bool]:
        """Create a child, or find that it exists.

        Raises:
            Blocked: the name is taken by something that is not ours (never adopted), or a quota is full.
            Refused: the manifest itself was refused.
        """
        key = key_of(manifest)
        try:
            made = await self._cluster.create(manifest)
        except Refused as refused:
            if refused.code != 403:
                raise
            quota = "exceeded quota" in refused.message
            raise Blocked(Reason.QUOTA_EXCEEDED if quota else Reason.REFUSED, refused.message) from refused
        if not made.existed:
            log.info("created", extra={"object": str(key), "owner": owner["metadata"]["name"]})
            return made.obj, False
        holder = observe.controller_of(made.obj)
        if holder is not None and holder["uid"] == owner["metadata"]["uid"] and not observe.is_deleting(made.obj):
            return made.obj, True
        if observe.is_deleting(made.obj):
            raise Blocked(Reason.NAME_CONFLICT, f"waiting for {key.kind} {key.name} to be deleted")
        if holder is not None and (holder["kind"], holder["name"]) == (owner["kind"], owner["metadata"]["name"]):
            text = f"waiting for {key.kind} {key.name} of an earlier {owner['kind']} of the same name to be deleted"
            raise Blocked(Reason.NAME_CONFLICT, text)
        text = f"{key.kind} {key.name} exists and is not ours: delete or rename it"
        raise Blocked(Reason.NAME_CONFLICT, text)

    async def _write(
        self, obj: Obj, previous: AnyStatus, status: AnyStatus, events: Sequence[Event] = ()
    ) -> Obj | None:
        """Write the status when it changed, then tell what happened. None when the object is gone."""
        key = key_of(obj)
        patch = merge_patch(obj.get("status") or {}, dump(status))
        written: Obj | None = obj
        if patch:
            written = await self._cluster.patch(key, obj["metadata"]["uid"], {"status": patch}, status=True)
        for event in (*events, *between(previous, status)):
            level = logging.WARNING if event.warning else logging.INFO
            log.log(level, event.message, extra={"object": str(key), "reason": event.reason})
            await self._cluster.event(obj, warning=event.warning, reason=event.reason, message=event.message)
        return written


def _unlike(child: Trial | Run, *, suspend: bool, stop: dict[str, str] | None) -> dict[str, Any]:
    """What the root wants of a child's spec and is not there yet. A stop, once set, stays."""
    wanted: dict[str, Any] = {}
    if child.suspended != suspend:
        wanted["suspend"] = suspend
    if stop is not None and not child.stopping:
        wanted["stop"] = stop
    return wanted


def _owned(obj: Obj) -> bool:
    """Whether a root above the object decides for it."""
    return observe.parent_of(obj) is not None


def _asked(previous: TuneStatus, trials: Sequence[Trial]) -> int:
    return max(previous.trials.asked, trials[-1].number + 1 if trials else 0)


def _folder(uri: str, *parts: str) -> str:
    return "/".join([uri.rstrip("/"), *(part for part in parts if part)])
