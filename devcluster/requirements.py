"""What the machine must have: rights, kernel features, disk, Debian packages."""

import importlib.util
import os
import shutil
from pathlib import Path

from devcluster.console import DevclusterError, step
from devcluster.locks import exclusive
from devcluster.paths import REPOSITORY, cache
from devcluster.shell import follow, run

# Program or file -> the Debian package that brings it.
_CLUSTER_PACKAGES = {
    "containerd": "containerd",
    "runc": "runc",
    "/usr/lib/cni/bridge": "containernetworking-plugins",
    "iptables": "iptables",
    "ip": "iproute2",
    "openssl": "openssl",
    "unshare": "util-linux",
    "mount": "mount",
}
_IMAGE_PACKAGES = {"buildah": "buildah", "debootstrap": "debootstrap"}

_CLUSTER_DISK_GIB = 6
_IMAGE_DISK_GIB = 40


def check_cluster() -> None:
    """Makes sure that a cluster can run here, installing Debian packages that are missing."""
    _check_root()
    _check_cgroups()
    _check_disk(_CLUSTER_DISK_GIB)
    _install(_CLUSTER_PACKAGES)


def check_images(*, cached: bool) -> None:
    """Makes sure that images can be built here, installing Debian packages that are missing.

    Args:
        cached: The heavy layers exist already, so that little disk is needed.
    """
    _check_root()
    _check_disk(_CLUSTER_DISK_GIB if cached else _IMAGE_DISK_GIB)
    _install(_IMAGE_PACKAGES)


def check_venv() -> None:
    """Makes sure that this Python can make virtual environments: Debian has a package of its own for that."""
    if importlib.util.find_spec("ensurepip") is not None:
        return
    if os.geteuid() != 0:
        raise DevclusterError("this Python cannot make virtual environments: apt-get install python3-venv")
    _install({"ensurepip": "python3-venv"})


def _check_root() -> None:
    if os.geteuid() != 0:
        raise DevclusterError(
            "root is needed (namespaces, mounts, cgroups): run this with sudo, "
            "or start a Docker engine that you may use, and the cluster will be kind's"
        )


def _check_cgroups() -> None:
    root = Path("/sys/fs/cgroup")
    if not (root / "cgroup.controllers").exists() and not (root / "memory").is_dir():
        raise DevclusterError(f"no cgroups at {root}: mount them (mount -t cgroup2 none {root}) or use another machine")


def _check_disk(gib: int) -> None:
    free = shutil.disk_usage(REPOSITORY).free / 2**30
    if free < gib:
        raise DevclusterError(f"{free:.0f} GiB of disk free at {REPOSITORY}, {gib} are needed: free some and try again")


def _install(packages: dict[str, str]) -> None:
    missing = sorted({package for needed, package in packages.items() if shutil.which(needed) is None})
    if not missing:
        return
    if shutil.which("apt-get") is None:
        raise DevclusterError(f"missing: {', '.join(missing)}; there is no apt-get here, install them your way")
    # Services of these packages are for a machine that is a node; here each cluster starts its own.
    env = os.environ | {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    # One at a time: apt refuses a second one instead of waiting.
    with exclusive(cache() / "locks" / "apt"), step(f"installing Debian packages: {' '.join(missing)}") as shown:
        run(["apt-get", "update"], env=env)

        def on_line(line: str) -> None:
            shown.detail = line[:60]

        follow(["apt-get", "install", "--yes", "--no-install-recommends", *missing], on_line, env=env)
