"""Live progress on a real API server: a pod's own token, other tokens, and the status that follows."""

import json
from pathlib import Path
from typing import Any

import pytest

from crossfold_trainer.contract.progress import AUDIENCE, ProgressReport
from crossfold_trainer.contract.sending import Undelivered, http_sender
from tests.component.test_operator_process import Operator, Start, apply_run, has_job, space, start
from tests.controlplane import ControlPlane
from tests.waiting import eventually

pytestmark = pytest.mark.cluster
__all__ = ["space", "start"]


class Pods:
    """Makes what a kubelet would: tokens that are bound to pods."""

    def __init__(self, plane: ControlPlane, namespace: str, folder: Path) -> None:
        self.plane = plane
        self.namespace = namespace
        self.folder = folder

    def get(self, kind: str, *target: str) -> Any:
        return json.loads(self.plane.kubectl("get", kind, *target, "-n", self.namespace, "-o", "json"))

    def pod_of(self, run: str) -> dict[str, Any]:
        """The pod that the Job controller made for a run."""
        eventually(lambda: self.get("pods", "-l", f"crossfold.dev/train-run={run}")["items"], f"a pod of {run}")
        pod: dict[str, Any] = self.get("pods", "-l", f"crossfold.dev/train-run={run}")["items"][0]
        return pod

    def token(self, pod: dict[str, Any] | None, audience: str = AUDIENCE) -> Path:
        bound: list[str] = []
        if pod is not None:
            name, uid = pod["metadata"]["name"], pod["metadata"]["uid"]
            bound = ["--bound-object-kind=Pod", f"--bound-object-name={name}", f"--bound-object-uid={uid}"]
        text = self.plane.kubectl(
            "create", "token", "default", "-n", self.namespace, f"--audience={audience}", "--duration=600s", *bound
        )
        path = self.folder / f"token{len(list(self.folder.glob('token*')))}"
        path.write_text(text)
        return path

    def runs(self, run: str) -> None:
        """Have the pod's container run, as its kubelet would say."""
        pod = self.pod_of(run)
        state = {"name": "trainer", "image": "", "imageID": "", "ready": True, "restartCount": 0}
        state |= {"state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}}
        patch = {"status": {"phase": "Running", "containerStatuses": [state]}}
        self.plane.kubectl(
            "patch",
            "pod",
            pod["metadata"]["name"],
            "-n",
            self.namespace,
            "--subresource=status",
            "-p",
            json.dumps(patch),
        )


@pytest.fixture
def pods(control_plane: ControlPlane, space: str, tmp_path: Path) -> Pods:
    # Controllers come back with a delay after an API server that was away, as in the tests before.
    control_plane.kubectl("wait", "--for=create", "--timeout=180s", "-n", space, "serviceaccount/default")
    return Pods(control_plane, space, tmp_path)


def report(run: dict[str, Any], epoch: int) -> bytes:
    return ProgressReport(
        digest=run["status"]["digest"], epoch=epoch, epochs=100, step=10 * epoch, fraction=epoch / 100,
        eta_seconds=60.0, score=0.5, epoch_of_score=0,
    ).text()  # fmt: skip


def test_a_pod_may_speak_of_its_own_run_alone(
    control_plane: ControlPlane,
    space: str,
    start: Start,
    pods: Pods,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        "crossfold_trainer.contract.sending.PATIENCE_S", 60.0
    )  # a report that is late is lost, and none may be here
    operator: Operator = start(CROSSFOLD_PROGRESS_URL="http://operator.test:8080", CROSSFOLD_PROGRESS_SECONDS="1")
    eventually(lambda: operator.says("working"), "readiness")
    for name in ("mine", "other"):
        apply_run(control_plane, space, name)
        eventually(lambda name=name: has_job(control_plane, space, name), "a Job")
    pod = pods.pod_of("mine")
    volume = next(v for v in pod["spec"]["volumes"] if v["name"] == "progress-token")
    assert volume["projected"]["sources"][0]["serviceAccountToken"]["audience"] == AUDIENCE
    assert not [v for v in pod["spec"]["volumes"] if v["name"].startswith("kube-api-access")]
    pods.runs("mine")
    eventually(lambda: pods.get("trainrun", "mine")["status"].get("phase") == "Running", "that it runs")
    run = pods.get("trainrun", "mine")

    def url(name: str) -> str:
        return f"http://127.0.0.1:{operator.port}/v1/progress/{space}/{name}"

    own = pods.token(pod)
    send = http_sender(url("mine"), own)
    for epoch in (1, 2):
        send(report(run, epoch))
        eventually(lambda epoch=epoch: pods.get("trainrun", "mine")["status"].get("epoch") == epoch, f"epoch {epoch}")
    status = pods.get("trainrun", "mine")["status"]
    assert (status["progress"], status["eta"], status["summary"]["epoch"]) == ("2%", "1m", "2/100")
    assert "2/100" in control_plane.kubectl("get", "trainrun", "mine", "-n", space)

    stranger = pods.pod_of("other")
    for token, target, code in (
        (own, "other", "403"),
        (pods.token(stranger), "mine", "403"),
        (pods.token(None), "mine", "401"),
        (pods.token(pod, "https://kubernetes.default.svc"), "mine", "401"),
    ):
        with pytest.raises(Undelivered, match=code):
            http_sender(url(target), token)(report(run, 50))
    assert pods.get("trainrun", "mine")["status"]["epoch"] == 2
    assert "epoch" not in pods.get("trainrun", "other")["status"]

    # The token outlives its pod in memory; the pod's right does not.
    control_plane.kubectl("delete", "pod", pod["metadata"]["name"], "-n", space, "--grace-period=0", "--force")

    def refusal() -> str:
        try:
            send(report(run, 60))
        except Undelivered as refused:
            return str(refused)
        return ""

    eventually(lambda: "403" in refusal(), "that the pod is gone")
    records = operator.records()
    assert records
    assert not any("traceback" in record for record in records)
