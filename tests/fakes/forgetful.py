"""A world whose operator remembers nothing."""

from crossfold_operator import names
from crossfold_operator.cluster.base import Key
from crossfold_operator.names import Kind
from tests.fakes.world import World


class Forgetful(World):
    """A world whose operator is new at every look at a changed tree, and knows nothing but what the children say."""

    seen: str = ""

    async def reconcile(self, key: Key) -> None:
        versions = [obj["metadata"]["resourceVersion"] for kind in names.OWN_KINDS[1:] for obj in self.cluster.of(kind)]
        obj = self.cluster.objects[key]
        if key.kind is Kind.TUNE and "status" in obj and str(versions) != self.seen:
            self.seen = str(versions)
            self.cluster.replace({**obj, "status": {"image": obj["status"]["image"]}})
            self.reconciler = self.operator()
        await super().reconcile(key)
