"""A Tune: its trials are read, planned, created and counted."""

import logging
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from crossfold_operator import objects
from crossfold_operator.api.tune import SearchStatus, TuneSpec, TuneStatus
from crossfold_operator.cluster.base import Cluster, Key, Obj, Refused, key_of
from crossfold_operator.events import Event
from crossfold_operator.names import MOST_TRIALS, Kind, Reason, TunePhase
from crossfold_operator.observe.finished import Finished, Trials
from crossfold_operator.observe.reader import TrialReader
from crossfold_operator.observe.trials import Trial
from crossfold_operator.plan import tune as tune_plan
from crossfold_operator.plan.spending import devices, spent, wall_clock
from crossfold_operator.plan.tune import TunePlan
from crossfold_operator.reconcile.sources import Sources, warm_start_status
from crossfold_operator.reconcile.writing import LOOK_AGAIN, Blocked, Writer, fact_of, folder, stop_below, unlike
from crossfold_operator.search.history import Trial as SearchTrial
from crossfold_operator.search.history import digest
from crossfold_operator.search.sampler import ask, sampler_name
from crossfold_operator.search.warm_start import WarmStart
from crossfold_operator.status.facts import Fact
from crossfold_operator.status.tune import tune_status
from crossfold_operator.times import duration_seconds
from crossfold_trainer.contract.base import Model
from crossfold_trainer.contract.scoring import score_direction

log = logging.getLogger(__name__)

REFRESH = 60.0
"""Seconds after which times are shown anew while something runs."""


class TuneReconciler:
    """Brings Tunes closer to what their specs say."""

    def __init__(
        self, cluster: Cluster, writer: Writer, clock: Callable[[], datetime], *, reporting: bool = True
    ) -> None:
        """Of the operator: whether it hears from runs while they train."""
        self._reporting = reporting
        self._cluster = cluster
        self._writer = writer
        self._clock = clock
        self._readers: dict[Key, tuple[str, TrialReader]] = {}
        self._digests: dict[Key, tuple[Finished, tuple[Any, ...], str]] = {}
        self._sources = Sources(cluster)

    def forget(self, key: Key) -> None:
        """Nothing need be remembered of a Tune that is gone."""
        self._readers.pop(key, None)
        self._digests.pop(key, None)
        self._sources.forget(key)

    def _trials(self, tune: Obj, spec: TuneSpec) -> Trials:
        meta = tune["metadata"]
        key = key_of(tune)
        uid, reader = self._readers.get(key, ("", None))
        if reader is None or uid != meta["uid"]:
            reader = TrialReader(meta["name"], [parameter.name for parameter in spec.parameters])
            self._readers[key] = (meta["uid"], reader)
        children = self._cluster.children(Kind.CROSS_VALIDATION, meta["uid"])
        return reader.read(children, lambda cv_uid: self._cluster.children(Kind.TRAIN_RUN, cv_uid))

    async def __call__(self, tune: Obj, spec: TuneSpec, previous: TuneStatus) -> float | None:
        """Reconcile one; seconds after which to look again, or None."""
        direction = score_direction(spec.objective)

        def choose(history: Sequence[SearchTrial], number: int) -> dict[str, Any] | None:
            told = [*start.trials, *history]
            return ask(spec.parameters, spec.algorithm, direction, told, number, initial=spec.initial_trials)

        now = self._clock()
        trials = self._trials(tune, spec)
        asked = _asked(previous, trials)
        start = WarmStart()
        degraded: Fact | None = None
        try:
            start = self._sources.read(tune, spec, begun=asked > 0)
        except Blocked as problem:
            degraded = fact_of(problem)
        clock = wall_clock(previous.wall_clock, trials, now)
        used = spent(spec, trials, clock, now)
        planned = TunePlan()
        if degraded is None:
            planned = tune_plan.plan(spec, trials, asked, choose, spent=used, now=now)
        exhausted = planned.exhausted or (previous.search.exhausted and not planned.trials)
        events = await self._steer(tune, spec, trials, planned)
        try:
            namespace = tune["metadata"]["namespace"]
            parents = (self._cluster.get(Key(Kind.CROSS_VALIDATION, namespace, r.trial.name)) for r in planned.runs)
            pairs = [(cv, run.unit) for cv, run in zip(parents, planned.runs, strict=True) if cv is not None]
            await self._writer.create_runs(pairs, spec, previous.image)
            for trial in planned.trials:
                manifest = objects.cross_validation(tune, spec, trial.number, trial.parameters)
                cv, existed = await self._writer.create(tune, manifest)
                if not existed:
                    chosen = ", ".join(f"{name}={value}" for name, value in trial.parameters.items())
                    events.append(Event(False, Reason.TRIAL_ASKED, f"trial {trial.number}: {chosen}"))
                await self._writer.create_runs([(cv, unit) for unit in trial.units], spec, previous.image)
        except (Blocked, Refused) as problem:
            degraded = fact_of(problem)
        trials = self._trials(tune, spec)
        asked = _asked(previous, trials)
        status = tune_status(
            spec=spec,
            previous=previous,
            trials=trials,
            asked=asked,
            search=SearchStatus(
                sampler=sampler_name(spec.algorithm),
                history_digest=self._history_digest(tune, spec, trials, asked, start),
                warm_start=warm_start_status(start),
                exhausted=exhausted,
            ),
            artifact_uri=folder(spec.artifacts.uri, tune["metadata"]["namespace"], tune["metadata"]["name"]),
            degraded=degraded,
            reporting=self._reporting,
            now=now,
            generation=tune["metadata"].get("generation"),
        )
        await self._writer.write(tune, previous, status, events)
        if degraded:
            return LOOK_AGAIN
        return _next_look(spec, status, trials, now)

    def _history_digest(self, tune: Obj, spec: TuneSpec, trials: Trials, asked: int, start: WarmStart) -> str:
        """Reckoned when something new is to be told: a trial was asked, has ended, was pruned or deleted."""
        key, finished, policy = key_of(tune), trials.finished, spec.retries.out_of_memory
        told = (asked, policy, [(trial.uid, trial.pruned) for trial in trials.active], start.trials)
        known, before, found = self._digests.get(key, (None, (), ""))
        if known is not finished or before != told:
            found = digest([*start.trials, *tune_plan.history(trials, asked, policy)])
            self._digests[key] = (finished, told, found)
        return found

    async def _steer(self, tune: Obj, spec: TuneSpec, trials: Trials, planned: TunePlan) -> list[Event]:
        """Write suspend, stop and audit on what is under way; Events of what was decided."""
        namespace = tune["metadata"]["namespace"]
        stops = {item.trial.number: item.stop for item in planned.stops}
        audits = {item.trial.number: item.audit for item in planned.audits}
        events: list[Event] = []
        for trial in trials.active:
            if trial.deleting:
                continue
            stop = stops.get(trial.number)
            wanted = unlike(trial, suspend=spec.suspend, stop=None if stop is None else _json(stop))
            audit = audits.get(trial.number)
            if audit is not None:
                wanted["audit"] = _json(audit)
            if wanted:
                key = Key(Kind.CROSS_VALIDATION, namespace, trial.name)
                await self._cluster.patch(key, trial.uid, {"spec": wanted})
            if stop is not None and (look := stop.look or stop.run_look) is not None:
                events.append(self._decided(tune, trial, look, Reason.TRIAL_PRUNED, stop.message))
            if audit is not None and (look := audit.look or audit.run_look) is not None:
                text = f"audited, would be {audit.message}"
                events.append(self._decided(tune, trial, look, Reason.TRIAL_AUDITED, text))
            below = stop_below(stop or trial.stop)
            await self._writer.steer_runs(namespace, trial.runs, suspend=spec.suspend, stop=below)
        return events

    @staticmethod
    def _decided(tune: Obj, trial: Trial, look: Model, reason: Reason, message: str) -> Event:
        """One line with the numbers, and the Event."""
        about = {"object": str(key_of(tune)), "decision": str(reason), "trial": trial.number}
        log.info(message, extra={**about, **look.model_dump(mode="json", by_alias=False)})
        return Event(False, reason, f"trial {trial.number}: {message}")


def _json(model: Model) -> dict[str, Any]:
    return model.model_dump(mode="json", exclude_none=True)


def _next_look(spec: TuneSpec, status: TuneStatus, trials: Trials, now: datetime) -> float | None:
    """When to look again although nothing changes: what time alone changes is shown anew, and a budget ends."""
    if status.wall_clock.running_since is None:
        return None
    waits = [REFRESH]
    budget, used = spec.budget, spent(spec, trials, status.wall_clock, now)
    if budget is not None and budget.wall_clock is not None:
        waits.append(duration_seconds(budget.wall_clock) - used.wall_seconds)
    running = devices(spec) * sum(run.started is not None for run in tune_plan.in_flight(trials))
    if budget is not None and budget.gpu_hours is not None and running:
        waits.append((budget.gpu_hours * 3600 - used.gpu_seconds) / running)
    return min(wait for wait in waits if wait > 0) if status.phase is TunePhase.RUNNING else None


def _asked(previous: TuneStatus, trials: Trials) -> int:
    """How many numbers were given out; a status that says more than there can be is no reason to count that far."""
    return min(MOST_TRIALS, max(previous.trials.asked, trials.asked))
