"""One optimiser step: forward and backward over the micro-batches of a batch, then the update.

Nothing here reads a number back from the device: the step only queues work, and the device never waits for Python.
Shapes: x (B, C, H, W) float32, y (B, H, W) uint8, logits (B, H, W) or (B, K, H, W).
"""

import copy
import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from crossfold_trainer.errors import AcceleratorOutOfMemory, MicroBatchTooLarge
from crossfold_trainer.graphs import MicroBatch, StepGraph
from crossfold_trainer.losses import Criterion
from crossfold_trainer.metrics import PixelMetrics
from crossfold_trainer.model import probabilities
from crossfold_trainer.precision import Numerics
from crossfold_trainer.ranks import Ranks
from crossfold_trainer.spread import summing

log = logging.getLogger(__name__)

T = TypeVar("T")
NEEDS_MORE_THAN_ONE = "Expected more than 1 value per channel"
"""How torch words that batch normalisation has one value to average."""


class TrainStep:
    """Computes steps. Owns the gradient scaler and the metrics of the epoch under way."""

    def __init__(
        self,
        model: nn.Module,
        optimiser: torch.optim.Optimizer,
        criterion: Criterion,
        numerics: Numerics,
        gradient_clip: float | None = None,
        *,
        halve: bool = False,
        ranks: Ranks | None = None,
        share: int | None = None,
        record: bool = False,
    ) -> None:
        """Take over a model on its device and the optimiser of its parameters.

        Args:
            model: (B, C, H, W) -> logits; spread over the ranks where there are several.
            optimiser: of the model's parameters.
            criterion: the loss.
            numerics: in which numbers the model computes.
            gradient_clip: the greatest norm of a step's gradients, all parameters together; None: not clipped.
            halve: halve the micro-batches when the device's memory does not suffice.
            ranks: those that train together; None: this process alone.
            share: patches of a micro-batch that each of several ranks has at least.
            record: replay steps as a CUDA graph, on a GPU that one process trains on.
        """
        self._model = model
        self._optimiser = optimiser
        self._criterion = criterion
        self._gradient_clip = gradient_clip
        self._numerics = numerics
        self._halve = halve
        self._ranks = ranks or Ranks()
        self._share = share
        self._buffers = list(model.buffers()) if halve and self._ranks.size == 1 else []
        self._kept_buffers = [buffer.clone() for buffer in self._buffers]
        self.scaler = numerics.scaler()
        self.metrics: PixelMetrics
        self.halvings = 0
        """How often the micro-batches were halved."""
        bare = partial(self._step, recovers=False)
        self._take = StepGraph(self._step, bare, optimiser, self._situation) if record else self._step

    def __call__(self, batch: Sequence[MicroBatch]) -> Tensor:
        """Train on one batch, given as its micro-batches, and return its loss (a scalar on the device).

        With several ranks each gives its share of every micro-batch; loss and step are those of the whole.

        The loss is the mean over the valid pixels of the whole batch: how a batch is cut changes neither it nor its
        gradient, whatever the shares of ignored pixels are. A batch without a valid pixel has loss 0 and gradient 0.

        Raises:
            torch.OutOfMemoryError: the memory does not suffice, and the micro-batches are not to be halved.
            AcceleratorOutOfMemory: they were halved until nothing was left to halve.
            MicroBatchTooLarge: they are to be halved, for which all of several ranks must begin again.
        """
        return self._take(batch)

    def _step(self, batch: Sequence[MicroBatch], *, recovers: bool = True) -> Tensor:
        gradients = partial(self._gradients, batch)
        patches = self._share or max(len(y) for _, y in batch)
        loss = self._in_parts(gradients, patches, self._keep, self._bring_back) if recovers else gradients()
        self._update()
        return loss

    def begin_with(self, halvings: int) -> None:
        """Halve micro-batches as often as was found out to be needed."""
        self.halvings = max(self.halvings, halvings)

    def _situation(self) -> tuple[int, int]:
        """What a recorded step depends on beside the shapes of its batch."""
        return self.halvings, id(self.metrics)

    def _update(self) -> None:
        if self._gradient_clip is not None:
            self.scaler.unscale_(self._optimiser)
            nn.utils.clip_grad_norm_(self._model.parameters(), self._gradient_clip)
        self.scaler.step(self._optimiser)
        self.scaler.update()

    def predict(self, x: Tensor, share: int | None = None) -> Tensor:
        """Logits of a batch, without gradients. Raises as a step does.

        Args:
            x: the batch, or this rank's share of it.
            share: patches of it that each of several ranks has at least; None: this process is alone.
        """
        patches = len(x) if share is None else share

        def logits() -> Tensor:
            return torch.cat([self._forward(part) for part in torch.tensor_split(x, self._parts(patches))])

        return self._in_parts(logits, patches, lambda: None, lambda _: None)

    def _parts(self, patches: int) -> int:
        """Into how many parts a micro-batch of so many patches is cut: as many on every rank, which wait for others."""
        return max(1, min(1 << self.halvings, patches))

    def _in_parts(
        self, compute: Callable[[], Tensor], patches: int, keep: Callable[[], T], bring_back: Callable[[T], None]
    ) -> Tensor:
        """Compute; halve the micro-batches and compute again for as long as memory does not suffice."""
        if not self._halve:
            return compute()
        while True:
            kept = keep()
            try:
                return compute()
            except torch.OutOfMemoryError as error:
                text = str(error).splitlines()[0]
            except ValueError as error:
                if self.halvings == 0 or NEEDS_MORE_THAN_ONE not in str(error):
                    raise
                raise AcceleratorOutOfMemory(
                    f"micro-batches of {self._most(patches)} are too small for batch normalisation, larger ones too"
                    " large for the memory"
                ) from error
            # Out here the error is gone, and with its traceback what it held of the device's memory.
            if self._parts(patches) >= patches:
                raise AcceleratorOutOfMemory(f"one patch at a time is too much: {text}")
            if self._ranks.size > 1:
                # The others wait in the middle of this very pass for what will not come.
                raise MicroBatchTooLarge(text, self.halvings + 1)
            bring_back(kept)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            self.halvings += 1
            log.warning("out of memory: %d instead of %d patches at a time (%s)", self._most(patches), patches, text)

    def _most(self, patches: int) -> int:
        """Patches that are on the device at a time, of a micro-batch of so many."""
        return -(-patches // self._parts(patches))

    def _keep(self) -> PixelMetrics:
        """What a step changes before it is complete."""
        if self._buffers:
            torch._foreach_copy_(self._kept_buffers, self._buffers)
        return copy.deepcopy(self.metrics)

    def _bring_back(self, kept: PixelMetrics) -> None:
        self._optimiser.zero_grad(set_to_none=True)
        self.metrics = kept
        with torch.no_grad():
            for buffer, before in zip(self._buffers, self._kept_buffers, strict=True):
                buffer.copy_(before)

    def _gradients(self, batch: Sequence[MicroBatch]) -> Tensor:
        pixels = self._ranks.add(torch.stack([self._criterion.pixels(y) for _, y in batch]).sum()).clamp(min=1)
        self._optimiser.zero_grad(set_to_none=True)
        parts = [
            part
            for x, y in batch
            for n in (self._parts(self._share or len(x)),)
            for part in zip(torch.tensor_split(x, n), torch.tensor_split(y, n), strict=True)
        ]
        losses = [self._backward(*part, pixels, last=i == len(parts)) for i, part in enumerate(parts, start=1)]
        return self._ranks.add(torch.stack(losses).sum())

    def _forward(self, x: Tensor) -> Tensor:
        with self._numerics.autocast():
            logits: Tensor = self._model(x.contiguous(memory_format=torch.channels_last))
        return logits

    def _backward(self, x: Tensor, y: Tensor, pixels: Tensor, *, last: bool) -> Tensor:
        with summing(self._model, last=last):
            with self._ranks.statistics():
                logits = self._forward(x)
            measured = self._criterion(logits, y)
            loss = measured.total / pixels
            self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            self.metrics.update(probabilities(logits.detach()), y, measured)
        return loss.detach()


class Reading(NamedTuple):
    """A loss that has arrived on the host."""

    step: int
    loss: float


class LossReader:
    """Brings losses to the host without making the device wait.

    On a GPU a loss is copied behind the work that is queued, and read once it has arrived: some steps later. Whether
    a loss was ever non-finite is kept on the device for every step and travels with each reading.
    """

    def __init__(self, device: torch.device) -> None:
        """Nothing is under way."""
        self._device = device
        self._cuda = device.type == "cuda"
        self._first_bad = torch.full((), -1.0, dtype=torch.float64, device=device)
        self._bad_loss = torch.zeros((), dtype=torch.float64, device=device)
        self._under_way: deque[tuple[int, Tensor, torch.cuda.Event | None]] = deque()
        self.bad: Reading | None = None
        """The first step with a non-finite loss that has arrived."""

    def watch(self, step: int, loss: Tensor) -> None:
        """Note, on the device, whether this step's loss is the first non-finite one."""
        loss = loss.double()
        first = ~torch.isfinite(loss) & (self._first_bad < 0)
        self._first_bad = torch.where(first, float(step), self._first_bad)
        self._bad_loss = torch.where(first, loss, self._bad_loss)

    def send(self, step: int, loss: Tensor) -> None:
        """Send this step's loss on its way."""
        values = torch.stack([loss.double(), self._first_bad, self._bad_loss])
        if not self._cuda:
            self._under_way.append((step, values, None))
            return
        host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
        host.copy_(values, non_blocking=True)
        arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
        arrived.record()
        self._under_way.append((step, host, arrived))

    def arrived(self) -> Iterator[Reading]:
        """The losses that have arrived since, in order; the device is not waited for."""
        while self._under_way:
            event = self._under_way[0][2]
            if event is not None and not event.query():  # type: ignore[no-untyped-call]
                return
            yield self._take()

    def finish(self) -> Iterator[Reading]:
        """All losses that are under way; afterwards `bad` is known for every step. Waits for the device."""
        self.send(-1, self._bad_loss)
        while self._under_way:
            event = self._under_way[0][2]
            if event is not None:
                event.synchronize()
            reading = self._take()
            if reading.step >= 0:
                yield reading

    def _take(self) -> Reading:
        step, values, _ = self._under_way.popleft()
        loss, first_bad, bad_loss = values.tolist()
        if first_bad >= 0 and self.bad is None:
            self.bad = Reading(int(first_bad), bad_loss)
        return Reading(step, loss)
