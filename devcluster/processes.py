"""What runs on this machine."""

import contextlib
from pathlib import Path


def processes() -> list[tuple[int, list[str]]]:
    """Every process with its command line, by its number in this namespace."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            # A process may end while it is looked at.
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
                if words:
                    found.append((int(entry.name), words))
    return found


def pid_namespace(pid: int | None) -> str | None:
    """Which process namespace a process is in; nothing if it has ended."""
    try:
        return str(Path(f"/proc/{pid}/ns/pid").readlink())
    except OSError:
        return None
