"""The quickstart's data set: made from real imagery, readable by the trainer, made only once."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from crossfold_trainer.contract.data import DataSpec
from crossfold_trainer.data import open_dataset

SCRIPT = Path(__file__).resolve().parents[3] / "examples" / "quickstart" / "make_dataset.py"


def make(target: Path) -> str:
    return subprocess.run([sys.executable, str(SCRIPT), str(target)], check=True, capture_output=True, text=True).stdout


def test_made_once_and_readable(tmp_path: Path) -> None:
    first = make(tmp_path / "d")
    assert "is ready" in first
    data = open_dataset(DataSpec(uri=str(tmp_path / "d")), None)
    assert (len(data), data.bands, data.shape) == (108, ("blue", "green", "red", "nir", "swir1"), (64, 64))
    regions = data.metadata.region
    assert regions is not None
    assert len(set(regions.tolist())) == 9
    patches = data.read(np.arange(108))
    assert patches.x.min() == 0
    assert 0.5 < patches.x.max() <= 1
    assert set(np.unique(patches.y)) == {0, 1, 2}
    assert not patches.x[np.broadcast_to((patches.y == 2)[:, None], patches.x.shape)].any()
    assert np.array_equal(data.metadata.empty, ~(patches.y == 1).any(axis=(1, 2)))
    baselines = json.loads((tmp_path / "d" / "baselines.json").read_text())
    scores = {p["name"]: p["mean"] for p in baselines["predictors"]}
    assert scores["all no"] == 0 < scores["random"] < scores["all yes"] < 0.55

    again = make(tmp_path / "d")
    assert "is already there" in again
    assert "all yes" in again
    assert open_dataset(DataSpec(uri=str(tmp_path / "d")), None).digest == data.digest
