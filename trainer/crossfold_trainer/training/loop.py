"""What a run does between steps and epochs: as Lightning callbacks, beside the Trainer's own loop."""
# ruff: noqa: ARG002, PLR0917 -- the signatures are Lightning's

import contextlib
import copy
import logging
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from crossfold_trainer.artifacts import Item, Uploader
from crossfold_trainer.contract.data import NonFinite
from crossfold_trainer.contract.scoring import Score, run_score, score_direction
from crossfold_trainer.errors import Diverged, StoreError
from crossfold_trainer.interrupt import Interrupt, Stop
from crossfold_trainer.live import Reports
from crossfold_trainer.meter import Meter
from crossfold_trainer.progress import Progress
from crossfold_trainer.ranks import Ranks
from crossfold_trainer.resume import OWN
from crossfold_trainer.step import LossReader, Reading
from crossfold_trainer.task import Task
from crossfold_trainer.tracking import LogText, Tracking, csv_item, epoch_line
from crossfold_trainer.trainee import Trainee
from crossfold_trainer.training.module import TrainingModule, of_all
from crossfold_trainer.training.strategy import Accompanying

log = logging.getLogger(__name__)

STATE = "state"
"""What Lightning calls the checkpoint; where it is saved is the checkpoint log's to say."""


class Saving:
    """Saves the state of training when it is worth it. All ranks call its methods together."""

    def __init__(
        self,
        task: Task,
        trainee: Trainee,
        progress: Progress,
        *,
        ranks: Ranks,
        uploader: Uploader,
        tracking: Tracking,
        log_text: LogText,
        interrupt: Interrupt,
        meter: Meter,
    ) -> None:
        """Nothing is saved yet.

        Args:
            task: the run.
            trainee: what is trained.
            progress: where training is.
            ranks: those that train together.
            uploader: uploads beside training.
            tracking: has figures and events to upload.
            log_text: the run's log.
            interrupt: says whether this is the last word.
            meter: counts the time that checkpoints take.
        """
        self.counts = trainee.step.metrics
        """The metrics of the epoch under way, of all ranks, as they are saved."""
        self.validated: int | None = None
        """The epoch that was validated with the weights that are saved."""
        self._task = task
        self._trainee = trainee
        self._progress = progress
        self._ranks = ranks
        self._uploader = uploader
        self._tracking = tracking
        self._log_text = log_text
        self._interrupt = interrupt
        self._meter = meter
        self._saved_step = progress.step or -1
        self._saved_at = time.monotonic()

    @property
    def due(self) -> bool:
        """Whether it is time for a checkpoint in the middle of an epoch."""
        minutes = self._task.config.trainer.checkpoint_every_minutes
        return minutes is not None and time.monotonic() - self._saved_at > 60 * minutes

    def save(
        self, trainer: Trainer, *, validated: int | None = None, improved: bool = False, figures: Sequence[Item] = ()
    ) -> None:
        """Upload the state, and what there is to see, beside training.

        Skipped while another upload is under way, unless it is the best epoch's or the last word.

        Args:
            trainer: of the run.
            validated: the epoch that was validated with these very weights.
            improved: it is the best one.
            figures: to upload as well.
        """
        progress, ranks = self._progress, self._ranks
        self.counts, self.validated = of_all(self._trainee.step.metrics, ranks), validated
        if not ranks.from_leader(ranks.leads and self._worth_saving(improved=improved, figures=bool(figures))):
            return
        self.note_ignored()
        with self._meter.checkpoint():
            items = [*figures, csv_item(progress.history), self._log_text.item(), *self._tracking.items()]
            more = Accompanying(items if ranks.leads else (), progress.best if improved else None)
            self._saved_step, self._saved_at = progress.step, time.monotonic()
            trainer.save_checkpoint(STATE, storage_options=more)

    def note_ignored(self, *, last: bool = False) -> None:
        """Take into the progress what all ranks have ignored of the patches that they read."""
        if self._task.config.data.non_finite is not NonFinite.IGNORE:
            return
        ignored = self._progress.ignored
        for found in self._ranks.gather([dict(self._task.data.ignored)]):
            ignored.update(found)
        if last and ignored:
            log.warning(
                "NaN or infinite values: %d pixels of %d patches were ignored", sum(ignored.values()), len(ignored)
            )

    def _worth_saving(self, *, improved: bool, figures: bool) -> bool:
        """Whether there is something new, and a time for it."""
        last_word = self._interrupt.requested or self._progress.finished(self._task.config.trainer) is not None
        if self._saved_step == self._progress.step and not improved and not figures:
            return False
        return not self._uploader.busy or improved or last_word


class Loop(Callback):
    """Counts steps and epochs, watches losses, scores validations, saves, reports, and ends early when it must.

    An epoch is closed after its validation. A state that was saved between its last batch and that point remembers
    that it is open: a resumed run validates and closes it before it goes on (Lightning would skip the validation).
    """

    def __init__(
        self,
        task: Task,
        trainee: Trainee,
        progress: Progress,
        *,
        saving: Saving,
        ranks: Ranks,
        tracking: Tracking,
        interrupt: Interrupt,
        meter: Meter,
        reports: Reports,
    ) -> None:
        """Training has not begun.

        Args:
            task: the run.
            trainee: what is trained.
            progress: where training is; changed here alone.
            saving: saves states.
            ranks: those that train together.
            tracking: takes numbers and figures.
            interrupt: says when to end early.
            meter: counts time.
            reports: live progress.
        """
        self._task = task
        self._trainee = trainee
        self._progress = progress
        self._saving = saving
        self._ranks = ranks
        self._tracking = tracking
        self._interrupt = interrupt
        self._meter = meter
        self._reports = reports
        self._losses = LossReader(trainee.device)
        self._open = False
        """All batches of the epoch under way are trained on, and it is not closed yet."""
        self._position: dict[str, Any] | None = None
        """Lightning's position at the last batch of an epoch, which is saved until the next one begins."""
        self._trained: dict[str, float] = {}
        self._validated = False
        self._began = time.monotonic()

    # -- what a checkpoint holds -------------------------------------------------------------------------------

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add what Lightning does not know."""
        position = self._position or trainer.fit_loop.state_dict()
        checkpoint["loops"]["fit_loop"] = copy.deepcopy(position)
        step = self._trainee.step
        checkpoint[OWN] = {
            "progress": asdict(self._progress),
            "open": self._open,
            "validated": self._saving.validated,
            "halvings": step.halvings,
            "scaler": step.scaler.state_dict(),
            "train_metrics": dict(self._saving.counts.state()),
        }

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Take back what was added; the progress was read before."""
        own, step = checkpoint[OWN], self._trainee.step
        self._position = copy.deepcopy(checkpoint["loops"]["fit_loop"])
        self._open = own["open"]
        step.scaler.load_state_dict(own["scaler"])
        step.begin_with(own["halvings"])
        if self._ranks.leads:
            step.metrics.load(own["train_metrics"])

    # -- hooks -------------------------------------------------------------------------------------------------

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the epoch that was open when the state was saved."""
        # SIGTERM is ours: Lightning's handler hangs where several ranks train.
        self._interrupt.reinstall()
        self._began = time.monotonic()
        if self._open:
            self._note_trained()
            if self._due:
                validate(trainer)
            self._close(trainer, pl_module)
        if trainer.is_last_batch:
            begin_next_epoch(trainer)
        self._meter.start()
        self._reports.give(self._progress)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """An epoch begins."""
        self._began = time.monotonic()
        self._meter.start()
        self._reports.give(self._progress)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """After a step: is the loss a number, is it time to log or to save, is the end asked for?"""
        assert isinstance(pl_module, TrainingModule)  # noqa: S101 -- the one that this is made for
        progress = self._progress
        progress.step += 1
        progress.batch += 1
        self._meter.patches += self._task.hyperparameters["batch_size"] * len(batch)
        self._open = bool(trainer.is_last_batch)
        self._position = copy.deepcopy(trainer.fit_loop.state_dict()) if self._open else None
        self._watch(trainer, pl_module)
        if self._open:
            self._log_losses(self._losses.finish(), pl_module)
            self._end_if_diverged()
            self._note_trained()
            self._meter.stop()

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """End early where it is asked for, at one rank at least."""
        if any(self._ranks.any(self._interrupt.requested)):
            self._stop(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The epoch is validated."""
        self._validated = True

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the epoch; the last one is validated in any case."""
        if self._due and not self._validated:
            validate(trainer)
        self._close(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save what is not saved yet."""
        self._saving.save(trainer)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """SIGTERM is ours here, too."""
        self._interrupt.reinstall()

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """End early where it is asked for: the state is saved already, and holds other weights than the model now."""
        if any(self._ranks.any(self._interrupt.requested)):
            raise Stop

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Training ends here."""
        self._meter.stop()

    # -- steps -------------------------------------------------------------------------------------------------

    def _watch(self, trainer: Trainer, module: TrainingModule) -> None:
        progress, loss, every = self._progress, module.loss, self._task.config.trainer.log_every_n_steps
        assert loss is not None  # noqa: S101 -- a step was taken
        self._losses.watch(progress.step, loss)
        if progress.step % every == 0 or self._trainee.device.type != "cuda":
            self._losses.send(progress.step, loss)
        self._log_losses(self._losses.arrived(), module)
        # What one rank does all must do: they would wait for each other for ever.
        stop, due, bad = self._ranks.any(self._interrupt.requested, self._saving.due, self._losses.bad is not None)
        if bad:
            self._log_losses(self._losses.finish(), module)
            self._end_if_diverged()
        if stop:
            self._stop(trainer)
        if self._reports.due:
            self._reports.give(progress)
        if due:
            self._saving.save(trainer)

    def _stop(self, trainer: Trainer) -> None:
        """Save the state and end.

        Raises:
            Stop: always.
        """
        self._interrupt.request()  # it may have reached another rank only
        log.info("SIGTERM: saving the state at step %d", self._progress.step)
        with contextlib.suppress(StoreError):  # of an upload before: flush tries again
            self._saving.save(trainer)
        raise Stop

    def _log_losses(self, readings: Iterator[Reading], module: TrainingModule) -> None:
        for step, loss in readings:
            if step % self._task.config.trainer.log_every_n_steps == 0 and math.isfinite(loss):
                self._tracking.scalars({"train/loss_step": loss, "learning_rate": module.schedule.learning_rate}, step)

    def _end_if_diverged(self) -> None:
        bad = self._losses.bad
        if bad is not None:
            raise Diverged(f"the loss is {bad.loss} at step {bad.step}, in epoch {self._progress.epoch + 1}")

    # -- epochs ------------------------------------------------------------------------------------------------

    @property
    def _due(self) -> bool:
        """Whether the epoch under way is to be validated."""
        settings, epochs = self._task.config.trainer, self._progress.epoch + 1
        return epochs % settings.check_val_every_n_epoch == 0 or epochs == settings.max_epochs

    def _note_trained(self) -> None:
        counted = of_all(self._trainee.step.metrics, self._ranks).compute()
        self._trained = {f"train/{name}": value for name, value in counted.items()}
        self._validated = False

    def _close(self, trainer: Trainer, module: LightningModule) -> None:
        """Count an epoch in, with its validation where there was one, and save."""
        assert isinstance(module, TrainingModule)  # noqa: S101 -- the one that this is made for
        progress, config = self._progress, self._task.config
        settings, epoch = config.trainer, progress.epoch
        values, score, improved, drawn = self._trained, None, False, list[Item]()
        if self._validated:
            values, score, improved, drawn = self._scored(module)
        row = {"epoch": epoch, "step": progress.step, "learning_rate": module.schedule.learning_rate, **values}
        if score is not None and score.value is not None:
            row["score"] = score.value
        progress.history.append(row)
        progress.epoch, progress.batch, self._open = epoch + 1, 0, False
        module.schedule.end_of("epoch")
        self._trainee.step.metrics.reset()
        self._tracking.scalars({n: value for n, value in row.items() if n not in ("epoch", "step")}, progress.step)
        line = epoch_line(
            epoch + 1,
            settings.max_epochs,
            loss=values["train/loss"],
            metrics={m.name: values[m.name] for m in config.objective.metrics if m.name in values},
            score=score,
            best=improved,
            seconds=time.monotonic() - self._began,
        )
        log.info("%s", line)
        if self._validated:
            figures = self._tracking.images(drawn)
            self._saving.save(trainer, validated=epoch, improved=improved, figures=figures)
        elif settings.checkpoint_every_n_epochs and (epoch + 1) % settings.checkpoint_every_n_epochs == 0:
            self._saving.save(trainer)
        self._reports.give(progress)
        trainer.should_stop = progress.finished(settings) is not None

    def _scored(self, module: TrainingModule) -> tuple[dict[str, float], Score, bool, list[Item]]:
        """All metrics of the epoch, its score, whether it is the best so far, and figures."""
        progress, settings, objective = self._progress, self._task.config.trainer, self._task.config.objective
        found = module.evaluated
        assert found is not None  # noqa: S101 -- it was validated
        values = self._trained | {f"val/{name}": value for name, value in found.metrics.compute().items()}
        score = run_score(values, objective)
        improved = progress.count_validation(progress.epoch, score, values, score_direction(objective))
        drawn: list[Item] = []
        if improved and self._ranks.leads:
            drawn += found.figures.all("best", found.metrics, found.samples)
        every = settings.plot_every_n_val_epochs
        if every > 0 and progress.validations % every == 0 and self._ranks.leads:
            drawn.append(found.figures.panels(f"epoch{progress.epoch + 1:04d}", found.samples))
        return values, score, improved, drawn


def begin_next_epoch(trainer: Trainer) -> None:
    """Have Lightning begin an epoch where it goes on from the last batch of the one before.

    By itself it would count the next epoch as a part of that one, and lose its place when it resumes again.
    """
    loop = trainer.fit_loop
    loop.epoch_loop.batch_progress.increment_completed()
    loop.reset_restart_stage()
    loop.epoch_loop.reset_restart_stage()
    loop.restarting = False


def validate(trainer: Trainer) -> None:
    """Run the validation that Lightning does not run by itself: of the last epoch, or of one that was left open."""
    loop = trainer.fit_loop.epoch_loop.val_loop
    loop.restarting = False
    loop.batch_progress.reset()
    trainer.validating = True
    loop.run()
    trainer.training = True
