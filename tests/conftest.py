"""What tests of all layers share: the cluster, a namespace of one's own, kubectl and helm."""

# ruff: noqa: E402 -- what libraries are told must be there before they are loaded
import os

# Tests run side by side on few CPUs, and their matrices are small: libraries that start a thread for each CPU make a
# test take ten times as long.
for _library in ("OMP", "OPENBLAS", "MKL"):
    os.environ.setdefault(f"{_library}_NUM_THREADS", "1")

import json
import shlex
import shutil
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

import hypothesis
import pytest

from devcluster import install
from devcluster.paths import default_state
from tests.controlplane import ControlPlane, Kubectl

ROOT = Path(__file__).resolve().parent.parent
ROUND = int(os.environ.get("CROSSFOLD_TEST_ROUND", "0"))
"""Which repetition this is: tests that draw at random draw otherwise in each (`make steady`)."""
CHART = ROOT / "charts" / "crossfold"
UP = 'type `make cluster-up` and `eval "$(python3 -m devcluster env)"`, or set KUBECONFIG to that of another cluster'

# No example is timed: on a busy machine any of them may take long.
hypothesis.settings.register_profile(
    "crossfold", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("crossfold")


def lacking(what: str, remedy: str, environment: Mapping[str, str] = os.environ) -> NoReturn:
    """Skip a test for want of something, and say what to type. In CI, where nothing may be missing, it fails.

    Args:
        what: what is missing.
        remedy: what to type.
        environment: CI in it is set, and neither empty nor "false", where tests decide whether a change lands.
    """
    if in_ci(environment):
        pytest.fail(f"{what}, and in CI no test is skipped for that: {remedy}", pytrace=False)
    pytest.skip(f"{what}: {remedy}")


def in_ci(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether the tests decide whether a change lands."""
    return environment.get("CI", "").lower() not in ("", "0", "false")


def _devcluster_environment() -> dict[str, str]:
    """The variables that `python3 -m devcluster env` exports."""
    printed = subprocess.run(
        [sys.executable, "-m", "devcluster", "env"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    # PATH is written for a shell to expand.
    shown = subprocess.run(["bash", "-c", f"{printed}\nenv -0"], check=True, capture_output=True, text=True).stdout
    names = {shlex.split(line)[1].partition("=")[0] for line in printed.splitlines() if line.startswith("export ")}
    found = dict(entry.partition("=")[::2] for entry in shown.split("\0") if entry)
    return {name: found[name] for name in names}


def _stop_operator() -> None:
    """No operator works in the dev cluster until a test installs one: `make demo` leaves its own there.

    Two would reconcile the same objects. The end-to-end tests upgrade that release, which starts it again.
    """
    kubectl = ["kubectl", "-n", install.NAMESPACE]
    scaled = [*kubectl, "scale", f"deployment/{install.RELEASE}", "--replicas=0"]
    if subprocess.run(scaled, capture_output=True, check=False).returncode == 0:
        selector = "app.kubernetes.io/component=operator"
        subprocess.run([*kubectl, "wait", "--for=delete", "pod", "-l", selector, "--timeout=120s"], check=True)


@pytest.fixture(scope="session")
def cluster_environment() -> Iterator[dict[str, str]]:
    """Environment in which kubectl and helm reach the cluster; also set in this process."""
    if "KUBECONFIG" in os.environ:
        given = {}
    elif (ROOT / ".state" / "READY").exists():
        given = _devcluster_environment()
    else:
        lacking("there is no cluster", UP)
    before = dict(os.environ)
    os.environ.update(given)
    try:
        if shutil.which("kubectl") is None:
            lacking("there is no kubectl on the PATH", UP)
        probe = subprocess.run(["kubectl", "get", "--raw", "/readyz"], capture_output=True, text=True, check=False)
        if probe.returncode:
            lacking(f"the cluster of {os.environ['KUBECONFIG']} does not answer ({probe.stderr.strip()[:300]})", UP)
        if Path(os.environ["KUBECONFIG"]) == default_state().kubeconfig:
            _stop_operator()
        yield dict(os.environ)
    finally:
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture(scope="session")
def kubeconfig(cluster_environment: dict[str, str]) -> Path:
    """The kubeconfig of the cluster; tests that ask for it are skipped where there is none."""
    return Path(cluster_environment["KUBECONFIG"])


def kubectl_for(environment: dict[str, str]) -> Kubectl:
    """Kubectl with an environment of its own."""

    def run(*args: str, stdin: str | dict[str, Any] | None = None, check: bool = True) -> str:
        done = subprocess.run(
            ["kubectl", *args],
            input=json.dumps(stdin) if isinstance(stdin, dict) else stdin,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if check and done.returncode:
            # pytest shows the message of an error, not its attributes.
            raise AssertionError(f"kubectl {' '.join(args)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout if not done.returncode else done.stdout + done.stderr

    return run


@pytest.fixture(scope="session")
def kubectl(cluster_environment: dict[str, str]) -> Kubectl:
    """Runs kubectl against the cluster."""
    return kubectl_for(cluster_environment)


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane without nodes for tests alone: no operator works there, and its API server may be killed."""
    programs = ROOT / ".state" / "bin"
    if not (programs / "kube-apiserver").exists():
        lacking("there are no programs of a control plane", "type `make cluster-up`, which builds them")
    plane = ControlPlane(programs, tmp_path_factory.mktemp("control-plane"))
    try:
        plane.up()
        plane.kubectl = kubectl_for(plane.environment)
        plane.kubectl("apply", "--server-side", "-f", str(ROOT / "crds"))
        plane.kubectl("wait", "--for=condition=Established", "--timeout=60s", "-f", str(ROOT / "crds"))
        yield plane
    finally:
        plane.down()


@pytest.fixture(scope="session")
def helm() -> Path:
    """Path of helm; the dev cluster brings one."""
    found = shutil.which("helm", path=f"{ROOT / '.state' / 'bin'}:{os.environ.get('PATH', '')}")
    if found is None:
        lacking("there is no helm", "type `make cluster-up`, which builds one")
    return Path(found)


@pytest.fixture(scope="session")
def crds(kubectl: Kubectl) -> None:
    """The CRDs of this working tree are served. Whoever installed them before keeps owning the rest."""
    kubectl("apply", "--server-side", "--force-conflicts", "-f", str(ROOT / "crds"))
    kubectl("wait", "--for=condition=Established", "--timeout=60s", "-f", str(ROOT / "crds"))


@pytest.fixture(scope="session")
def make_namespace(kubectl: Kubectl) -> Callable[[], str]:
    """Makes a namespace with a name of its own."""

    def make(prefix: str = "test") -> str:
        name = f"{prefix}-{uuid.uuid4().hex[:8]}"
        kubectl("create", "namespace", name)
        # Pods wait for it otherwise.
        kubectl("wait", "--for=create", "--timeout=180s", "-n", name, "serviceaccount/default")
        return name

    return make


@pytest.fixture
def namespace(make_namespace: Callable[[], str], kubectl: Kubectl) -> Iterator[str]:
    """A fresh namespace, deleted (in the background) after the test."""
    name = make_namespace()
    yield name
    kubectl("delete", "namespace", name, "--wait=false", check=False)


@pytest.fixture(scope="session")
def images(cluster_environment: dict[str, str]) -> dict[str, str]:
    """References of the images in the cluster, by name: operator and trainer."""
    record = default_state().images
    if not record.exists():
        lacking("there are no images in the cluster", "type `make images`")
    return {name: image["reference"] for name, image in json.loads(record.read_text()).items()}
