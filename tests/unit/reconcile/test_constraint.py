"""retries.outOfMemory Constrain in whole trees: what a Tune makes of trials that did not fit into memory."""

from typing import Any

from crossfold_operator.cluster.base import Key
from crossfold_operator.names import Kind
from crossfold_operator.search import sampler
from tests.fakes import world as w
from tests.fakes.memory_cluster import MemoryCluster
from tests.fakes.world import World


async def searched(policy: str, *, restart_after: int | None = None, fits: int = 16) -> World:
    """A search over batches of which the larger ones do not fit; the operator may be started anew on the way."""
    it = World(MemoryCluster())

    def script(run: str, attempt: int) -> w.Ending:
        cv = it.cluster.objects[Key(Kind.CROSS_VALIDATION, w.NAMESPACE, run.rpartition("-")[0])]
        batch = next(p["value"] for p in cv["spec"]["hyperparameters"] if p["name"] == "batch_size")
        if batch > fits:
            return w.OUT_OF_MEMORY
        return w.Ending(changes={"score": batch / 32, "values": {"val/JaccardIndex": batch / 32}})

    it.script = script
    it.cluster.apply(
        w.tune(
            algorithm={"name": "TPE", "settings": {"startupTrials": 4}},
            parameters=[{"name": "batch_size", "type": "Int", "min": 1, "max": 32}],
            maxTrials=14,
            maxFailedTrials=2,
            parallelism=1,
            racing={"enabled": False},
            crossValidation={"folds": 2},
            retries={"outOfMemory": policy},
        )
    )
    for _ in range(restart_after or 0):
        await it.step()
    if restart_after is not None:
        sampler.forget()
        it.restart()
    await it.run()
    return it


def status_of(it: World) -> Any:
    return it.cluster.status(Kind.TUNE, "t")


def reason(it: World, kind: str) -> Any:
    return next(c["reason"] for c in status_of(it)["conditions"] if c["type"] == kind)


async def test_what_did_not_fit_is_counted_apart_and_fails_no_tune() -> None:
    it = await searched("Constrain")
    status = status_of(it)
    assert status["phase"] == "Complete"
    trials = status["trials"]
    assert trials["outOfMemory"] == trials["failed"] > 2
    assert trials["complete"] + trials["failed"] == 14
    # Not tried again, and no further run of the trial.
    for cv in it.cluster.of(Kind.CROSS_VALIDATION):
        if cv["status"]["phase"] == "Failed":
            runs = [
                run
                for run in it.cluster.of(Kind.TRAIN_RUN)
                if run["metadata"]["name"].startswith(f"{cv['metadata']['name']}-")
            ]
            assert [(run["status"]["attempt"], run["status"]["failure"]["class"]) for run in runs] == [
                (1, "OutOfMemory")
            ]


async def test_under_fail_the_same_search_fails() -> None:
    it = await searched("Fail")
    assert (status_of(it)["phase"], reason(it, "Failed")) == ("Failed", "MaxFailedTrialsExceeded")
    assert status_of(it)["trials"]["outOfMemory"] == status_of(it)["trials"]["failed"] == 3


async def test_a_search_in_which_nothing_fits_fails() -> None:
    it = await searched("Constrain", fits=0)
    assert (status_of(it)["phase"], reason(it, "Failed")) == ("Failed", "MaxFailedTrialsExceeded")
    assert status_of(it)["trials"]["asked"] == 3


async def test_a_restart_changes_nothing() -> None:
    undisturbed = await searched("Constrain")
    for steps in (5, 11, 17):
        again = await searched("Constrain", restart_after=steps)
        assert w.tree(again.cluster) == w.tree(undisturbed.cluster)
    assert status_of(undisturbed)["search"]["historyDigest"]


async def test_a_policy_that_changes_is_followed_from_then_on() -> None:
    """Retries may be changed while a Tune runs; what is told follows from the spec as it is."""
    it = await searched("Constrain")
    before = status_of(it)["search"]["historyDigest"]
    tune = it.cluster.objects[Key(Kind.TUNE, w.NAMESPACE, "t")]
    it.cluster.apply(
        {
            **w.tune(),
            "spec": {
                **tune["spec"],
                "retries": {**tune["spec"]["retries"], "outOfMemory": "Fail"},
                "maxFailedTrials": 14,
                "maxTrials": 15,
            },
        }
    )
    await it.run()
    assert status_of(it)["search"]["historyDigest"] != before
