"""One of two ranks, for test_ranks: takes steps on its share, and the same steps alone; says how far apart they are."""

import copy
import json
import os
import sys

import torch
from torch import Tensor, nn

from crossfold_trainer import ranks, spread
from crossfold_trainer.contract import hyperparameters as hp
from crossfold_trainer.contract.trainer import Precision, Strategy, TrainerSpec
from crossfold_trainer.labels import BINARY
from crossfold_trainer.losses import make_criterion
from crossfold_trainer.metrics import PixelMetrics
from crossfold_trainer.precision import numerics
from crossfold_trainer.step import MicroBatch, TrainStep

CPU = torch.device("cpu")
HALVINGS = 1
"""Micro-batches of 5 in shares of 3 and 2, each in two parts."""


class Model(nn.Module):
    """With batch statistics of both kinds of module, and a weight that no loss depends on."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.SiLU(), nn.Conv2d(6, 1, 3, padding=2))
        self.norm = nn.BatchNorm2d(1, momentum=0.3, affine=False)
        self.idle = nn.Conv2d(1, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.layers(x)
        normed = nn.functional.batch_norm(
            hidden, self.norm.running_mean, self.norm.running_var, training=self.training, momentum=0.3
        )
        return normed[:, 0].clone()


def stepper(model: nn.Module, computing: nn.Module, together: ranks.Ranks, share: int | None) -> TrainStep:
    # Plain descent: AdamW turns gradients that are 0 but for rounding into steps of full size.
    step = TrainStep(
        computing, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
        make_criterion(TrainerSpec(), hp.resolve({}), BINARY), numerics(Precision.FP32, CPU), 0.5,
        ranks=together, share=share,
    )  # fmt: skip
    step.metrics = PixelMetrics(CPU, BINARY, curves=False)
    return step


def batch_of(seed: int) -> MicroBatch:
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(2, (5, 8, 8), generator=generator).to(torch.uint8)
    y[3:, :, 1:] = 2  # the second rank's share has an eighth of the valid pixels
    return torch.rand(5, 3, 8, 8, generator=generator), y


def as_cut(batch: MicroBatch) -> list[MicroBatch]:
    """A micro-batch in the parts that both ranks have on their devices at a time: batch statistics are theirs."""
    x, y = batch
    return [(x[rows], y[rows]) for rows in ([0, 1, 3], [2, 4])]


def furthest(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    assert one.keys() == other.keys()
    return max((one[name].double() - other[name].double()).abs().max().item() for name in one)


def main() -> None:
    strategy = Strategy(sys.argv[1])
    torch.set_num_threads(1)
    torch.manual_seed(0)
    mine = Model()
    whole = copy.deepcopy(mine)
    with ranks.join(os.environ) as together:
        sharded = spread.is_sharded(strategy, together)
        computing: nn.Module = mine
        if sharded:
            spread.shard(mine, CPU, together)
        else:
            computing = spread.replicate(mine, CPU)
        shared, alone = (
            stepper(mine, computing, together, together.least(5)),
            stepper(whole, whole, ranks.Ranks(), None),
        )
        shared.halvings = HALVINGS
        losses = []
        for seed in range(4):
            batches = [batch_of(2 * seed), batch_of(2 * seed + 1)]
            part = slice(0, 3) if together.leads else slice(3, 5)
            parts = [cut for batch in batches for cut in as_cut(batch)]
            losses.append((shared([(x[part], y[part]) for x, y in batches]) - alone(parts)).abs().item())
        shared.metrics.add_up(together.add)
        one, other = shared.metrics.compute(), alone.metrics.compute()
        held = sum(p.to_local().numel() if sharded else p.numel() for p in mine.parameters())  # type: ignore[operator]
        told = {
            "loss": max(losses),
            "weights": furthest(spread.whole(mine.state_dict()), whole.state_dict()),
            "metrics": max(abs(one[name] - other[name]) for name in one),
            "held": held / sum(p.numel() for p in whole.parameters()),
            "any": together.any(not together.leads, False),
            "gathered": together.gather([together.rank]),
            "leader": together.from_leader(together.rank),
        }
        # Whole state into what each rank holds, and out again.
        for values in mine.parameters():
            with torch.no_grad():
                values.zero_()
        spread.load_weights(mine, whole.state_dict())
        told["loaded"] = furthest(spread.whole(mine.state_dict()), whole.state_dict())
    sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    main()
