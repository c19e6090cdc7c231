"""A Tune: its trials are read, planned, created and counted."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from crossfold_operator import objects
from crossfold_operator.api.tune import TuneSpec, TuneStatus
from crossfold_operator.cluster.base import Cluster, Key, Obj, Refused, key_of
from crossfold_operator.events import Event
from crossfold_operator.names import Kind, Reason
from crossfold_operator.observe.trials import Trial, TrialReader
from crossfold_operator.plan import tune as tune_plan
from crossfold_operator.reconcile.writing import LOOK_AGAIN, Blocked, Writer, fact_of, folder, unlike
from crossfold_operator.search.sampler import ask, sampler_name
from crossfold_operator.status.facts import Fact
from crossfold_operator.status.tune import tune_status
from crossfold_trainer.contract.scoring import score_direction


class TuneReconciler:
    """Brings Tunes closer to what their specs say."""

    def __init__(self, cluster: Cluster, writer: Writer, clock: Callable[[], datetime]) -> None:
        self._cluster = cluster
        self._writer = writer
        self._clock = clock
        self._readers: dict[Key, tuple[str, TrialReader]] = {}

    def forget(self, key: Key) -> None:
        """Nothing need be remembered of a Tune that is gone."""
        self._readers.pop(key, None)

    def _trials(self, tune: Obj, spec: TuneSpec) -> list[Trial]:
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
        status = tune_status(
            spec=spec,
            previous=previous,
            trials=trials,
            asked=_asked(previous, trials),
            exhausted=exhausted,
            sampler=sampler_name(spec.algorithm),
            artifact_uri=folder(spec.artifacts.uri, tune["metadata"]["namespace"], tune["metadata"]["name"]),
            degraded=degraded,
            now=self._clock(),
            generation=tune["metadata"].get("generation"),
        )
        await self._writer.write(tune, previous, status, events)
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
            if wanted := unlike(trial, suspend=spec.suspend, stop=stop):
                key = Key(Kind.CROSS_VALIDATION, namespace, trial.name)
                await self._cluster.patch(key, trial.uid, {"spec": wanted})
            await self._writer.steer_runs(namespace, trial.runs, suspend=spec.suspend, stop=stop)


def _asked(previous: TuneStatus, trials: Sequence[Trial]) -> int:
    return max(previous.trials.asked, trials[-1].number + 1 if trials else 0)
