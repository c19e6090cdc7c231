"""How a model lies on the ranks: whole on each of them (DDP), or in shards (FSDP).

Gradients are summed over the ranks while the backward pass goes on. What a checkpoint holds is whole in every case, so
that a run may go on with another number of ranks and another strategy.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import GradBucket  # type: ignore[attr-defined]
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from crossfold_trainer.contract.trainer import Strategy
from crossfold_trainer.ranks import Ranks


def is_sharded(strategy: Strategy, ranks: Ranks) -> bool:
    """Whether each rank holds a shard of the model only."""
    return strategy is Strategy.FSDP and ranks.size > 1


def shard(network: nn.Module, device: torch.device, ranks: Ranks) -> None:
    """Leave each rank a shard of every parameter, in place; names stay. Optimisers are to be made after this.

    Args:
        network: on its device, its parameters contiguous; its children (encoder, decoder, head) are gathered one at a
            time, when they compute.
        device: of this rank.
        ranks: all of which call this.
    """
    mesh = init_device_mesh(device.type, (ranks.size,))
    for part in (*network.children(), network):
        if any(True for _ in part.parameters()):
            fully_shard(part, mesh=mesh, reshard_after_forward=True)
    for part in network.modules():
        if isinstance(part, FSDPModule):
            # A loss is divided by the pixels of all ranks already: gradients are summed, not averaged.
            part.set_gradient_divide_factor(1.0)
            part.set_force_sum_reduction_for_comms(True)


def replicate(model: nn.Module, device: torch.device) -> nn.Module:
    """The same model, whose gradients are summed over the ranks as soon as they are computed."""
    spread = DistributedDataParallel(
        model,
        device_ids=[device.index] if device.type == "cuda" else None,
        # Buffers are the same on all ranks: batch statistics are those of the whole batch.
        forward_sync_buffers=False,
        find_unused_parameters=True,
    )
    spread.register_comm_hook(None, _summed)
    return spread


def _summed(_: object, bucket: GradBucket) -> torch.futures.Future[torch.Tensor]:
    """Sum where DDP would average: a loss is divided by the pixels of all ranks already."""
    future: torch.futures.Future[list[Tensor]] = dist.all_reduce(bucket.buffer(), async_op=True).get_future()
    return future.then(lambda done: done.value()[0])


def summing(model: nn.Module, *, last: bool) -> AbstractContextManager[Any]:
    """One of several forward and backward passes of a step is in here; replicas sum their gradients in the last."""
    return model.no_sync() if isinstance(model, DistributedDataParallel) and not last else nullcontext()


def whole(value: Any, *, keep: bool = True) -> Any:
    """State in dictionaries and lists with every shard replaced by the whole tensor, on the host. All ranks call this.

    One tensor after the other, so that no device has to hold more than one; a rank that does not keep them gets None.
    """
    match value:
        case DTensor():
            gathered = value.full_tensor()
            return gathered.cpu() if keep else None
        case dict():
            return {key: whole(item, keep=keep) for key, item in value.items()}
        case list() | tuple():
            return [whole(item, keep=keep) for item in value]
        case _:
            return value


def _like(tensor: Tensor, own: Tensor) -> Tensor:
    """A whole tensor, which every rank has, as another one lies on the ranks and in memory.

    A fused optimiser goes through the memory of a parameter and of its state side by side: strides must be the same.
    """
    if not isinstance(own, DTensor):
        return torch.empty_like(own, dtype=tensor.dtype).copy_(tensor)
    tensor = tensor.to(own.device).contiguous()
    return distribute_tensor(tensor, own.device_mesh, own.placements, src_data_rank=None).clone()


def load_weights(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Load whole weights, which every rank has, into a model that may be sharded."""
    own = model.state_dict()
    model.load_state_dict({name: _like(tensor, own[name]) if name in own else tensor for name, tensor in state.items()})


def load_optimiser(optimiser: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load whole state, which every rank has, into the optimiser of a model that may be sharded."""
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]

    def fitting(number: int, value: Any) -> Any:
        of_parameter = isinstance(value, Tensor) and value.shape == parameters[number].shape and value.dim() > 0
        return _like(value, parameters[number]) if of_parameter else value

    per_parameter = {
        number: {name: fitting(number, value) for name, value in values.items()}
        for number, values in state["state"].items()
    }
    optimiser.load_state_dict({**state, "state": per_parameter})
