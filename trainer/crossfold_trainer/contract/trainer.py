"""Settings of the training loop that are not hyperparameters."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from crossfold_trainer.contract.base import Model, Rule
from crossfold_trainer.contract.data import Uri, uri_rules


class Precision(StrEnum):
    """In which numbers a model computes."""

    AUTO = "Auto"
    FP32 = "FP32"
    BF16_MIXED = "BF16Mixed"
    FP16_MIXED = "FP16Mixed"


class Loss(StrEnum):
    """What training minimises."""

    FOCAL = "Focal"
    BCE = "BCE"
    DICE = "Dice"
    JACCARD = "Jaccard"
    LOVASZ = "Lovasz"
    TVERSKY = "Tversky"
    SUM = "Sum"


class Scheduler(StrEnum):
    """How the learning rate changes while a run trains."""

    EXPONENTIAL = "Exponential"
    COSINE = "Cosine"
    ONE_CYCLE = "OneCycle"


class InMemory(StrEnum):
    """Whether a run keeps its patches in memory."""

    AUTO = "Auto"
    ALWAYS = "Always"
    NEVER = "Never"


class Strategy(StrEnum):
    """How the processes that train a run together hold its model."""

    AUTO = "Auto"
    DDP = "DDP"
    FSDP = "FSDP"


class LossTerm(Model):
    """A term of a weighted sum of losses."""

    loss: Loss
    """Focal, BCE, Dice, Jaccard, Lovasz or Tversky."""
    weight: Annotated[float, Field(gt=0, le=1e6)] = 1.0
    """What the loss is multiplied with, above 0."""

    rules = (Rule("self.loss != 'Sum'", "a sum has no Sum among its losses: name another loss"),)


class TrainerSpec(Model):
    """How long and how often: settings of the training loop that are not hyperparameters."""

    max_epochs: Annotated[int, Field(ge=1, le=100_000)] = 100
    """Epochs after which training ends."""
    early_stopping_patience: Annotated[int, Field(ge=1, le=100_000)] | None = 5
    """Validations without a better score after which training ends; null: never."""
    check_val_every_n_epoch: Annotated[int, Field(ge=1, le=100_000)] = 3
    """Epochs from one validation to the next; the last epoch is always validated."""
    plot_every_n_val_epochs: Annotated[int, Field(ge=0, le=100_000)] = 5
    """Validations from one set of sample figures to the next; 0: only the kept epoch's."""
    log_every_n_steps: Annotated[int, Field(ge=1, le=100_000)] = 10
    """Optimiser steps from one logged training loss to the next."""
    weights_from_checkpoint: Uri | None = None
    """A run's checkpoints/best.ckpt (a URI, read as artifacts are) whose weights training starts from; null: none."""
    loss: Loss = Loss.FOCAL
    """Focal, BCE (cross-entropy where there are several classes), Dice, Jaccard, Lovasz, Tversky, or Sum of lossSum."""
    loss_sum: Annotated[
        list[LossTerm],
        Field(
            max_length=6,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["loss"]},
        ),
    ] = []
    """Terms of loss Sum, each loss at most once: their values are multiplied with their weights and added."""
    tversky_alpha: Annotated[float, Field(ge=0, le=10)] = 0.3
    """Weight of false positives in Tversky."""
    tversky_beta: Annotated[float, Field(ge=0, le=10)] = 0.7
    """Weight of false negatives in Tversky."""
    scheduler: Scheduler = Scheduler.EXPONENTIAL
    """Exponential (times gamma after each epoch), Cosine (down to 0 in maxEpochs) or OneCycle (up, then down)."""
    gradient_clip: Annotated[float, Field(gt=0, le=1e6)] | None = None
    """Greatest norm of the gradients of a step, all parameters together; null: not clipped."""
    num_workers: Annotated[int, Field(ge=0, le=64)] = 0
    """Threads that decode patches; 0: one for each CPU of the pod, at most 8."""
    in_memory: InMemory = InMemory.AUTO
    """Auto keeps the patches of the run in memory where they take at most 40 % of its limit; Always, or Never."""
    limit_train_batches: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Train on at most this many batches per epoch, but one step (for trying things out); null: all."""
    limit_val_batches: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Validate on at most this many batches (for trying things out); null: all."""
    checkpoint_every_n_epochs: Annotated[int, Field(ge=1, le=100_000)] | None = None
    """Epochs from one checkpoint to the next; null: at validations, where one is always saved, and by the clock."""
    checkpoint_every_minutes: Annotated[float, Field(gt=0, le=10_080)] | None = 10.0
    """Minutes after which a checkpoint is saved inside an epoch too; null: never."""
    accumulate_grad_batches: Annotated[int, Field(ge=1, le=1024)] = 1
    """Batches whose gradients make one optimiser step: it counts batch_size times this many patches."""
    devices: Annotated[int, Field(ge=1, le=16)] = 1
    """Processes that train together in one pod, one a GPU (template.resources must ask for as many), each on its share
    of every batch: batch_size, steps and results stay what they are on one device."""
    nodes: Annotated[int, Field(ge=1, le=64)] = 1
    """Pods that train together, each with all of template.resources and so many devices; an Indexed Job."""
    strategy: Strategy = Strategy.AUTO
    """Auto and DDP keep the whole model on each device, FSDP shards weights, gradients and optimiser over all devices:
    for a model that does not fit otherwise."""
    precision: Precision = Precision.AUTO
    """Auto (BF16Mixed on a GPU that has it, else FP32), FP32 (no TF32 either), BF16Mixed or FP16Mixed (GPU only)."""
    compile: bool = False
    """Compile the model (torch.compile): a slow first step, faster ones after it; the image needs a C++ compiler."""
    cuda_graphs: bool = False
    """Hand a GPU a whole step at once, once a few have run (on one device, with neither compile nor FP16Mixed); steps
    and results stay the same. It keeps the memory of a step; false: one operation at a time."""
    deterministic: bool = False
    """Use only operations that repeat bit for bit on the same kind of GPU; slower, and some models have none."""
    detect_anomaly: bool = False
    """Stop with a traceback at the operation that makes a NaN in the backward pass; slow."""

    rules = (
        *uri_rules("weightsFromCheckpoint", optional=True),
        Rule(
            "!self.compile || self.devices * self.nodes == 1",
            "compile works on one device: set compile to false, or devices and nodes to 1",
        ),
        Rule(
            "self.strategy != 'FSDP' || self.devices * self.nodes > 1",
            "FSDP shards a model over several devices: raise devices or nodes, or set strategy to Auto",
        ),
        Rule(
            "self.loss == 'Sum' ? (has(self.lossSum) && size(self.lossSum) >= 2)"
            " : (!has(self.lossSum) || size(self.lossSum) == 0)",
            "lossSum goes with loss Sum, and must then list at least two losses",
        ),
    )

    @property
    def processes(self) -> int:
        """Processes that train together, all nodes counted."""
        return self.devices * self.nodes


UNSCORED = {
    "plot_every_n_val_epochs",
    "log_every_n_steps",
    "num_workers",
    "in_memory",
    "checkpoint_every_n_epochs",
    "checkpoint_every_minutes",
    "devices",
    "cuda_graphs",
    "nodes",
    "strategy",
}
"""Trainer settings that change what is seen or how fast it comes, never the score."""
