"""The processes that train one run together, one a device: what they share out, add up and agree on.

Every rank trains on its share of each batch; sums over the ranks make losses, gradients, batch statistics and metrics
those of the whole batch. One rank, the leader, reads and writes artifacts. How the model lies on them is spread.py's.
"""

import contextlib
import inspect
import time
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import Store, TCPStore  # type: ignore[attr-defined]
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from crossfold_trainer.errors import ConfigError, PeersLost
from crossfold_trainer.splits import Index

T = TypeVar("T")

RANK_VARIABLE = "RANK"
SIZE_VARIABLE = "WORLD_SIZE"
LOCAL_RANK_VARIABLE = "LOCAL_RANK"
LOCAL_SIZE_VARIABLE = "LOCAL_WORLD_SIZE"
"""As torchrun names them; MASTER_ADDR and MASTER_PORT say where rank 0 is."""
TIMEOUT = timedelta(minutes=30)
"""How long a rank waits for the others: a checkpoint or a first compilation may hold one of them up."""
CONNECT = timedelta(seconds=5)
"""How long one try to reach the first rank may take: until it is over no signal is heard."""
POLL_S = 0.1


def rank_of(environment: Mapping[str, str]) -> int:
    """This process's rank; 0 for a process on its own."""
    return int(environment.get(RANK_VARIABLE, "0"))


class Ranks:
    """The ranks as one of them sees them. A process on its own is all of them: then nothing here does anything."""

    def __init__(self, rank: int = 0, size: int = 1, local_rank: int = 0, local_size: int = 1) -> None:
        """Know one's place, among all ranks and among those of this node; `join` makes it."""
        self.rank = rank
        self.size = size
        self.local_rank = local_rank
        self.local_size = local_size

    @property
    def leads(self) -> bool:
        """Whether this rank reads and writes artifacts."""
        return self.rank == 0

    def device(self) -> torch.device:
        """The device of this rank.

        Raises:
            ConfigError: the container has GPUs, but fewer than ranks.
        """
        if not torch.cuda.is_available():
            return torch.device("cpu")
        if torch.cuda.device_count() < self.local_size:
            raise ConfigError(
                "trainer.devices",
                f"{self.local_size} devices are asked for and the container has {torch.cuda.device_count()} GPUs: ask"
                " for as many in template.resources.limits",
            )
        return torch.device("cuda", self.local_rank)

    def share(self, rows: Index) -> Index:
        """This rank's part of a batch: contiguous, and as large as the others', to one patch."""
        return np.array_split(rows, self.size)[self.rank]

    def least(self, patches: int) -> int:
        """Patches that each rank has at least of a batch of so many."""
        return patches // self.size

    def add(self, tensor: Tensor) -> Tensor:
        """Sum over the ranks, in place."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def any(self, *flags: bool) -> list[bool]:
        """Of each flag whether any rank has it set. Host memory only: no device is waited for."""
        if self.size == 1:
            return list(flags)
        told = torch.tensor(flags, dtype=torch.uint8)
        dist.all_reduce(told, dist.ReduceOp.MAX)
        return [bool(flag) for flag in told.tolist()]

    def gather(self, items: list[T]) -> list[T]:
        """The items of all ranks, in their order, at the leader; none elsewhere."""
        if self.size == 1:
            return items
        found: list[Any] | None = [None] * self.size if self.leads else None
        dist.gather_object(items, found)
        return [item for part in found or () for item in part]

    def from_leader(self, value: T) -> T:
        """The leader's value."""
        if self.size == 1:
            return value
        told: list[Any] = [value]
        dist.broadcast_object_list(told)
        return told[0]  # type: ignore[no-any-return]

    def statistics(self) -> "contextlib.AbstractContextManager[Any]":
        """In here batch normalisation averages over the whole batch."""
        return contextlib.nullcontext() if self.size == 1 else _WholeBatchStatistics()


@contextlib.contextmanager
def join(environment: Mapping[str, str]) -> Iterator[Ranks]:
    """Join the other ranks, where the environment says that there are some, and leave them in the end.

    Raises:
        PeersLost: not all of them were there in time.
    """
    size = int(environment.get(SIZE_VARIABLE, "1"))
    if size == 1:
        yield Ranks()
        return
    rank = rank_of(environment)
    ranks = Ranks(
        rank,
        size,
        int(environment.get(LOCAL_RANK_VARIABLE, rank)),
        int(environment.get(LOCAL_SIZE_VARIABLE, size)),
    )
    if ranks.device().type == "cuda":
        torch.cuda.set_device(ranks.device())
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    store = _meet(ranks, environment["MASTER_ADDR"], int(environment["MASTER_PORT"]))
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=TIMEOUT)
    try:
        yield ranks
    finally:
        dist.destroy_process_group()


def _meet(ranks: Ranks, address: str, port: int) -> Store:
    """Wait until all ranks are there, in small steps: torch's own wait would hear no signal."""
    if ranks.leads:
        address = "localhost"  # its own name may not be known yet
    end = time.monotonic() + TIMEOUT.total_seconds()
    store: TCPStore | None = None
    here = 0
    while time.monotonic() < end:
        if store is None:
            with contextlib.suppress(dist.DistError):  # the first rank's pod may not have begun, nor its name
                store = TCPStore(address, port, ranks.size, ranks.leads, CONNECT, wait_for_workers=False)
                store.set_timeout(TIMEOUT)
                store.add("here", 1)
        elif (here := store.add("here", 0)) == ranks.size:
            return store
        time.sleep(POLL_S)
    seen = f"{here} of {ranks.size} processes were there" if store else f"nobody answered at {address}:{port}"
    raise PeersLost(f"after {TIMEOUT.total_seconds() / 60:.0f} minutes {seen}: is there room for all nodes?")


class _WholeBatchStatistics(TorchFunctionMode):
    """Replaces batch normalisation in training, whichever module calls it, on any kind of device.

    torch's SyncBatchNorm needs a GPU and modules of its own, which would change a checkpoint's names.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is functional.batch_norm:
            called = _BATCH_NORM.bind(*args, **kwargs)
            called.apply_defaults()
            given = called.arguments
            if given["training"]:
                return _whole_batch_norm(
                    given["input"],
                    (given["weight"], given["bias"]),
                    (given["running_mean"], given["running_var"]),
                    given["momentum"],
                    given["eps"],
                )
        return func(*args, **kwargs)


class _Sum(torch.autograd.Function):
    """Sum over the ranks; its gradient is one too, since every rank's loss depends on the sum."""

    @staticmethod
    def forward(_context: Any, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(_context: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        dist.all_reduce(total)
        return total


_BATCH_NORM = inspect.signature(functional.batch_norm)


def _whole_batch_norm(
    x: Tensor,
    affine: tuple[Tensor | None, Tensor | None],
    running: tuple[Tensor | None, Tensor | None],
    momentum: float,
    eps: float,
) -> Tensor:
    """(B, C, ...) -> the same: normalised by mean and variance over the patches of all ranks."""
    wide = x.float()
    axes = [0, *range(2, x.dim())]
    shape = [1, -1] + [1] * (x.dim() - 2)
    count = torch.tensor([x.numel() / x.shape[1]], device=x.device)
    totals: Tensor = _Sum.apply(torch.cat([wide.sum(axes), count]))
    n = totals[-1].detach()
    mean = totals[:-1] / n
    centred = wide - mean.view(shape)
    var: Tensor = _Sum.apply(centred.square().sum(axes)) / n
    with torch.no_grad():
        for old, new in ((running[0], mean), (running[1], var * n / (n - 1).clamp(min=1))):
            if old is not None:
                old.lerp_(new.to(old.dtype), momentum)
    out: Tensor = centred * (var + eps).rsqrt().view(shape)
    weight, bias = affine
    if weight is not None:
        out = out * weight.view(shape)
    if bias is not None:
        out = out + bias.view(shape)
    return out.to(x.dtype)
