"""A Tune: its trials are read, planned, created and counted."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from crossfold_operator import names, objects
from crossfold_operator.api.tune import SearchStatus, TuneSpec, TuneStatus
from crossfold_operator.cluster.base import Cluster, Key, Obj, Refused, key_of
from crossfold_operator.events import Event
from crossfold_operator.names import MOST_TRIALS, Kind, Reason, TunePhase
from crossfold_operator.observe.finished import Finished, Trials
from crossfold_operator.observe.reader import TrialReader
from crossfold_operator.observe.trials import Trial
from crossfold_operator.plan import tune as tune_plan
from crossfold_operator.plan.limits import Held, Limits, shared, within
from crossfold_operator.plan.spending import devices
from crossfold_operator.plan.tune import Decisions, NewTrial, Starts, Suggestions, decide, fill, free_slots
from crossfold_operator.plan.verdict import Judgement, judge
from crossfold_operator.reconcile.asking import Asker, Wanted
from crossfold_operator.reconcile.slots import Slots
from crossfold_operator.reconcile.sources import Sources, warm_start_status
from crossfold_operator.reconcile.writing import LOOK_AGAIN, Blocked, Writer, fact_of, folder, stop_below, unlike
from crossfold_operator.search.history import digest
from crossfold_operator.search.sampler import sampler_name
from crossfold_operator.search.suggest import SearchSettings
from crossfold_operator.search.warm_start import WarmStart
from crossfold_operator.status.facts import Fact, limited
from crossfold_operator.status.tune import tune_status
from crossfold_operator.times import duration_seconds, timestamp
from crossfold_trainer.contract.base import Model
from crossfold_trainer.contract.scoring import score_direction

log = logging.getLogger(__name__)

REFRESH = 60.0
"""Seconds after which times are shown anew while something runs."""


@dataclass(frozen=True)
class _Look:
    """One look at a Tune: what it is, and what is found."""

    tune: Obj
    key: Key
    spec: TuneSpec
    previous: TuneStatus
    trials: Trials
    asked: int
    judgement: Judgement
    start: WarmStart
    now: datetime


class TuneReconciler:
    """Brings Tunes closer to what their specs say."""

    def __init__(
        self,
        cluster: Cluster,
        writer: Writer,
        clock: Callable[[], datetime],
        *,
        asker: Asker,
        slots: Slots,
        limits: Limits,
        reporting: bool = True,
    ) -> None:
        """Of the operator: whether it hears from runs while they train."""
        self._reporting = reporting
        self._cluster = cluster
        self._writer = writer
        self._clock = clock
        self._asker = asker
        self._slots = slots
        self._limits = limits
        self._readers: dict[Key, tuple[str, TrialReader]] = {}
        self._digests: dict[Key, tuple[Finished, tuple[Any, ...], str]] = {}
        self._sources = Sources(cluster)

    def forget(self, key: Key) -> None:
        """Nothing need be remembered of a Tune that is gone."""
        self._readers.pop(key, None)
        self._digests.pop(key, None)
        self._sources.forget(key)
        self._asker.forget(key)
        self._slots.forget(key)

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
        spec, held = within(spec, self._limits)
        now = self._clock()
        trials = self._trials(tune, spec)
        asked = _asked(previous, trials)
        start = WarmStart()
        degraded: Fact | None = None
        try:
            start = self._sources.read(tune, spec, begun=asked > 0)
        except Blocked as problem:
            degraded = fact_of(problem)
        judgement = judge(spec, trials, asked, previous.wall_clock, now)
        look = _Look(tune, key_of(tune), spec, previous, trials, asked, judgement, start, now)
        decided, starts = Decisions(trials), Starts()
        if degraded is None:
            decided = decide(spec, trials, judgement, now)
            starts = self._starts(look, decided, held)
        exhausted = starts.exhausted or (previous.search.exhausted and not starts.trials)
        events: list[Event] = []
        steered = _to_steer(spec, trials, decided)
        if steered or starts.runs or starts.trials:
            try:
                await self._steer(tune, spec, steered, decided, events)
                await self._start(look, starts, events)
            except (Blocked, Refused) as problem:
                degraded = fact_of(problem)
            trials = self._trials(tune, spec)
            asked = _asked(previous, trials)
            if trials.finished is not judgement.finished:
                # One has ended while this was written: no verdict is given on what was found before.
                judgement = judge(spec, trials, asked, previous.wall_clock, now)
        blocked = degraded is not None
        degraded = degraded or self._asker.problem(look.key, str(spec.algorithm.name))
        status = tune_status(
            spec=spec,
            previous=previous,
            trials=trials,
            asked=asked,
            judgement=judgement,
            search=SearchStatus(
                sampler=sampler_name(spec.algorithm.name),
                history_digest=self._history_digest(tune, spec, trials, asked, start),
                warm_start=warm_start_status(start),
                exhausted=exhausted,
            ),
            artifact_uri=folder(spec.artifacts.uri, tune["metadata"]["namespace"], tune["metadata"]["name"]),
            degraded=degraded,
            limited=limited(held),
            reporting=self._reporting,
            now=now,
            generation=tune["metadata"].get("generation"),
        )
        await self._writer.write(tune, previous, status, events)
        waits = [LOOK_AGAIN if blocked else _next_look(spec, status, trials, judgement), self._asker.pause(look.key)]
        return min((wait for wait in waits if wait is not None), default=None)

    def _starts(self, look: _Look, decided: Decisions, held: list[Held]) -> Starts:
        """What is to start: as far as there are slots, and suggestions for new trials."""
        spec, trials, asked, uid = look.spec, decided.trials, look.asked, look.tune["metadata"]["uid"]
        free = free_slots(spec, trials) if decided.starting else 0
        starts = fill(spec, trials, asked, free, Suggestions())
        granted = self._slots.grant(look.key, uid, trials.under_way.in_flight, starts.slots)
        if granted < starts.slots:
            held.append(shared(self._limits))
            free = granted
            starts = fill(spec, trials, asked, free, Suggestions())
        if not starts.wanted:
            self._asker.idle(look.key)
            return starts

        def told() -> list[Any]:
            return [*look.start.trials, *tune_plan.history(trials, asked, spec.retries.out_of_memory)]

        settings = SearchSettings(
            tuple(spec.parameters), spec.algorithm, score_direction(spec.objective), tuple(spec.initial_trials)
        )
        found = self._asker.suggestions(Wanted(look.key, uid, settings, told, asked, starts.wanted))
        return fill(spec, trials, asked, free, found)

    async def _start(self, look: _Look, starts: Starts, events: list[Event]) -> None:
        """Create runs and trials; Events of the trials that are new."""
        namespace, spec, image = look.key.namespace, look.spec, look.previous.image
        parents = (self._cluster.get(Key(Kind.CROSS_VALIDATION, namespace, r.trial.name)) for r in starts.runs)
        pairs = [(cv, run.unit) for cv, run in zip(parents, starts.runs, strict=True) if cv is not None]
        await self._writer.create_runs(pairs, spec, image)
        for trial in starts.trials:
            cv, existed = await self._writer.create(look.tune, self._trial_manifest(look, trial))
            if not existed:
                chosen = ", ".join(f"{name}={value}" for name, value in trial.parameters.items())
                events.append(Event(False, Reason.TRIAL_ASKED, f"trial {trial.number}: {chosen}"))
            await self._writer.create_runs([(cv, unit) for unit in trial.units], spec, image)

    def _trial_manifest(self, look: _Look, trial: NewTrial) -> Obj:
        manifest = objects.cross_validation(look.tune, look.spec, trial.number, trial.parameters)
        asked = self._asker.asked_at(look.key)
        if asked is not None and timestamp(asked) != timestamp(look.now):
            manifest["metadata"]["annotations"] = {names.ANNOTATION_ASKED: timestamp(asked)}
        return manifest

    def _history_digest(self, tune: Obj, spec: TuneSpec, trials: Trials, asked: int, start: WarmStart) -> str:
        """Reckoned when something new is to be told: a trial was asked, has ended, was pruned or deleted."""
        key, finished, policy = key_of(tune), trials.finished, spec.retries.out_of_memory
        told = (asked, policy, [(trial.uid, trial.pruned) for trial in trials.active], start.trials)
        known, before, found = self._digests.get(key, (None, (), ""))
        if known is not finished or before != told:
            found = digest([*start.trials, *tune_plan.history(trials, asked, policy)])
            self._digests[key] = (finished, told, found)
        return found

    async def _steer(
        self, tune: Obj, spec: TuneSpec, steered: Sequence[Trial], decided: Decisions, events: list[Event]
    ) -> None:
        """Write suspend, stop and audit on what is under way; Events of what was decided."""
        namespace = tune["metadata"]["namespace"]
        stops = {item.trial.number: item.stop for item in decided.stops}
        audits = {item.trial.number: item.audit for item in decided.audits}
        for trial in steered:
            stop, audit = stops.get(trial.number), audits.get(trial.number)
            wanted = unlike(trial, suspend=spec.suspend, stop=None if stop is None else _json(stop))
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

    @staticmethod
    def _decided(tune: Obj, trial: Trial, look: Model, reason: Reason, message: str) -> Event:
        """One line with the numbers, and the Event."""
        about = {"object": str(key_of(tune)), "decision": str(reason), "trial": trial.number}
        log.info(message, extra={**about, **look.model_dump(mode="json", by_alias=False)})
        return Event(False, reason, f"trial {trial.number}: {message}")


def _json(model: Model) -> dict[str, Any]:
    return model.model_dump(mode="json", exclude_none=True)


def _to_steer(spec: TuneSpec, trials: Trials, decided: Decisions) -> list[Trial]:
    """The trials under way of which something is decided, or that are not as the Tune would have them."""
    concerned = {item.trial.number for item in decided.stops} | {item.trial.number for item in decided.audits}
    return [
        trial
        for trial in trials.active
        if not trial.deleting and (trial.number in concerned or not trial.once(_steered, spec.suspend))
    ]


def _steered(trial: Trial, suspend: bool) -> bool:
    """Whether a trial and its runs are as the Tune would have them, unless something is decided."""
    stop = stop_below(trial.stop)
    under_way = (run for run in trial.runs if not (run.terminal or run.deleting) and run.uid)
    return trial.suspended == suspend and not any(unlike(run, suspend=suspend, stop=stop) for run in under_way)


def _next_look(spec: TuneSpec, status: TuneStatus, trials: Trials, judgement: Judgement) -> float | None:
    """When to look again although nothing changes: what time alone changes is shown anew, and a budget ends."""
    if status.wall_clock.running_since is None:
        return None
    waits = [REFRESH]
    budget, used = spec.budget, judgement.spent
    if budget is not None and budget.wall_clock is not None:
        waits.append(duration_seconds(budget.wall_clock) - used.wall_seconds)
    running = devices(spec) * len(trials.under_way.started)
    if budget is not None and budget.gpu_hours is not None and running:
        waits.append((budget.gpu_hours * 3600 - used.gpu_seconds) / running)
    return min(wait for wait in waits if wait > 0) if status.phase is TunePhase.RUNNING else None


def _asked(previous: TuneStatus, trials: Trials) -> int:
    """How many numbers were given out; a status that says more than there can be is no reason to count that far."""
    return min(MOST_TRIALS, max(previous.trials.asked, trials.asked))
