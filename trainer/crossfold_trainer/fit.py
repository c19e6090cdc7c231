"""The training loop: epochs, validations, the kept checkpoint, early stopping, and a clean end at any step.

Shapes: x (B, C, H, W) float32, y (B, H, W) uint8, logits (B, H, W).
"""

import contextlib
import copy
import logging
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from crossfold_trainer import figures, plots, resume, spread
from crossfold_trainer.artifacts import Checkpoint, Item, Uploader
from crossfold_trainer.checkpoints import CheckpointLog
from crossfold_trainer.contract.config import OutOfMemoryPolicy
from crossfold_trainer.contract.curve import CurvePoint
from crossfold_trainer.contract.result import Outcome
from crossfold_trainer.contract.scoring import Score, better, run_score, score_direction
from crossfold_trainer.curve import scores_so_far
from crossfold_trainer.errors import Diverged, Interrupted, StoreError
from crossfold_trainer.instances import InstanceMetrics
from crossfold_trainer.interrupt import Interrupt
from crossfold_trainer.live import Live, fraction_of, report_of
from crossfold_trainer.loader import Loader, epoch_batches, ordered_batches
from crossfold_trainer.losses import make_criterion
from crossfold_trainer.meter import Meter
from crossfold_trainer.metrics import PixelMetrics, answers
from crossfold_trainer.model import Segmenter, build_model, compile_model, probabilities
from crossfold_trainer.outlines import centres
from crossfold_trainer.precision import numerics, set_backends
from crossfold_trainer.pretrained import is_uri, load_checkpoint, load_encoder
from crossfold_trainer.ranks import Ranks
from crossfold_trainer.resume import Best, Found, Progress, on_host, pack, progress_from
from crossfold_trainer.schedules import Position, learning_rate
from crossfold_trainer.splits import Index
from crossfold_trainer.step import LossReader, Reading, TrainStep
from crossfold_trainer.task import Task
from crossfold_trainer.tracking import LogText, Tracking, csv_item, epoch_line

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
        self.config = config = task.config
        self.hp = hyperparameters = task.hyperparameters
        self.data = data = task.data
        self.splits = splits = task.splits
        self.identity = task.identity
        self.progress = Progress()
        self._ranks = ranks
        self._sharded = spread.is_sharded(config.trainer.strategy, ranks)
        self.device = ranks.device()
        self._uploader = uploader
        self._tracking = tracking
        self._log_text = log_text
        self._interrupt = interrupt
        self._live = live
        self._checkpoints = checkpoints
        self._cuda = self.device.type == "cuda"
        self.numerics = numerics(config.trainer.precision, self.device)
        set_backends(precision=config.trainer.precision, deterministic=config.trainer.deterministic)
        self._direction = score_direction(config.objective)
        self._saved_step = -1
        self._saved_at = time.monotonic()

        torch.manual_seed(config.seed)
        model = starting_model(task)
        layout = torch.contiguous_format if self._sharded else torch.channels_last
        self._model = model.to(self.device, memory_format=layout)  # type: ignore[call-overload]
        if config.trainer.compile:
            compile_model(self._model, self.device)
        computing: torch.nn.Module = self._model
        if self._sharded:
            spread.shard(self._model.network, self.device, ranks)
        elif ranks.size > 1:
            computing = spread.replicate(self._model, self.device)
        self._optimiser = torch.optim.AdamW(self._model.parameters(), lr=hyperparameters["learning_rate"], fused=True)
        if hyperparameters["augment"]:
            from crossfold_trainer.transforms import compose  # noqa: PLC0415 - only where wanted

            self._augment = compose(hyperparameters["augment"], data.labels.ignore)
        else:
            self._augment = lambda x, y: (x, y)
        used = np.union1d(splits.train, splits.val)
        self._loader = Loader(
            data, used, self.device, config.trainer.num_workers, config.trainer.in_memory, processes=ranks.local_size
        )
        self._criterion = make_criterion(config.trainer, hyperparameters, data.labels)
        self._step = TrainStep(
            computing,
            self._optimiser,
            self._criterion,
            self.numerics,
            config.trainer.gradient_clip,
            halve=config.out_of_memory is OutOfMemoryPolicy.HALVE_BATCH,
            ranks=ranks,
            share=ranks.least(hyperparameters["batch_size"]) if ranks.size > 1 else None,
            record=self._recordable(),
        )
        self._step.metrics = PixelMetrics(self.device, data.labels, curves=False)
        self._losses = LossReader(self.device)
        self.meter = Meter()
        self._batches = 1
        self._start: float | None = None
        self._curve: list[CurvePoint] = []
        self._shown = figures.choose_rows(splits.val, data.metadata.empty)

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
            while (reason := self._finished()) is None:
                self._epoch()
            self._snapshot(validated=None)
            self._test()
        except Diverged as end:
            return Outcome.DIVERGED, str(end)
        except _Stop:
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
        return Outcome.TRAINED, reason

    def _recordable(self) -> bool:
        """Whether steps can be recorded as a CUDA graph, and are to be."""
        settings = self.config.trainer
        alone = self._cuda and self._ranks.size == 1
        # A gradient scaler decides on the host; a compiled model and a search for NaNs have their own ways.
        bare = not (settings.compile or settings.detect_anomaly or self.numerics.scaler().is_enabled())
        return settings.cuda_graphs and alone and bare

    @property
    def halvings(self) -> int:
        """How often the micro-batch was halved for want of memory, all attempts together."""
        return self._step.halvings

    def _finished(self) -> str | None:
        """Why training is over; None while it is not."""
        settings, progress = self.config.trainer, self.progress
        if progress.epoch >= settings.max_epochs:
            return f"all {settings.max_epochs} epochs trained"
        patience = settings.early_stopping_patience
        if patience is not None and progress.wait >= patience:
            return f"no better score in {patience} validations, stopped after epoch {progress.epoch}"
        return None

    def _epoch(self) -> None:
        """Train the rest of the epoch under way, validate where it is due, and close it."""
        progress, settings = self.progress, self.config.trainer
        epoch, began = progress.epoch, time.monotonic()
        with self.meter.epoch():
            self._train_rest_of_epoch()
            values = {f"train/{name}": value for name, value in self._whole(self._step.metrics).compute().items()}
        loss = values["train/loss"]
        row = {"epoch": epoch, "step": progress.step, "learning_rate": self._learning_rate(), **values}
        due = (epoch + 1) % settings.check_val_every_n_epoch == 0 or epoch + 1 == settings.max_epochs
        score: Score | None = None
        improved = plot = False
        drawn: list[Item] = []
        if due:
            measured, metrics, samples = self._validate()
            values |= measured
            score = run_score(values, self.config.objective)
            improved = self._take(epoch, score, values)
            plot = settings.plot_every_n_val_epochs > 0 and progress.validations % settings.plot_every_n_val_epochs == 0
            row |= measured
            if improved and self._ranks.leads:
                drawn = self._figures("best", metrics, samples)
            if plot and self._ranks.leads:
                drawn.append(Item(f"figures/samples-epoch{epoch + 1:04d}.png", self._panels(samples)))
            if score.value is not None:
                row["score"] = score.value
        progress.history.append(row)
        progress.epoch, progress.batch = epoch + 1, 0
        if progress.epoch in self.config.curve_epochs:
            self._curve = scores_so_far(self.config, progress)
        self._step.metrics.reset()
        self._tracking.scalars(
            {name: value for name, value in row.items() if name not in ("epoch", "step")}, progress.step
        )
        shown = {m.name: values[m.name] for m in self.config.objective.metrics if m.name in values}
        seconds = time.monotonic() - began
        line = epoch_line(
            epoch + 1, settings.max_epochs, loss=loss, metrics=shown, score=score, best=improved, seconds=seconds
        )
        log.info("%s", line)
        if due:
            self._snapshot(validated=epoch, improved=improved, figure=self._tracking.images(drawn))
        elif settings.checkpoint_every_n_epochs and (epoch + 1) % settings.checkpoint_every_n_epochs == 0:
            self._snapshot(validated=None)
        self._report()

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
        self._batches = len(batches)
        self._report()
        batch_size: int = self.hp["batch_size"]
        loaded = self.meter.batches(self._loader.batches(micro), batch_size, lambda: self._loader.waited)
        while batch := list(islice(loaded, per_step)):
            # Every draw of a step depends on (seed, step) and the rank alone: a resumed run draws the same.
            torch.manual_seed(_step_seed(self.config.seed, progress.step, self._ranks.rank))
            for group in self._optimiser.param_groups:
                group["lr"] = self._learning_rate()
            loss = self._step([self._augment(x, y) for x, y in batch])
            progress.step += 1
            progress.batch += 1
            self._watch(loss)
        self._log_losses(self._losses.finish())
        self._end_if_diverged()

    def _watch(self, loss: Tensor) -> None:
        """After a step: is the loss a number, is it time to log or to save, is the end asked for?"""
        progress = self.progress
        self._losses.watch(progress.step, loss)
        if progress.step % self.config.trainer.log_every_n_steps == 0 or not self._cuda:
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
            raise _Stop
        if self._live.due:
            self._report()
        if due:
            self._snapshot(validated=None)

    def _report(self) -> None:
        done = fraction_of(self.progress, self._batches, self.config.trainer.max_epochs)
        self._start = done if self._start is None else self._start
        self._live.give(
            report_of(self.config, self.progress, self._batches, self.meter, self._start, curve=self._curve)
        )

    def _log_losses(self, readings: Iterator[Reading]) -> None:
        for step, loss in readings:
            if step % self.config.trainer.log_every_n_steps == 0 and math.isfinite(loss):
                self._tracking.scalars({"train/loss_step": loss, "learning_rate": self._learning_rate()}, step)

    def _end_if_diverged(self) -> None:
        bad = self._losses.bad
        if bad is not None:
            raise Diverged(f"the loss is {bad.loss} at step {bad.step}, in epoch {self.progress.epoch + 1}")

    @property
    def _steps_per_epoch(self) -> int:
        """Optimiser steps of an epoch."""
        settings = self.config.trainer
        per_step = settings.accumulate_grad_batches
        steps: int = len(self.splits.train) // (self.hp["batch_size"] * per_step)
        limit = settings.limit_train_batches
        return steps if limit is None else min(steps, max(1, limit // per_step))

    def _whole(self, metrics: PixelMetrics) -> PixelMetrics:
        """The metrics of all ranks; these go on counting their own."""
        if self._ranks.size == 1:
            return metrics
        whole = copy.deepcopy(metrics)
        whole.add_up(self._ranks.add)
        return whole

    def _learning_rate(self) -> float:
        """Of the next step."""
        settings, progress = self.config.trainer, self.progress
        at = Position(progress.epoch, progress.step, settings.max_epochs, settings.max_epochs * self._steps_per_epoch)
        return learning_rate(settings.scheduler, self.hp["learning_rate"], self.hp["gamma"], at)

    # -- validation --------------------------------------------------------------------------------------------

    def _validate(self) -> tuple[dict[str, float], PixelMetrics, list[figures.Sample]]:
        """The val/ metrics, what they were counted in, and the samples to draw."""
        metrics = PixelMetrics(self.device, self.data.labels, curves=True)
        samples: list[figures.Sample] = []
        batches = ordered_batches(self.splits.val, self.hp["batch_size"])[: self.config.trainer.limit_val_batches]
        for rows, x, y, probability in self._answers(batches, metrics):
            samples += self._samples(rows, x, y, probability)
        whole = self._whole(metrics)
        values = {f"val/{name}": value for name, value in whole.compute().items()}
        return values, whole, self._ranks.gather(samples)

    def _answers(
        self, batches: Sequence[Index], metrics: PixelMetrics
    ) -> Iterator[tuple[Index, Tensor, Tensor, Tensor]]:
        """This rank's rows, x, y and probability of each batch, counted into metrics."""
        self._model.eval()
        ranks = self._ranks
        # What is gathered of a sharded model in inference mode could not be trained on later.
        with torch.no_grad() if self._sharded else torch.inference_mode():
            shares = [ranks.share(rows) for rows in batches]
            loaded = self._loader.batches([rows for rows in shares if len(rows)])
            for batch, rows in zip(batches, shares, strict=True):
                least = ranks.least(len(batch))
                if len(rows):
                    x, y = next(loaded)
                    logits = self._step.predict(x, least)
                    probability = probabilities(logits)
                    metrics.update(probability, y, self._criterion(logits, y))
                    yield rows, x, y, probability
                elif self._sharded:
                    self._step.predict(self._blank_patch(), least)  # the others wait for this rank's shards
                if any(ranks.any(self._interrupt.requested)):
                    raise _Stop

    def _test(self) -> None:
        """Measure the weights of the kept epoch on the test part, where there are both.

        Comes last: the model holds the kept weights afterwards, and the state is saved already.
        """
        rows, progress, ranks = self.splits.test, self.progress, self._ranks
        if not len(rows) or progress.best is None:
            return
        uploaded = not ranks.leads or self._uploader.flush(lambda: self._interrupt.deadline)
        if any(ranks.any(not uploaded)):
            raise _Stop
        found = resume.best_weights(self._uploader.store, self._checkpoints, self.identity) if ranks.leads else None
        weights = ranks.from_leader(found)
        if weights is None:
            raise StoreError("the weights of the kept epoch cannot be read back to be tested")
        spread.load_weights(self._model, weights)
        del self._loader  # what it keeps in memory is not needed any more
        self._loader = Loader(self.data, rows, self.device, self.config.trainer.num_workers, processes=ranks.local_size)
        metrics = PixelMetrics(self.device, self.data.labels, curves=True)
        instances = InstanceMetrics(self.data.labels)
        self._shown = figures.choose_rows(rows, self.data.metadata.empty)
        samples: list[figures.Sample] = []
        test_batches = ordered_batches(rows, self.hp["batch_size"])
        for of_batch, x, y, probability in self._answers(test_batches, metrics):
            instances.update(probability, y)
            samples += self._samples(of_batch, x, y, probability)
        whole, samples, others = self._whole(metrics), ranks.gather(samples), ranks.gather([instances.counts])
        if not ranks.leads:
            return
        for other in others[1:]:
            instances.add(other)
        self._uploader.submit(self._tracking.images(self._figures("test", whole, samples)))
        values = whole.compute() | instances.compute()
        progress.test = {f"test/{name}": value for name, value in values.items()}
        self._tracking.scalars(progress.test, progress.step)
        log.info(
            "tested epoch %d on %d patches: test/JaccardIndex=%.4f",
            progress.best.epoch + 1,
            len(rows),
            values["JaccardIndex"],
        )

    def _samples(self, rows: Index, x: Tensor, y: Tensor, probability: Tensor) -> list[figures.Sample]:
        chosen = [i for i, row in enumerate(rows) if int(row) in self._shown]
        if not chosen:
            return []
        probability = probability[chosen].nan_to_num()
        answer = answers(probability, self.data.labels)
        certainty = probability if self.data.labels.binary else probability.amax(1)
        parts = [part.cpu().numpy() for part in (x[chosen], y[chosen], answer, certainty)]
        return [figures.Sample(int(rows[at]), *(part[i] for part in parts)) for i, at in enumerate(chosen)]

    def _take(self, epoch: int, score: Score, values: dict[str, float]) -> bool:
        """Count a validation in; whether it is the best so far."""
        progress = self.progress
        progress.validations += 1
        progress.last_validated, progress.last_metrics = epoch, dict(values)
        best = progress.best
        if (
            score.stable
            and score.value is not None
            and (best is None or better(score.value, best.score, self._direction))
        ):
            progress.best, progress.wait = Best(epoch, score.value, dict(values)), 0
            return True
        progress.wait += 1
        return False

    # -- figures -----------------------------------------------------------------------------------------------

    def _first_figures(self) -> list[Item]:
        """What can be seen before the first step: where the parts lie, and what augmentation does to a batch."""
        items, metadata = [], self.data.metadata
        if metadata.outlines is not None:
            parts = self.splits.parts(len(self.data))
            png = plots.splits_map(centres(metadata.outlines), parts)
            items = [Item("figures/splits.png", png)] if png is not None else []
        if self.hp["augment"] and self.progress.step == 0:
            items.append(Item("figures/augmented.png", self._augmented_panels()))
        return items

    def _augmented_panels(self) -> bytes:
        """The first batch as it is, and as the first step sees it."""
        rows = epoch_batches(self.splits.train, self.hp["batch_size"], self.config.seed, 0)[0]
        (x, y), *_ = self._loader.batches([rows])
        torch.manual_seed(_step_seed(self.config.seed, 0))
        new_x, new_y = self._augment(x, y)
        before, after = (x.cpu().numpy(), y.cpu().numpy()), (new_x.cpu().numpy(), new_y.cpu().numpy())
        return figures.augmented_panels(before, after, rows, self.data.bands, self.data.labels)

    def _figures(self, name: str, metrics: PixelMetrics, samples: list[figures.Sample]) -> list[Item]:
        """What an evaluation looks like."""
        labels = self.data.labels
        return [
            Item(f"figures/samples-{name}.png", self._panels(samples)),
            Item(f"figures/roc-{name}.png", plots.roc(metrics.histograms, labels)),
            Item(f"figures/precision-recall-{name}.png", plots.precision_recall(metrics.histograms, labels)),
            Item(f"figures/confusion-{name}.png", plots.confusion(metrics.confusion, labels)),
        ]

    def _panels(self, samples: list[figures.Sample]) -> bytes:
        in_order = sorted(samples, key=lambda sample: self._shown.index(sample.row))
        return figures.sample_panels(in_order, self.data.bands, self.data.labels)

    def draw_graph(self) -> None:
        """Have the model's graph written, traced with an empty patch."""
        model = self._model
        if self._sharded:  # a model of its own: the other ranks have ended
            model = build_model(self.hp | {"model_encoder_weights": None}, len(self.data.bands), model.outputs)
            model.to(self.device)
        model.eval()
        self._tracking.graph(model, self._blank_patch())

    def _blank_patch(self) -> Tensor:
        """(1, C, H, W)."""
        return torch.zeros(1, len(self.data.bands), *self.data.shape[-2:], device=self.device)

    # -- checkpoints -------------------------------------------------------------------------------------------

    def _snapshot(self, *, validated: int | None, improved: bool = False, figure: list[Item] | None = None) -> None:
        """Upload state, and what there is to see, beside training.

        Skipped while another upload is under way, unless it is the best epoch's or the last word.
        """
        progress, leads = self.progress, self._ranks.leads
        counts = self._whole(self._step.metrics)
        wanted = leads and self._worth_saving(improved=improved, figures=bool(figure))
        if not self._ranks.from_leader(wanted):
            return
        with self.meter.checkpoint():
            state = self._state(validated, counts)
            checkpoint = Checkpoint(
                partial(pack, state, self.identity),
                partial(pack, self._best_content(state["model"]), self.identity) if improved else None,
            )
            items = [*(figure or []), csv_item(progress.history), self._log_text.item(), *self._tracking.items()]
        self._saved_step, self._saved_at = progress.step, time.monotonic()
        if leads:
            self._uploader.submit(items, checkpoint)

    def _worth_saving(self, *, improved: bool, figures: bool) -> bool:
        """Whether there is something new, and a time for it."""
        last_word = self._interrupt.requested or self._finished() is not None
        if self._saved_step == self.progress.step and not improved and not figures:
            return False
        return not self._uploader.busy or improved or last_word

    def _state(self, validated: int | None, counts: PixelMetrics) -> dict[str, Any]:
        """The training state as it is now, on the host: packing and uploading it need not hold training up.

        Of a sharded model all ranks together make it.
        """
        held = {"model": self._model.state_dict(), "optimiser": self._optimiser.state_dict()}
        state: dict[str, Any] = on_host(
            {
                **(spread.whole(held, keep=self._ranks.leads) if self._sharded else held),
                "progress": asdict(self.progress),
                "halvings": self.halvings,
                "scaler": self._step.scaler.state_dict(),
                "train_metrics": dict(counts.state()),
                "validated": validated,
            }
        )
        return state

    def _best_content(self, weights: dict[str, Any]) -> dict[str, Any]:
        best = self.progress.best
        if best is None:
            raise ValueError("there is no best epoch yet")
        return {
            "model": weights,
            "epoch": best.epoch,
            "score": best.score,
            "metrics": best.metrics,
            "hyperparameters": self.hp,
            "bands": list(self.data.bands),
            "patch_shape": list(self.data.shape),
            "classes": list(self.data.labels.names),
            "outputs": self.data.labels.outputs,
        }

    def restore(self, found: Found) -> None:
        """Go on from a checkpoint that `resume.find` gave."""
        content = found.content
        spread.load_weights(self._model, content["model"])
        spread.load_optimiser(self._optimiser, content["optimiser"])
        self._step.scaler.load_state_dict(content["scaler"])
        self.begin_with(content["halvings"])
        self.progress = progress_from(content)
        self._curve = scores_so_far(self.config, self.progress)
        if self._ranks.leads:
            self._step.metrics.load(content["train_metrics"])
        self._saved_step = self.progress.step
        if found.best_lost:
            state = self._state(content["validated"], self._step.metrics)
            best = partial(pack, self._best_content(on_host(content["model"])), self.identity)
            if self._ranks.leads:
                self._uploader.submit(checkpoint=Checkpoint(partial(pack, state, self.identity), best))

    def begin_with(self, halvings: int) -> None:
        """Halve micro-batches as often as was found out to be needed."""
        self._step.halvings = max(self._step.halvings, halvings)


def starting_model(task: Task) -> Segmenter:
    """The model of a run as it is before the first step.

    Raises:
        ConfigError: it cannot be built, or the weights that it starts from do not fit or cannot be had.
    """
    config, values, data = task.config, task.hyperparameters, task.data
    checkpoint, weights = config.trainer.weights_from_checkpoint, values["model_encoder_weights"]
    if checkpoint is not None:  # holds the encoder too
        model = build_model(values | {"model_encoder_weights": None}, len(data.bands), data.labels.outputs)
        load_checkpoint(model, checkpoint, config.artifacts, values, data.bands)
        return model
    model = build_model(values, len(data.bands), data.labels.outputs)
    if is_uri(weights):
        load_encoder(model.encoder, weights, config.artifacts)
    return model


class _Stop(Exception):
    """SIGTERM arrived."""


def _step_seed(seed: int, step: int, rank: int = 0) -> int:
    parts = [seed, step, rank] if rank else [seed, step]
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0])
