"""The machine that a run runs on: how many threads to use, and the record of what was installed."""

import json
import os
import platform
from importlib import metadata
from pathlib import Path

import torch

from crossfold_trainer.contract.config import IMAGE_VARIABLE
from crossfold_trainer.machine import cpu_count

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


def environment_record(device: torch.device, threads: int) -> bytes:
    """environment.json: image, packages, machine, accelerator."""
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    count = torch.cuda.device_count() if device.type == "cuda" else 0
    gpus = [torch.cuda.get_device_properties(i) for i in range(count)]
    record = {
        "image": os.environ.get(IMAGE_VARIABLE, ""),
        "git": os.environ.get(GIT_VARIABLE, ""),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": versions,
        "device": device.type,
        "gpus": [{"name": gpu.name, "memory_bytes": gpu.total_memory} for gpu in gpus],
        "cuda": torch.version.cuda or "",
        "cudnn": str(torch.backends.cudnn.version() or "") if gpus else "",  # type: ignore[no-untyped-call]
        "node": platform.node(),
        "processor": _processor(),
        "cpus": cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "threads": threads,
    }
    return (json.dumps(record, indent=2) + "\n").encode()


def _processor() -> str:
    """The processor's name, as Linux tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
