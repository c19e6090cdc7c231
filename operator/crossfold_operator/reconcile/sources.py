"""The finished Tunes that a search starts from: found, read and judged."""

from typing import Any

from crossfold_operator.api.tune import TuneSpec, WarmStartStatus
from crossfold_operator.cluster.base import Cluster, Key, Obj, key_of
from crossfold_operator.names import TERMINAL_TUNE, Kind, Reason
from crossfold_operator.observe.reader import TrialReader
from crossfold_operator.plan.tune import history
from crossfold_operator.reconcile.writing import Blocked
from crossfold_operator.search.warm_start import Source, WarmStart, warm_start
from crossfold_trainer.contract.objective import ObjectiveSpec


class Sources:
    """Reads the trials of ``spec.warmStart``, once for each version of the Tunes that it names."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._known: dict[Key, tuple[tuple[Any, ...], WarmStart]] = {}

    def forget(self, key: Key) -> None:
        """Nothing need be remembered of a Tune that is gone."""
        self._known.pop(key, None)

    def read(self, tune: Obj, spec: TuneSpec, *, begun: bool) -> WarmStart:
        """What a Tune starts from.

        Args:
            tune: the object.
            spec: its spec.
            begun: whether it has asked for trials already: then it goes on with what is left of its sources.

        Raises:
            Blocked: a Tune that it names does not exist or has not finished, and the search has not begun.
        """
        key = key_of(tune)
        found: list[Obj] = []
        for reference in spec.warm_start:
            source = self._cluster.get(Key(Kind.TUNE, key.namespace, reference.name))
            phase = None if source is None else (source.get("status") or {}).get("phase")
            if phase not in TERMINAL_TUNE and not begun:
                what = "there is no such Tune" if source is None else "it has not finished"
                text = f"spec.warmStart: Tune '{reference.name}': {what}; the search begins when it has finished"
                raise Blocked(Reason.WAITING_FOR_TUNE, text)
            if source is not None:
                found.append(source)
        version = tuple((s["metadata"]["uid"], s["metadata"].get("resourceVersion")) for s in found)
        known, result = self._known.get(key, ((), WarmStart()))
        if known != version:
            result = warm_start(spec.parameters, spec.fixed, spec.objective, [self._source(obj) for obj in found])
            self._known[key] = (version, result)
        return result

    def _source(self, obj: Obj) -> Source:
        meta = obj["metadata"]
        children = self._cluster.children(Kind.CROSS_VALIDATION, meta["uid"])
        # Fixed hyperparameters too: they say whether a score was reached under the same conditions.
        names = {item["name"] for child in children for item in child["spec"].get("hyperparameters", ())}
        trials = TrialReader(meta["name"], names).read(
            children, lambda uid: self._cluster.children(Kind.TRAIN_RUN, uid)
        )
        told = history(trials, trials.asked)
        return Source(meta["name"], ObjectiveSpec.model_validate(obj["spec"]["objective"]), told)


def warm_start_status(start: WarmStart) -> WarmStartStatus | None:
    """What a person is told of it; None where there is nothing to tell."""
    if not start.trials and not start.unfit:
        return None
    return WarmStartStatus(trials=len(start.trials), unfit=sum(start.unfit.values()), message=start.message[:1024])
