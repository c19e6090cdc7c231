"""The cluster's own control groups: one for its components, one for its pods, none left behind."""

import contextlib
import time
from pathlib import Path

from devcluster.console import DevclusterError
from devcluster.paths import State

_ROOT = Path("/sys/fs/cgroup")
_REMOVAL_S = 10.0


def name(state: State) -> str:
    """The group that holds everything of the cluster; the kubelet's --cgroup-root."""
    return f"crossfold-{state.key}"


def create(state: State) -> None:
    """Makes the groups in every hierarchy."""
    for hierarchy in _hierarchies():
        top = hierarchy / name(state)
        for group in (top, top / "system"):
            group.mkdir(exist_ok=True)
            # A version 1 cpuset is born empty and takes no process until it has CPUs and memory nodes.
            for file in ("cpuset.cpus", "cpuset.mems"):
                if (hierarchy / "tasks").exists() and (group / file).exists():
                    (group / file).write_text((group.parent / file).read_text())
            if (hierarchy / "cgroup.controllers").exists() and group == top:
                _delegate(hierarchy)
                _delegate(top)


def join_script(state: State) -> str:
    """A line of shell that moves the shell itself into the components' group.

    A component must not live and die with the terminal, or the job, that ran `up`.
    """
    files = " ".join(str(hierarchy / name(state) / "system" / "cgroup.procs") for hierarchy in _hierarchies())
    return f"for file in {files}; do echo $$ > $file; done"


def remove(state: State) -> None:
    """Removes the groups, whose processes have ended."""
    deadline = time.monotonic() + _REMOVAL_S
    tops = [hierarchy / name(state) for hierarchy in _hierarchies()]
    while left := [top for top in tops if top.exists()]:
        for top in left:
            for group in sorted((path for path in top.rglob("*") if path.is_dir()), reverse=True):
                _try_remove(group)
            _try_remove(top)
        if time.monotonic() > deadline:
            raise DevclusterError(f"control groups still in use: {', '.join(map(str, left))}")
        time.sleep(0.05)


def _try_remove(group: Path) -> None:
    # Busy for a moment after its last process has gone; tried again by the caller.
    with contextlib.suppress(OSError):
        group.rmdir()


def _hierarchies() -> list[Path]:
    if (_ROOT / "cgroup.controllers").exists():
        return [_ROOT]
    # Version 1, or both. cpu, cpuacct and the like may be links to one hierarchy; runc uses the unified one too.
    folders = (path for path in _ROOT.iterdir() if not path.is_symlink())
    return sorted(folder for folder in folders if (folder / "cgroup.procs").exists())


def _delegate(group: Path) -> None:
    for controller in (group / "cgroup.controllers").read_text().split():
        with contextlib.suppress(OSError):
            (group / "cgroup.subtree_control").write_text(f"+{controller}")
