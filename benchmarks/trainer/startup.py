"""Seconds from the start of a trainer process to its first optimiser step, beside what its libraries take to import."""

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.trainer.apart import installed
from crossfold_trainer.contract.config import CONFIG_VARIABLE
from tests.trainer_data import run_config, write_dataset

IMPORTS = "import torch, segmentation_models_pytorch"
LIGHTNING = ("--no-deps", "pytorch-lightning>=2.5", "lightning-utilities", "torchmetrics>=1.5")
FIRST_STEP = """
import os, sys, time
import crossfold_trainer.__main__ as main
train = main._train
def patched(*arguments):
    print("opened", time.time(), flush=True)
    from crossfold_trainer import step
    from crossfold_trainer.training import fit
    print("imported", time.time(), flush=True)
    call = step.TrainStep.__call__
    def first(*given):
        call(*given)
        print("stepped", time.time(), flush=True)
        os._exit(0)
    step.TrainStep.__call__ = first
    train(*arguments)
main._train = patched
main.main()
"""
"""The trainer as it is, but for a word at three points; it ends after its first step."""


def measure(rounds: int, folder: Path, budget_s: float = 150.0) -> dict[str, Any]:
    """Medians over some rounds, in turns, after one that warms the disk; fewer where `budget_s` does not suffice."""
    end = time.monotonic() + budget_s
    config = run_config(
        write_dataset(folder / "d", side=64), folder / "a", hyperparameters={"model_encoder": "resnet18"}
    )
    environment = {**os.environ, CONFIG_VARIABLE: config.model_dump_json()}
    lightning = installed("pytorch_lightning", *LIGHTNING)
    libraries, without, points = [], [], []
    for i in range(rounds + 1):
        if i > 1 and time.monotonic() > end:
            break
        took, lean = _imports(lightning), _imports(None)
        found = _first_step(environment)
        if i:
            libraries.append(took)
            without.append(lean)
            points.append(found)
    medians = {name: round(statistics.median(point[name] for point in points), 2) for name in points[0]}
    imports = statistics.median(libraries)
    return {
        "imports": "torch + segmentation_models_pytorch" + (" + pytorch_lightning" if lightning else ""),
        "rounds": len(points),
        "imports_s": round(imports, 2),
        "imports_without_lightning_s": round(statistics.median(without), 2),
        **medians,
        "over_imports_s": round(
            statistics.median(a["first_step_s"] - b for a, b in zip(points, libraries, strict=True)), 2
        ),
    }


def _imports(lightning: Path | None) -> float:
    """Seconds of a process that imports what darts' training imports; Lightning from a folder of its own."""
    statement, environment = IMPORTS, dict(os.environ)
    if lightning is not None:
        statement += ", pytorch_lightning"
        environment["PYTHONPATH"] = f"{environment.get('PYTHONPATH', '')}:{lightning}"
    began = time.time()
    subprocess.run([sys.executable, "-c", statement], env=environment, check=True)
    return time.time() - began


def _first_step(environment: dict[str, str]) -> dict[str, float]:
    began = time.time()
    out = subprocess.run(
        [sys.executable, "-c", FIRST_STEP],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    at = {line.split()[0]: float(line.split()[1]) - began for line in out.splitlines() if line.split()[0] in _POINTS}
    return {name: at[word] for word, name in _POINTS.items()}


_POINTS = {"opened": "data_opened_s", "imported": "imported_s", "stepped": "first_step_s"}

if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        print(json.dumps(measure(3, Path(name)), indent=2))
