"""The benchmark of the trainer: what it compares with is what it claims to be, and its last results hold."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr

from benchmarks.trainer import __main__ as bench
from benchmarks.trainer import data_path, step
from benchmarks.trainer.gpu import count_tests
from crossfold_trainer.contract.data import DataSpec
from crossfold_trainer.data import open_dataset
from tests.trainer_data import ENCODER

RESULTS = Path(__file__).parents[3] / bench.RESULTS / bench.NAME
REPORT: dict[str, Any] = json.loads(RESULTS.read_text())
MISSED = {
    "gpu.step.cases.batch_32.s3_30ms_warm_cache.data_wait_share": "0.07 on an H200",
    "gpu.step.cases.batch_32.s3_30ms_cold.data_wait_share": "0.19 on an H200",
}
"""Bars that the last results miss, and why: docs/trainer.md says more."""


def test_the_results_say_what_they_were_measured_on() -> None:
    assert REPORT["machine"]["cores"] >= 1
    assert REPORT["machine"]["cpu"]
    assert set(bench.PACKAGES) <= set(REPORT["versions"])


@pytest.mark.parametrize(("path", "sign", "bar"), bench.BARS)
def test_the_last_results_keep_the_bars(path: str, sign: str, bar: float) -> None:
    value = bench.value_of(REPORT, path)
    assert value is not None, "measured"
    assert bench.keeps(value, sign, bar) == (path not in MISSED)


def test_the_table_tells_kept_from_missed_from_not_measured() -> None:
    result = {"startup": {"over_imports_s": 2.5}, "step": {"ratio_to_pure": 0.9}, "data_path": None}
    verdicts = {line.split()[0]: line.split()[-1] for line in bench.table(result)}
    assert verdicts["startup.over_imports_s"] == "MISSED"
    assert verdicts["step.ratio_to_pure"] == "kept"
    assert "not measured" in next(line for line in bench.table(result) if line.startswith("data_path.warm_vs_cold"))


def test_what_is_written_is_a_data_set_of_both_kinds_of_labels(tmp_path: Path) -> None:
    data_path.write(tmp_path / "d", 6, bands=2, side=32)
    data = open_dataset(DataSpec(uri=str(tmp_path / "d")), None)
    patches = data.read(np.arange(6))
    assert patches.x.shape == (6, 2, 32, 32)
    assert 0 <= patches.x.min() < patches.x.max() <= 1
    assert set(np.unique(patches.y)) == {0, 1}
    assert zarr.open_group(tmp_path / "d" / "data.zarr", mode="r")["x"].chunks == (1, 1, 32, 32)


def test_steps_are_measured_beside_plain_ones(tmp_path: Path) -> None:
    case = step.Case(ENCODER, side=32, bands=2, patches=24, batch=4, epochs=2)
    seen: list[float | None] = []
    found = step.measure(
        1, tmp_path, cases=(case,), say=lambda _: None, keep=lambda result: seen.append(result.get("ratio_to_pure"))
    )
    measured = found["cases"]["batch_4"]
    assert "errors" not in measured
    assert measured["ratio_to_pure"] == found["ratio_to_pure"] == seen[-1]
    assert measured["memory"]["patches_per_s"] > 0
    assert 0 <= measured["memory"]["data_wait_share"] < 1
    assert measured["memory"]["checkpoint_mb"] > 1
    assert measured["step_patches_per_s"] > 0
    assert found["device"] == ("cuda" if torch.cuda.is_available() else "cpu")


def test_without_time_nothing_begins(tmp_path: Path) -> None:
    case = step.Case(ENCODER, side=32, bands=2, patches=24, batch=4, epochs=1)
    found = step.measure(1, tmp_path, cases=(case,), budget_s=0.0, say=lambda _: None)
    assert found["cases"]["batch_4"]["errors"] == ["in_turns: no time was left", "resident: no time was left"]
    assert found["ratio_to_pure"] is None


def test_a_report_of_tests_is_counted(tmp_path: Path) -> None:
    report = tmp_path / "tests.xml"
    assert count_tests(report) == {}
    report.write_text(
        '<testsuites><testsuite><testcase name="a"/><testcase name="b"><failure message="assert 1 == 2"/></testcase>'
        '<testcase name="c"><skipped message="no GPU"/></testcase></testsuite></testsuites>'
    )
    assert count_tests(report) == {"passed": 1, "others": {"b": "failure: assert 1 == 2", "c": "skipped: no GPU"}}
