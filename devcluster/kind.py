"""The same cluster by kind, where a Docker engine answers: same verbs, same S3 servers, same Dockerfiles.

The S3 servers are processes of this machine, at the address of the gateway of kind's Docker network: pods and this
machine both reach them there. That holds for a Docker engine on this machine (Linux), not for one in a virtual
machine (Docker Desktop).
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from devcluster import oci, reach, runtime, s3
from devcluster.builds import HELM, KIND, KUBERNETES, PAUSE, REACH, S3, built
from devcluster.console import DevclusterError, step
from devcluster.files import link, write
from devcluster.paths import REPOSITORY, State
from devcluster.processes import processes
from devcluster.shell import follow, run

_READY = "180s"
_ENGINE_S = 10.0
# Where kind puts its nodes.
_DOCKER_NETWORK = "kind"


def chosen(state: State) -> bool:
    """Whether this checkout's cluster is kind's.

    CROSSFOLD_CLUSTER=kind or CROSSFOLD_CLUSTER=node decides; else what `up` has chosen before; else whether a Docker
    engine answers.
    """
    wish = os.environ.get("CROSSFOLD_CLUSTER", "")
    if wish not in ("", "kind", "node"):
        raise DevclusterError(f"CROSSFOLD_CLUSTER={wish}: it can be kind or node")
    if wish:
        return wish == "kind"
    if state.config.exists():
        return _mark(state).exists()
    return engine_answers()


def engine_answers() -> bool:
    """Whether there is a Docker engine that this user may use."""
    if shutil.which("docker") is None:
        return False
    try:
        done = subprocess.run(["docker", "info"], capture_output=True, timeout=_ENGINE_S, check=False)
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def up(state: State) -> None:
    """Brings the cluster and the S3 servers up; does only what is missing."""
    for folder in (state.logs, state.s3):
        folder.mkdir(parents=True, exist_ok=True)
    state.config.mkdir(mode=0o700, exist_ok=True)
    write(_mark(state), name(state) + "\n")
    _install_programs(state)
    if name(state) not in _kind(state, "get", "clusters").split():
        _follow(
            state,
            "create the cluster",
            "create",
            "cluster",
            "--config",
            str(REPOSITORY / "kind-config.yaml"),
            "--wait",
            _READY,
        )
    _kind(state, "export", "kubeconfig", "--name", name(state), "--kubeconfig", str(state.kubeconfig))
    with step("S3 servers"):
        host = _gateway()
        s3.create(state, host)
        for server_name, server in s3.servers(state).items():
            _start_s3(state, server_name, server)
    with step("check: a pod reaches kubernetes.default by name, and both S3 servers"):
        _check(state)


def down(state: State) -> None:
    """Takes the cluster and the S3 servers down."""
    for server_name in s3.NAMES:
        for pid in _s3_pids(state, server_name):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
    if (state.bin / "kind").exists():
        _kind(state, "delete", "cluster", "--name", name(state), "--kubeconfig", str(state.kubeconfig))


def running(state: State) -> dict[str, bool]:
    """What runs."""
    found = {"kind": name(state) in _kind(state, "get", "clusters").split()}
    return found | {s3.component(server): bool(_s3_pids(state, server)) for server in s3.NAMES}


def load_image(state: State, context: Path, dockerfile: str, reference: str, arguments: dict[str, str]) -> None:
    """Builds an image by docker and loads it into kind's node, unless that has been done.

    Args:
        state: The cluster's state folder.
        context: The folder that is built from.
        dockerfile: Relative to it.
        reference: The image's name, with a tag of its own for each content.
        arguments: Build arguments.
    """
    loaded = state.config / "images" / reference.replace("/", "_")
    if loaded.exists():
        return
    command = ["docker", "build", "--file", str(context / dockerfile), "--tag", reference]
    for key, value in arguments.items():
        command += ["--build-arg", f"{key}={value}"]
    with step(f"{reference}: build") as shown:

        def on_line(line: str) -> None:
            shown.detail = line[:80]

        follow([*command, str(context)], on_line, env=os.environ | {"DOCKER_BUILDKIT": "1"})
    _follow(state, f"{reference}: load into the node", "load", "docker-image", reference)
    write(loaded, "")


def name(state: State) -> str:
    """The cluster's name among kind's clusters."""
    return f"crossfold-{state.key}"


def _mark(state: State) -> Path:
    return state.config / "kind"


def _install_programs(state: State) -> None:
    state.bin.mkdir(parents=True, exist_ok=True)
    # A kubectl that is there saves the longest build.
    kubectl = shutil.which("kubectl")
    link(Path(kubectl) if kubectl else built(KUBERNETES), state.bin / "kubectl")
    link(built(HELM), state.bin / "helm")
    link(built(KIND), state.bin / "kind")
    for server in s3.NAMES:
        link(built(S3), state.bin / s3.component(server))


def _kind(state: State, *arguments: str) -> str:
    return run([state.bin / "kind", *arguments])


def _follow(state: State, title: str, *arguments: str) -> None:
    with step(title) as shown:

        def on_line(line: str) -> None:
            shown.detail = line[:80]

        follow([state.bin / "kind", *arguments, "--name", name(state)], on_line)


def _gateway() -> str:
    """This machine's address in kind's network; pods reach it through their node."""
    networks = json.loads(run(["docker", "network", "inspect", _DOCKER_NETWORK]))
    for entry in networks[0]["IPAM"]["Config"]:
        address = str(entry.get("Gateway", ""))
        if "." in address:
            return address
    raise DevclusterError(
        f"the Docker network {_DOCKER_NETWORK} has no IPv4 gateway: docker network inspect {_DOCKER_NETWORK}"
    )


def _start_s3(state: State, server_name: str, server: s3.S3Server) -> None:
    if _s3_pids(state, server_name):
        return
    program = str(state.bin / s3.component(server_name))
    (state.s3 / server_name / server.bucket).mkdir(parents=True, exist_ok=True)
    with (state.logs / f"{s3.component(server_name)}.log").open("a") as log:
        subprocess.Popen(
            [program, *s3.arguments(state.s3 / server_name, server)],
            env=os.environ | s3.environment(server),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def _s3_pids(state: State, server_name: str) -> Sequence[int]:
    program = str(state.bin / s3.component(server_name))
    return [pid for pid, words in processes() if words[0] == program]


def _check(state: State) -> None:
    content = oci.archive(runtime.PAUSE_IMAGE, {"/pause": built(PAUSE), "/reach": built(REACH)}, "/pause")
    with tempfile.NamedTemporaryFile(suffix=".tar") as file:
        Path(file.name).write_bytes(content)
        _kind(state, "load", "image-archive", file.name, "--name", name(state))
    kubectl = [str(state.bin / "kubectl"), "--kubeconfig", str(state.kubeconfig), "--namespace", reach.NAMESPACE]
    delete = [*kubectl, "delete", "pod", reach.NAME, "--ignore-not-found", "--now"]
    run(delete)
    run([*kubectl, "create", "--filename", "-"], stdin=json.dumps(reach.pod(s3.endpoints(state))))
    try:
        run([*kubectl, "wait", f"pod/{reach.NAME}", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=120s"])
    except DevclusterError as error:
        log = run([*kubectl, "logs", reach.NAME])
        raise DevclusterError(f"a pod does not reach what it should:\n{log}") from error
    run(delete)
