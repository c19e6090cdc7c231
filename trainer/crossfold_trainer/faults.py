"""What an error of torch means for a run."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist

from crossfold_trainer.errors import AcceleratorOutOfMemory, ConfigError, PeersLost
from crossfold_trainer.precision import NO_DETERMINISTIC_KERNEL
from crossfold_trainer.step import NEEDS_MORE_THAN_ONE

OUT_OF_MEMORY = (
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "ALLOCATION_FAILED",
)
"""The driver's and the libraries' words for it; torch's own allocator raises torch.OutOfMemoryError."""
LOST_CONNECTION = "gloo/transport"
"""Where gloo's errors of connections come from; NCCL's are torch.distributed's own."""


@contextmanager
def explained(batch_size: int) -> Iterator[None]:
    """Raise torch's errors as the run's own, where they have a meaning for it.

    Raises:
        AcceleratorOutOfMemory: the accelerator's memory does not suffice.
        ConfigError: an operation has no deterministic kernel, or a batch is too small for batch normalisation.
        PeersLost: another rank is gone.
    """
    try:
        yield
    except (RuntimeError, ValueError) as error:
        meaning = meaning_of(error, batch_size)
        if meaning is None:
            raise
        raise meaning from error


def meaning_of(error: Exception, batch_size: int) -> Exception | None:
    """The run's own error; None where torch's is a crash."""
    text = str(error)
    first = text.splitlines()[0] if text else ""
    if isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(words in text for words in OUT_OF_MEMORY)
    ):
        return AcceleratorOutOfMemory(first)
    if isinstance(error, dist.DistError) or LOST_CONNECTION in text:
        return PeersLost(f"another process is gone, whose own log says why ({first[-300:]})")
    if NO_DETERMINISTIC_KERNEL in text:
        operation = text.partition(NO_DETERMINISTIC_KERNEL)[0].strip()
        return ConfigError(
            "trainer.deterministic",
            f"{operation} has no deterministic kernel: set it to false, or choose another model_arch or trainer.loss",
        )
    if NEEDS_MORE_THAN_ONE in text:
        return ConfigError(
            "hyperparameters.batch_size",
            f"batch normalisation needs more than one value a channel: raise batch_size ({batch_size}) or use larger"
            " patches",
        )
    return None
