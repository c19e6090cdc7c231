"""The training loop: epochs, validations, the kept checkpoint, early stopping, and a clean end at any step."""

import contextlib
import logging
import math
import time
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from crossfold_trainer import resume, spread
from crossfold_trainer.artifacts import Checkpoint, Item, Uploader
from crossfold_trainer.checkpoints import CheckpointLog
from crossfold_trainer.contract.data import NonFinite
from crossfold_trainer.contract.result import Outcome
from crossfold_trainer.contract.scoring import Score, run_score, score_direction
from crossfold_trainer.drawing import PartFigures, augmented, splits_map
from crossfold_trainer.errors import Diverged, Interrupted, StoreError
from crossfold_trainer.evaluate import Evaluation, blank_patch, of_all
from crossfold_trainer.instances import InstanceMetrics
from crossfold_trainer.interrupt import Interrupt, Stop
from crossfold_trainer.live import Live, Reports
from crossfold_trainer.loader import Loader, epoch_batches, ordered_batches
from crossfold_trainer.meter import Meter
from crossfold_trainer.metrics import PixelMetrics
from crossfold_trainer.model import build_model
from crossfold_trainer.progress import Best, Progress
from crossfold_trainer.ranks import Ranks
from crossfold_trainer.resume import Found, pack
from crossfold_trainer.schedules import make_scheduler, steps_per_epoch
from crossfold_trainer.state import TrainingState, kept_content
from crossfold_trainer.step import LossReader, Reading
from crossfold_trainer.task import Task
from crossfold_trainer.tracking import LogText, Tracking, csv_item, epoch_line
from crossfold_trainer.trainee import make_trainee

log = logging.getLogger(__name__)


class Fit:
    """One run's training. Owns the model and the progress; `run` may be called once."""

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
        """Build model and loaders; everything that can be wrong with them is found here."""
        self.config = task.config
        self.hp = task.hyperparameters
        self.data = task.data
        self.splits = task.splits
        self.progress = Progress()
        self._task = task
        self._ranks = ranks
        self._uploader = uploader
        self._tracking = tracking
        self._log_text = log_text
        self._interrupt = interrupt
        self._checkpoints = checkpoints
        self._saved_step = -1
        self._saved_at = time.monotonic()

        trainee = make_trainee(task, ranks)
        self.device, self.numerics = trainee.device, trainee.numerics
        self._model, self._optimiser, self._step = trainee.model, trainee.optimiser, trainee.step
        self._sharded = trainee.sharded
        self._steps_per_epoch = steps_per_epoch(self.config.trainer, len(self.splits.train), self.hp["batch_size"])
        self._schedule = make_scheduler(self._optimiser, self.config.trainer, self.hp, self._steps_per_epoch)
        self._state = TrainingState(
            self._model,
            self._optimiser,
            self._schedule.scheduler,
            self._step,
            sharded=self._sharded,
            leads=ranks.leads,
        )
        self._evaluation = Evaluation(
            self._model,
            self._step.predict,
            trainee.criterion,
            self.data,
            ranks=ranks,
            interrupt=interrupt,
            sharded=self._sharded,
        )
        self._figures = PartFigures(self.splits.val, self.data)
        self._losses = LossReader(self.device)
        if self.hp["augment"]:
            from crossfold_trainer.transforms import compose  # noqa: PLC0415 - only where wanted

            self._augment = compose(self.hp["augment"], self.data.labels.ignore)
        else:
            self._augment = lambda x, y: (x, y)
        self._loader = Loader(
            self.data,
            np.union1d(self.splits.train, self.splits.val),
            self.device,
            self.config.trainer.num_workers,
            self.config.trainer.in_memory,
            processes=ranks.local_size,
        )
        self.meter = Meter()
        self._reports = Reports(live, self.config, self.meter, self._steps_per_epoch)

    # -- the loop ----------------------------------------------------------------------------------------------

    def run(self) -> tuple[Outcome, str]:
        """Train to the end. Returns how it ended, and why in words.

        Raises:
            Interrupted: SIGTERM arrived; the state is uploaded.
            AcceleratorOutOfMemory: the accelerator's memory does not suffice even for halved micro-batches.
        """
        settings = self.config.trainer
        torch.autograd.set_detect_anomaly(settings.detect_anomaly)
        try:
            if self._ranks.leads:
                self._uploader.submit(self._tracking.images(self._first_figures()))
            while (reason := self.progress.finished(settings)) is None:
                self._epoch()
            self._snapshot(validated=None)
            self._test()
        except Diverged as end:
            self._note_ignored(last=True)
            return Outcome.DIVERGED, str(end)
        except Stop:
            self._interrupt.request()  # it may have reached another rank only
            log.info("SIGTERM: saving the state at step %d", self.progress.step)
            with contextlib.suppress(StoreError):  # of an upload before: flush tries again
                self._snapshot(validated=None)
            if not self._ranks.leads:
                raise Interrupted(f"interrupted at step {self.progress.step}") from None
            if self._uploader.flush(lambda: self._interrupt.deadline):
                raise Interrupted(f"interrupted at step {self.progress.step}, checkpoint saved") from None
            raise Interrupted(
                f"interrupted at step {self.progress.step}: the artifact store did not take the checkpoint within the"
                " grace period (template.terminationGracePeriodSeconds); the one before it counts"
            ) from None
        self._note_ignored(last=True)
        return Outcome.TRAINED, reason

    @property
    def halvings(self) -> int:
        """How often the micro-batch was halved for want of memory, all attempts together."""
        return self._step.halvings

    def _epoch(self) -> None:
        """Train the rest of the epoch under way, validate where it is due, and close it."""
        progress, settings = self.progress, self.config.trainer
        epoch, began = progress.epoch, time.monotonic()
        with self.meter.epoch():
            self._train_rest_of_epoch()
            counted = of_all(self._step.metrics, self._ranks).compute()
            trained = {f"train/{name}": value for name, value in counted.items()}
        due = (epoch + 1) % settings.check_val_every_n_epoch == 0 or epoch + 1 == settings.max_epochs
        found = self._validate(epoch, trained) if due else _Validated({}, None, improved=False, drawn=[])
        values = trained | found.values
        row = {"epoch": epoch, "step": progress.step, "learning_rate": self._schedule.learning_rate, **values}
        if found.score is not None and found.score.value is not None:
            row["score"] = found.score.value
        progress.history.append(row)
        progress.epoch, progress.batch = epoch + 1, 0
        self._schedule.end_of("epoch")
        self._step.metrics.reset()
        self._tracking.scalars(
            {name: value for name, value in row.items() if name not in ("epoch", "step")}, progress.step
        )
        shown = {m.name: values[m.name] for m in self.config.objective.metrics if m.name in values}
        seconds = time.monotonic() - began
        line = epoch_line(
            epoch + 1,
            settings.max_epochs,
            loss=values["train/loss"],
            metrics=shown,
            score=found.score,
            best=found.improved,
            seconds=seconds,
        )
        log.info("%s", line)
        if due:
            self._snapshot(validated=epoch, improved=found.improved, figures=self._tracking.images(found.drawn))
        elif settings.checkpoint_every_n_epochs and (epoch + 1) % settings.checkpoint_every_n_epochs == 0:
            self._snapshot(validated=None)
        self._reports.give(progress)

    def _train_rest_of_epoch(self) -> None:
        progress, settings = self.progress, self.config.trainer
        per_step = settings.accumulate_grad_batches
        # A batch of several micro-batches is drawn as a whole: how it is cut does not change which patches it has.
        batches = epoch_batches(self.splits.train, self.hp["batch_size"] * per_step, self.config.seed, progress.epoch)
        batches = batches[: self._steps_per_epoch]
        micro = [
            self._ranks.share(part) for batch in batches[progress.batch :] for part in np.array_split(batch, per_step)
        ]
        self._model.train()
        self._reports.give(progress)
        batch_size: int = self.hp["batch_size"]
        loaded = self.meter.batches(self._loader.batches(micro), batch_size, lambda: self._loader.waited)
        while batch := list(islice(loaded, per_step)):
            # Every draw of a step depends on (seed, step) and the rank alone: a resumed run draws the same.
            torch.manual_seed(_step_seed(self.config.seed, progress.step, self._ranks.rank))
            loss = self._step([self._augment(x, y) for x, y in batch])
            self._schedule.end_of("step")
            progress.step += 1
            progress.batch += 1
            self._watch(loss)
        self._log_losses(self._losses.finish())
        self._end_if_diverged()

    def _watch(self, loss: Tensor) -> None:
        """After a step: is the loss a number, is it time to log or to save, is the end asked for?"""
        progress = self.progress
        self._losses.watch(progress.step, loss)
        if progress.step % self.config.trainer.log_every_n_steps == 0 or self.device.type != "cuda":
            self._losses.send(progress.step, loss)
        self._log_losses(self._losses.arrived())
        minutes = self.config.trainer.checkpoint_every_minutes
        due = minutes is not None and time.monotonic() - self._saved_at > 60 * minutes
        # What one rank does all must do: they would wait for each other for ever.
        stop, due, bad = self._ranks.any(self._interrupt.requested, due, self._losses.bad is not None)
        if bad:
            self._log_losses(self._losses.finish())
            self._end_if_diverged()
        if stop:
            raise Stop
        if self._reports.due:
            self._reports.give(progress)
        if due:
            self._snapshot(validated=None)

    def _log_losses(self, readings: Iterator[Reading]) -> None:
        for step, loss in readings:
            if step % self.config.trainer.log_every_n_steps == 0 and math.isfinite(loss):
                self._tracking.scalars({"train/loss_step": loss, "learning_rate": self._schedule.learning_rate}, step)

    def _end_if_diverged(self) -> None:
        bad = self._losses.bad
        if bad is not None:
            raise Diverged(f"the loss is {bad.loss} at step {bad.step}, in epoch {self.progress.epoch + 1}")

    def _validate(self, epoch: int, trained: dict[str, float]) -> "_Validated":
        """Measure the weights on the validation part, and count that in.

        Args:
            epoch: the one that ends, from 0.
            trained: its train/ metrics.
        """
        settings, progress = self.config.trainer, self.progress
        batches = ordered_batches(self.splits.val, self.hp["batch_size"])[: settings.limit_val_batches]
        metrics, samples = self._evaluation.measure(self._loader, batches, self._figures)
        values = {f"val/{name}": value for name, value in metrics.compute().items()}
        known, objective = trained | values, self.config.objective
        score = run_score(known, objective)
        improved = progress.count_validation(epoch, score, known, score_direction(objective))
        drawn: list[Item] = []
        if improved and self._ranks.leads:
            drawn += self._figures.all("best", metrics, samples)
        every = settings.plot_every_n_val_epochs
        if every > 0 and progress.validations % every == 0 and self._ranks.leads:
            drawn.append(self._figures.panels(f"epoch{epoch + 1:04d}", samples))
        return _Validated(values, score, improved, drawn)

    def _test(self) -> None:
        """Measure the weights of the kept epoch on the test part, where there are both.

        Comes last: the model holds the kept weights afterwards, and the state is saved already.
        """
        rows, progress, ranks, identity = self.splits.test, self.progress, self._ranks, self._task.identity
        if not len(rows) or progress.best is None:
            return
        uploaded = not ranks.leads or self._uploader.flush(lambda: self._interrupt.deadline)
        if any(ranks.any(not uploaded)):
            raise Stop
        found = resume.best_weights(self._uploader.store, self._checkpoints, identity) if ranks.leads else None
        weights = ranks.from_leader(found)
        if weights is None:
            raise StoreError("the weights of the kept epoch cannot be read back to be tested")
        spread.load_weights(self._model, weights)
        del self._loader  # what it keeps in memory is not needed any more
        self._loader = Loader(self.data, rows, self.device, self.config.trainer.num_workers, processes=ranks.local_size)
        instances, drawings = InstanceMetrics(self.data.labels), PartFigures(rows, self.data)
        batches = ordered_batches(rows, self.hp["batch_size"])
        metrics, samples = self._evaluation.measure(self._loader, batches, drawings, instances)
        if not ranks.leads:
            return
        self._uploader.submit(self._tracking.images(drawings.all("test", metrics, samples)))
        values = metrics.compute() | instances.compute()
        progress.test = {f"test/{name}": value for name, value in values.items()}
        self._tracking.scalars(progress.test, progress.step)
        log.info(
            "tested epoch %d on %d patches: test/JaccardIndex=%.4f",
            progress.best.epoch + 1,
            len(rows),
            values["JaccardIndex"],
        )

    def _first_figures(self) -> list[Item]:
        """What can be seen before the first step: where the parts lie, and what augmentation does to its batch."""
        items = splits_map(self.data, self.splits)
        if self.hp["augment"] and self.progress.step == 0:
            rows = epoch_batches(self.splits.train, self.hp["batch_size"], self.config.seed, 0)[0]
            (x, y), *_ = self._loader.batches([rows])
            torch.manual_seed(_step_seed(self.config.seed, 0))
            items.append(augmented(rows, (x, y), self._augment(x, y), self.data))
        return items

    def draw_graph(self) -> None:
        """Have the model's graph written, traced with an empty patch."""
        model = self._model
        if self._sharded:  # a model of its own: the other ranks have ended
            model = build_model(self.hp | {"model_encoder_weights": None}, len(self.data.bands), model.outputs)
            model.to(self.device)
        model.eval()
        self._tracking.graph(model, blank_patch(self.data, self.device))

    # -- checkpoints -------------------------------------------------------------------------------------------

    def _snapshot(self, *, validated: int | None, improved: bool = False, figures: Sequence[Item] = ()) -> None:
        """Upload state, and what there is to see, beside training.

        Skipped while another upload is under way, unless it is the best epoch's or the last word.
        """
        progress, leads = self.progress, self._ranks.leads
        counts = of_all(self._step.metrics, self._ranks)
        wanted = leads and self._worth_saving(improved=improved, figures=bool(figures))
        if not self._ranks.from_leader(wanted):
            return
        self._note_ignored()
        with self.meter.checkpoint():
            checkpoint = self._checkpoint(validated, counts, progress.best if improved else None)
            items = [*figures, csv_item(progress.history), self._log_text.item(), *self._tracking.items()]
        self._saved_step, self._saved_at = progress.step, time.monotonic()
        if leads:
            self._uploader.submit(items, checkpoint)

    def _note_ignored(self, *, last: bool = False) -> None:
        """Take into the progress what all ranks have ignored of the patches that they read. All ranks call this."""
        if self.config.data.non_finite is not NonFinite.IGNORE:
            return
        ignored = self.progress.ignored
        for found in self._ranks.gather([dict(self.data.ignored)]):
            ignored.update(found)
        if last and ignored:
            log.warning(
                "NaN or infinite values: %d pixels of %d patches were ignored", sum(ignored.values()), len(ignored)
            )

    def _worth_saving(self, *, improved: bool, figures: bool) -> bool:
        """Whether there is something new, and a time for it."""
        last_word = self._interrupt.requested or self.progress.finished(self.config.trainer) is not None
        if self._saved_step == self.progress.step and not improved and not figures:
            return False
        return not self._uploader.busy or improved or last_word

    def _checkpoint(self, validated: int | None, counts: PixelMetrics, best: Best | None) -> Checkpoint:
        """Training as it is now, to be packed later. All ranks call this.

        Args:
            validated: the epoch that was validated with these very weights.
            counts: the training metrics of all ranks.
            best: the kept validation, where it is the one of these weights.
        """
        state, identity = self._state.take(self.progress, counts, validated), self._task.identity
        kept = None if best is None else partial(pack, kept_content(state["model"], best, self._task), identity)
        return Checkpoint(partial(pack, state, identity), kept)

    def restore(self, found: Found) -> None:
        """Go on from a checkpoint that `resume.find` gave."""
        self.progress = self._state.load(found.content)
        self._saved_step = self.progress.step
        if found.best_lost:
            checkpoint = self._checkpoint(found.content["validated"], self._step.metrics, self.progress.best)
            if self._ranks.leads:
                self._uploader.submit(checkpoint=checkpoint)

    def begin_with(self, halvings: int) -> None:
        """Halve micro-batches as often as was found out to be needed."""
        self._step.begin_with(halvings)


class _Validated(NamedTuple):
    """What the validation at the end of an epoch found; nothing where none was due."""

    values: dict[str, float]
    """The val/ metrics."""
    score: Score | None
    improved: bool
    """It is the best epoch so far."""
    drawn: list[Item]


def _step_seed(seed: int, step: int, rank: int = 0) -> int:
    parts = [seed, step, rank] if rank else [seed, step]
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0])
