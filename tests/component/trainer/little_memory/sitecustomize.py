"""Put on the path of a run's processes: the second one's accelerator has room for one patch at a time."""

import os

if os.environ.get("RANK") == "1":
    import torch

    from crossfold_trainer.model import Segmenter

    forward = Segmenter.forward

    def one_patch(self: Segmenter, x: torch.Tensor) -> torch.Tensor:
        """As before, as far as there is room."""
        if len(x) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return forward(self, x)

    Segmenter.forward = one_patch  # type: ignore[method-assign]
