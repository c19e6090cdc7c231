"""What a look at a Tune costs the operator while many of its runs are in flight.

``look_ms`` is the median CPU time of a look after one run has changed: the Tune of a search with racing has so many
trials under way, each with one finished run and one in flight.
"""

import asyncio
import statistics
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from crossfold_operator import names
from crossfold_operator.cluster.base import Creation, Key, Obj, WarningEvent, key_of
from crossfold_operator.cluster.cache import Cache
from crossfold_operator.cluster.folder import merge_patch
from crossfold_operator.names import Kind
from crossfold_operator.reconcile.reconciler import Reconciler
from crossfold_operator.settings import Settings

SIZES = (50, 200, 1_000)
"""Runs in flight with which a look is timed."""
FOLDS = 5
FINISHED = 200
"""Trials that have ended."""
LOOKS = 15
NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
STARTED = "2026-01-01T11:59:00Z"


class CountingCluster:
    """A Cluster in memory that keeps what is written to it, without checking it.

    Attributes:
        writes: how many there were.
    """

    def __init__(self) -> None:
        self._cache = Cache()
        self._version = 0
        self.writes = 0

    def put(self, obj: Obj) -> Obj:
        """Store an object with a new version."""
        self._version += 1
        stored = {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(self._version)}}
        self._cache.put(stored)
        return stored

    def get(self, key: Key) -> Obj | None:
        """See Cluster."""
        return self._cache.get(key)

    def children(self, kind: Kind, owner_uid: str) -> list[Obj]:
        """See Cluster."""
        return self._cache.children(kind, owner_uid)

    def all(self, kind: Kind) -> list[Obj]:
        """All objects of a kind."""
        return [obj for key in self._cache.keys(kind) if (obj := self._cache.get(key)) is not None]

    async def create(self, manifest: Obj) -> Creation:
        """See Cluster."""
        self.writes += 1
        meta = {**manifest["metadata"], "uid": manifest["metadata"]["name"], "creationTimestamp": STARTED}
        return Creation(self.put({**manifest, "metadata": meta}), existed=False)

    async def patch(
        self,
        key: Key,
        uid: str,  # noqa: ARG002 -- the protocol
        patch: Mapping[str, Any],
        *,
        status: bool = False,  # noqa: ARG002 -- the protocol
    ) -> Obj | None:
        """See Cluster."""
        self.writes += 1
        old = self._cache.get(key)
        return None if old is None else self.put(merge_patch(old, patch))

    async def delete(self, key: Key, uid: str) -> None:
        """See Cluster."""
        self._cache.remove(key, uid)

    async def warnings(self, regarding: Obj) -> list[WarningEvent]:  # noqa: ARG002 -- the protocol
        """See Cluster."""
        return []

    async def event(self, regarding: Obj, *, warning: bool, reason: str, message: str) -> None:
        """See Cluster."""


def _meta(name: str, owner: Mapping[str, Any] | None = None, **labels: str) -> Obj:
    meta: Obj = {"name": name, "namespace": "d", "uid": name, "labels": labels, "creationTimestamp": STARTED}
    if owner is not None:
        reference = {"apiVersion": names.API_VERSION, "kind": owner["kind"], "controller": True}
        meta["ownerReferences"] = [{**reference, "name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"]}]
    return meta


def _object(kind: Kind, meta: Obj, spec: Obj, status: Obj) -> Obj:
    return {"apiVersion": names.API_VERSION, "kind": str(kind), "metadata": meta, "spec": spec, "status": status}


def _record(trial: int, fold: int) -> Obj:
    score = repr(round(0.5 + 0.001 * ((7 * trial + 3 * fold) % 90), 6))
    usage = {"runSeconds": 60, "gpuSeconds": {"useful": 60}}
    content = {"phase": "Succeeded", "stable": True, "score": score, "values": {"val/JaccardIndex": score}}
    return {"fold": fold, "seed": 42, "run": f"t-cv{trial}-f{fold}s42", **content, "usage": usage}


def searching(in_flight: int) -> tuple[CountingCluster, Key]:
    """A Tune with so many trials under way, each with one finished run and one that trains, and 200 that have ended."""
    cluster = CountingCluster()
    spec = {
        "objective": {"metrics": [{"name": "val/JaccardIndex"}]},
        "data": {"uri": "s3://bucket/data"},
        "artifacts": {"uri": "s3://bucket/artifacts"},
        "parameters": [{"name": "learning_rate", "type": "Float", "min": 1e-5, "max": 1e-2}],
        "crossValidation": {"folds": FOLDS},
        "maxTrials": FINISHED + in_flight,
        "parallelism": in_flight,
        "budget": {"gpuHours": 1e6},
        "target": 0.99,
    }
    tune = cluster.put(_object(Kind.TUNE, _meta("t"), spec, {"image": "registry/trainer:1"}))
    for number in range(FINISHED + in_flight):
        over = number < FINISHED
        meta = _meta(f"t-cv{number}", tune, **{names.LABEL_TUNE: "t"})
        values = {"hyperparameters": [{"name": "learning_rate", "value": 1e-5 + 1e-7 * number}]}
        runs = [_record(number, fold) for fold in range(FOLDS if over else 1)]
        mean = repr(sum(float(run["score"]) for run in runs) / len(runs))
        status = {"phase": "Complete", "score": mean, "std": "0.01", "expected": FOLDS, "succeeded": FOLDS}
        cv = cluster.put(
            _object(Kind.CROSS_VALIDATION, meta, values, {"runs": runs, **(status if over else {"phase": "Running"})})
        )
        for fold in () if over else (0, 1):
            record = _record(number, fold)
            run_meta = _meta(record["run"], cv, **{names.LABEL_TUNE: "t", names.LABEL_TRIAL: str(number)})
            shown = {"epoch": 3, "summary": {"epoch": "3/50"}, "dataDigest": "d" * 64, "configDigest": "c" * 64}
            ended = {**{k: v for k, v in record.items() if k not in ("fold", "seed", "run")}, **shown}
            running = {"phase": "Running", "current": {"startTime": STARTED}, **shown}
            cluster.put(_object(Kind.TRAIN_RUN, run_meta, {"fold": fold, "seed": 42}, running if fold else ended))
    return cluster, key_of(tune)


async def _looks(in_flight: int) -> list[float]:
    """CPU milliseconds of looks, each after another run has changed."""
    cluster, key = searching(in_flight)
    reconcile = Reconciler(cluster, Settings(), lambda: NOW)
    await reconcile(key)
    found: list[float] = []
    for number in range(LOOKS):
        run = cluster.get(Key(Kind.TRAIN_RUN, "d", f"t-cv{FINISHED + number % in_flight}-f1s42"))
        assert run is not None  # noqa: S101 -- it was put there
        cluster.put({**run, "status": {**run["status"], "epoch": 4 + number}})
        before = time.thread_time()
        await reconcile(key)
        found.append(1000 * (time.thread_time() - before))
    return found


def look_ms() -> dict[str, float]:
    """Median CPU milliseconds of a look at a Tune, by the number of its runs in flight."""
    return {str(size): statistics.median(asyncio.run(_looks(size))) for size in SIZES}


if __name__ == "__main__":
    print({size: round(value, 2) for size, value in look_ms().items()})
