"""Small data sets in the darts layout, and RunConfigs for them."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import zarr
from pyarrow import parquet

from crossfold_trainer.contract.config import RunConfig

BANDS = ("red", "green", "nir")
ENCODER = "tu-test_efficientnet"
"""timm's smallest: a model in well under a second."""


def write_dataset(
    folder: Path,
    n: int = 24,
    side: int = 32,
    zarr_format: int = 3,
    x_chunks: tuple[int, ...] | None = None,
    **replace: Any,
) -> Path:
    """Bright squares on a dark ground in six regions; ``replace`` overrides parts: x, y, metadata, config.

    ``empty`` follows from y where both are as many.
    """
    rng = np.random.default_rng(0)
    y = np.zeros((n, side, side), np.uint8)
    for i in range(n):
        if i % 4:
            top, left = rng.integers(0, side // 2, 2)
            y[i, top : top + side // 2, left : left + side // 2] = 1
        y[i, :2] = 2
    x = rng.uniform(0, 0.3, (n, len(BANDS), side, side)).astype(np.float32) + 0.5 * (y == 1)[:, None]
    x = (x * (y != 2)[:, None]).astype(np.float32)
    given = replace.get("y")
    labels = given if given is not None and len(given) == n else y
    metadata: dict[str, Any] = {
        "sample_id": [f"s{i // 2}" for i in range(n)],
        "region": [f"r{i % 6}" for i in range(n)],
        "empty": ~(labels == 1).any(axis=(1, 2)),
        "geometry": [struct.pack("<BI2d", 1, 1, 10 + i % 6 / 100, 50 + i // 6 / 100) for i in range(n)],
    }
    parts = {"x": x, "y": y, "metadata": metadata, "config": {"bands": list(BANDS), "patch_size": side}} | replace
    folder.mkdir(parents=True, exist_ok=True)
    if parts["config"] is not None:
        lines = [f"{key} = {json.dumps(value)}" for key, value in parts["config"].items()]
        (folder / "config.toml").write_text("\n".join(["[darts]", *lines, ""]))
    if parts["metadata"] is not None:
        parquet.write_table(pa.table(parts["metadata"]), folder / "metadata.parquet")
    group = zarr.open_group(folder / "data.zarr", mode="w", zarr_format=zarr_format)
    for name in ("x", "y"):
        array = parts[name]
        if array is not None:
            # As darts writes them: one band of one patch a chunk.
            chunks = x_chunks or (1, 1, *array.shape[2:]) if array.ndim == 4 else (1, *array.shape[1:])
            group.create_array(name, data=array, chunks=chunks)
    return folder


def classes_dataset(folder: Path) -> Path:
    """Three classes, told apart by the band that is bright where they are; a part of the pixels is ignored."""
    rng = np.random.default_rng(0)
    y = np.zeros((24, 32, 32), np.uint8)
    for i in range(24):
        y[i, :, 10:20], y[i, :, 20:] = (1, 2) if i % 4 else (0, 0)
        y[i] = np.rot90(y[i], i % 4)
        y[i, :2] = 255
    x = rng.uniform(0, 0.3, (24, len(BANDS), 32, 32)).astype(np.float32)
    for k in range(len(BANDS)):
        x[:, k] += 0.6 * (y == k)
    x = (x * (y != 255)[:, None]).astype(np.float32)
    metadata = {"region": [f"r{i % 6}" for i in range(24)], "empty": ~((y == 1) | (y == 2)).any(axis=(1, 2))}
    config = {"bands": list(BANDS), "patch_size": 32, "classes": ["ground", "water", "ice"]}
    return write_dataset(folder, x=x, y=y, metadata=metadata, config=config)


def run_config(data: Path | str, artifacts: Path | str, /, **replace: Any) -> RunConfig:
    """A run of seconds; ``replace`` merges into the camelCase content."""
    content: dict[str, Any] = {
        "run": "tiny-cv0-f0s42",
        "folds": 3,
        "objective": {"metrics": [{"name": "val/JaccardIndex"}]},
        "data": {"uri": str(data)},
        "artifacts": {"uri": str(artifacts)},
        "hyperparameters": {"model_encoder": ENCODER, "batch_size": 4, "learning_rate": 3e-3},
        "trainer": {"maxEpochs": 3, "checkValEveryNEpoch": 1},
        "tracking": {"tensorboard": False},
    }
    for key, value in replace.items():
        content[key] = content.get(key, {}) | value if isinstance(value, dict) else value
    return RunConfig.model_validate(content)
