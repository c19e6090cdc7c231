"""One process a device, on this machine: started together, and ended together."""

import os
import signal
import socket
import subprocess
import sys
import time

from crossfold_trainer.contract.config import OutOfMemoryPolicy, RunConfig
from crossfold_trainer.contract.exits import Exit
from crossfold_trainer.errors import ConfigError
from crossfold_trainer.interrupt import Interrupt

POLL_S = 0.1
LEFT_BEHIND_S = 10.0
"""How long the others may take to end after the leader has."""


class WorkersEnded(Exception):
    """The processes ended without a result; one of them has said why."""

    def __init__(self, code: int) -> None:
        """Keep the exit code."""
        super().__init__(f"exit code {code}")
        self.code = code


def leads() -> bool:
    """Whether this process speaks for the run: it is alone, or the first of several."""
    return os.environ.get("RANK", "0") == "0"


def launched() -> bool:
    """Whether this process is one of several."""
    return "WORLD_SIZE" in os.environ


def check(config: RunConfig, batch_size: int) -> None:
    """Refuse what several devices cannot do.

    Raises:
        ConfigError: a batch has fewer patches than there are devices, or the policy works on one only.
    """
    devices = config.trainer.devices
    if batch_size < devices:
        raise ConfigError(
            "hyperparameters.batch_size",
            f"{devices} devices cannot share a batch of {batch_size}: raise it, or lower trainer.devices",
        )
    if devices > 1 and config.out_of_memory is OutOfMemoryPolicy.HALVE_BATCH:
        raise ConfigError(
            "retries.outOfMemory", "HalveBatch works on one device: set it to Fail, or trainer.devices to 1"
        )


def launch(devices: int, interrupt: Interrupt) -> int:
    """Run this trainer in as many processes, and return the exit code of them all.

    SIGTERM is passed on to each. One that fails ends all: the others would wait for it for ever.
    """
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, (os.cpu_count() or 1) // devices))
    environment = os.environ | {
        "WORLD_SIZE": str(devices),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
        "OMP_NUM_THREADS": threads,
    }
    interrupt.deferred = True
    command = [sys.executable, "-m", "crossfold_trainer"]
    workers = [subprocess.Popen(command, env=environment | {"RANK": str(rank)}) for rank in range(devices)]
    try:
        return _watch(workers, interrupt)
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()


def _watch(workers: "list[subprocess.Popen[bytes]]", interrupt: Interrupt) -> int:
    """Wait for the leader, or for the first that fails."""
    told = False
    while True:
        if interrupt.requested and not told:
            told = True
            for worker in workers:
                worker.send_signal(signal.SIGTERM)
        leader = workers[0].poll()
        if leader is not None:
            end = time.monotonic() + LEFT_BEHIND_S
            while time.monotonic() < end and any(worker.poll() is None for worker in workers):
                time.sleep(POLL_S)
            return _exit_code(leader)
        for worker in workers[1:]:
            code = worker.poll()
            if code not in (None, Exit.OK, Exit.INTERRUPTED):
                return _exit_code(code)
        time.sleep(POLL_S)


def _exit_code(code: int) -> int:
    """A process's exit code as a shell says it: 128 and the signal's number for one that was killed."""
    return 128 - code if code < 0 else code


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
