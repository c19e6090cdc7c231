"""A world whose operator is killed, and comes back."""

import contextlib

from crossfold_operator.cluster.base import Key
from tests.fakes import world as w
from tests.fakes.memory_cluster import MemoryCluster
from tests.fakes.world import World


class Crash(BaseException):
    """The process is gone: nothing of it goes on, and nothing catches it."""


class Mortal(World):
    """A world whose operator dies when it makes one call to the cluster, which never arrives, and comes back.

    To die after a call took effect is to die before the next one.
    """

    def __init__(self, cluster: MemoryCluster, script: w.Script, at: int) -> None:
        super().__init__(cluster, script)
        self.deaths = 0
        self._dead = False

        def fault(verb: str, key: Key) -> str | None:
            self._dead = self._dead or len(cluster.calls) == at
            if self._dead:
                raise Crash
            return None

        cluster.faults = fault

    async def reconcile(self, key: Key) -> None:
        with contextlib.suppress(Crash):
            await super().reconcile(key)
        if self._dead:
            self._dead = False
            self.deaths += 1
            self.cluster.woken.clear()
            self.restart()
