"""Bringing the cluster up, and taking it down."""

import base64
import contextlib
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from devcluster import cgroups, components, credentials, reach, requirements, runtime, s3
from devcluster.api import Api, ApiError, answers
from devcluster.builds import (
    COREDNS,
    HELM,
    KUBERNETES,
    KUBERNETES_COMPONENTS,
    KUBERNETES_NAMES,
    PAUSE,
    S3,
    built,
)
from devcluster.console import DevclusterError, step
from devcluster.files import link, write_json
from devcluster.network import Network, choose
from devcluster.node import Node
from devcluster.paths import State

_READY_S = 90.0


def network_of(state: State) -> Network:
    """The addresses of a cluster that has been up."""
    file = state.config / "network.json"
    if not file.exists():
        raise DevclusterError("there is no cluster here: python3 -m devcluster up")
    return Network(**json.loads(file.read_text()))


def up(state: State) -> None:
    """Brings the cluster up: starts what does not run, checks that pods reach what they need."""
    requirements.check_cluster()
    _install_programs(state)
    node = Node(state)
    network = _prepare(state, node)
    with step("node: namespaces, network"):
        node.create(network)
    with step("S3 servers"):
        s3.create(state, network.gateway)
        for component in components.s3_servers(state):
            _ensure(node, component)
    api = _control_plane(state, node, network)
    _node_components(state, node, network, api)
    with step("check: a pod reaches kubernetes.default by name, and both S3 servers"):
        reach.check(api, s3.endpoints(state))


def down(state: State) -> None:
    """Ends everything that runs, and with it its mounts and network."""
    Node(state).destroy()
    cgroups.remove(state)


def running(state: State) -> dict[str, bool]:
    """What runs."""
    node = Node(state)
    names = [*KUBERNETES_COMPONENTS, "containerd", "coredns", *map(s3.component, s3.NAMES)]
    return {name: node.running(name) for name in names}


def _install_programs(state: State) -> None:
    """Links the programs into the state folder, where the node sees them under the names they are called by."""
    links = dict.fromkeys(KUBERNETES_NAMES, KUBERNETES)
    links |= {"pause": PAUSE, "coredns": COREDNS, "helm": HELM}
    links |= dict.fromkeys(map(s3.component, s3.NAMES), S3)
    state.bin.mkdir(parents=True, exist_ok=True)
    for name, program in links.items():
        link(built(program), state.bin / name)
    containerd = shutil.which("containerd")
    if containerd is None:
        raise DevclusterError("there is no containerd, although its package is installed")
    link(Path(containerd), state.bin / "containerd")


def _prepare(state: State, node: Node) -> Network:
    """Makes the state folder; chooses addresses unless the node stands already."""
    for folder in (state.logs, state.lib, state.s3):
        folder.mkdir(parents=True, exist_ok=True)
    state.config.mkdir(mode=0o700, exist_ok=True)
    file = state.config / "network.json"
    if node.pid() is None or not file.exists():
        # A former node's data belong to its addresses and namespaces.
        shutil.rmtree(state.lib)
        state.lib.mkdir()
        write_json(file, asdict(choose(state.key)))
        (state.config / "s3.json").unlink(missing_ok=True)
    credentials.create(state)
    return network_of(state)


def _ensure(node: Node, component: components.Component) -> None:
    """Starts a component that does not run."""
    if not node.running(component.name):
        node.start(component.name, component.arguments, component.environment)


def _wait(what: str, node: Node, component: str, state: State, answer: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _READY_S
    while True:
        with contextlib.suppress(OSError, ApiError):
            if answer():
                return
        log = state.logs / f"{component}.log"
        if not node.running(component):
            raise DevclusterError(f"{component} has ended:\n{_last_lines(log)}")
        if time.monotonic() > deadline:
            raise DevclusterError(f"{what} is not ready after {_READY_S:.0f} s:\n{_last_lines(log)}")
        time.sleep(0.1)


def _last_lines(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()[-8:]
    return "\n".join(f"      {line[:300]}" for line in [*lines, f"({log})"])


def api_of(state: State) -> Api:
    """The API server, as administrator."""
    return Api(network_of(state).apiserver, components.authority(state), credentials.token(state, "admin"))


def _control_plane(state: State, node: Node, network: Network) -> Api:
    with step("control plane"):
        _ensure(node, components.etcd())
        _ensure(node, components.apiserver(state, network))

        def ready() -> bool:
            return components.authority(state).exists() and api_of(state).text("GET", "/readyz") == "ok"

        _wait("the API server", node, "kube-apiserver", state, ready)
        _write_kubeconfigs(state, network)
        _ensure(node, components.controller_manager(state, network))
        _ensure(node, components.scheduler(state))
    return api_of(state)


def _write_kubeconfigs(state: State, network: Network) -> None:
    authority = base64.b64encode(components.authority(state).read_bytes()).decode()
    for name in credentials.IDENTITIES:
        path = state.kubeconfig if name == "admin" else state.config / f"{name}.kubeconfig"
        credentials.write_kubeconfig(state, name, network.apiserver, authority, path)


def _node_components(state: State, node: Node, network: Network, api: Api) -> None:
    with step("node: containerd, kubelet, kube-proxy, CoreDNS"):
        runtime.configure(state, network)
        _ensure(node, components.containerd(state))
        _wait("containerd", node, "containerd", state, lambda: _containerd_answers(node))
        runtime.import_pause(node)
        _ensure(node, components.kubelet(state, network))
        _ensure(node, components.proxy(state, network))
        _ensure(node, components.coredns(state, network))
        _wait("the node", node, "kubelet", state, lambda: _node_ready(api))
        _wait("DNS", node, "coredns", state, lambda: answers(network.dns_ready))


def _containerd_answers(node: Node) -> bool:
    try:
        node.run([*runtime.ctr(), "version"])
    except DevclusterError:
        return False
    return True


def _node_ready(api: Api) -> bool:
    conditions = api.json("GET", f"/api/v1/nodes/{credentials.NODE_NAME}").get("status", {}).get("conditions", [])
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)
