"""What the tests do where something that they need is missing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import ports
from tests.conftest import ROOT, lacking
from tests.ports import own_port, silent_port


@pytest.mark.parametrize("value", ["true", "1", "True"])
def test_in_ci_what_is_missing_is_an_error(value: str) -> None:
    with pytest.raises(pytest.fail.Exception, match=r"there is no cluster.*type `make cluster-up`"):
        lacking("there is no cluster", "type `make cluster-up`", {"CI": value})


@pytest.mark.parametrize("environment", [{}, {"CI": ""}, {"CI": "false"}])
def test_elsewhere_the_test_is_skipped_and_says_what_to_type(environment: dict[str, str]) -> None:
    with pytest.raises(pytest.skip.Exception, match="there is no cluster: type `make cluster-up`"):
        lacking("there is no cluster", "type `make cluster-up`", environment)


@pytest.mark.parametrize(("ci", "code", "outcome"), [("true", 1, "1 error"), ("", 0, "1 skipped")])
def test_a_test_of_a_cluster_that_does_not_answer(tmp_path: Path, ci: str, code: int, outcome: str) -> None:
    with silent_port() as port:
        (tmp_path / "kubeconfig").write_text(
            f"""\
apiVersion: v1
kind: Config
clusters: [{{name: a, cluster: {{server: "http://127.0.0.1:{port}"}}}}]
contexts: [{{name: a, context: {{cluster: a}}}}]
current-context: a
"""
        )
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "tests/crds/test_crds.py", "-k", "defaults_are_stored"],
            cwd=ROOT,
            env={**os.environ, "CI": ci, "KUBECONFIG": str(tmp_path / "kubeconfig")},
            capture_output=True,
            text=True,
            check=False,
        )  # fmt: skip
    assert done.returncode == code, done.stdout
    assert outcome in done.stdout
    assert "type `make cluster-up`" in done.stdout


def test_a_port_is_given_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where two processes choose among few."""
    lowest = own_port()
    monkeypatch.setattr(ports, "LOWEST", lowest)
    monkeypatch.setattr(ports, "HIGHEST", lowest + 39)
    program = f"from tests import ports; ports.LOWEST, ports.HIGHEST = {lowest}, {lowest + 39}"
    given = [own_port() for _ in range(15)]
    other = subprocess.run(
        [sys.executable, "-c", f"{program}; print(*(ports.own_port() for _ in range(15)))"],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    given += map(int, other.split())
    assert len({lowest, *given}) == 31
    assert lowest < min(given) <= max(given) <= lowest + 39
