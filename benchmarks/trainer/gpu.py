"""All that needs a GPU, in one command: ``python -m benchmarks.trainer.gpu FOLDER [SECONDS]``.

Runs tests/gpu and the step benchmark, each in a process of its own with a time limit, and writes ``gpu.json`` after
each; logs lie beside it. ``python -m benchmarks.trainer --gpu FOLDER/gpu.json`` takes it into the results.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

TESTS_S, STEP_S = 170.0, 230.0
"""Time limits of the two parts, in seconds."""
ENDING_S = 15.0
"""So long before its time limit the benchmark begins nothing more."""


def main() -> None:
    """Do both parts; the exit code is 0 when both could be done."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    scale = float(sys.argv[2]) / (TESTS_S + STEP_S) if len(sys.argv) > 2 else 1.0
    result: dict[str, Any] = {}

    def keep() -> None:
        (folder / "gpu.json").write_text(json.dumps(result, indent=2) + "\n")

    began = time.monotonic()
    result["step"] = {
        "ended": _run(
            [sys.executable, "-m", "benchmarks.trainer", "--only", "step", "--results", str(folder)],
            folder / "step.log",
            STEP_S * scale,
        )
    }
    written = folder / "trainer.json"
    if written.exists():
        found = json.loads(written.read_text())
        result["step"] |= found.get("step") or {}
        result |= {name: found[name] for name in ("machine", "versions") if name in found}
    result["step"]["took_s"] = round(time.monotonic() - began)
    keep()

    began = time.monotonic()
    report = folder / "tests.xml"
    command = [
        sys.executable,
        "-m",
        "pytest",
        "tests/gpu",
        "-q",
        "-rs",
        "--timeout=100",
        "--durations=8",
        f"--junitxml={report}",
        "-p",
        "no:cacheprovider",
    ]
    result["tests"] = {"ended": _run(command, folder / "tests.log", TESTS_S * scale), **tests_of(report)}
    result["tests"]["took_s"] = round(time.monotonic() - began)
    keep()
    for name in ("step.log", "tests.log"):
        print(f"== {name}", *(folder / name).read_text(errors="replace").splitlines()[-60:], sep="\n")
    print(json.dumps(result))
    sys.exit(0 if all(result[part]["ended"] == 0 for part in ("step", "tests")) else 1)


def _run(command: list[str], log: Path, limit: float) -> int | str:
    """The exit code, or that time was up."""
    environment = os.environ | {"PYTHONUNBUFFERED": "1", "BENCHMARK_BUDGET_S": str(max(10.0, limit - ENDING_S))}
    with log.open("w") as out:
        try:
            return subprocess.run(
                command, stdout=out, stderr=subprocess.STDOUT, timeout=limit, env=environment, check=False
            ).returncode
        except subprocess.TimeoutExpired:
            return f"broken off after {limit:.0f} s"


def tests_of(report: Path) -> dict[str, Any]:
    """How many tests passed, and what the others said."""
    if not report.exists():
        return {}
    cases = list(ET.parse(report).getroot().iter("testcase"))  # noqa: S314 - written by pytest just now
    others: dict[str, str] = {}
    for case in cases:
        for kind in ("failure", "error", "skipped"):
            found = case.find(kind)
            if found is not None:
                others[case.get("name", "")] = f"{kind}: {found.get('message', '')}"[:500]
    return {"passed": len(cases) - len(others), "others": others}


if __name__ == "__main__":
    main()
