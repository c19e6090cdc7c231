"""The segmentation model as a LightningModule: what best.ckpt holds, and what ``load_from_checkpoint`` gives back."""

from collections.abc import Sequence
from typing import Any

from lightning.pytorch import LightningModule
from torch import Tensor, nn

from crossfold_trainer.model import Segmenter, build_model
from crossfold_trainer.task import Task


class SegmentationModule(LightningModule):
    """Images to logits. Its weights are named ``model.*``, as the network of segmentation_models_pytorch names them."""

    model: nn.Module
    """The network of segmentation_models_pytorch."""

    def __init__(self, config: dict[str, Any], segmenter: Segmenter | None = None) -> None:
        """Wrap a model, or build the one that the configuration describes.

        Args:
            config: as ``module_config`` gives it; ``hyper_parameters["config"]`` in a checkpoint.
            segmenter: a model that is built already; None: a new one, without pretrained weights.

        Raises:
            ConfigError: the architecture or the encoder cannot be had.
        """
        super().__init__()
        self.save_hyperparameters({"config": config})
        if segmenter is None:
            names = {"model_arch": config["model"]["arch"], "model_encoder": config["model"]["encoder_name"]}
            segmenter = build_model(names | {"model_encoder_weights": None}, len(config["bands"]), config["outputs"])
        self.model = segmenter.network
        # Not a submodule: its weights are those of the network, under one name.
        self.__dict__["segmenter"] = segmenter

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> logits: (B, H, W) with one output, else (B, K, H, W). Any patch size."""
        logits: Tensor = self.__dict__["segmenter"](x)
        return logits


def module_config(task: Task) -> dict[str, Any]:
    """What is needed to build the model of a run again, and to use it; plain values only."""
    values, data = task.hyperparameters, task.data
    return {
        # The arguments of segmentation_models_pytorch.create_model.
        "model": {
            "arch": values["model_arch"],
            "encoder_name": values["model_encoder"],
            "in_channels": len(data.bands),
            "classes": data.labels.outputs,
        },
        "bands": list(data.bands),
        "ranges": [list(each) for each in data.ranges],
        "patch_shape": list(data.shape),
        "classes": list(data.labels.names),
        "outputs": data.labels.outputs,
        "hyperparameters": _plain(values),
    }


def _plain(value: Any) -> Any:
    match value:
        case dict():
            return {name: _plain(item) for name, item in value.items()}
        case str():
            return str(value)
        case Sequence():
            return [_plain(item) for item in value]
        case _:
            return value
