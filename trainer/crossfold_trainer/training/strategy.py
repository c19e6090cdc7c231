"""Where a run's process computes, and how Lightning's checkpoints reach the run's folder."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.accelerators import CPUAccelerator, CUDAAccelerator
from lightning.pytorch.plugins import CheckpointIO, Precision
from lightning.pytorch.strategies import SingleDeviceStrategy
from torch import Tensor

from crossfold_trainer import spread
from crossfold_trainer.artifacts import Checkpoint, Item, Uploader
from crossfold_trainer.progress import Best


@dataclass(frozen=True)
class Accompanying:
    """What is uploaded together with a state."""

    items: Sequence[Item] = ()
    best: Best | None = None
    """The best validation, where it is the one of these very weights."""


Pack = Callable[[dict[str, Any], Best | None], Checkpoint]
"""A Lightning checkpoint on the host, and the best validation where it is of these weights -> what is uploaded."""


class RunCheckpointIO(CheckpointIO):
    """Hands checkpoints to the uploader, which saves them beside training, and gives back the one that was found."""

    def __init__(self, uploader: Uploader, pack: Pack, found: dict[str, Any] | None, *, leads: bool) -> None:
        """Save and load nothing yet.

        Args:
            uploader: saves what it is handed in the run's folder.
            pack: makes the bytes; called by the uploader's thread.
            found: the checkpoint to go on from, where there is one.
            leads: this rank writes checkpoints.
        """
        self._uploader = uploader
        self._pack = pack
        self._found = found
        self._leads = leads

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:  # noqa: ARG002
        """Copy a checkpoint to the host and have it uploaded; ``storage_options`` is what goes with it."""
        if self._leads:
            more: Accompanying = storage_options or Accompanying()
            self._uploader.submit(more.items, self._pack(on_host(checkpoint), more.best))

    def load_checkpoint(self, path: Any, map_location: Any | None = None, weights_only: bool | None = None) -> Any:  # noqa: ARG002
        """The checkpoint that was found at the start."""
        return self._found

    def remove_checkpoint(self, path: Any) -> None:
        """The checkpoint log removes what does not count any more."""


class OwnPrecision(Precision):
    """Leaves the update to the step: it scales, clips and steps by itself, since no library halves a batch in it."""

    def optimizer_step(self, optimizer: Any, model: Any, closure: Callable[[], Any], **kwargs: Any) -> Any:  # type: ignore[override]  # noqa: ARG002
        """The closure is the whole step."""
        return closure()


class RankStrategy(SingleDeviceStrategy):
    """One rank and its device. What ranks share out, add up and agree on is ranks.py's; checkpoints are whole."""

    def __init__(self, device: torch.device, checkpoint_io: CheckpointIO, *, sharded: bool, leads: bool) -> None:
        """Compute here.

        Args:
            device: of this rank; the model is there already.
            checkpoint_io: saves and loads.
            sharded: each rank holds a shard of the model only.
            leads: this rank writes checkpoints; another one's are empty of a sharded model's weights.
        """
        accelerator = CUDAAccelerator() if device.type == "cuda" else CPUAccelerator()
        super().__init__(device, accelerator, checkpoint_io, OwnPrecision())
        self._sharded = sharded
        self._leads = leads

    def lightning_module_state_dict(self) -> dict[str, Any]:
        """Weights by name, whole."""
        return self._whole(super().lightning_module_state_dict())

    def optimizer_state(self, optimizer: Any) -> dict[str, Any]:
        """The optimiser's state, whole."""
        return self._whole(super().optimizer_state(optimizer))

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:  # noqa: ARG002
        """Load whole weights into a model that may be sharded."""
        assert isinstance(self.lightning_module, LightningModule)  # noqa: S101 -- connected by now
        spread.load_weights(self.lightning_module, checkpoint["state_dict"])

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Load whole state into the optimiser of a model that may be sharded."""
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            spread.load_optimiser(optimizer, state)

    def teardown(self) -> None:
        """Leave the model on its device: it is tested next."""
        self.accelerator.teardown()  # type: ignore[union-attr]

    def _whole(self, held: dict[str, Any]) -> dict[str, Any]:
        whole: dict[str, Any] = spread.whole(held, keep=self._leads) if self._sharded else held
        return whole


def on_host(value: Any) -> Any:
    """A copy of tensors in dictionaries and lists that training does not change any more."""
    match value:
        case Tensor():
            return value.detach().to("cpu", copy=True)
        case dict():
            return {key: on_host(item) for key, item in value.items()}
        case list() | tuple():
            return [on_host(item) for item in value]
        case _:
            return value
