"""What a process may use: cgroups of both versions, in a container and out of it; and how it waits for more work."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from crossfold_trainer import machine

PLENTY = str(2**62)


def files(root: Path, content: dict[str, str]) -> Path:
    for name, text in content.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{text}\n")
    return root


V2, V1 = "proc/self/cgroup", "sys/fs/cgroup/memory"


@pytest.mark.parametrize(
    ("content", "limit"),
    [
        ({V2: "0::/", "sys/fs/cgroup/memory.max": "1000"}, 1000),
        ({V2: "0::/a/b", "sys/fs/cgroup/memory.max": "1000"}, 1000),
        ({V2: "0::/a/b", "sys/fs/cgroup/a/b/memory.max": "max", "sys/fs/cgroup/a/memory.max": "700"}, 700),
        ({V2: "4:memory:/x\n3:cpu:/y", f"{V1}/memory.limit_in_bytes": "500"}, 500),
        ({V2: "4:memory:/x", f"{V1}/memory.limit_in_bytes": PLENTY, f"{V1}/x/memory.limit_in_bytes": "300"}, 300),
        ({V2: "4:memory:/x", f"{V1}/memory.limit_in_bytes": PLENTY}, None),
        ({V2: "0::/", "sys/fs/cgroup/memory.max": "max"}, None),
        ({}, None),
    ],
)
def test_memory(tmp_path: Path, content: dict[str, str], limit: int | None) -> None:
    found = machine.memory_limit(files(tmp_path, content))
    if limit is None:
        assert 2**26 < found < 2**60  # what the machine has
    else:
        assert found == limit


@pytest.mark.parametrize(
    ("content", "cpus"),
    [
        ({V2: "0::/", "sys/fs/cgroup/cpu.max": "100000 100000"}, 1),
        ({V2: "0::/", "sys/fs/cgroup/cpu.max": "20000 100000"}, 1),
        ({V2: "0::/a", "sys/fs/cgroup/a/cpu.max": "250000 100000"}, 2),
        ({V2: "0::/a", "sys/fs/cgroup/a/cpu.max": "max 100000"}, 8),
        ({V2: "3:cpu,cpuacct:/", "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "300000", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"}, 3),
        ({V2: "3:cpu:/", "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"}, 8),
    ],
)  # fmt: skip
def test_cpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: dict[str, str], cpus: int) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    assert machine.cpu_count(files(tmp_path, content)) == cpus


def run_python(code: str, **environment: str) -> str:
    """What a process of its own says, its environment without any word on how threads wait."""
    inherited = {name: value for name, value in os.environ.items() if name not in machine.SPIN_VARIABLES}
    ended = subprocess.run(
        [sys.executable, "-c", code], env=inherited | environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout + ended.stderr


FAILING_TRAIN = """
import crossfold_trainer.__main__ as main
try:
    main._train(None, None, None, None, 0.0)
except AttributeError:
    pass
"""
"""Gets as far as its imports."""


def test_torch_is_imported_with_threads_that_let_go_of_their_cpus() -> None:
    # libgomp prints its settings when it is loaded.
    assert f"GOMP_SPINCOUNT = '{machine.SPINS}'" in run_python(FAILING_TRAIN, OMP_DISPLAY_ENV="VERBOSE")


@pytest.mark.parametrize(
    ("name", "value", "spins"),
    [("GOMP_SPINCOUNT", "77", "77"), ("OMP_WAIT_POLICY", "ACTIVE", None), ("ANOTHER", "1", machine.SPINS)],
)
def test_how_threads_wait_is_left_to_who_says_it(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, spins: str | None
) -> None:
    monkeypatch.setattr(os, "environ", {name: value})
    machine.spin_less()
    assert os.environ.get("GOMP_SPINCOUNT") == spins
