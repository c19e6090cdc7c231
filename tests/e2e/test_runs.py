"""Single runs in real containers: what can go wrong, how it is classed, what it says, and what comes after."""

import base64
import csv

import pytest

from devcluster import install
from devcluster.paths import default_state
from tests.conftest import Kubectl
from tests.e2e.conftest import ENDLESS, Obj, World, condition

pytestmark = [pytest.mark.cluster, pytest.mark.images, pytest.mark.timeout(600)]

LEFT_BEHIND = {
    "config.json",
    "hparams.yaml",
    "metrics.csv",
    "splits.parquet",
    "environment.json",
    "log.txt",
    "result.json",
    "checkpoints",
    "figures",
}


def test_a_run_leaves_everything_behind(world: World) -> None:
    world.apply("TrainRun", "alone", world.train_run())
    done = world.phase("trainrun", "alone", "Succeeded", "Failed")
    status = done["status"]
    assert status["phase"] == "Succeeded", status
    assert 0 < float(status["score"]) < 1
    assert status["values"]["val/JaccardIndex"] == status["score"]
    folder = world.artifacts(status["artifactUri"])
    assert {path.name for path in folder.iterdir()} >= LEFT_BEHIND
    assert {"best.ckpt", "last.ckpt"} <= {path.name for path in (folder / "checkpoints").iterdir()}
    assert list(folder.rglob("events.out.tfevents.*")), "TensorBoard events"
    # The artifacts' server is another one than the data's, with other keys.
    assert status["checkpointUri"].startswith("s3://crossfold-artifacts/")
    # A terminal run is never run again.
    world.kubectl("delete", "job", "alone", "-n", world.namespace)
    assert world.get("trainrun", "alone")["status"]["score"] == status["score"]
    assert not world.list("jobs")


@pytest.mark.timeout(1200)
def test_a_deleted_pod_and_a_deleted_job(world: World, kubectl: Kubectl) -> None:
    epochs = 30
    long = world.train_run(trainer={"maxEpochs": epochs, "checkValEveryNEpoch": 1, "earlyStoppingPatience": None})
    deleted = {"pod-goes": ("pod", "-l", "crossfold.dev/train-run=pod-goes"), "job-goes": ("job", "job-goes")}
    for fold, name in enumerate(deleted):
        world.apply("TrainRun", name, {**long, "fold": fold})

    def has_a_checkpoint(run: Obj) -> bool:
        assert run["status"].get("phase") not in ("Succeeded", "Failed"), "it ended before it was disturbed"
        return run["status"].get("epoch", 0) >= 1 and any(
            world.artifacts(run["status"]["artifactUri"]).glob("checkpoints/state-*.ckpt")
        )

    uids = {}
    for name, what in deleted.items():
        world.wait("trainrun", name, has_a_checkpoint)
        uids[name] = world.get("job", name)["metadata"]["uid"]
        kubectl("delete", *what, "-n", world.namespace, "--wait=false")
    for name, attempts in (("pod-goes", 2), ("job-goes", 1)):
        status = world.phase("trainrun", name, "Succeeded", "Failed", seconds=500)["status"]
        assert (status["phase"], status["attempt"], status["crashes"]) == ("Succeeded", attempts, 0)
        assert status["preemptions"] == attempts - 1
        assert status["epochs"] == epochs
        folder = world.artifacts(status["artifactUri"])
        log = (folder / "log.txt").read_text()
        assert "resumed at step " in log
        assert f"epoch 1/{epochs} " not in log, "it went on where it was"
        rows = csv.DictReader((folder / "metrics.csv").read_text().splitlines())
        assert [int(row["epoch"]) for row in rows] == list(range(epochs)), "each epoch counts once"
    assert world.get("job", "pod-goes")["metadata"]["uid"] == uids["pod-goes"]
    assert world.get("job", "job-goes")["metadata"]["uid"] != uids["job-goes"]


def test_a_crash_is_retried_and_then_fails(world: World) -> None:
    spec = world.train_run()
    spec["template"]["env"] = [{"name": "PYTHONPATH", "value": "/nowhere"}]
    world.apply("TrainRun", "crash", spec)
    status = world.phase("trainrun", "crash", "Failed", "Succeeded")["status"]
    assert status["phase"] == "Failed"
    assert (status["attempt"], status["crashes"]) == (2, 2)
    assert status["failure"]["class"] == "Crash"
    assert status["failure"]["exitCode"] == 1
    assert "No module named" in status["failure"]["message"]


def test_too_little_memory(world: World) -> None:
    spec = world.train_run()
    spec["template"]["resources"] = {"limits": {"memory": "64Mi"}}
    world.apply("TrainRun", "oom", spec)
    status = world.phase("trainrun", "oom", "Failed", "Succeeded")["status"]
    assert status["failure"]["class"] == "HostOutOfMemory"
    assert "resources.limits.memory" in status["failure"]["message"]
    assert status["attempt"] == 1


def test_a_wrong_uri_and_wrong_keys_fail_at_once_and_name_the_field(world: World, kubectl: Kubectl) -> None:
    spec = world.train_run()
    world.apply("TrainRun", "no-such-data", {**spec, "data": {**spec["data"], "uri": "s3://crossfold-data/nowhere"}})
    wrong = {"AWS_ACCESS_KEY_ID": "WRONG", "AWS_SECRET_ACCESS_KEY": "wrong"}
    encoded = {key: base64.b64encode(value.encode()).decode() for key, value in wrong.items()}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "wrong"}, "data": encoded}
    kubectl("create", "-n", world.namespace, "-f", "-", stdin=secret)
    world.apply("TrainRun", "wrong-keys", {**spec, "data": {**spec["data"], "secretRef": {"name": "wrong"}}})
    for name, field in (("no-such-data", "data.uri"), ("wrong-keys", "data.secretRef")):
        status = world.phase("trainrun", name, "Failed", "Succeeded")["status"]
        assert status["phase"] == "Failed"
        assert status["failure"]["class"] == "Config"
        assert status["attempt"] == 1, "a configuration error is not tried again"
        assert field in status["failure"]["message"]
        assert "Traceback" not in status["failure"]["message"]


def test_a_missing_secret_is_waited_for_and_named(world: World, kubectl: Kubectl) -> None:
    spec = world.train_run()
    spec["data"] = {**spec["data"], "secretRef": {"name": "later"}}
    world.apply("TrainRun", "early", spec)
    waiting = world.wait("trainrun", "early", lambda r: condition(r, "Degraded").get("reason") == "SecretMissing")
    assert 'Secret "later"' in condition(waiting, "Degraded")["message"]
    install.connect(default_state(), world.namespace)
    secret = world.get("secret", "s3-data")
    later = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "later"}, "data": secret["data"]}
    kubectl("create", "-n", world.namespace, "-f", "-", stdin=later)
    done = world.phase("trainrun", "early", "Succeeded", "Failed")
    assert done["status"]["phase"] == "Succeeded"
    assert condition(done, "Degraded")["status"] == "False"


def test_an_unknown_hyperparameter_and_an_unfit_value(world: World, kubectl: Kubectl) -> None:
    spec = world.train_run()
    spec["hyperparameters"] = [{"name": "learning_rat", "value": 1e-3}]
    refused = kubectl(
        "create", "-n", world.namespace, "-f", "-", stdin=world.manifest("TrainRun", "typo", spec), check=False
    )
    assert "unknown hyperparameter" in refused
    assert "learning_rate" in refused
    spec["hyperparameters"] = [{"name": "learning_rate", "value": "fast"}]
    world.apply("TrainRun", "unfit", spec)
    shown = world.wait("trainrun", "unfit", lambda r: condition(r, "Valid").get("status") == "False")
    assert "learning_rate" in condition(shown, "Valid")["message"]
    assert not world.list("jobs")


def test_an_image_that_cannot_be_pulled_is_explained(world: World) -> None:
    spec = world.train_run()
    spec["template"]["image"] = "crossfold.internal/nothing:none"
    world.apply("TrainRun", "no-image", spec)
    shown = world.wait("trainrun", "no-image", lambda r: condition(r, "Degraded").get("reason") == "ImagePull")
    assert "spec.template.image" in condition(shown, "Degraded")["message"]


def test_the_epoch_moves_while_a_run_trains(world: World) -> None:
    world.apply("TrainRun", "long", world.train_run(trainer=ENDLESS))
    first = world.wait("trainrun", "long", lambda r: r["status"].get("epoch") and r["status"].get("score"))["status"]
    assert first["phase"] == "Running"
    assert first["summary"]["epoch"] == f"{first['epoch']}/10000"
    assert first["progress"] == "0%"
    assert first["eta"]
    assert float(first["patchesPerSecond"]) > 0
    later = world.wait("trainrun", "long", lambda r: r["status"]["epoch"] > first["epoch"])["status"]
    assert later["step"] > first["step"]
    assert later["phase"] == "Running"
    pod = world.list("pod", "-l", "crossfold.dev/train-run=long")[0]
    mounted = [m["mountPath"] for c in pod["spec"]["containers"] for m in c["volumeMounts"]]
    assert "/var/run/secrets/crossfold.dev/progress" in mounted
    assert "/var/run/secrets/kubernetes.io/serviceaccount" not in mounted
