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

# The images of this project. The host exists in no DNS: containerd is told where it is, and `images` pushes there.
REGISTRY_HOST = "registry.internal"

PAUSE_IMAGE = f"{REGISTRY_HOST}/devcluster/pause:1"


def configure(state: State, network: Network) -> None:
    """Writes containerd's configuration and the pods' network's."""
    certificates = state.config / "certs.d"
    # restrict_oom_score_adj: a machine without CAP_SYS_RESOURCE cannot lower an OOM score, and runc would die of it
    # ("can't get final child's PID from pipe: EOF").
    # discard_unpacked_layers: the registry keeps the compressed layers; a second copy of gigabytes serves nothing.
    write(
        state.config / "containerd.toml",
        f"""version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.devmapper"]

[grpc]
  address = "{SOCKET}"

[plugins."io.containerd.internal.v1.opt"]
  path = "/var/lib/containerd/opt"

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  restrict_oom_score_adj = true
  max_concurrent_downloads = 4
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{state.seen_by_node(state.config / "cni")}"
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "{state.seen_by_node(certificates)}"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    discard_unpacked_layers = true
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        SystemdCgroup = false
""",
    )
    write(
        certificates / REGISTRY_HOST / "hosts.toml",
        f"""server = "http://{network.registry}"

[host."http://{network.registry}"]
  capabilities = ["pull", "resolve"]
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
    write_json(
        state.config / "cni/10-bridge.conflist",
        {"cniVersion": "0.4.0", "name": "pods", "plugins": [bridge, {"type": "portmap", "capabilities": {"portMappings": True}}]},
    )


def import_pause(node: Node) -> None:
    """Gives containerd the image of the pods' sandbox; the same image holds the check of `reach`."""
    content = oci.archive(PAUSE_IMAGE, {"/pause": built(PAUSE), "/reach": built(REACH)}, "/pause")
    with tempfile.NamedTemporaryFile(suffix=".tar") as file:
        Path(file.name).write_bytes(content)
        node.run([*ctr(), "images", "import", file.name])


def pull_command(state: State, reference: str) -> list[str]:
    """The command that pulls an image of ours from the cluster's registry, for use in the node."""
    hosts = str(state.seen_by_node(state.config / "certs.d"))
    return [*ctr(), "images", "pull", "--hosts-dir", hosts, reference]


def ctr() -> list[str]:
    """containerd's own client, for use in the node."""
    return ["ctr", "--address", SOCKET, "--namespace", NAMESPACE]
