"""One run's training: a Lightning Trainer with the run's module, data module, strategy and callbacks."""

import contextlib
import logging
import warnings
from functools import partial
from typing import Any

import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch import Trainer

from crossfold_trainer import resume, spread
from crossfold_trainer.artifacts import Checkpoint, Item, Uploader
from crossfold_trainer.checkpoints import CheckpointLog
from crossfold_trainer.contract.result import Outcome
from crossfold_trainer.drawing import augmented, splits_map
from crossfold_trainer.errors import Diverged, Interrupted, StoreError
from crossfold_trainer.interrupt import Interrupt, Stop
from crossfold_trainer.live import Live, Reports
from crossfold_trainer.loader import epoch_batches
from crossfold_trainer.meter import Meter
from crossfold_trainer.model import build_model
from crossfold_trainer.precision import set_backends
from crossfold_trainer.progress import Best, Progress, progress_from
from crossfold_trainer.ranks import Ranks
from crossfold_trainer.resume import OWN, Found, kept_content, pack
from crossfold_trainer.task import Task
from crossfold_trainer.tracking import LogText, Tracking
from crossfold_trainer.trainee import make_trainee
from crossfold_trainer.training.data import PatchDataModule
from crossfold_trainer.training.loop import STATE, Loop, Saving
from crossfold_trainer.training.module import TrainingModule, blank_patch, step_seed
from crossfold_trainer.training.strategy import RankStrategy, RunCheckpointIO

log = logging.getLogger(__name__)


class Fit:
    """One run's training. `run` may be called once."""

    def __init__(
        self,
        task: Task,
        uploader: Uploader,
        tracking: Tracking,
        log_text: LogText,
        interrupt: Interrupt,
        *,
        live: Live,
        checkpoints: CheckpointLog,
        ranks: Ranks,
    ) -> None:
        """Build model and loaders; everything that can be wrong with them is found here.

        Args:
            task: the run.
            uploader: uploads beside training.
            tracking: takes numbers and figures.
            log_text: the run's log.
            interrupt: says when to end early.
            live: takes live progress.
            checkpoints: of the run.
            ranks: those that train together.

        Raises:
            ConfigError: the model, its weights, the numbers, the devices or the memory for the data cannot be had.
        """
        self._task = task
        self._ranks = ranks
        self._uploader = uploader
        self._tracking = tracking
        self._log_text = log_text
        self._interrupt = interrupt
        self._checkpoints = checkpoints
        self._trainee = trainee = make_trainee(task, ranks)
        self.device, self.numerics = trainee.device, trainee.numerics
        self.meter = Meter()
        self.progress = Progress()
        self._found: dict[str, Any] | None = None
        self._data = PatchDataModule(task, self.device, self.progress, self.meter, ranks)
        self._module = TrainingModule(task, trainee, self.progress, ranks)
        self._reports = Reports(live, task.config, self.meter, self._module.steps_per_epoch)

    @property
    def halvings(self) -> int:
        """How often the micro-batch was halved for want of memory, all attempts together."""
        return self._trainee.step.halvings

    def restore(self, found: Found) -> None:
        """Go on from a checkpoint that `resume.find` gave. All ranks call this."""
        self._found = found.content
        there = progress_from(found.content[OWN])
        self.progress.__dict__.update(there.__dict__)
        best = there.best
        if found.best_lost and best is not None and self._ranks.leads:
            self._uploader.submit(checkpoint=self._pack(found.content, best))

    def begin_with(self, halvings: int) -> None:
        """Halve micro-batches as often as was found out to be needed."""
        self._trainee.step.begin_with(halvings)

    def run(self) -> tuple[Outcome, str]:
        """Train to the end. Returns how it ended, and why in words.

        Raises:
            Interrupted: SIGTERM arrived; the state is uploaded.
            AcceleratorOutOfMemory: the accelerator's memory does not suffice even for halved micro-batches.
        """
        settings = self._task.config.trainer
        saving = Saving(
            self._task,
            self._trainee,
            self.progress,
            ranks=self._ranks,
            uploader=self._uploader,
            tracking=self._tracking,
            log_text=self._log_text,
            interrupt=self._interrupt,
            meter=self.meter,
        )
        try:
            if self._ranks.leads:
                self._uploader.submit(self._tracking.images(self._first_figures()))
            trainer = self._trainer(saving)
            if self.progress.finished(settings) is None:
                with quiet():
                    trainer.fit(self._module, self._data, ckpt_path=None if self._found is None else STATE)
            self._found = None
            self._test(trainer)
        except Diverged as end:
            saving.note_ignored(last=True)
            return Outcome.DIVERGED, str(end)
        except Stop:
            self._interrupted()
        saving.note_ignored(last=True)
        reason = self.progress.finished(settings)
        assert reason is not None  # noqa: S101 -- the Trainer ends by that rule
        return Outcome.TRAINED, reason

    def draw_graph(self) -> None:
        """Have the model's graph written, traced with an empty patch."""
        task, model = self._task, self._trainee.model
        if self._trainee.sharded:  # a model of its own: the other ranks have ended
            values = task.hyperparameters | {"model_encoder_weights": None}
            model = build_model(values, len(task.data.bands), model.outputs)
            model.to(self.device)
        model.eval()
        self._tracking.graph(model, blank_patch(task.data, self.device))

    def _trainer(self, saving: Saving) -> Trainer:
        """Lightning's Trainer: its loops, validation, epochs and checkpoints, in the process of this rank."""
        settings, trainee, ranks = self._task.config.trainer, self._trainee, self._ranks
        loop = Loop(
            self._task,
            trainee,
            self.progress,
            saving=saving,
            ranks=ranks,
            tracking=self._tracking,
            interrupt=self._interrupt,
            meter=self.meter,
            reports=self._reports,
        )
        checkpoint_io = RunCheckpointIO(self._uploader, self._pack, self._found, leads=ranks.leads)
        with quiet():
            trainer = Trainer(
                strategy=RankStrategy(self.device, checkpoint_io, sharded=trainee.sharded, leads=ranks.leads),
                devices=1,
                plugins=[LightningEnvironment()],
                callbacks=[loop],
                max_epochs=settings.max_epochs,
                check_val_every_n_epoch=settings.check_val_every_n_epoch,
                num_sanity_val_steps=0,
                # What is gathered of a sharded model in inference mode could not be trained on later.
                inference_mode=not trainee.sharded,
                detect_anomaly=settings.detect_anomaly,
                use_distributed_sampler=False,
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
                enable_model_summary=False,
            )
        # The Trainer sets some of torch's switches by its own arguments.
        set_backends(precision=settings.precision, deterministic=settings.deterministic)
        return trainer

    def _pack(self, state: dict[str, Any], best: Best | None) -> Checkpoint:
        """A state to be packed later, with the weights of the best epoch where they are these."""
        identity = self._task.identity
        kept = None if best is None else partial(pack, kept_content(state, best), identity)
        return Checkpoint(partial(pack, state, identity), kept)

    def _interrupted(self) -> None:
        """SIGTERM arrived.

        Raises:
            Interrupted: always.
        """
        self._interrupt.request()  # it may have reached another rank only
        at = f"interrupted at step {self.progress.step}"
        if not self._ranks.leads:
            raise Interrupted(at) from None
        if self._uploader.flush(lambda: self._interrupt.deadline):
            raise Interrupted(f"{at}, checkpoint saved") from None
        raise Interrupted(
            f"{at}: the artifact store did not take the checkpoint within the grace period"
            " (template.terminationGracePeriodSeconds); the one before it counts"
        ) from None

    def _test(self, trainer: Trainer) -> None:
        """Measure the weights of the best epoch on the test part, where there are both.

        Comes last: the model holds these weights afterwards, and the state is saved already.
        """
        progress, ranks, task = self.progress, self._ranks, self._task
        if not len(task.splits.test) or progress.best is None:
            return
        uploaded = not ranks.leads or self._uploader.flush(lambda: self._interrupt.deadline)
        if any(ranks.any(not uploaded)):
            raise Stop
        found = resume.best_weights(self._uploader.store, self._checkpoints, task.identity) if ranks.leads else None
        weights = ranks.from_leader(found)
        if weights is None:
            raise StoreError("the weights of the best epoch cannot be read back to be tested")
        spread.load_weights(self._module, weights)
        with quiet():
            trainer.test(self._module, self._data, verbose=False)
        evaluated = self._module.evaluated
        if not ranks.leads or evaluated is None or evaluated.instances is None:
            return
        figures = evaluated.figures.all("test", evaluated.metrics, evaluated.samples)
        self._uploader.submit(self._tracking.images(figures))
        values = evaluated.metrics.compute() | evaluated.instances.compute()
        progress.test = {f"test/{name}": value for name, value in values.items()}
        self._tracking.scalars(progress.test, progress.step)
        log.info(
            "tested epoch %d on %d patches: test/JaccardIndex=%.4f",
            progress.best.epoch + 1,
            len(task.splits.test),
            values["JaccardIndex"],
        )

    def _first_figures(self) -> list[Item]:
        """What can be seen before the first step: where the parts lie, and what augmentation does to its batch."""
        task = self._task
        items = splits_map(task.data, task.splits)
        if task.hyperparameters["augment"] and self.progress.step == 0:
            rows = epoch_batches(task.splits.train, task.hyperparameters["batch_size"], task.config.seed, 0)[0]
            (x, y), *_ = self._data.loader.batches([rows])
            torch.manual_seed(step_seed(task.config.seed, 0))
            items.append(augmented(rows, (x, y), self._module.augment(x, y), task.data))
        return items


@contextlib.contextmanager
def quiet() -> Any:
    """Without Lightning's advice, which is about Trainers that are set up by hand."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning\.(pytorch|fabric)\b.*")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
