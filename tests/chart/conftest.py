"""Rendering the chart."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import CHART

Manifest = dict[str, Any]


class Refused(Exception):
    """Helm did not accept the values."""


@pytest.fixture(scope="session")
def render(helm: Path) -> Callable[..., list[Manifest]]:
    """Renders the chart with values (as --set-json takes them) and returns its objects."""

    def run(release: str = "crossfold", namespace: str = "crossfold-system", **values: Any) -> list[Manifest]:
        done = subprocess.run(
            [str(helm), "template", release, str(CHART), "--namespace", namespace, "--values", "-"],
            input=yaml.safe_dump(values),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise Refused(done.stderr)
        return [obj for obj in yaml.safe_load_all(done.stdout) if obj]

    return run


def pick(objects: list[Manifest], kind: str, name: str = "") -> list[Manifest]:
    """Objects of a kind, and of a name where one is given."""
    return [o for o in objects if o["kind"] == kind and name in ("", o["metadata"]["name"])]


def one(objects: list[Manifest], kind: str, name: str = "") -> Manifest:
    """The only object of a kind."""
    (found,) = pick(objects, kind, name)
    return found
