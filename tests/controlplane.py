"""A control plane without nodes, from the dev cluster's programs: etcd, API server, controller manager."""

import os
import subprocess
import time
from pathlib import Path
from typing import Any, Protocol

from tests.ports import own_port

_TOKEN = "test-admin"
_KUBECONFIG = """\
apiVersion: v1
kind: Config
clusters: [{{name: test, cluster: {{server: "{url}", insecure-skip-tls-verify: true}}}}]
users: [{{name: test, user: {{token: {token}}}}}]
contexts: [{{name: test, context: {{cluster: test, user: test}}}}]
current-context: test
"""


class Kubectl(Protocol):
    """Runs kubectl and returns what it printed; raises AssertionError unless ``check`` is false."""

    def __call__(self, *args: str, stdin: str | dict[str, Any] | None = None, check: bool = True) -> str: ...


class ControlPlane:
    """One control plane on ports of its own of the loopback interface, in a folder."""

    kubectl: Kubectl

    def __init__(self, programs: Path, folder: Path) -> None:
        self._programs = programs
        self._folder = folder
        self._etcd, self._peer, self._port = own_port(), own_port(), own_port()
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self.url = f"https://127.0.0.1:{self._port}"
        self.kubeconfig = folder / "kubeconfig"

    @property
    def environment(self) -> dict[str, str]:
        """Environment in which clients reach it."""
        path = f"{self._programs}:{os.environ['PATH']}"
        return {**os.environ, "PATH": path, "KUBECONFIG": str(self.kubeconfig), "NO_PROXY": "127.0.0.1"}

    def up(self) -> None:
        """Start everything, and wait until the API server is ready."""
        key = self._folder / "service-accounts.key"
        subprocess.run(["openssl", "genrsa", "-out", str(key), "2048"], check=True, capture_output=True)
        (self._folder / "tokens.csv").write_text(f'{_TOKEN},admin,admin,"system:masters"\n')
        self.kubeconfig.write_text(_KUBECONFIG.format(url=self.url, token=_TOKEN))
        client, peer = f"http://127.0.0.1:{self._etcd}", f"http://127.0.0.1:{self._peer}"
        self._start(
            "etcd",
            f"--data-dir={self._folder / 'etcd'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--unsafe-no-fsync",
        )
        self.start_api()
        self._start(
            "kube-controller-manager",
            f"--kubeconfig={self.kubeconfig}",
            f"--service-account-private-key-file={key}",
            "--leader-elect=false",
            "--secure-port=0",
            "--controllers=*,-nodeipam,-nodelifecycle,-taint-eviction-controller",
        )

    def start_api(self) -> None:
        """Start the API server (again), and wait until it is ready."""
        key = self._folder / "service-accounts.key"
        self._start(
            "kube-apiserver",
            f"--etcd-servers=http://127.0.0.1:{self._etcd}",
            f"--cert-dir={self._folder / 'certificates'}",
            f"--secure-port={self._port}",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            "--endpoint-reconciler-type=none",
            f"--token-auth-file={self._folder / 'tokens.csv'}",
            "--authorization-mode=RBAC",
            f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--service-cluster-ip-range=10.99.0.0/24",
        )
        deadline = time.monotonic() + 60
        while not self._ready():
            if time.monotonic() > deadline or self._running["kube-apiserver"].poll() is not None:
                log = (self._folder / "kube-apiserver.log").read_text()
                raise RuntimeError(f"the API server does not come up:\n{log[-2000:]}")
            time.sleep(0.1)

    def kill_api(self) -> None:
        """Kill the API server: its clients' connections break."""
        self._end("kube-apiserver")

    def down(self) -> None:
        """End everything."""
        for name in reversed(self._running.copy()):
            self._end(name)

    def _start(self, name: str, *flags: str) -> None:
        log = (self._folder / f"{name}.log").open("ab")
        # It ends with this process, however that ends.
        command = ["setpriv", "--pdeathsig", "KILL", str(self._programs / name), *flags]
        self._running[name] = subprocess.Popen(command, stdout=log, stderr=log)

    def _end(self, name: str) -> None:
        if process := self._running.pop(name, None):
            process.kill()
            process.wait()

    def _ready(self) -> bool:
        probe = ["kubectl", "get", "--raw", "/readyz", "--request-timeout=5s"]
        return subprocess.run(probe, env=self.environment, capture_output=True, check=False).returncode == 0
