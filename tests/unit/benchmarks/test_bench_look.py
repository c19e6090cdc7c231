"""The benchmark of a look at a Tune looks at what it says, and writes nothing meanwhile."""

from benchmarks.operator import look
from crossfold_operator.names import Kind
from crossfold_operator.reconcile.reconciler import Reconciler
from crossfold_operator.settings import Settings


async def test_a_search_with_so_many_runs_in_flight() -> None:
    cluster, key = look.searching(20)
    reconcile = Reconciler(cluster, Settings(), lambda: look.NOW)
    await reconcile(key)
    tune = cluster.get(key)
    assert tune is not None
    assert (tune["status"]["runs"]["running"], tune["status"]["trials"]["running"]) == (20, 20)
    assert tune["status"]["trials"]["complete"] == look.FINISHED
    assert len(cluster.all(Kind.TRAIN_RUN)) == 40
    writes = cluster.writes
    await reconcile(key)
    assert cluster.writes == writes


async def test_times_are_told_by_size() -> None:
    times = await look._looks(5)
    assert len(times) == look.LOOKS
    assert all(time > 0 for time in times)
