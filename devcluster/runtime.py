"""containerd: its configuration, the pods' network, and the images that it starts with."""

import tempfile
from pathlib import Path

from devcluster import oci
from devcluster.builds import PAUSE, REACH, built
from devcluster.files import write, write_json
from devcluster.network import Network
from devcluster.node import Node
from devcluster.paths import State

NAMESPACE = "k8s.io"
SOCKET = "/run/containerd/containerd.sock"

# The host in the names of this project's images. It exists in no DNS: they are loaded, never pulled.
IMAGE_HOST = "crossfold.internal"

PAUSE_IMAGE = f"{IMAGE_HOST}/devcluster/pause:1"


def configure(state: State, network: Network) -> None:
    """Writes containerd's configuration and the pods' network's."""
    # restrict_oom_score_adj: a machine without CAP_SYS_RESOURCE cannot lower an OOM score, and runc would die of it
    # ("can't get final child's PID from pipe: EOF").
    write(
        state.config / "containerd.toml",
        f"""version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
[grpc]
  address = "{SOCKET}"

[plugins."io.containerd.internal.v1.opt"]
  path = "/var/lib/containerd/opt"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{state.seen_by_node(state.config / "cni")}"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
""",
    )
    bridge = {
        "type": "bridge",
        "bridge": "cni0",
        "isGateway": True,
        # A pod reaches itself through its own service.
        "hairpinMode": True,
        "ipam": {"type": "host-local", "ranges": [[{"subnet": network.pods}]], "routes": [{"dst": "0.0.0.0/0"}]},
    }
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    network_list = {"cniVersion": "0.4.0", "name": "pods", "plugins": [bridge, ports]}
    write_json(state.config / "cni/10-bridge.conflist", network_list)


def import_pause(node: Node) -> None:
    """Gives containerd the image of the pods' sandbox, unless it has it; the same image holds the check of `reach`."""
    if PAUSE_IMAGE in node.run([*ctr(), "images", "list", "--quiet"]).split():
        return
    content = oci.archive(PAUSE_IMAGE, {"/pause": built(PAUSE), "/reach": built(REACH)}, "/pause")
    with tempfile.NamedTemporaryFile(suffix=".tar") as file:
        Path(file.name).write_bytes(content)
        node.run([*ctr(), "images", "import", file.name])


def ctr() -> list[str]:
    """The command line of containerd's own client, for use in the node."""
    return ["ctr", "--address", SOCKET, "--namespace", NAMESPACE]
