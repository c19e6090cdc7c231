"""Whether a model takes the patches of its run: one forward pass before training, without numbers where that works.

On the meta device torch computes shapes only, in a tenth of a second. What fails there is tried with numbers: a few
models need them. Neither changes weights, batch statistics or random numbers.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from crossfold_trainer.errors import AcceleratorOutOfMemory, ConfigError
from crossfold_trainer.faults import meaning_of
from crossfold_trainer.model import STRIDE, Segmenter

Shape = tuple[int, int, int, int]
"""B patches, C bands, H x W pixels."""
META = torch.device("meta")
SIZES = (32, 64, 96, 128, 160, 192, 224, 256, 320, 384, 448, 512)
"""Sides of patches that are tried for a model that refuses the run's own."""
ANY_SIZE = {
    "model_encoder": "an encoder that takes any size, such as resnet34, mit_b0 or tu-convnext_tiny",
    "model_arch": "an architecture that takes any size, such as Unet, FPN or Segformer",
}
REASON_LIMIT = 300
"""Characters of an error's text."""


def check_shape(model: Segmenter, hyperparameters: Mapping[str, Any], shape: Shape) -> None:
    """Refuse a model that does not answer patches of this shape with logits of their size.

    Args:
        model: on the device that it trains on, neither compiled nor sharded; left in training mode.
        hyperparameters: of the run.
        shape: (B, C, H, W) of a batch.

    Raises:
        ConfigError: the encoder or the architecture does not take such patches.
        ValueError: batch normalisation has one value a channel; `faults.explained` words it.
    """
    model.train()
    if _problem(model, shape, META) is None:
        return
    device = next(model.parameters()).device
    problem = _problem(model, shape, device)
    if problem is None:
        return
    height, width = shape[-2:]
    padded = _padded(shape)
    size = f"{height} x {width}" + (f" (padded to {padded[-2]} x {padded[-1]})" if padded != shape else "")
    arch, encoder = hyperparameters["model_arch"], hyperparameters["model_encoder"]
    at_fault = "model_encoder" if _refuses(model.encoder, padded, device) else "model_arch"
    name = encoder if at_fault == "model_encoder" else f"{arch} with {encoder}"
    side = next((side for side in _sides(model) if _problem(model, (*shape[:2], side, side), META) is None), None)
    would_do = "" if side is None else f"; {side} x {side} would do: cut the data into such patches, or"
    raise ConfigError(
        f"hyperparameters.{at_fault}",
        f"{name} does not take patches of {size}{would_do or ':'} choose {ANY_SIZE[at_fault]} ({problem})",
    )


def _problem(model: Segmenter, shape: Shape, device: torch.device) -> str | None:
    """What keeps a model from answering such a batch, in words; None where nothing does."""
    shape = _padded(shape)
    try:
        answer = _call(model.network, shape, device)
    except Exception as error:
        meaning = None if device == META else meaning_of(error, shape[0])
        if isinstance(meaning, AcceleratorOutOfMemory):
            return None  # of memory the steps have more to say
        if meaning is not None or isinstance(error, torch.AcceleratorError):
            raise
        return f"{type(error).__name__}: {' '.join(str(error).split())}".removesuffix(": ")[:REASON_LIMIT]
    expected = (shape[0], model.outputs, *shape[-2:])
    found = tuple(answer.shape) if isinstance(answer, Tensor) else type(answer).__name__
    return None if found == expected else f"its answer has the shape {found} instead of {expected}"


def _refuses(encoder: nn.Module, shape: Shape, device: torch.device) -> bool:
    """Whether an encoder fails by itself."""
    try:
        _call(encoder, shape, device)
    except Exception:  # noqa: BLE001 - models say it in many ways
        return True
    return False


def _call(module: nn.Module, shape: Shape, device: torch.device) -> Any:
    """What a module answers to a batch of zeros; its own tensors and torch's random numbers stay as they are."""
    if device == META:
        own = {name: torch.empty_like(tensor, device=META) for name, tensor in _tensors(module)}
    else:
        own = {name: buffer.clone() for name, buffer in module.named_buffers()}
    with torch.no_grad(), torch.random.fork_rng([device] if device.type == "cuda" else []):
        return functional_call(module, own, (torch.zeros(shape, device=device),))


def _tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters()
    yield from module.named_buffers()


def _padded(shape: Shape) -> Shape:
    """The shape of what `Segmenter` gives to its network."""
    n, bands, height, width = shape
    return n, bands, height + -height % STRIDE, width + -width % STRIDE


def _sides(model: Segmenter) -> Iterator[int]:
    """Sides of patches that a model may take, the one that its encoder was made for first."""
    made_for = getattr(getattr(model.encoder, "model", None), "pretrained_cfg", None) or {}
    yield from made_for.get("input_size", ())[-1:]
    yield from SIZES
