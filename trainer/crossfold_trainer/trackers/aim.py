"""Aim: a self-hosted server, reached by aim://."""

import io
from collections.abc import Mapping
from typing import Any

from crossfold_trainer.trackers.base import RunFacts


class AimTracker:
    """experiment = the Tune, name = the run; resumed by the hash that Aim gave it."""

    def __init__(self, spec: Mapping[str, Any]) -> None:
        """Take over the spec of the API: uri, experiment."""
        self._spec = spec

    def open(self, run: RunFacts) -> str:
        """Begin, or go on with, the run."""
        import aim  # noqa: PLC0415
        from aim.sdk.errors import MissingRunError  # noqa: PLC0415

        self._aim: Any = aim
        given: dict[str, Any] = {
            "repo": self._spec["uri"],
            "experiment": self._spec.get("experiment") or run.group or None,
            "system_tracking_interval": None,
            "log_system_params": False,
            "capture_terminal_logs": False,
        }
        known = run.known.get("aim")
        try:
            # An attempt that was killed may have left its lock.
            self._run: Any = aim.Run(run_hash=known, force_resume=known is not None, **given)
        except MissingRunError:
            self._run = aim.Run(**given)
        self._run.name = run.name
        self._run["hparams"] = dict(run.hyperparameters)
        self._run["crossfold"] = {name.removeprefix("crossfold."): value for name, value in run.tags.items()}
        return str(self._run.hash)

    def log_scalars(self, values: Mapping[str, float], step: int) -> None:
        """``val/loss`` is the metric `loss` in the context of the subset `val`."""
        for full, value in values.items():
            subset, _, name = full.rpartition("/")
            self._run.track(value, name=name, step=step, context={"subset": subset} if subset else {})

    def log_image(self, name: str, png: bytes, step: int) -> None:
        """A picture."""
        from PIL import Image  # noqa: PLC0415

        with Image.open(io.BytesIO(png)) as image:
            self._run.track(self._aim.Image(image), name=name, step=step)

    def finish(self, values: Mapping[str, Any], *, ended: bool) -> None:
        """Result and end."""
        if ended:
            self._run["result"] = dict(values)
        self._run.close()
