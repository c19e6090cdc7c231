"""What is trained: a model on its device or spread over ranks, its optimiser, its loss and its steps."""

from dataclasses import dataclass

import torch
from torch import nn

from crossfold_trainer import spread
from crossfold_trainer.contract.config import OutOfMemoryPolicy
from crossfold_trainer.contract.trainer import TrainerSpec
from crossfold_trainer.losses import Criterion, make_criterion
from crossfold_trainer.metrics import PixelMetrics
from crossfold_trainer.model import Segmenter, compile_model, starting_model
from crossfold_trainer.precision import Numerics, numerics, set_backends
from crossfold_trainer.ranks import Ranks
from crossfold_trainer.shape import check_shape
from crossfold_trainer.step import TrainStep
from crossfold_trainer.task import Task


@dataclass(frozen=True)
class Trainee:
    """Parts that belong together: the step changes the model through the optimiser."""

    model: Segmenter
    """Names weights as checkpoints do."""
    optimiser: torch.optim.Optimizer
    criterion: Criterion
    step: TrainStep
    numerics: Numerics
    device: torch.device
    sharded: bool
    """Each rank holds a shard of the model only."""


def make_trainee(task: Task, ranks: Ranks) -> Trainee:
    """What a run trains, as it is before the first step. Seeds torch, and sets its switches for the whole process.

    Raises:
        ConfigError: the model, its weights, the numbers or the devices cannot be had, or the model does not take the
            patches of the data set.
    """
    config, values, data = task.config, task.hyperparameters, task.data
    settings, device = config.trainer, ranks.device()
    sharded = spread.is_sharded(settings.strategy, ranks)
    numbers = numerics(settings.precision, device)
    set_backends(precision=settings.precision, deterministic=settings.deterministic)

    torch.manual_seed(config.seed)
    model = starting_model(config, values, data.bands, data.labels.outputs)
    model.to(device, memory_format=torch.contiguous_format if sharded else torch.channels_last)  # type: ignore[call-overload]
    check_shape(model, values, (min(2, values["batch_size"]), len(data.bands), *data.shape))
    if settings.compile:
        compile_model(model, device)
    computing: nn.Module = model
    if sharded:
        spread.shard(model.network, device, ranks)
    elif ranks.size > 1:
        computing = spread.replicate(model, device)
    optimiser = torch.optim.AdamW(model.parameters(), lr=values["learning_rate"], fused=True)
    criterion = make_criterion(settings, values, data.labels)
    step = TrainStep(
        computing,
        optimiser,
        criterion,
        numbers,
        settings.gradient_clip,
        halve=config.out_of_memory is OutOfMemoryPolicy.HALVE_BATCH,
        ranks=ranks,
        share=ranks.least(values["batch_size"]) if ranks.size > 1 else None,
        record=_recordable(settings, numbers, device, ranks),
    )
    step.metrics = PixelMetrics(device, data.labels, curves=False)
    return Trainee(model, optimiser, criterion, step, numbers, device, sharded)


def _recordable(settings: TrainerSpec, numbers: Numerics, device: torch.device, ranks: Ranks) -> bool:
    """Whether steps can be recorded as a CUDA graph, and are to be."""
    alone = device.type == "cuda" and ranks.size == 1
    # A gradient scaler decides on the host; a compiled model and a search for NaNs have their own ways.
    bare = not (settings.compile or settings.detect_anomaly or numbers.scaler().is_enabled())
    return settings.cuda_graphs and alone and bare
