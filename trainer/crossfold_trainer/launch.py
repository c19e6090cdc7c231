"""One process a device of this node: started together, and ended together."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence

from crossfold_trainer.contract.exits import Exit
from crossfold_trainer.contract.trainer import TrainerSpec
from crossfold_trainer.errors import ConfigError
from crossfold_trainer.interrupt import Interrupt

POLL_S = 0.1
LEFT_BEHIND_S = 10.0
"""How long the others may take to end after the first process has, or after one has lost the others."""
NODE_VARIABLE = "JOB_COMPLETION_INDEX"
"""Which node this is, from 0: set by Kubernetes in the pods of an Indexed Job. Without it one machine is all nodes."""


class WorkersEnded(Exception):
    """The processes of this node ended, and what there is to say of it others have said."""

    def __init__(self, code: int) -> None:
        """Keep the exit code."""
        super().__init__(f"exit code {code}")
        self.code = code


def leads() -> bool:
    """Whether this process speaks for the run: it is alone, or the first of all, or starts them on the first node."""
    return os.environ.get("RANK", os.environ.get(NODE_VARIABLE, "0")) == "0"


def launched() -> bool:
    """Whether this process is one of several."""
    return "WORLD_SIZE" in os.environ


def check(settings: TrainerSpec, batch_size: int) -> None:
    """Refuse what several devices cannot do.

    Raises:
        ConfigError: a batch has fewer patches than there are devices.
    """
    if batch_size < settings.processes:
        raise ConfigError(
            "hyperparameters.batch_size",
            f"{settings.processes} devices cannot share a batch of {batch_size}: raise it, or lower trainer.devices"
            " or trainer.nodes",
        )


def places(settings: TrainerSpec, environment: Mapping[str, str]) -> list[dict[str, str]]:
    """What each process of this node finds in its environment, as torchrun would put it there.

    Args:
        settings: how many devices and nodes there are.
        environment: of this node; MASTER_ADDR and MASTER_PORT say where the first of several nodes is.
    """
    node = int(environment.get(NODE_VARIABLE, "0"))
    size = settings.processes
    here = settings.devices if NODE_VARIABLE in environment else size
    common = {"WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(here)}
    if here == size:
        common |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}
    if not environment.get("OMP_NUM_THREADS"):
        common["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // here))
    return [{**common, "RANK": str(node * here + local), "LOCAL_RANK": str(local)} for local in range(here)]


def launch(settings: TrainerSpec, interrupt: Interrupt) -> int:
    """Run this trainer in as many processes as this node has devices, and return the exit code of them all.

    SIGTERM is passed on to each. One that fails ends all: the others would wait for it for ever.
    """
    interrupt.deferred = True
    command = [sys.executable, "-m", "crossfold_trainer"]
    workers = [subprocess.Popen(command, env=os.environ | place) for place in places(settings, os.environ)]
    try:
        return _watch(workers, interrupt)
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()


def _watch(workers: "list[subprocess.Popen[bytes]]", interrupt: Interrupt) -> int:
    """Wait until it is known how they end."""
    told = False
    end: float | None = None
    while True:
        if interrupt.requested and not told:
            told = True
            for worker in workers:
                worker.send_signal(signal.SIGTERM)
        codes = [worker.poll() for worker in workers]
        code = verdict(codes)
        if code is not None and code not in _PATIENT:
            return 128 - code if code < 0 else code
        if code is not None:
            end = end or time.monotonic() + LEFT_BEHIND_S
            if None not in codes or time.monotonic() >= end:
                return code
        time.sleep(POLL_S)


_PATIENT = (Exit.OK, Exit.INTERRUPTED, Exit.PEERS_LOST)


def verdict(codes: Sequence[int | None]) -> int | None:
    """The exit code that speaks for all processes so far; None while none does.

    That is the first one's, once it has ended as it should; else that of one that failed by itself; else that of one
    that only lost the others, which may be on another node.
    """
    if codes[0] in (Exit.OK, Exit.INTERRUPTED):
        return codes[0]
    failed = [code for code in codes if code is not None and code not in _PATIENT]
    if failed:
        return failed[0]
    return Exit.PEERS_LOST if Exit.PEERS_LOST in codes else None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
