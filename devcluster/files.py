"""Writing files so that nobody ever sees half of one, nor a secret that others may read."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

PRIVATE = 0o600


def write(path: Path, text: str, mode: int = 0o644) -> None:
    """Writes a file in one go, born with its mode."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.unlink(missing_ok=True)
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as file:
        file.write(text)
    partial.rename(path)


def write_json(path: Path, value: Any, mode: int = 0o644) -> None:
    """Writes a JSON file; every YAML reader reads it too."""
    write(path, json.dumps(value, indent=2) + "\n", mode)


def link(source: Path, target: Path) -> None:
    """Gives a file a second name, or where that cannot be, a copy.

    Whoever runs the program that had this name before keeps it until it is started anew.
    """
    if target.exists() and target.samefile(source):
        return
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
