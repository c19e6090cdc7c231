"""The README's commands for a workstation, on a machine where nobody has installed anything by hand."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT

PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
"""System folders alone: no shims, no ~/.local/bin, no /usr/local/bin."""
KEPT = re.compile(r"(PIP|UV|SSL|REQUESTS|CURL)_\w+|LANG|LC_\w+|\w+_proxy|\w+_PROXY")
"""How this machine reaches package indexes, by the names of variables."""


def bare(home: Path, environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment of a new user: nothing but the way to the package index, and the downloads of this machine."""
    kept = {name: value for name, value in environment.items() if KEPT.fullmatch(name)}
    caches = Path(environment.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return {"UV_CACHE_DIR": str(caches / "uv")} | kept | {"PATH": PATH, "HOME": str(home), "PYTHONNOUSERSITE": "1"}


def clone(target: Path) -> None:
    """What a clone of this working tree would hold."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)


def commands(heading: str) -> list[str]:
    """What the README's first console block under a heading tells to type."""
    section = (ROOT / "README.md").read_text().partition(f"\n## {heading}\n")[2]
    block = section.partition("```console\n")[2].partition("```")[0]
    return [line.removeprefix("$ ") for line in block.splitlines() if line.startswith("$ ")]


@dataclass(frozen=True)
class Machine:
    """A bare machine with a clone."""

    checkout: Path
    home: Path

    @property
    def cache(self) -> Path:
        """Where the quickstart's download is kept."""
        return self.home / ".cache/crossfold/quickstart"

    def types(self, *lines: str) -> None:
        """A new user types these lines into one shell."""
        done = subprocess.run(
            ["bash", "-c", "\n".join(("set -euo pipefail", *lines))],
            cwd=self.checkout,
            env=bare(self.home),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-4000:]


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """A clone on a machine where `make env` has been typed, and nothing else."""
    folder = tmp_path_factory.mktemp("fresh")
    found = Machine(folder / "crossfold", folder / "home")
    found.home.mkdir()
    clone(found.checkout)
    found.types("make env")
    return found


@pytest.mark.timeout(1200)
def test_the_environment_is_made_of_the_machines_own_python(machine: Machine) -> None:
    python = (machine.checkout / ".venv/bin/python").resolve()
    assert any(python.is_relative_to(folder) for folder in map(Path, ("/usr/bin", "/bin"))), python


@pytest.mark.timeout(1200)
def test_the_data_step_as_make_demo_runs_it(machine: Machine) -> None:
    """By the environment's Python, of which nothing is on the PATH, and with nothing downloaded before."""
    shutil.rmtree(machine.cache, ignore_errors=True)
    machine.types(".venv/bin/python examples/quickstart/make_dataset.py runs/data/demo")
    assert (machine.cache / "landsat_multiband.tif").exists()
    assert (machine.checkout / "runs/data/demo/config.toml").exists()


@pytest.mark.timeout(1200)
def test_the_commands_for_a_workstation(machine: Machine) -> None:
    shutil.rmtree(machine.cache, ignore_errors=True)
    typed = commands("On one workstation")
    assert [line.split()[0] for line in typed] == ["make", ".", "python", "crossfold"]
    typed[-1] += " --set spec.maxTrials=2"
    machine.types(*typed)
    assert (machine.cache / "landsat_multiband.tif").exists()
    _check_search(machine.checkout / "runs")


def _check_search(runs: Path) -> None:
    """Two trials on three folds each were trained for real, and left what a run leaves."""
    objects: dict[str, list[dict[str, Any]]] = {}
    for file in (runs / "state/tune-quickstart").rglob("*.json"):
        content = json.loads(file.read_text())
        if isinstance(content, dict) and "status" in content:
            objects.setdefault(content["kind"], []).append(content)
    (tune,) = objects["Tune"]
    assert tune["status"]["phase"] == "Complete"
    assert tune["status"]["trials"]["complete"] == 2
    assert 0 < float(tune["status"]["best"]["score"]) <= 1
    assert len(objects["TrainRun"]) == 6
    for run in objects["TrainRun"]:
        folder = Path(run["status"]["artifactUri"])
        assert folder.is_relative_to(runs / "artifacts")
        assert Path(run["status"]["checkpointUri"]).exists()
        assert json.loads((folder / "result.json").read_text())["score"] is not None
