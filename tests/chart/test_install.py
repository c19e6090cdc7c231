"""The chart installed: `helm test`, upgrades that leave Tunes alone, and what an uninstall leaves."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import CHART
from tests.controlplane import ControlPlane, Kubectl

pytestmark = pytest.mark.cluster

TUNE = {
    "apiVersion": "crossfold.dev/v1alpha1",
    "kind": "Tune",
    "metadata": {"name": "kept"},
    "spec": {
        "objective": {"metrics": [{"name": "val/JaccardIndex"}]},
        "parameters": [{"name": "learning_rate", "type": "Float", "min": 1e-4, "max": 1e-2}],
        "data": {"uri": "s3://bucket/data"},
        "artifacts": {"uri": "s3://bucket/artifacts"},
        "suspend": True,
    },
}


def runner(helm: Path, environment: dict[str, str], namespace: str) -> Callable[..., str]:
    def run(*args: str) -> str:
        done = subprocess.run(
            [str(helm), *args, "-n", namespace], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def identity(kubectl: Kubectl, *target: str) -> tuple[str, int]:
    meta = json.loads(kubectl("get", *target, "-o", "json"))["metadata"]
    return meta["uid"], meta["generation"]


def test_upgrades_and_an_uninstall_leave_crds_and_tunes(helm: Path, control_plane: ControlPlane) -> None:
    kubectl = control_plane.kubectl
    run = runner(helm, control_plane.environment, "upgrades")
    kubectl("create", "namespace", "upgrades")
    kubectl("create", "-n", "upgrades", "-f", "-", stdin=TUNE)
    before = identity(kubectl, "tune", "kept", "-n", "upgrades")
    # The CRDs were there before the chart was.
    run("install", "it", str(CHART), "--take-ownership", "--force-conflicts")
    pod_template = "jsonpath={.spec.template}"
    deployed = kubectl("get", "deployment", "it-crossfold", "-n", "upgrades", "-o", pod_template)
    for _ in range(2):
        run("upgrade", "it", str(CHART))
        assert identity(kubectl, "tune", "kept", "-n", "upgrades") == before
        assert kubectl("get", "deployment", "it-crossfold", "-n", "upgrades", "-o", pod_template) == deployed
    run("uninstall", "it")
    assert identity(kubectl, "tune", "kept", "-n", "upgrades") == before
    assert not kubectl(
        "get", "deployment,service,serviceaccount,role", "-n", "upgrades", "-l", "app.kubernetes.io/instance=it"
    )
    assert not kubectl("get", "clusterrole,clusterrolebinding", "-l", "app.kubernetes.io/instance=it")
    run("install", "it", str(CHART))
    assert identity(kubectl, "tune", "kept", "-n", "upgrades") == before
    run("uninstall", "it")


def test_notes_say_what_to_type_next(helm: Path, control_plane: ControlPlane) -> None:
    run = runner(helm, control_plane.environment, "default")
    notes = run(
        "install", "it", str(CHART), "--dry-run=server", "--set", "watchNamespace=team-a", "--set", "crds.install=false"
    )
    for line in (
        "helm test it -n default",
        "kubectl apply -n team-a -f tune.yaml",
        "kubectl logs -n default deploy/it-crossfold",
    ):
        assert line in notes


@pytest.mark.images
@pytest.mark.usefixtures("crds")
def test_it_runs_where_pods_are_restricted(
    *,
    helm: Path,
    cluster_environment: dict[str, str],
    images: dict[str, str],
    kubectl: Kubectl,
    namespace: str,
    make_namespace: Callable[[str], str],
) -> None:
    system = make_namespace("system")
    kubectl("label", "namespace", system, "pod-security.kubernetes.io/enforce=restricted")
    run = runner(helm, cluster_environment, system)
    repository, _, tag = images["operator"].partition("@")
    values = {
        "image.repository": repository,
        "image.tag": tag,
        "trainerImage": images["trainer"],
        "watchNamespace": namespace,
        "crds.install": "false",
        "logLevel": "DEBUG",
    }
    flags = [flag for name, value in values.items() for flag in ("--set", f"{name}={value}")]
    try:
        run("install", "it", str(CHART), *flags, "--wait", "--timeout", "120s")
        seen = run("test", "it", "--logs")
        assert "ok: the operator is ready (working)" in seen
        kubectl("create", "-n", namespace, "-f", "-", stdin=TUNE)
        kubectl("wait", "-n", namespace, "tune/kept", "--for=jsonpath={.status.phase}=Suspended", "--timeout=120s")
        pods = (
            "get",
            "pods",
            "-n",
            system,
            "-l",
            "app.kubernetes.io/component=operator",
            "-o",
            "jsonpath={.items[*].metadata.uid}",
        )
        before = kubectl(*pods)
        run("upgrade", "it", str(CHART), *flags, "--wait", "--timeout", "120s")
        assert kubectl(*pods) == before
        log = kubectl("logs", "-n", system, "deployment/it-crossfold")
        said = [json.loads(line) for line in log.splitlines()]
        quiet = [line for line in said if line["logger"].startswith("kopf.") and line["level"] == "INFO"]
        assert quiet, "logLevel DEBUG has arrived: kopf says less otherwise"
        assert "forbidden" not in log.lower()
    finally:
        subprocess.run([str(helm), "uninstall", "it", "-n", system], env=cluster_environment, check=False)
        kubectl("delete", "namespace", system, "--wait=false")
