"""A whole search in real containers, undisturbed and with everything killed that can be killed."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from devcluster import install
from devcluster.paths import default_state
from tests.conftest import Kubectl
from tests.e2e.conftest import ENDLESS, Obj, World, condition
from tests.waiting import eventually

pytestmark = [pytest.mark.cluster, pytest.mark.images, pytest.mark.timeout(1500)]


def outcome(world: World, tune: str) -> dict[str, Obj]:
    """What a Tune found: per trial its parameters, and per run its score."""
    found = {}
    for cv in world.list("crossvalidations", "-l", f"crossfold.dev/tune={tune}"):
        parameters = {p["name"]: p["value"] for p in cv["spec"]["hyperparameters"]}
        runs = {(r["fold"], r["seed"]): float(r["score"]) for r in cv["status"]["runs"]}
        found[cv["metadata"]["name"].removeprefix(tune)] = {"parameters": parameters, "runs": runs}
    return found


def check_tree(world: World, tune: str) -> Obj:
    """A complete Tune holds together: counts, one result per unit, and best is the argmax."""
    done = world.get("tune", tune)
    assert done["status"]["phase"] == "Complete"
    assert done["status"]["trials"] == {
        "asked": 2,
        "running": 0,
        "complete": 2,
        "pruned": 0,
        "stopped": 0,
        "unstable": 0,
        "failed": 0,
        "outOfMemory": 0,
    }
    cvs = world.list("crossvalidations", "-l", f"crossfold.dev/tune={tune}")
    means = {cv["metadata"]["name"]: float(cv["status"]["score"]) for cv in cvs}
    best = done["status"]["best"]
    assert best["crossValidation"] == max(means, key=means.__getitem__)
    assert float(best["score"]) == max(means.values())
    for cv in cvs:
        assert [(r["fold"], r["seed"]) for r in cv["status"]["runs"]] == [(0, 42), (1, 42)]
        folder = world.artifacts(cv["status"]["artifactUri"])
        results = sorted(folder.glob("*/result.json"))
        assert len(results) == 2, "one result for each fold and seed"
        scores = [json.loads(result.read_text())["score"] for result in results]
        assert scores == [float(r["score"]) for r in cv["status"]["runs"]]
    return done


def test_grid_undisturbed_and_killed(
    world: World, kubectl: Kubectl, helm: Path, cluster_environment: dict[str, str]
) -> None:
    # Longer than it takes to find and to kill a trainer.
    epochs = {"maxEpochs": 8, "checkValEveryNEpoch": 1, "earlyStoppingPatience": None}
    world.apply("Tune", "calm", world.grid(trainer=epochs))
    world.phase("tune", "calm", "Complete", seconds=400)
    check_tree(world, "calm")

    world.apply("Tune", "storm", world.grid(trainer=epochs))
    world.wait("tune", "storm", lambda t: t["status"].get("runs", {}).get("running", 0) >= 1)
    first = {cv["metadata"]["name"]: cv["spec"]["hyperparameters"] for cv in world.list("crossvalidations")}
    # A trainer, by the kernel; its container goes with it.
    trainer = one_process("crossfold_trainer", "storm-cv0")
    os.kill(trainer, signal.SIGKILL)
    # The operator, by the kernel, while the trainer's end is news to nobody.
    os.kill(one_process("crossfold_operator.main"), signal.SIGKILL)
    # A pod, by its user, without any grace.
    runs = world.wait("tune", "storm", lambda t: t["status"].get("runs", {}).get("running", 0) >= 1)
    assert runs["status"]["phase"] == "Running"
    running = ("-l", "crossfold.dev/tune=storm", "--field-selector=status.phase=Running")
    victim = eventually(lambda: world.list("pods", *running), "a pod that runs")[0]["metadata"]["name"]
    kubectl("delete", "pod", victim, "-n", world.namespace, "--force", "--grace-period=0")
    # An upgrade of the chart to itself.
    install.install(default_state())
    world.phase("tune", "storm", "Complete", seconds=400)
    check_tree(world, "storm")
    after = {cv["metadata"]["name"]: cv["spec"]["hyperparameters"] for cv in world.list("crossvalidations")}
    assert first.items() <= after.items(), "a trial keeps its parameters"
    calm, storm = outcome(world, "calm"), outcome(world, "storm")
    assert calm.keys() == storm.keys()
    for trial, expected in calm.items():
        assert storm[trial]["parameters"] == expected["parameters"]
        assert storm[trial]["runs"] == pytest.approx(expected["runs"], abs=1e-3)
    interrupted = [r for r in world.list("trainruns", "-l", "crossfold.dev/tune=storm") if r["status"]["attempt"] > 1]
    assert interrupted, "nothing was killed: the test tested nothing"

    # What a person sees.
    shown = kubectl("get", "tunes.crossfold.dev", "-n", world.namespace).splitlines()
    assert shown[0].split() == ["NAME", "PHASE", "TRIALS", "BEST", "PRUNED", "FAILED", "GPU", "SAVED", "ETA", "AGE"]
    assert shown[1].split()[:3] == ["calm", "Complete", "2/2"]
    events = kubectl("get", "events", "-n", world.namespace, "-o", "jsonpath={.items[*].reason}").split()
    assert {"TrialAsked", "NewBest", "MaxTrialsReached", "JobCreated", "TrialFinished"} <= set(events)
    tested = subprocess.run(
        [helm, "test", install.RELEASE, "-n", install.NAMESPACE, "--timeout", "2m"],
        env=cluster_environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert tested.returncode == 0, tested.stdout + tested.stderr


def one_process(*words: str) -> int:
    """The process of a container whose command line or environment holds these words; containers run on this host."""

    def found() -> int:
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                told = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
                mine = (entry / "status").read_text().split("Uid:")[1].split()[0] == "65532"
            except OSError:
                continue
            if mine and all(word.encode() in told for word in words):
                return int(entry.name)
        return 0

    return eventually(found, f"a process of {words}")


def test_suspend_and_resume(world: World, kubectl: Kubectl) -> None:
    long = {"maxEpochs": 20, "checkValEveryNEpoch": 1, "earlyStoppingPatience": None}
    world.apply("Tune", "pause", world.grid(maxTrials=1, trainer=long))
    world.wait("tune", "pause", lambda t: t["status"].get("runs", {}).get("running", 0) == 2)
    kubectl(
        "patch",
        "tunes.crossfold.dev",
        "pause",
        "-n",
        world.namespace,
        "--type=merge",
        "-p",
        '{"spec":{"suspend":true}}',
    )
    world.phase("tune", "pause", "Suspended")
    assert not world.list("jobs"), "a suspended Tune holds no Job"
    runs = world.list("trainruns")
    assert {r["status"]["phase"] for r in runs} == {"Suspended"}
    kubectl(
        "patch",
        "tunes.crossfold.dev",
        "pause",
        "-n",
        world.namespace,
        "--type=merge",
        "-p",
        '{"spec":{"suspend":false}}',
    )
    done = world.phase("tune", "pause", "Complete", seconds=300)
    assert condition(done, "Suspended")["status"] == "False"
    ended = [run["status"] for run in world.list("trainruns")]
    assert [(run["attempt"], run["preemptions"], run["crashes"]) for run in ended] == [(2, 1, 0)] * 2


def test_deleting_a_tune_stops_everything_and_keeps_artifacts(world: World, kubectl: Kubectl) -> None:
    world.apply("Tune", "gone", world.grid(trainer=ENDLESS))
    running = world.wait("tune", "gone", lambda t: t["status"].get("runs", {}).get("running", 0) >= 1)
    run = world.list("trainruns")[0]
    world.wait("trainrun", run["metadata"]["name"], lambda r: r["status"].get("artifactUri"))
    assert running["status"]["phase"] == "Running"
    kubectl("delete", "tunes.crossfold.dev", "gone", "-n", world.namespace, "--cascade=foreground", "--timeout=150s")
    assert not world.list("crossvalidations")
    assert not world.list("trainruns")
    assert not world.list("jobs")


def test_a_run_is_pruned_in_its_midst(world: World, kubectl: Kubectl, cluster_environment: dict[str, str]) -> None:
    # The first trials learn; the last one, with a learning rate of nearly nothing, is behind from the first epochs on.
    rates = [3e-3, 4e-3, 5e-3, 1e-9]
    spec = world.grid(
        parameters=[{"name": "learning_rate", "type": "Float", "min": 1e-9, "max": 1e-2, "scale": "Log"}],
        algorithm={"name": "Random"},
        initialTrials=[{"parameters": [{"name": "learning_rate", "value": rate}]} for rate in rates],
        objective={"metrics": [{"name": "val/loss"}]},
        maxTrials=len(rates),
        parallelism=1,
        racing={"enabled": False},
        # One of four goes on: the last one would have to be the best of all.
        pruning={"method": "ASHA", "minEpochs": 3, "minPeers": 3},
        # Long enough for several reports, which are 5 s apart, and several statuses.
        trainer={"maxEpochs": 12, "checkValEveryNEpoch": 1, "earlyStoppingPatience": None, "plotEveryNValEpochs": 0},
    )
    world.apply("Tune", "look", spec)
    done = world.phase("tune", "look", "Complete", seconds=900)
    assert (done["status"]["trials"]["complete"], done["status"]["trials"]["pruned"]) == (3, 1)
    cv, first = world.get("crossvalidation", "look-cv3"), world.get("trainrun", "look-cv3-f0s42")
    stop = cv["spec"]["stop"]
    look = stop["runLook"]
    assert (cv["status"]["phase"], stop["reason"], first["status"]["phase"]) == ("Pruned", "Pruned", "Stopped")
    assert 3 <= look["epoch"] <= first["status"]["epoch"] < 12
    assert look["peers"] == 3
    assert look["best"] > look["threshold"]
    assert [p["epoch"] for p in first["status"]["curve"]][:1] == [3]
    # It was the only run of its trial, and its Job is gone with it.
    runs = world.list("trainruns", "-l", "crossfold.dev/cross-validation=look-cv3")
    assert [run["metadata"]["name"] for run in runs] == ["look-cv3-f0s42"]
    assert not world.list("jobs", "-l", "crossfold.dev/cross-validation=look-cv3")
    assert done["status"]["lastDecision"]["message"] == stop["message"]
    assert done["status"]["usage"]["gpuSeconds"]["pruned"] > 0
    assert done["status"]["runs"]["skipped"] >= 1
    events = kubectl("get", "events", "-n", world.namespace, "-o", "jsonpath={.items[*].reason}").split()
    assert "TrialPruned" in events
    explained = subprocess.run(
        [Path(sys.executable).parent / "crossfold", "explain", "tune/look", "--trial", "3", "-n", world.namespace],
        env=cluster_environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert stop["message"] in explained.stdout
    assert "What pruning saw inside its first run" in explained.stdout


def test_racing_prunes_a_trial_and_says_why(
    world: World, kubectl: Kubectl, cluster_environment: dict[str, str]
) -> None:
    # Six trials of three runs are what racing waits for; the seventh would have to be better by an impossible margin.
    parameters = [{"name": "learning_rate", "type": "Float", "min": 2e-3, "max": 4e-3}]
    spec = world.grid(
        parameters=parameters,
        algorithm={"name": "Random"},
        maxTrials=7,
        crossValidation={"folds": 3},
        racing={"minDelta": 0.9},
        trainer={"maxEpochs": 1, "checkValEveryNEpoch": 1},
    )
    world.apply("Tune", "race", spec)
    done = world.phase("tune", "race", "Complete", seconds=600)
    assert (done["status"]["trials"]["complete"], done["status"]["trials"]["pruned"]) == (6, 1)
    cv = world.get("crossvalidation", "race-cv6")
    stop = cv["spec"]["stop"]
    assert (cv["status"]["phase"], stop["reason"]) == ("Pruned", "Pruned")
    assert stop["look"]["runsDone"] < stop["look"]["runsTotal"] == 3
    assert stop["message"].startswith(f"pruned after {stop['look']['runsDone']}/3 runs: ")
    assert done["status"]["lastDecision"]["message"] == stop["message"]
    # What was in flight is gone, and what was not started never was.
    runs = world.list("trainruns", "-l", "crossfold.dev/cross-validation=race-cv6")
    assert {r["status"]["phase"] for r in runs} <= {"Succeeded", "Stopped"}
    assert done["status"]["runs"]["skipped"] == 3 - len(runs)
    jobs = {job["metadata"]["name"] for job in world.list("jobs", "-l", "crossfold.dev/cross-validation=race-cv6")}
    assert jobs <= {r["metadata"]["name"] for r in runs if r["status"]["phase"] == "Succeeded"}
    shown = kubectl("get", "tunes.crossfold.dev", "race", "-n", world.namespace).splitlines()
    row = dict(zip(shown[0].split(), shown[1].split(), strict=False))
    assert (row["PHASE"], row["TRIALS"], row["PRUNED"], row["FAILED"]) == ("Complete", "7/7", "1", "0")
    events = kubectl("get", "events", "-n", world.namespace, "-o", "jsonpath={.items[*].reason}").split()
    assert "TrialPruned" in events
    explained = subprocess.run(
        [Path(sys.executable).parent / "crossfold", "explain", "tune/race", "--trial", "6", "-n", world.namespace],
        env=cluster_environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Pruned" in explained.stdout
