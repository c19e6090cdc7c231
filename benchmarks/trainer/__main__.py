"""How fast the trainer is: ``make bench-trainer``. Prints what it finds and writes ``benchmarks/results/trainer.json``.

Bars are ratios of two things measured in turns in one run, since a machine that others use changes the rates of both.
What was measured on a GPU machine (``python -m benchmarks.trainer.gpu``) is taken over from its file.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import traceback
from importlib import metadata
from pathlib import Path
from typing import Any

RESULTS = Path("benchmarks/results")
NAME = "trainer.json"
PARTS = ("data_path", "startup", "step")
PACKAGES = ("crossfold", "torch", "segmentation-models-pytorch", "timm", "zarr", "numcodecs", "obstore", "numpy")
BARS: tuple[tuple[str, str, float], ...] = (
    ("data_path.darts_layout.0ms.ratio_to_raw", ">=", 0.8),
    ("data_path.darts_layout.30ms.ratio_to_raw", ">=", 0.8),
    ("data_path.own_layout.0ms.ratio_to_raw", ">=", 0.8),
    ("data_path.own_layout.30ms.ratio_to_raw", ">=", 0.8),
    ("data_path.vs_darts_calls_30ms", ">=", 20),
    ("data_path.own_layout_vs_darts_calls_30ms", ">=", 40),
    ("data_path.warm_vs_cold", ">=", 2),
    ("data_path.warm_vs_darts_calls_local", ">=", 4),
    ("startup.over_imports_s", "<=", 2),
    ("step.ratio_to_pure", ">=", 0.9),
    *((f"gpu.step.cases.batch_{batch}.ratio_to_pure", ">=", 0.9) for batch in (8, 32)),
    *((f"gpu.step.cases.batch_{batch}.s3_30ms_warm_cache.data_wait_share", "<=", 0.05) for batch in (8, 32)),
    *((f"gpu.step.cases.batch_{batch}.s3_30ms_cold.data_wait_share", "<=", 0.15) for batch in (8, 32)),
)
STEP_BUDGET_S = float(os.environ.get("BENCHMARK_BUDGET_S", "150"))
"""After so many seconds the step benchmark begins nothing more."""


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="make bench-trainer", description=__doc__)
    parser.add_argument("--only", choices=PARTS, help="one part; the others keep their last results")
    parser.add_argument("--patches", type=int, default=192, help="in the data set of the data path")
    parser.add_argument("--rounds", type=int, default=3, help="of each measurement; the median counts")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder for trainer.json")
    parser.add_argument("--gpu", type=Path, help="gpu.json of benchmarks.trainer.gpu: taken over as it is")
    given = parser.parse_args()
    path = given.results / NAME
    result: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    if given.gpu is not None:
        result["gpu"] = json.loads(given.gpu.read_text())
    parts = PARTS if given.only is None else (given.only,)
    if given.gpu is None or given.only is not None:
        measure(parts, given.patches, given.rounds, result, path)
    write(path, result)
    for line in table(result):
        print(line)


def measure(parts: tuple[str, ...], patches: int, rounds: int, result: dict[str, Any], path: Path) -> None:
    """Measure these parts into the result. It is written after each; one that fails leaves the others."""
    from crossfold_trainer.machine import spin_less  # noqa: PLC0415

    spin_less()  # as the trainer does, before torch is imported
    from benchmarks.trainer import data_path, startup, step  # noqa: PLC0415

    os.environ |= {"AWS_ACCESS_KEY_ID": data_path.KEY, "AWS_SECRET_ACCESS_KEY": data_path.SECRET}
    with tempfile.TemporaryDirectory(prefix="crossfold-bench-") as name:
        for part in parts:
            _say(f"-- {part}")

            def keep(found: Any, part: str = part) -> None:
                result[part] = found
                result.update(machine=machine(), versions=versions())
                write(path, result)

            try:
                if part == "data_path":
                    keep(data_path.measure(patches, rounds, _say))
                elif part == "startup":
                    keep(startup.measure(rounds, Path(name) / part))
                else:
                    keep(step.measure(rounds, Path(name) / part, budget_s=STEP_BUDGET_S, say=_say, keep=keep))
            except Exception:  # noqa: BLE001 - minutes of the other parts are not thrown away
                _say(traceback.format_exc())
                result.pop(part, None)


def write(path: Path, result: dict[str, Any]) -> None:
    """Write the results as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n")


def table(result: dict[str, Any]) -> list[str]:
    """One line a bar: what was measured, and whether it is kept."""
    lines = []
    for path, sign, bar in BARS:
        value = value_of(result, path)
        shown = "not measured" if value is None else f"{value:g}"
        verdict = "" if value is None else "kept" if keeps(value, sign, bar) else "MISSED"
        lines.append(f"{path:60} {shown:>14}   bar {sign} {bar:<4g} {verdict}")
    return lines


def keeps(value: float, sign: str, bar: float) -> bool:
    """Whether a value keeps a bar."""
    return value >= bar if sign == ">=" else value <= bar


def value_of(result: Any, path: str) -> float | None:
    """The number at a path with dots; None where nothing was measured."""
    for name in path.split("."):
        result = (result or {}).get(name)
    return result


def machine() -> dict[str, Any]:
    """What it was measured on, and the load on it."""
    import torch  # noqa: PLC0415

    from crossfold_trainer.machine import cpu_count  # noqa: PLC0415

    model = platform.processor() or platform.machine()
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model)
    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
    load = [round(value, 1) for value in os.getloadavg()]
    return {"cores": cpu_count(), "cpu": model, "gpu": gpu, "python": platform.python_version(), "load_average": load}


def versions() -> dict[str, str]:
    """Of the packages that matter, where they are installed."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # run from its sources
            continue
    return found


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


if __name__ == "__main__":
    main()
