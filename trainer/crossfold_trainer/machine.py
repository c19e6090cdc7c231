"""What this process may use of its machine: CPUs and memory, by its cgroup (version 2 or 1) or the machine itself."""

import os
from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/")


SPIN_VARIABLES = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
"""Either of them says how libgomp's threads wait."""
SPINS = "1000"
"""Turns of waiting for more work before a thread lets go of its CPU: some 50 us."""


def spin_less() -> None:
    """Have torch's threads let go of their CPUs sooner, unless the environment says how they wait.

    By default they spin for 300,000 turns, some 15 ms, after each of a step's hundreds of operations. Where others want
    the CPUs too, nobody works meanwhile: steps took four times as long. Read when torch is imported, not later.
    """
    if not any(name in os.environ for name in SPIN_VARIABLES):
        os.environ[SPIN_VARIABLES[0]] = SPINS


def cpu_count(root: Path = ROOT) -> int:
    """CPUs that this process may use: its affinity, or its cgroup's quota where that is less."""
    n = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    quotas = [quota for folder in _cgroups("cpu", root) if (quota := _quota(folder)) is not None]
    return max(1, min([n, *(round(quota) for quota in quotas)]))


def memory_limit(root: Path = ROOT) -> int:
    """Bytes that this process may use: the lowest limit of its cgroups, or what the machine has available."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")]
    for folder in _cgroups("memory", root):
        for name in ("memory.max", "memory.limit_in_bytes"):
            limit = _number(folder / name)
            if limit is not None:
                limits.append(limit)
    return min(limits)


def _cgroups(controller: str, root: Path) -> Iterator[Path]:
    """Folders of this process's cgroup for a controller and of all cgroups above it.

    In a container the mount often shows the container's own cgroup at its top, whatever the path says: the top is
    always among the folders.
    """
    top = root / "sys/fs/cgroup"
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        lines = []
    tops = {top: "/", top / controller: "/"}
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if not controllers:
            tops[top] = path
        elif controller in controllers.split(","):
            tops[top / controller] = path
    for folder, path in tops.items():
        below = folder / path.lstrip("/")
        yield below
        for above in below.parents:
            if not above.is_relative_to(folder):
                break
            yield above


def _quota(folder: Path) -> float | None:
    """CPUs of a cgroup's quota; None: unlimited."""
    try:
        quota, period = (folder / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        pass
    quota_us, period_us = _number(folder / "cpu.cfs_quota_us"), _number(folder / "cpu.cfs_period_us")
    return quota_us / period_us if quota_us and period_us and quota_us > 0 else None


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return None
