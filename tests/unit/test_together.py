"""Steps side by side: order, what is shown, and what is left when one fails."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from devcluster.together import Together, parse
from tests.conftest import ROOT


def together(*steps: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "devcluster.together", "make all", *steps],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_a_step_waits_for_those_before_it_and_for_no_others(tmp_path: Path) -> None:
    """`a` and `b` each wait for a file that the other makes: only side by side can both end."""
    for name in ("a", "b"):
        other = {"a": "b", "b": "a"}[name]
        (tmp_path / f"{name}.sh").write_text(
            f"touch {name}; until [ -e {other} ]; do sleep 0.01; done; echo {name} ended"
        )
    done = together("a=sh a.sh", "b=sh b.sh", "c,after=a+b=sh -c 'ls a b; echo last'", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "a ended" in done.stderr
    assert "b ended" in done.stderr
    assert done.stdout.split() == ["a", "b", "last"], "the step that is alone at the end has standard output to itself"
    assert all(f"{name} " in done.stderr.splitlines()[-1] for name in "abc")


def test_a_failure_stops_the_others_and_says_how_to_go_on(tmp_path: Path) -> None:
    started = time.monotonic()
    slow = f"{sys.executable} -c \"import time; print('up', flush=True); open('slow', 'w').close(); time.sleep(600)\""
    bad = "sh -c 'until [ -e slow ]; do sleep 0.01; done; echo the disk is full: free 6 GiB; exit 3'"
    done = together(f"slow={slow}", f"bad={bad}", "never,after=bad=touch never", cwd=tmp_path)
    assert done.returncode == 1
    assert time.monotonic() - started < 60, "the slow step was ended"
    assert not (tmp_path / "never").exists()
    end = done.stderr[done.stderr.index("make all: step bad failed with exit status 3") :]
    assert "the disk is full: free 6 GiB" in end
    assert "`make all` goes on" in end
    assert "Traceback" not in done.stderr


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    done = together("one=no-such-program --flag", cwd=tmp_path)
    assert done.returncode == 1
    assert "step one failed" in done.stderr
    assert "no-such-program: No such file or directory" in done.stderr


@pytest.mark.parametrize("argument", ["", "name", "name=", "=command", "name,before=a=command"])
def test_what_is_no_step(argument: str) -> None:
    with pytest.raises(ValueError, match="is not NAME"):
        parse(argument)


def test_a_step_that_waits_for_none_of_the_others() -> None:
    with pytest.raises(ValueError, match="no such step: cluster"):
        Together([parse("demo,after=cluster=true")])
