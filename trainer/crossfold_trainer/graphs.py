"""Steps recorded as a CUDA graph: the device is handed all of a step at once instead of an operation at a time.

A step of a common model is a thousand small operations, and a modern GPU does each sooner than Python hands it the
next. The same kernels run on the same numbers, so nothing else changes. What cannot be recorded goes on step by step.
"""

import logging
from collections.abc import Callable, Hashable, Sequence

import torch
from torch import Tensor

log = logging.getLogger(__name__)

MicroBatch = tuple[Tensor, Tensor]
Step = Callable[[Sequence[MicroBatch]], Tensor]
Shapes = tuple[torch.Size, ...]
WARM_UP = 3
"""Steps before one is recorded: kernels are chosen in them, and the optimiser's state is made."""


class StepGraph:
    """Trains like the step that it is given, recorded once a few have run."""

    def __init__(
        self, step: Step, bare: Step, optimiser: torch.optim.Optimizer, depends_on: Callable[[], Hashable]
    ) -> None:
        """Nothing is recorded yet.

        Args:
            step: a whole step, which gives the loss.
            bare: the same without anything that waits for the device or recovers from an error.
            optimiser: which both end with; fused. Its learning rates may change from step to step.
            depends_on: of what else a recording holds good for.
        """
        self._step = step
        self._bare = bare
        self._optimiser = optimiser
        self._depends_on = depends_on
        self._situation: Hashable = None
        self._shapes: Shapes = ()
        self._seen = 0
        """Steps on batches of these shapes, one after the other."""
        self._recording: _Recording | None = None
        self._refused = False

    def __call__(self, batch: Sequence[MicroBatch]) -> Tensor:
        """One step, as `step` does it; raises what it raises."""
        if self._refused:
            return self._step(batch)
        shapes, situation = _shapes(batch), self._depends_on()
        if situation != self._situation:
            self._situation, self._seen, self._recording = situation, 0, None
        if self._recording is None:
            self._seen = self._seen + 1 if shapes == self._shapes else 1
            self._shapes = shapes
            if self._seen > WARM_UP:
                self._recording = self._record(batch)
        if self._recording is None or shapes != self._shapes:
            return self._step(batch)
        return self._recording.replay(batch)

    def _record(self, batch: Sequence[MicroBatch]) -> "_Recording | None":
        try:
            recording = _Recording(self._bare, self._optimiser, batch)
        except RuntimeError as error:  # want of memory is one
            self._refused = True
            log.warning("steps cannot be recorded, each operation is launched by itself: %s", str(error).split("\n")[0])
            self._optimiser.zero_grad(set_to_none=True)
            return None
        log.info("steps are replayed as one CUDA graph from here on")
        return recording


def _shapes(batch: Sequence[MicroBatch]) -> Shapes:
    return tuple(tensor.shape for micro in batch for tensor in micro)


class _Recording:
    """A recorded step and the places that it reads from and writes to."""

    def __init__(self, bare: Step, optimiser: torch.optim.Optimizer, batch: Sequence[MicroBatch]) -> None:
        """Record; nothing is computed."""
        self._optimiser = optimiser
        self._batch = [(x.clone(), y.clone()) for x, y in batch]
        given = [group["lr"] for group in optimiser.param_groups]
        self._rates = [torch.tensor(float(rate), device=self._batch[0][0].device) for rate in given]
        self._filled = list(given)
        self._graph = torch.cuda.CUDAGraph()
        for group, rate in zip(optimiser.param_groups, self._rates, strict=True):
            group |= {"lr": rate, "capturable": True}
        try:
            # Other threads may ask for memory meanwhile.
            with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
                self._loss = bare(self._batch)
        finally:
            for group, rate in zip(optimiser.param_groups, given, strict=True):
                group |= {"lr": rate, "capturable": False}

    def replay(self, batch: Sequence[MicroBatch]) -> Tensor:
        """The step on this batch, of the recorded one's shapes, with the optimiser's rates of now."""
        for places, given in zip(self._batch, batch, strict=True):
            torch._foreach_copy_(list(places), list(given))
        for i, group in enumerate(self._optimiser.param_groups):
            if group["lr"] != self._filled[i]:
                self._rates[i].fill_(group["lr"])
                self._filled[i] = group["lr"]
        self._graph.replay()
        return self._loss.clone()
