"""One at a time: locks between processes, by file."""

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path

from devcluster.console import say


@contextlib.contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Holds the lock that the file stands for; says so when it has to wait.

    The file stays: removing it would let two holders lock two files of one name.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"  … waiting for another devcluster command ({path.name})")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
