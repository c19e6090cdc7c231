"""Which uv installs Python packages: the one that locks/uv.txt pins, kept in the cache. Never one from the PATH."""

import re
import shutil
import sys
from pathlib import Path

from devcluster import requirements
from devcluster.console import step
from devcluster.locks import exclusive
from devcluster.paths import REPOSITORY, cache
from devcluster.shell import run

_LOCK = REPOSITORY / "locks/uv.txt"


def uv() -> Path:
    """The uv command, installed first where the cache has none of this version."""
    home = cache() / f"uv-{_version()}"
    program = home / "uv"
    with exclusive(cache() / "locks" / "uv"):
        if not program.exists():
            _install(home)
    return program


def _version() -> str:
    found = re.search(r"^uv==(\S+)", _LOCK.read_text(), re.MULTILINE)
    if found is None:
        raise AssertionError(f"{_LOCK} pins no uv")
    return found[1]


def _install(home: Path) -> None:
    requirements.check_venv()
    partial = home.with_name(home.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    with step(f"installing uv {_version()} from the Python package index"):
        run([sys.executable, "-m", "venv", partial])
        options = ["--quiet", "--disable-pip-version-check", "--require-hashes"]
        run([partial / "bin/python", "-m", "pip", "install", *options, "-r", _LOCK])
        # The program needs nothing of the environment that brought it.
        home.mkdir(parents=True, exist_ok=True)
        (partial / "bin/uv").rename(home / "uv")
        shutil.rmtree(partial)
