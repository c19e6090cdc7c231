"""Where things are: the checkout, its state folder, the cache of this user."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent

# The node's processes see the state folder here, whatever the checkout is called: short paths (a unix socket's is
# at most 108 characters), and configuration that names no path of this machine.
NODE_STATE = Path("/run/crossfold")


@dataclass(frozen=True)
class State:
    """The state folder of one cluster."""

    root: Path

    @property
    def key(self) -> str:
        """Six characters that tell this cluster's host-wide names (link, cgroup) from another's."""
        return hashlib.sha256(str(self.root).encode()).hexdigest()[:6]

    @property
    def bin(self) -> Path:
        """Programs, by the names they are called by."""
        return self.root / "bin"

    @property
    def config(self) -> Path:
        """Configuration files, credentials included: for root only."""
        return self.root / "config"

    @property
    def logs(self) -> Path:
        """The node's /var/log: one file per component, and the pods' logs under pods/."""
        return self.root / "log"

    @property
    def lib(self) -> Path:
        """The node's /var/lib: etcd, containerd, kubelet."""
        return self.root / "lib"

    @property
    def s3(self) -> Path:
        """One folder per S3 server."""
        return self.root / "s3"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.root / "kubeconfig"

    @property
    def images(self) -> Path:
        """What `images` loaded into the cluster, as JSON."""
        return self.root / "images.json"

    @property
    def ready(self) -> Path:
        """There while the cluster is up and checked."""
        return self.root / "READY"

    @property
    def lock(self) -> Path:
        """Held by whoever changes the cluster; outside of the folder, which `down` removes."""
        return cache() / "locks" / f"cluster-{self.key}"

    def seen_by_node(self, path: Path) -> Path:
        """The name under which the node's processes find a path of the state folder."""
        return NODE_STATE / path.relative_to(self.root)


def default_state() -> State:
    """The state folder of this checkout."""
    return State(REPOSITORY / ".state")


def cache() -> Path:
    """What outlives clusters and checkouts: binaries, the Go toolchain, image layers."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "crossfold"
