"""How busy the accelerator was: a watch that is allowed to learn nothing."""

import threading
from typing import Any

import pytest
import torch

from crossfold_trainer.contract.result import Performance
from crossfold_trainer.devicewatch import DeviceWatch
from crossfold_trainer.meter import Meter
from crossfold_trainer.records import performance
from crossfold_trainer.tracking import speed_line

GPU = torch.device("cuda", 0)


class Driver:
    """What torch.cuda says."""

    def __init__(self, patch: pytest.MonkeyPatch, *readings: Any) -> None:
        self.readings = list(readings)
        self.empty = threading.Event()
        patch.setattr(torch.cuda, "utilization", self._utilization)
        patch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: None)
        patch.setattr(torch.cuda, "max_memory_allocated", lambda device: 3 * 2**30)
        patch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H200")

    def _utilization(self, device: torch.device) -> int:
        assert device == GPU
        if not self.readings:
            self.empty.set()
            raise RuntimeError("NVML: Unknown Error")
        reading = self.readings.pop(0)
        if isinstance(reading, Exception):
            self.empty.set()
            raise reading
        return int(reading)


def test_without_a_gpu_there_is_nothing_to_watch() -> None:
    before = threading.active_count()
    watch = DeviceWatch(torch.device("cpu"))
    assert (watch.name, watch.utilisation, watch.peak_memory_bytes) == ("cpu", None, None)
    assert threading.active_count() == before
    watch.close()


def test_the_mean_of_what_the_driver_says(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver(monkeypatch, 80, 100, 60)
    watch = DeviceWatch(GPU, every=0.0)
    assert driver.empty.wait(10)
    watch.close()
    assert watch.utilisation == pytest.approx(0.8)
    assert (watch.name, watch.peak_memory_bytes) == ("NVIDIA H200", 3 * 2**30)


@pytest.mark.parametrize("error", [ModuleNotFoundError("pynvml"), RuntimeError("no rights"), OSError("libnvidia-ml")])
def test_a_driver_that_says_nothing_is_no_failure(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    driver = Driver(monkeypatch, error)
    watch = DeviceWatch(GPU, every=0.0)
    assert driver.empty.wait(10)
    assert watch.utilisation is None


def test_the_record_of_an_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver(monkeypatch, 100, 50)
    watch = DeviceWatch(GPU, every=0.0)
    assert driver.empty.wait(10)
    clock, waited = iter([0.0, 0.0, 4.0, *[8.0] * 20]), iter([0.0, 1.0, 1.0])
    meter = Meter(lambda: next(clock))
    meter.start()
    for _ in meter.batches(iter([([0] * 6,)]), lambda: next(waited)):
        meter.patches += 6
    meter.stop()
    record = performance(meter, watch)
    assert record.device == "NVIDIA H200"
    assert record.device_utilisation == 0.75
    assert record.peak_memory_bytes == 3 * 2**30
    assert record.patches_per_second == round(6 / meter.training, 3)
    assert record.data_wait_share == round(meter.data_wait / meter.training, 4)
    assert record.checkpoint_wait_share == 0.0
    assert speed_line(record).endswith(
        "on NVIDIA H200, busy 75%, waiting for data 25%, for checkpoints 0%, peak memory 3.0 GiB"
    )


def test_an_attempt_that_never_made_a_step_has_no_rate() -> None:
    record = performance(Meter(), DeviceWatch(torch.device("cpu")))
    assert (record.patches_per_second, record.data_wait_share) == (None, None)
    assert speed_line(Performance(device="cpu")) == "0 patches/s on cpu"
