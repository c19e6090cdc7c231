"""The operator as a process: probes, leadership, and an API server that goes away. On a control plane of its own."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path

import pytest

from crossfold_operator.leader import LEASE_SECONDS
from tests.controlplane import ControlPlane
from tests.ports import own_port
from tests.waiting import eventually

pytestmark = pytest.mark.cluster


class Operator:
    """One operator process."""

    def __init__(self, plane: ControlPlane, namespace: str, log: Path, **settings: str) -> None:
        self.port = own_port()
        self.log = log
        environment = {
            **plane.environment,
            "CROSSFOLD_NAMESPACE": namespace,
            "CROSSFOLD_POD_NAMESPACE": namespace,
            "CROSSFOLD_HTTP_PORT": str(self.port),
            "CROSSFOLD_TRAINER_IMAGE": "trainer:test",
            **settings,
        }
        self.process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", sys.executable, "-m", "crossfold_operator.main"],
            env=environment,
            stderr=log.open("wb"),
        )

    def get(self, path: str) -> tuple[int, str]:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(f"http://127.0.0.1:{self.port}{path}", timeout=30) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def says(self, state: str) -> bool:
        return self.get("/readyz") == (200, f"{state}\n")

    def records(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]


Start = Callable[..., Operator]


@pytest.fixture
def space(control_plane: ControlPlane) -> Iterator[str]:
    name = f"operator-{uuid.uuid4().hex[:8]}"
    control_plane.kubectl("create", "namespace", name)
    yield name
    control_plane.kubectl("delete", "namespace", name, "--wait=false", check=False)


@pytest.fixture
def start(control_plane: ControlPlane, space: str, tmp_path: Path) -> Iterator[Start]:
    started: list[Operator] = []

    def run(**settings: str) -> Operator:
        operator = Operator(control_plane, space, tmp_path / f"operator-{len(started)}.log", **settings)
        started.append(operator)
        return operator

    yield run
    for operator in started:
        operator.process.kill()
        operator.process.wait()
        print(operator.log.read_text()[-4000:])


def apply_run(plane: ControlPlane, space: str, name: str) -> None:
    plane.kubectl(
        "apply",
        "-f",
        "-",
        stdin={
            "apiVersion": "crossfold.dev/v1alpha1",
            "kind": "TrainRun",
            "metadata": {"name": name, "namespace": space},
            "spec": {
                "objective": {"metrics": [{"name": "val/JaccardIndex"}]},
                "data": {"uri": "s3://bucket/data"},
                "artifacts": {"uri": "s3://bucket/artifacts"},
            },
        },
    )


@contextmanager
def holders(plane: ControlPlane, space: str) -> Iterator[Callable[[], list[str]]]:
    """Watches a Lease; yields a function that says who has held it since, each change once."""
    command = ("kubectl", "get", "lease", f"crossfold-operator-{space}", "-n", space, "--watch", "-o")
    process = subprocess.Popen(
        ["setpriv", "--pdeathsig", "KILL", *command, r'jsonpath=[{.spec.holderIdentity}]{"\n"}'],
        env=plane.environment,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    lines = [process.stdout.readline()]
    assert lines[0].startswith("["), "the Lease cannot be watched"

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line)  # noqa: PERF402 -- each as it comes

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        yield lambda: [line.strip()[1:-1] for line, _ in groupby(lines)]
    finally:
        process.kill()
        process.wait()
        reader.join()


def has_job(plane: ControlPlane, space: str, name: str) -> bool:
    return bool(plane.kubectl("get", "job", name, "-n", space, "--ignore-not-found", "-o", "name", check=False).strip())


def test_from_start_to_sigterm(control_plane: ControlPlane, space: str, start: Start) -> None:
    operator = start()
    eventually(lambda: operator.get("/healthz")[0] == 200, "an answer")
    eventually(lambda: operator.says("working"), "readiness")
    apply_run(control_plane, space, "a")
    eventually(lambda: has_job(control_plane, space, "a"), "a Job")
    # The Job is there before the reconcile that made it has ended, and is counted.
    counted = 'crossfold_reconcile_seconds_count{kind="TrainRun"}'
    metrics = eventually(lambda: counted in (text := operator.get("/metrics")[1]) and text, "a reconcile is counted")
    assert "crossfold_leader 1.0" in metrics
    assert 'crossfold_objects{kind="TrainRun"} 1.0' in metrics

    operator.process.send_signal(signal.SIGTERM)
    assert operator.process.wait(60) == 0
    records = operator.records()
    assert any(r.get("reason") == "JobCreated" and r["object"] == f"TrainRun/{space}/a" for r in records)
    assert all({"ts", "level", "logger", "message"} <= set(record) for record in records)
    assert not any("traceback" in record for record in records)
    holder = "jsonpath={.spec.holderIdentity}"
    assert control_plane.kubectl("get", "lease", f"crossfold-operator-{space}", "-n", space, "-o", holder) == ""


def test_it_writes_no_mark_on_the_objects_of_others(control_plane: ControlPlane, space: str, start: Start) -> None:
    operator = start()
    eventually(lambda: operator.says("working"), "readiness")
    apply_run(control_plane, space, "a")
    eventually(lambda: has_job(control_plane, space, "a"), "a Job")
    meta = json.loads(control_plane.kubectl("get", "trainrun", "a", "-n", space, "-o", "json"))["metadata"]
    assert set(meta["annotations"]) == {"kubectl.kubernetes.io/last-applied-configuration"}
    assert "finalizers" not in meta
    assert "labels" not in meta


def test_one_works_and_another_takes_over(control_plane: ControlPlane, space: str, start: Start) -> None:
    first = start()
    eventually(lambda: first.says("working"), "the first")
    second = start()
    eventually(lambda: second.says("standing by"), "the second")
    with holders(control_plane, space) as seen:
        first.process.send_signal(signal.SIGTERM)
        eventually(lambda: second.says("working"), "a graceful takeover")
        # The first gave the Lease up: the second did not wait for its end. tests/unit/test_leader.py has the exact times.
        eventually(lambda: seen()[-1] not in ("", seen()[0]), "the second's name on the Lease")
        assert seen()[1] == ""
    third = start()
    eventually(lambda: third.says("standing by"), "the third")
    second.process.kill()
    eventually(lambda: third.says("working"), "a takeover after a crash")
    apply_run(control_plane, space, "a")
    eventually(lambda: has_job(control_plane, space, "a"), "a Job")


@pytest.mark.parametrize("election", ["true", "false"])
def test_an_api_server_that_comes_back(control_plane: ControlPlane, space: str, start: Start, election: str) -> None:
    operator = start(CROSSFOLD_LEADER_ELECTION=election)
    eventually(lambda: operator.says("working"), "readiness")
    apply_run(control_plane, space, "a")
    eventually(lambda: has_job(control_plane, space, "a"), "a Job")
    control_plane.kill_api()
    if election == "true":
        # The Lease could not be renewed: whoever else is there may have it.
        eventually(lambda: operator.says("standing by"), "that it works no more")
    else:
        # Nobody else is there, and it works for longer than any Lease would be valid.
        time.sleep(LEASE_SECONDS)
        assert operator.says("working")
    assert operator.get("/healthz")[0] == 200
    control_plane.start_api()
    control_plane.kubectl("delete", "job", "a", "-n", space, "--wait=false")
    apply_run(control_plane, space, "b")
    eventually(lambda: has_job(control_plane, space, "b"), "a Job for what was created after the outage")
    eventually(lambda: has_job(control_plane, space, "a"), "the deleted Job's successor")
    assert operator.process.poll() is None


def test_it_waits_for_an_api_server_that_is_not_there_yet(control_plane: ControlPlane, start: Start) -> None:
    control_plane.kill_api()
    operator = start()
    eventually(lambda: operator.get("/readyz")[0] == 503, "that it is not ready")
    with pytest.raises(subprocess.TimeoutExpired):
        operator.process.wait(3)
    control_plane.start_api()
    eventually(lambda: operator.says("working"), "readiness")


def test_bad_settings_are_said_in_a_sentence(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "crossfold_operator.main"],
        env={**os.environ, "CROSSFOLD_WORKERS": "many"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "workers" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_selfcheck_passes_where_all_is_well(control_plane: ControlPlane, space: str, start: Start) -> None:
    operator = start()
    eventually(lambda: operator.says("working"), "readiness")

    def check(url: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "crossfold_operator.selfcheck", "--url", url, "--namespace", space]
        return subprocess.run(
            [*command, "--patience", "5"], env=control_plane.environment, capture_output=True, text=True, check=False
        )

    passed = check(f"http://127.0.0.1:{operator.port}")
    assert passed.returncode == 0, passed.stdout + passed.stderr
    failed = check("http://127.0.0.1:1")
    assert failed.returncode == 1
    assert "does not answer" in failed.stdout
