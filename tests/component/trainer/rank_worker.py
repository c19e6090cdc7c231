"""One of two ranks, for test_ranks: takes steps on its share, and the same steps alone; says how far apart they are."""

import copy
import json
import os
import sys

import torch
from torch import Tensor, nn

from crossfold_trainer import ranks
from crossfold_trainer.contract import hyperparameters as hp
from crossfold_trainer.contract.config import Precision, TrainerSpec
from crossfold_trainer.labels import BINARY
from crossfold_trainer.losses import make_criterion
from crossfold_trainer.metrics import PixelMetrics
from crossfold_trainer.precision import numerics
from crossfold_trainer.step import MicroBatch, TrainStep

CPU = torch.device("cpu")


class Model(nn.Module):
    """With batch statistics of both kinds of module: torch's own, and one that calls the function."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.SiLU(), nn.Conv2d(6, 1, 3, padding=2))
        self.norm = nn.BatchNorm2d(1, momentum=0.3, affine=False)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.layers(x)
        normed = nn.functional.batch_norm(
            hidden, self.norm.running_mean, self.norm.running_var, training=self.training, momentum=0.3
        )
        return normed[:, 0]


def stepper(model: nn.Module, together: ranks.Ranks) -> TrainStep:
    # Plain descent: AdamW turns gradients that are 0 but for rounding into steps of full size.
    step = TrainStep(
        model, torch.optim.SGD(model.parameters(), lr=0.1), make_criterion(TrainerSpec(), hp.resolve({}), BINARY),
        numerics(Precision.FP32, CPU), 0.5, ranks=together,
    )  # fmt: skip
    step.metrics = PixelMetrics(CPU, BINARY, curves=False)
    return step


def batch_of(seed: int) -> MicroBatch:
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(2, (5, 8, 8), generator=generator).to(torch.uint8)
    y[3:, :, 1:] = 2  # the second rank's share has an eighth of the valid pixels
    return torch.rand(5, 3, 8, 8, generator=generator), y


def furthest(one: nn.Module, other: nn.Module) -> float:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return max((a.double() - b.double()).abs().max().item() for a, b in pairs)


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    mine = Model()
    whole = copy.deepcopy(mine)
    with ranks.join(os.environ) as together:
        shared, alone = stepper(mine, together), stepper(whole, ranks.Ranks())
        losses = []
        for seed in range(4):
            batches = [batch_of(2 * seed), batch_of(2 * seed + 1)]
            part = slice(0, 3) if together.leads else slice(3, 5)
            losses.append((shared([(x[part], y[part]) for x, y in batches]) - alone(batches)).abs().item())
        shared.metrics.add_up(together.add)
        one, other = shared.metrics.compute(), alone.metrics.compute()
        told = {
            "loss": max(losses),
            "weights": furthest(mine, whole),
            "metrics": max(abs(one[name] - other[name]) for name in one),
            "any": together.any(not together.leads, False),
            "gathered": together.gather([together.rank]),
            "leader": together.from_leader(together.rank),
        }
    sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    main()
