"""In which numbers a model computes: the precision that a run asks for, on the device that it got."""

import os
from dataclasses import dataclass
from typing import assert_never

import torch

from crossfold_trainer.contract.trainer import Precision
from crossfold_trainer.errors import ConfigError

NO_DETERMINISTIC_KERNEL = "does not have a deterministic implementation"
"""How torch words it."""
CUBLAS_VARIABLE = "CUBLAS_WORKSPACE_CONFIG"
CUBLAS_DETERMINISTIC = ":4096:8"
"""What cuBLAS needs in its environment, before its first use, to be deterministic."""


@dataclass(frozen=True)
class Numerics:
    """How the forward pass computes. Weights, gradients and the optimiser's state are float32 always."""

    name: Precision
    """The precision itself, never Auto."""
    device_type: str

    @property
    def mixed(self) -> torch.dtype | None:
        """The type of autocast's operations; None: float32 throughout."""
        match self.name:
            case Precision.BF16_MIXED:
                return torch.bfloat16
            case Precision.FP16_MIXED:
                return torch.float16
            case _:
                return None

    def autocast(self) -> torch.autocast:
        """The context of a forward pass."""
        return torch.autocast(self.device_type, self.mixed or torch.bfloat16, enabled=self.mixed is not None)

    def scaler(self) -> torch.amp.GradScaler:
        """Keeps small float16 gradients from vanishing; does nothing under another precision."""
        return torch.amp.GradScaler(self.device_type, enabled=self.name is Precision.FP16_MIXED)


def numerics(asked: Precision, device: torch.device) -> Numerics:
    """Resolve Auto, and refuse what the device cannot do.

    Raises:
        ConfigError: float16 without a GPU, or bfloat16 on a GPU that only emulates it.
    """
    cuda = device.type == "cuda"
    bf16 = cuda and torch.cuda.is_bf16_supported(including_emulation=False)
    match asked:
        case Precision.AUTO:
            found = Precision.BF16_MIXED if bf16 else Precision.FP32
        case Precision.FP32:
            found = Precision.FP32
        case Precision.BF16_MIXED:
            if cuda and not bf16:
                raise ConfigError(
                    "trainer.precision",
                    f"{torch.cuda.get_device_name(device)} has no bfloat16: choose FP16Mixed, FP32 or Auto",
                )
            found = Precision.BF16_MIXED
        case Precision.FP16_MIXED:
            if not cuda:
                raise ConfigError(
                    "trainer.precision",
                    "FP16Mixed needs a GPU and this container has none: ask for one in template.resources, or choose"
                    " Auto, FP32 or BF16Mixed",
                )
            found = Precision.FP16_MIXED
        case _:
            assert_never(asked)
    return Numerics(found, device.type)


def set_backends(*, precision: Precision, deterministic: bool) -> None:
    """Set torch's process-wide switches for a run; each of them is set, so that no former run's value stays.

    FP32 means what it says: TF32 is off. With `deterministic` an operation that has no deterministic kernel raises,
    and cuDNN chooses its kernels by rule instead of by trying which one is fastest.
    """
    if deterministic:
        os.environ.setdefault(CUBLAS_VARIABLE, CUBLAS_DETERMINISTIC)
    full = precision is Precision.FP32
    torch.backends.cuda.matmul.allow_tf32 = not full
    torch.backends.cudnn.allow_tf32 = not full
    torch.backends.cudnn.benchmark = not deterministic
    torch.backends.cudnn.deterministic = deterministic
    torch.use_deterministic_algorithms(deterministic)
