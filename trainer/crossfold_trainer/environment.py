"""The machine that a run runs on: how many threads to use, and the record of what was installed."""

import json
import os
import platform
from importlib import metadata
from pathlib import Path

import torch

from crossfold_trainer.contract.config import IMAGE_VARIABLE

PACKAGES = (
    "crossfold", "torch", "segmentation-models-pytorch", "timm", "torchvision", "numpy", "zarr", "numcodecs", "obstore",
    "pyarrow", "pydantic", "tensorboard", "pillow",
)  # fmt: skip
GIT_VARIABLE = "CROSSFOLD_GIT"
"""Set when the image is built: the commit."""


def use_cpus() -> int:
    """Give torch as many threads as this process has CPUs (OMP_NUM_THREADS wins). Returns their number."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    n = int(asked) if asked.isdigit() and int(asked) > 0 else cpu_count()
    torch.set_num_threads(n)
    return n


def cpu_count() -> int:
    """CPUs that this process may use: its affinity, or its cgroup's quota where that is less."""
    n = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    quota = _quota()
    return max(1, min(n, round(quota))) if quota is not None else n


def _quota() -> float | None:
    """CPUs of the cgroup's quota (version 2, then 1); None: unlimited."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        pass
    try:
        quota_us = int(Path("/sys/fs/cgroup/cpu/cpu.cfs_quota_us").read_text())
        period_us = int(Path("/sys/fs/cgroup/cpu/cpu.cfs_period_us").read_text())
    except (OSError, ValueError):
        return None
    return quota_us / period_us if quota_us > 0 else None


def environment_record(device: torch.device, threads: int) -> bytes:
    """environment.json: image, packages, machine, accelerator."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if device.type == "cuda" else []
    record = {
        "image": os.environ.get(IMAGE_VARIABLE, ""),
        "git": os.environ.get(GIT_VARIABLE, ""),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": versions,
        "device": device.type,
        "gpus": gpus,
        "cuda": torch.version.cuda or "",
        "threads": threads,
    }
    return (json.dumps(record, indent=2) + "\n").encode()
