"""The runs in flight of each namespace: counted, and shared among what is in it. One process decides about all."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from crossfold_operator import names
from crossfold_operator.cluster.base import Key, Obj
from crossfold_operator.names import TERMINAL_TRAIN_RUN
from crossfold_operator.plan.limits import fair_shares

Wake = Callable[[Key], None]

RECOUNT = timedelta(seconds=60)
"""Time after which what exists is counted again: of what was deleted nobody need have heard."""


@dataclass
class _Root:
    """A Tune, or what else is the root of runs.

    Attributes:
        key: None until it has been looked at.
        in_flight: runs that exist, and those that it may start since its last look.
        wanted: further ones that it would have.
    """

    key: Key | None = None
    in_flight: int = 0
    wanted: int = 0


class Slots:
    """Gives out runs below a limit.

    It counts what exists when it is first asked, and from then on what each root says at its looks and was given
    since: what nobody has looked at again counts as it was, so that the limit is kept whatever happens in between.
    """

    def __init__(
        self, limit: int, runs: Callable[[], Iterable[Obj]], wake: Wake, clock: Callable[[], datetime]
    ) -> None:
        """Nothing is counted yet.

        Args:
            limit: runs in flight of a namespace; 0: none.
            runs: all TrainRuns that exist.
            wake: is told a root that may have a run now.
            clock: the time.
        """
        self._limit = limit
        self._runs = runs
        self._wake = wake
        self._clock = clock
        self._counted: datetime | None = None
        self._namespaces: dict[str, dict[str, _Root]] = {}

    def grant(self, key: Key, uid: str, in_flight: int, wanted: int) -> int:
        """How many of the wanted runs a root may start.

        Args:
            key: of the root.
            uid: of the root.
            in_flight: its runs that exist and have not ended.
            wanted: that it would start.
        """
        if not self._limit:
            return wanted
        if self._counted is None or (wanted and self._clock() - self._counted > RECOUNT):
            self._count()
        roots = self._namespaces.setdefault(key.namespace, {})
        root = roots.setdefault(uid, _Root())
        root.key, root.in_flight, root.wanted = key, in_flight, wanted
        total = sum(one.in_flight for one in roots.values())
        granted = max(0, min(wanted, self._limit - total, self._shares(roots)[uid] - in_flight))
        root.in_flight, root.wanted = in_flight + granted, wanted - granted
        if not root.in_flight and not root.wanted:
            del roots[uid]
        if total + granted < self._limit:
            self._wake_others(roots, uid)
        return granted

    def forget(self, key: Key) -> None:
        """A root is gone."""
        roots = self._namespaces.get(key.namespace, {})
        for uid in [uid for uid, root in roots.items() if root.key == key]:
            del roots[uid]
            self._wake_others(roots, uid)

    def _wake_others(self, roots: dict[str, _Root], uid: str) -> None:
        shares = self._shares(roots)
        for other, root in roots.items():
            if other != uid and root.wanted and root.key is not None and root.in_flight < shares[other]:
                self._wake(root.key)

    def _shares(self, roots: dict[str, _Root]) -> dict[str, int]:
        return fair_shares(self._limit, {uid: root.in_flight + root.wanted for uid, root in roots.items()})

    def _count(self) -> None:
        """Count what exists. What a root was given and has not created yet is no part of that, and stays counted."""
        self._counted = self._clock()
        seen: Counter[tuple[str, str]] = Counter()
        for run in self._runs():
            if (run.get("status") or {}).get("phase") not in TERMINAL_TRAIN_RUN:
                meta = run["metadata"]
                uid = meta.get("labels", {}).get(names.LABEL_ROOT) or meta["uid"]
                seen[meta.get("namespace", ""), uid] += 1
        for namespace, roots in self._namespaces.items():
            for uid in [uid for uid, root in roots.items() if root.key is None and not seen[namespace, uid]]:
                del roots[uid]
        for (namespace, uid), count in seen.items():
            root = self._namespaces.setdefault(namespace, {}).setdefault(uid, _Root())
            root.in_flight = count if root.key is None else max(count, root.in_flight)
