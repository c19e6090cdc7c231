"""Places to run: how many processes may run at the same time, and on which accelerator each."""

import asyncio
import os
import shutil
import subprocess
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_ASK_SECONDS = 20


@dataclass(frozen=True)
class Slot:
    """One place to run."""

    index: int
    gpu: str | None = None
    """What CUDA_VISIBLE_DEVICES is to say; None leaves it alone."""


def gpus(environment: Mapping[str, str]) -> list[str]:
    """The accelerators that may be used, as CUDA_VISIBLE_DEVICES names them."""
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [name.strip() for name in visible.split(",") if name.strip() not in ("", "-1")]
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    try:
        listed = subprocess.run(
            [program, "-L"], capture_output=True, text=True, timeout=_ASK_SECONDS, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [str(i) for i, _ in enumerate(line for line in listed.splitlines() if line.startswith("GPU "))]


def slots(number: int | None, environment: Mapping[str, str] = os.environ) -> list[Slot]:
    """As many slots as asked for, or one for each GPU, or a single one; GPUs are dealt out in turn."""
    found = gpus(environment)
    count = number or len(found) or 1
    return [Slot(i, found[i % len(found)] if found else None) for i in range(count)]


class SlotPool:
    """Hands slots out, first come, first served."""

    def __init__(self, all_slots: Sequence[Slot]) -> None:
        self.size = len(all_slots)
        self._free = deque(all_slots)
        self._waiting: deque[asyncio.Future[Slot]] = deque()

    def request(self) -> asyncio.Future[Slot]:
        """A slot, as soon as one is free. Cancel the request to step out of the queue; give the slot back after use."""
        request: asyncio.Future[Slot] = asyncio.get_running_loop().create_future()
        self._waiting.append(request)
        self._deal()
        return request

    def give_back(self, slot: Slot) -> None:
        """Free a slot for the next in the queue."""
        self._free.append(slot)
        self._deal()

    def _deal(self) -> None:
        while self._free and self._waiting:
            request = self._waiting.popleft()
            if not request.done():
                request.set_result(self._free.popleft())
