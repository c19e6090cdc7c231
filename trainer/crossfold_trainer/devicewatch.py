"""How busy the accelerator is, and how much of its memory was taken: looked at from beside training.

The driver is asked (NVML through torch), which waits for nothing that runs on the device.
"""

import threading
from dataclasses import dataclass, field

import torch

EVERY_S = 2.0
"""Seconds from one look to the next: NVML's own figure covers up to one second."""
CPU = "cpu"


@dataclass
class DeviceWatch:
    """Looks at a CUDA device until it is closed; at any other it does nothing."""

    device: torch.device
    every: float = EVERY_S
    _sum: float = 0.0
    _looks: int = 0
    _over: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        """Begin to look."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            threading.Thread(target=self._work, name="devicewatch", daemon=True).start()

    def close(self) -> None:
        """Look no more."""
        self._over.set()

    @property
    def name(self) -> str:
        """The device's name as its maker gives it; ``cpu`` without one."""
        return torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else CPU

    @property
    def utilisation(self) -> float | None:
        """Mean share of the time in which a kernel ran, in [0, 1]; None where nobody could say."""
        return self._sum / self._looks if self._looks else None

    @property
    def peak_memory_bytes(self) -> int | None:
        """The most memory that tensors took on the device; None without one."""
        return torch.cuda.max_memory_allocated(self.device) if self.device.type == "cuda" else None

    def _work(self) -> None:
        while not self._over.wait(self.every):
            try:
                self._sum += torch.cuda.utilization(self.device) / 100
                self._looks += 1
            except Exception:  # noqa: BLE001 - no NVML, no right to it, a device that it cannot tell: nobody says
                return
