"""Seconds from the start of a trainer process to its first optimiser step, beside what its libraries take to import."""

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from crossfold_trainer.contract.config import CONFIG_VARIABLE
from tests.trainer_data import run_config, write_dataset

IMPORTS = "import torch, segmentation_models_pytorch"
FIRST_STEP = """
import os, sys, time
import crossfold_trainer.__main__ as main
train = main._train
def patched(*arguments):
    print("opened", time.time(), flush=True)
    from crossfold_trainer import fit, step
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


def measure(rounds: int, folder: Path) -> dict[str, Any]:
    """Medians over some rounds, in turns, after one that warms the disk."""
    config = run_config(
        write_dataset(folder / "d", side=64), folder / "a", hyperparameters={"model_encoder": "resnet18"}
    )
    environment = {**os.environ, CONFIG_VARIABLE: config.model_dump_json()}
    libraries, points = [], []
    for i in range(rounds + 1):
        took = _imports()
        found = _first_step(environment)
        if i:
            libraries.append(took)
            points.append(found)
    medians = {name: round(statistics.median(point[name] for point in points), 2) for name in points[0]}
    imports = statistics.median(libraries)
    return {
        "imports_s": round(imports, 2),
        "imports": "torch + segmentation_models_pytorch (lightning is no dependency and is not installed)",
        **medians,
        "over_imports_s": round(medians["first_step_s"] - imports, 2),
    }


def _imports() -> float:
    began = time.time()
    subprocess.run([sys.executable, "-c", IMPORTS], check=True)
    return time.time() - began


def _first_step(environment: dict[str, str]) -> dict[str, float]:
    began = time.time()
    out = subprocess.run(
        [sys.executable, "-c", FIRST_STEP], env=environment, check=True, capture_output=True, text=True
    ).stdout
    at = {line.split()[0]: float(line.split()[1]) - began for line in out.splitlines() if line.split()[0] in _POINTS}
    return {name: at[word] for word, name in _POINTS.items()}


_POINTS = {"opened": "data_opened_s", "imported": "imported_s", "stepped": "first_step_s"}

if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        print(json.dumps(measure(3, Path(name)), indent=2))
