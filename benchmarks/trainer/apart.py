"""Packages that only the benchmark compares with: each is installed into a folder of its own, as no dependency."""

import subprocess
import sys
from pathlib import Path

FOLDER = Path(".state/benchmarks")


def installed(name: str, *options: str) -> Path | None:
    """The folder with a package, installed there when it is not; None when it cannot be.

    Args:
        name: of the package's module.
        options: of ``uv pip install``, requirements included.
    """
    folder = FOLDER / name
    if not (folder / name).is_dir():
        command = [sys.executable, "-m", "uv", "pip", "install", "-q", "--compile-bytecode", "--target", str(folder)]
        try:
            subprocess.run([*command, "--python", sys.executable, *options], check=True)
        except (OSError, subprocess.CalledProcessError):
            return None
    return folder.absolute()
