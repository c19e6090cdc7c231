"""The segmentation model: an architecture and an encoder of segmentation_models_pytorch, logits for each pixel."""

import difflib
import os
import shutil
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from typing import Any, cast

import segmentation_models_pytorch as smp
import torch
from segmentation_models_pytorch.encoders import get_encoder_names
from torch import Tensor, nn
from torch.nn import functional

from crossfold_trainer.contract.config import RunConfig
from crossfold_trainer.errors import ConfigError
from crossfold_trainer.pretrained import hub_or_cache, is_uri, load_checkpoint, load_encoder

STRIDE = 32
"""Encoders halve a patch five times: sides are padded to a multiple of this and the logits cut back."""
COMPILE_BACKEND = "inductor"


class Segmenter(nn.Module):
    """Images to logits; any patch size. The sigmoid lives in metrics and inference only."""

    def __init__(self, network: nn.Module, outputs: int) -> None:
        """Wrap a network that wants sides divisible by `STRIDE` and has so many logits a pixel."""
        super().__init__()
        self.network = network
        self.outputs = outputs

    @property
    def encoder(self) -> nn.Module:
        """The network's encoder."""
        return cast("nn.Module", self.network.encoder)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, H, W) with one output, else (B, K, H, W)."""
        height, width = x.shape[-2:]
        below, right = -height % STRIDE, -width % STRIDE
        if below or right:
            x = functional.pad(x, (0, right, 0, below))
        logits = cast("Tensor", self.network(x))[..., :height, :width]  # (B, K, H', W') -> (B, K, H, W)
        return logits[:, 0] if logits.shape[1] == 1 else logits


def probabilities(logits: Tensor) -> Tensor:
    """Logits of any precision to float32 probabilities of the same shape: of yes, or of each class (along axis 1)."""
    return logits.float().sigmoid() if logits.dim() == 3 else logits.float().softmax(1)


def build_model(hyperparameters: dict[str, Any], n_bands: int, outputs: int = 1) -> Segmenter:
    """The model that the hyperparameters name, for images of n bands, with one logit a pixel or one for each class.

    Encoder weights with a name come from the model hub, or from its local cache where the hub does not answer; a file
    is left to `pretrained.load_encoder`.

    Raises:
        ConfigError: the architecture, the encoder or its weights cannot be had.
    """
    arch, encoder = hyperparameters["model_arch"], hyperparameters["model_encoder"]
    weights = hyperparameters["model_encoder_weights"]
    _known("model_arch", arch, [cls.__name__ for cls in smp.MODEL_ARCHITECTURES_MAPPING.values()])
    if not encoder.startswith("tu-"):
        _known("model_encoder", encoder, get_encoder_names(), "; any timm encoder works as tu-NAME")
    if is_uri(weights):
        weights = None
    # timm's encoders carry the name of their weights in their own (tu-NAME.TAG).
    wanted = True if weights is not None and encoder.startswith("tu-") else weights
    try:
        with hub_or_cache() if weights is not None else nullcontext():
            network = smp.create_model(
                arch,
                encoder_name=encoder,
                encoder_weights=wanted,
                in_channels=n_bands,
                classes=outputs,
                activation=None,
            )
    except Exception as error:
        reason = (
            f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else 'no reason given'}"
        )
        if weights is not None:
            raise ConfigError(
                "hyperparameters.model_encoder_weights",
                f"the weights {weights!r} of {encoder} cannot be had ({reason}): set it to null, let the container"
                " reach the model hub (HF_ENDPOINT) or find them in its cache (HF_HOME), or name a file by its URI",
            ) from error
        raise ConfigError(
            "hyperparameters.model_encoder", f"{arch} cannot be built with {encoder} ({reason}): choose another encoder"
        ) from error
    return Segmenter(network, outputs)


def starting_model(config: RunConfig, hyperparameters: dict[str, Any], bands: Sequence[str], outputs: int) -> Segmenter:
    """The model of a run as it is before the first step.

    Raises:
        ConfigError: it cannot be built, or the weights that it starts from do not fit or cannot be had.
    """
    checkpoint, weights = config.trainer.weights_from_checkpoint, hyperparameters["model_encoder_weights"]
    if checkpoint is not None:  # holds the encoder too
        model = build_model(hyperparameters | {"model_encoder_weights": None}, len(bands), outputs)
        load_checkpoint(model, checkpoint, config.artifacts, hyperparameters, bands)
        return model
    model = build_model(hyperparameters, len(bands), outputs)
    if is_uri(weights):
        load_encoder(model.encoder, weights, config.artifacts)
    return model


def compile_model(model: nn.Module, device: torch.device) -> None:
    """Compile a model in place: its parameters keep their names, so that a checkpoint fits with and without.

    Raises:
        ConfigError: the image has no compiler, which the first step would need.
    """
    wanted = ("gcc", "clang") if device.type == "cuda" else ("g++", "clang++")
    given = os.environ.get("CC" if device.type == "cuda" else "CXX")
    if not any(shutil.which(name) for name in ([given] if given else wanted)):
        raise ConfigError(
            "trainer.compile",
            f"the image has no compiler ({given or ' or '.join(wanted)}): set it to false, or add one to the image",
        )
    model.compile(backend=COMPILE_BACKEND)


def _known(name: str, value: str, names: Iterable[str], more: str = "") -> None:
    lower = {known.lower(): known for known in names}
    if value.lower() in lower:
        return
    close = difflib.get_close_matches(value.lower(), lower, n=1, cutoff=0.0)
    raise ConfigError(f"hyperparameters.{name}", f"{value!r} is unknown; did you mean {lower[close[0]]!r}?{more}")
