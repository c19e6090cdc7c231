"""A TrainRun: its attempts are read, and the next Job is created."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime

from crossfold_operator import objects
from crossfold_operator.api.trainrun import TrainRunSpec, TrainRunStatus
from crossfold_operator.cluster.base import Cluster, Key, Obj, Refused
from crossfold_operator.events import Event
from crossfold_operator.live import Shown
from crossfold_operator.names import Kind, Reason
from crossfold_operator.observe.attempts import Attempt, AttemptState, Failure, Wanted, explain, read_attempts
from crossfold_operator.plan import trainrun as run_plan
from crossfold_operator.reconcile.writing import LOOK_AGAIN, Blocked, Writer, fact_of
from crossfold_operator.settings import Settings
from crossfold_operator.status.facts import Fact
from crossfold_operator.status.trainrun import train_run_status
from crossfold_operator.times import seconds_between
from crossfold_trainer.contract.config import RunConfig
from crossfold_trainer.contract.result import FailureClass

UNEXPLAINED = 5
"""Seconds that a pod may take to start before its Warning Events are asked for."""


class TrainRunReconciler:
    """Brings TrainRuns closer to what their specs say."""

    def __init__(
        self, cluster: Cluster, writer: Writer, settings: Settings, clock: Callable[[], datetime], live: Shown
    ) -> None:
        self._cluster = cluster
        self._live = live
        self._writer = writer
        self._settings = settings
        self._clock = clock

    async def __call__(self, run: Obj, spec: TrainRunSpec, previous: TrainRunStatus) -> float | None:
        """Reconcile one; seconds after which to look again, or None."""
        meta = run["metadata"]
        config = objects.run_config(run, spec)
        attempts = await self._attempts(run, config)
        done = run_plan.history(spec, previous, attempts, self._settings.startup_seconds, self._clock())
        planned = run_plan.plan(spec, previous, attempts, done)
        degraded: Fact | None = None
        events: list[Event] = []
        for attempt in planned.delete:
            await self._cluster.delete(Key(Kind.JOB, meta["namespace"], attempt.job), attempt.uid)
        try:
            await self._serve(run, spec, creating=planned.create is not None, attempts=attempts)
            if planned.create is not None:
                events += await self._create(run, spec, config, planned.create, previous.image)
        except Blocked as blocked:
            degraded = fact_of(blocked)
        except Refused as refused:
            # Trying again would not help.
            text = f"the API server does not accept what spec.template and spec.trainer make: {refused.message}"
            done = replace(done, last=Failure(FailureClass.CONFIG, text))
        if planned.create is not None or planned.delete:
            attempts = await self._attempts(run, config)
        status = train_run_status(
            spec=spec,
            config=config,
            previous=previous,
            attempts=attempts,
            done=done,
            report=self._live(meta["uid"]),
            degraded=degraded,
            now=self._clock(),
            generation=meta.get("generation"),
        )
        await self._writer.write(run, previous, status, events)
        starting = any(a.state is AttemptState.STARTING and a.number > done.ended for a in attempts)
        return LOOK_AGAIN if starting or degraded else None

    async def _create(self, run: Obj, spec: TrainRunSpec, config: RunConfig, attempt: int, image: str) -> list[Event]:
        manifest = objects.job(run, spec, config, attempt, image, progress_url=self._settings.progress_url)
        job, existed = await self._writer.create(run, manifest)
        text = f"attempt {attempt} as Job {job['metadata']['name']}"
        return [] if existed else [Event(False, Reason.JOB_CREATED, text)]

    async def _serve(self, run: Obj, spec: TrainRunSpec, *, creating: bool, attempts: Sequence[Attempt]) -> None:
        """See to it that pods that start find each other."""
        starting = creating or any(a.state is AttemptState.STARTING and not a.deleting for a in attempts)
        if spec.trainer.nodes > 1 and starting and not self._cluster.children(Kind.SERVICE, run["metadata"]["uid"]):
            await self._writer.create(run, objects.service(run))

    async def _attempts(self, run: Obj, config: RunConfig) -> list[Attempt]:
        jobs = self._cluster.children(Kind.JOB, run["metadata"]["uid"])
        pods = {job["metadata"]["uid"]: self._cluster.children(Kind.POD, job["metadata"]["uid"]) for job in jobs}
        now = self._clock()
        attempts = read_attempts(run["metadata"]["name"], jobs, pods, Wanted(config.digest, config.objective), now)
        by_uid = {job["metadata"]["uid"]: job for job in jobs}
        for index, attempt in enumerate(attempts):
            if (
                attempt.state is AttemptState.STARTING
                and attempt.waiting is None
                and not attempt.deleting
                and seconds_between(attempt.created, None, now) >= UNEXPLAINED
            ):
                about = dict(attempt.pod) if attempt.pod is not None else by_uid[attempt.uid]
                attempts[index] = explain(attempt, await self._cluster.warnings(about))
        return attempts
