"""How fast the trainer is: ``make bench-trainer``. Prints what it finds and writes ``benchmarks/results/trainer.json``.

Bars are ratios of two things measured in turns in one run, since a machine that others use changes the rates of both.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.trainer import data_path, startup, step
from crossfold_trainer.machine import cpu_count

RESULT = Path("benchmarks/results/trainer.json")
PARTS = ("data_path", "startup", "step")
PACKAGES = ("crossfold", "torch", "segmentation-models-pytorch", "zarr", "numcodecs", "obstore", "numpy")
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
)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(prog="make bench-trainer", description=__doc__)
    parser.add_argument("--only", choices=PARTS, help="one part; the others keep their last results")
    parser.add_argument("--patches", type=int, default=192, help="in the data set of the data path")
    parser.add_argument("--rounds", type=int, default=3, help="of each measurement; the median counts")
    given = parser.parse_args()
    os.environ |= {"AWS_ACCESS_KEY_ID": data_path.KEY, "AWS_SECRET_ACCESS_KEY": data_path.SECRET}
    result: dict[str, Any] = json.loads(RESULT.read_text()) if given.only and RESULT.exists() else {}
    with tempfile.TemporaryDirectory(prefix="crossfold-bench-") as name:
        for part in PARTS if given.only is None else (given.only,):
            _say(f"-- {part}")
            if part == "data_path":
                result[part] = data_path.measure(given.patches, given.rounds, _say)
            elif part == "startup":
                result[part] = startup.measure(given.rounds, Path(name) / part)
            else:
                result[part] = step.measure(given.rounds, Path(name) / part)
    result |= {"machine": _machine(), "versions": {name: metadata.version(name) for name in PACKAGES}}
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    for path, sign, bar in BARS:
        value = _value(result, path)
        kept = value is not None and (value >= bar if sign == ">=" else value <= bar)
        shown = "not measured" if value is None else f"{value:g}"
        print(f"{path:45} {shown:>14}   bar {sign} {bar:<4g} {'' if value is None else 'kept' if kept else 'MISSED'}")


def _value(result: Any, path: str) -> float | None:
    for name in path.split("."):
        result = (result or {}).get(name)
    return result


def _machine() -> dict[str, Any]:
    import torch  # noqa: PLC0415

    model = platform.processor() or platform.machine()
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model)
    gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else None
    load = [round(value, 1) for value in os.getloadavg()]
    return {"cores": cpu_count(), "cpu": model, "gpu": gpu, "python": platform.python_version(), "load_average": load}


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


if __name__ == "__main__":
    main()
