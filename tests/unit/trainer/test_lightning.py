"""What the training loop relies on in Lightning beyond its documented API: each is here, so that an upgrade shows it."""

import copy

import lightning.pytorch as pl
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from crossfold_trainer.training.loop import validate

STEPS = 3


class Batches:
    def __len__(self) -> int:
        return STEPS

    def __iter__(self):
        for _ in range(STEPS):
            yield torch.ones(2, 4)

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass


class Module(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.net = nn.Linear(4, 1)
        self.validated = 0

    def training_step(self, batch: Tensor) -> None:
        optimizer = self.optimizers()

        def step() -> Tensor:
            optimizer.zero_grad()
            loss = self.net(batch).square().mean()
            loss.backward()
            return loss

        optimizer.step(closure=step)

    def validation_step(self, batch: Tensor) -> None:
        self.validated += 1

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Seen(Callback):
    def __init__(self) -> None:
        self.last: list[bool] = []
        self.states: list[dict] = []
        self.steps: list[int] = []

    def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx) -> None:
        self.last.append(trainer.is_last_batch)
        self.states.append(copy.deepcopy(trainer.fit_loop.state_dict()))
        self.steps.append(trainer.global_step)


def trainer(seen: Seen, epochs: int = 2) -> Trainer:
    return Trainer(
        accelerator="cpu", devices=1, max_epochs=epochs, callbacks=[seen], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
    )  # fmt: skip


def test_the_version_is_pinned_to_a_minor_one() -> None:
    assert pl.__version__.startswith("2.6.")


def test_the_last_batch_is_known_at_its_end_and_a_step_is_counted_by_its_closure() -> None:
    seen = Seen()
    trainer(seen).fit(Module(), Batches(), Batches())
    assert seen.last == [False, False, True] * 2
    assert seen.steps == list(range(1, 7))


def test_the_position_at_the_end_of_a_batch_has_what_a_resumed_loop_needs() -> None:
    seen = Seen()
    trainer(seen, 1).fit(Module(), Batches(), Batches())
    progress = [state["epoch_loop.batch_progress"] for state in seen.states]
    assert [p["current"]["processed"] for p in progress] == [1, 2, 3]
    assert [p["current"]["completed"] for p in progress] == [0, 1, 2]
    assert [p["is_last_batch"] for p in progress] == [False, False, True]


def test_the_loops_that_are_driven_by_hand_have_these_parts() -> None:
    loop = trainer(Seen()).fit_loop
    for part in (loop, loop.epoch_loop):
        assert callable(part.reset_restart_stage)
        part.restarting = False
    assert callable(loop.epoch_loop.batch_progress.increment_completed)
    validation = loop.epoch_loop.val_loop
    validation.restarting = False
    validation.batch_progress.reset()
    assert callable(validation.run)


def test_a_validation_can_be_run_from_a_callback() -> None:
    class Now(Seen):
        def on_train_epoch_end(self, trainer, module) -> None:
            validate(trainer)

    module = Module()
    trainer(Now(), 1).fit(module, Batches(), Batches())
    assert module.validated == 2 * STEPS
