"""Racing in whole trees: who is pruned, what becomes of it, and that nothing depends on order, time or crashes."""

import random
import re
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from crossfold_operator.cluster.base import Key, Obj
from crossfold_operator.names import Kind
from crossfold_operator.search import racing, racing_words
from tests.fakes import world as w
from tests.fakes.forgetful import Forgetful
from tests.fakes.memory_cluster import MemoryCluster
from tests.fakes.mortal import Mortal
from tests.fakes.world import World, tune

FOLDS = 5
MEANS = (0.80, 0.79, 0.78, 0.81, 0.50, 0.805, 0.55)
"""The fourth trial is the best; the last three are raced against it."""


def search(**changes: Any) -> Obj:
    content: dict[str, Any] = {
        "algorithm": {"name": "Random"},
        "parameters": [{"name": "learning_rate", "type": "Float", "min": 1e-5, "max": 1e-2}],
        "maxTrials": len(MEANS),
        "parallelism": 2,
        "crossValidation": {"folds": FOLDS},
    }
    return tune(**(content | changes))


def unit_of(run: str) -> tuple[int, int, int]:
    found = re.fullmatch(r"t-cv(\d+)-f(\d+)s(\d+)", run)
    assert found is not None
    trial, fold, seed = map(int, found.groups())
    return trial, fold, seed


def score_of(trial: int, fold: int, seed: int = 42, means: Sequence[float] = MEANS) -> float:
    """The trial's mean, an effect of the fold that all trials share, and a little that they do not."""
    return round(means[trial % len(means)] + 0.02 * fold + 0.004 * ((trial * 7 + fold * 5 + seed) % 3 - 1), 6)


def scored(score: Callable[[float], float] = lambda y: y, metric: str = "val/JaccardIndex") -> w.Script:
    def script(run: str, attempt: int) -> w.Ending:
        value = score(score_of(*unit_of(run)))
        return w.Ending(changes={"score": value, "values": {metric: value}})

    return script


SCORED = scored()


async def ran(manifest: Obj, script: w.Script = SCORED, world: World | None = None) -> World:
    it = world or World(MemoryCluster(), script)
    it.cluster.apply(manifest)
    await it.run()
    return it


def phases(it: World) -> list[str]:
    trials = it.cluster.of(Kind.CROSS_VALIDATION)
    return [
        obj["status"]["phase"] for obj in sorted(trials, key=lambda t: int(t["metadata"]["name"].rpartition("cv")[2]))
    ]


def stops(it: World) -> dict[str, Obj]:
    return {
        t["metadata"]["name"]: t["spec"]["stop"] for t in it.cluster.of(Kind.CROSS_VALIDATION) if "stop" in t["spec"]
    }


async def test_a_trial_that_would_not_be_the_best_is_pruned_and_says_why() -> None:
    it = await ran(search())
    status = it.cluster.status(Kind.TUNE, "t")
    assert phases(it) == ["Complete"] * 4 + ["Pruned"] * 3
    assert (status["phase"], status["best"]["trial"]) == ("Complete", 3)
    assert (status["trials"]["pruned"], status["trials"]["complete"], status["trials"]["stopped"]) == (3, 4, 0)
    # Planned runs that were not run.
    created = len(it.cluster.of(Kind.TRAIN_RUN))
    assert status["runs"]["skipped"] == len(MEANS) * FOLDS - created
    assert status["summary"]["saved"] == f"{100 * (1 - created / (len(MEANS) * FOLDS)):.0f}%"

    cv = it.cluster.status(Kind.CROSS_VALIDATION, "t-cv4")
    stop = stops(it)["t-cv4"]
    assert cv["phase"] == "Pruned"
    assert stop["reason"] == "Pruned"
    assert re.fullmatch(
        r"pruned after 1/5 runs: anytime p <1e-6 <= alpha = 0\.05; predicted 0\.\d+ \+- 0\.\d+ against 0\.8500"
        r" \(P\(beat incumbent\) <1e-6\)",
        stop["message"],
    )
    assert stop["look"]["incumbent"] == 3
    assert cv["summary"]["reason"] == stop["message"]
    conditions = {c["type"]: (c["status"], c["reason"]) for c in cv["conditions"]}
    assert (conditions["Complete"], conditions["Failed"][0]) == (("True", "Pruned"), "False")
    # Told once, as an Event with the numbers, and as the last decision.
    told = [text for who, reason, text in it.cluster.events if (who, reason) == ("t", "TrialPruned")]
    assert len(told) == 3
    assert f"trial 4: {stop['message']}" in told
    assert status["lastDecision"]["action"] == "Pruned"
    assert told[-1] == f"trial {status['lastDecision']['trial']}: {status['lastDecision']['message']}"
    assert "audit" not in status


async def test_what_is_in_flight_when_its_trial_is_pruned_is_stopped_and_not_scored() -> None:
    it = await ran(search(parallelism=4))
    status = it.cluster.status(Kind.TUNE, "t")
    late = [r for r in it.cluster.of(Kind.TRAIN_RUN) if r["status"]["phase"] == "Stopped"]
    assert late, "nothing was in flight: the test tests nothing"
    assert {r["spec"]["stop"]["reason"] for r in late} == {"Pruned"}
    assert "look" not in late[0]["spec"]["stop"]
    assert all(r["status"]["preemptions"] == 0 for r in late)
    assert status["runs"]["stopped"] == len(late)
    assert status["usage"]["gpuSeconds"]["pruned"] == sum(r["status"]["usage"]["runSeconds"] for r in late)
    for record in it.cluster.status(Kind.CROSS_VALIDATION, late[0]["metadata"]["name"].rpartition("-f")[0])["runs"]:
        assert ("score" in record) is (record["phase"] == "Succeeded")


async def test_the_least_loss_is_raced_as_the_greatest_score_is() -> None:
    up = await ran(search())
    down = await ran(
        search(objective={"metrics": [{"name": "val/loss"}]}), scored(lambda y: round(2 - y, 6), "val/loss")
    )
    assert phases(down) == phases(up)
    assert stops(up)
    for name, stop in stops(up).items():
        look, mirrored = stop["look"], stops(down)[name]["look"]
        assert (mirrored["runsDone"], mirrored["incumbent"]) == (look["runsDone"], look["incumbent"])
        assert mirrored["p"] == pytest.approx(look["p"], rel=1e-4)
        assert mirrored["bar"] == pytest.approx(2 - look["bar"])


def mishaps(run: str, attempt: int) -> w.Ending:
    """One trial with a run that fails for good, one with a run that diverges, and a run that is tried again."""
    trial, fold, _ = unit_of(run)
    if (trial, fold) == (1, 2):
        return w.OOM_KILLED
    if (trial, fold) == (2, 1):
        return w.DIVERGED
    if (trial, fold, attempt) == (4, 0, 1):
        return w.CRASH
    return SCORED(run, attempt)


class Shuffled(World):
    """A world in which any of the Jobs that run may be the next to end."""

    def __init__(self, cluster: MemoryCluster, script: w.Script, seed: int) -> None:
        super().__init__(cluster, script)
        self._rng = random.Random(seed)

    def unfinished(self) -> list[Obj]:
        found = super().unfinished()
        self._rng.shuffle(found)
        return found


@pytest.mark.parametrize("seed", range(3))
async def test_every_decision_can_be_replayed_from_recorded_scores(seed: int) -> None:
    it = await ran(search(maxTrials=9, parallelism=4), world=Shuffled(MemoryCluster(), mishaps, seed))
    assert (phases(it)[1], phases(it)[2]) == ("Failed", "Unstable")
    trials = {t["metadata"]["name"]: t for t in it.cluster.of(Kind.CROSS_VALIDATION)}
    pruned = {name: t for name, t in trials.items() if t["status"]["phase"] == "Pruned"}
    assert pruned
    for name, trial in pruned.items():
        at, look = trial["spec"]["stop"]["time"], trial["spec"]["stop"]["look"]
        completed: list[racing.CompletedTrial] = [
            {
                "number": int(other.rpartition("cv")[2]),
                "scores": [[float(r["score"])] for r in t["status"]["runs"]],
            }
            for other, t in trials.items()
            if t["status"]["phase"] == "Complete" and t["status"]["endTime"] <= at
        ]
        obs = [
            (r["spec"]["fold"], 0, float(r["status"]["score"]))
            for r in it.cluster.of(Kind.TRAIN_RUN)
            if r["metadata"]["name"].startswith(f"{name}-f")
            and r["status"]["phase"] == "Succeeded"
            and r["status"]["endTime"] <= at
        ]
        again = racing.decide(obs, completed, FOLDS, 1, "Maximize", bounds=(0, 1))
        assert again.prune
        assert racing_words.text(again) == trial["spec"]["stop"]["message"]
        assert (again.p, again.predicted, again.se) == (look["p"], look["predicted"], look["standardError"])


async def test_a_crash_at_any_decision_changes_nothing() -> None:
    manifest = search(maxTrials=6)
    plain = await ran(manifest)
    expected = w.tree(plain.cluster)
    decisions = [
        at
        for at, (verb, key) in enumerate(plain.cluster.calls, 1)
        if verb == "patch" and key.kind in (Kind.CROSS_VALIDATION, Kind.TRAIN_RUN)
    ]
    assert len(decisions) >= 2
    # Before the decision is written, and between it and what follows from it.
    for at in sorted({*decisions, *(at + 1 for at in decisions)}):
        mortal = Mortal(MemoryCluster(), SCORED, at)
        await ran(manifest, world=mortal)
        assert mortal.deaths == 1
        assert w.tree(mortal.cluster) == expected, f"crash at call {at}"


async def test_the_search_is_the_same_from_the_children_alone() -> None:
    manifest = search(maxTrials=12, algorithm={"name": "TPE", "seed": 7}, parallelism=3)
    plain = await ran(manifest)
    assert "Pruned" in phases(plain)
    again = await ran(manifest, world=Forgetful(MemoryCluster(), SCORED))
    trials = [
        [
            (t["metadata"]["name"], t["spec"]["hyperparameters"], t["spec"].get("stop"), t["status"]["runs"])
            for t in found
        ]
        for found in (plain.cluster.of(Kind.CROSS_VALIDATION), again.cluster.of(Kind.CROSS_VALIDATION))
    ]
    assert trials[0] == trials[1]
    digests = [it.cluster.status(Kind.TUNE, "t")["search"]["historyDigest"] for it in (plain, again)]
    assert len(digests[0]) == 64
    assert digests[0] == digests[1]
    other = await ran(manifest | {"spec": manifest["spec"] | {"algorithm": {"name": "TPE", "seed": 8}}})
    assert other.cluster.status(Kind.TUNE, "t")["search"]["historyDigest"] != digests[0]


async def test_without_racing_every_trial_is_complete() -> None:
    it = await ran(search(maxTrials=5, racing={"enabled": False}))
    assert phases(it) == ["Complete"] * 5
    assert it.cluster.status(Kind.TUNE, "t")["runs"]["skipped"] == 0
    assert "saved" not in it.cluster.status(Kind.TUNE, "t")["summary"]


async def test_audited_trials_run_to_the_end_and_are_counted() -> None:
    it = await ran(search(racing={"audit": 1}))
    assert phases(it) == ["Complete"] * len(MEANS)
    status = it.cluster.status(Kind.TUNE, "t")
    assert status["audit"] == {"checked": 3, "wouldHaveWon": 0}
    assert status["lastDecision"]["action"] == "Audited"
    audited = it.cluster.objects[Key(Kind.CROSS_VALIDATION, w.NAMESPACE, "t-cv4")]["spec"]["audit"]
    assert audited["look"]["runsDone"] == 1
    told = [text for _, reason, text in it.cluster.events if reason == "TrialAudited"]
    assert f"trial 4: audited, would be {audited['message']}" in told
    assert len(told) == 3


async def test_an_audited_trial_that_wins_is_counted_as_such() -> None:
    def script(run: str, attempt: int) -> w.Ending:
        trial, fold, seed = unit_of(run)
        value = 0.3 if (trial, fold) == (4, 0) else 0.999 if trial == 4 else score_of(trial, fold, seed)
        return w.Ending(changes={"score": value, "values": {"val/JaccardIndex": value}})

    it = await ran(search(maxTrials=5, racing={"audit": 1}), script)
    status = it.cluster.status(Kind.TUNE, "t")
    assert status["best"]["trial"] == 4
    assert status["audit"] == {"checked": 1, "wouldHaveWon": 1}


async def test_a_greater_alpha_prunes_at_the_next_look() -> None:
    it = World(MemoryCluster(), SCORED)
    it.cluster.apply(search(maxTrials=6, racing={"alpha": 0.001}))
    # Trial 5 is near the best: three of its runs tell at the level 0.05, and not at 0.001.
    while len(done := [r for r in it.cluster.of(Kind.TRAIN_RUN) if r["metadata"]["name"].startswith("t-cv5-")]) < 3 or (
        sum(r["status"]["phase"] == "Succeeded" for r in done) < 3
    ):
        assert await it.step()
    assert "t-cv5" not in stops(it)
    before = len(it.cluster.of(Kind.TRAIN_RUN))
    it.cluster.apply(
        {**{k: search()[k] for k in ("apiVersion", "kind", "metadata")}, "spec": {"racing": {"alpha": 0.05}}}
    )
    await it.settle()
    assert stops(it)["t-cv5"]["look"]["alpha"] == 0.05
    assert len(it.cluster.of(Kind.TRAIN_RUN)) == before
    await it.run()
    assert phases(it)[5] == "Pruned"
