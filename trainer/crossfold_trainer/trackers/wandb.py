"""Weights & Biases: online, or offline into a folder that `wandb sync` takes later."""

import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from crossfold_trainer.trackers.base import RunFacts

INIT_SECONDS = 30
KEY = "WANDB_API_KEY"


class WandbTracker:
    """group = the Tune, job_type = the CrossValidation, name = the run; resumed by the run's id."""

    def __init__(self, spec: Mapping[str, Any]) -> None:
        """Take over the spec of the API: project, entity, mode, baseUrl."""
        self._spec = spec

    def open(self, run: RunFacts) -> str:
        """Begin, or go on with, the run.

        Raises:
            ValueError: it is to go online and there is no key.
        """
        import wandb  # noqa: PLC0415

        online = self._spec.get("mode", "Online") == "Online"
        key = _secret(run) if online else ""
        if online and not key:
            raise ValueError(f"no {KEY}: set tracking.wandb.secretRef to a Secret that has this key")
        settings: dict[str, Any] = {
            "init_timeout": INIT_SECONDS,
            "console": "off",
            "silent": True,
            "disable_git": True,
            "disable_code": True,
            "x_disable_stats": True,
            "x_disable_meta": True,
        }
        if key:
            settings["api_key"] = key
        if self._spec.get("baseUrl"):
            settings["base_url"] = self._spec["baseUrl"]
        self._wandb: Any = wandb
        self._run: Any = wandb.init(
            project=self._spec["project"],
            entity=self._spec.get("entity") or None,
            id=run.id,
            name=run.name,
            group=run.group or None,
            job_type=run.cross_validation or None,
            config={**run.hyperparameters, "fold": run.fold, "seed": run.seed, "artifacts": run.uri},
            dir=run.folder,
            mode="online" if online else "offline",
            resume="allow" if online else None,
            settings=wandb.Settings(**settings),
        )
        # A resumed run logs some steps again: the axis is a value like any other.
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")
        return run.id

    def log_scalars(self, values: Mapping[str, float], step: int) -> None:
        """Numbers, against the value `step`."""
        self._run.log({**values, "step": step})

    def log_image(self, name: str, png: bytes, step: int) -> None:
        """A picture, against the value `step`."""
        from PIL import Image  # noqa: PLC0415

        with Image.open(io.BytesIO(png)) as image:
            self._run.log({name: self._wandb.Image(image), "step": step})

    def finish(self, values: Mapping[str, Any], *, ended: bool) -> None:
        """Summary and end."""
        self._run.summary.update(dict(values))
        self._run.finish(exit_code=0 if ended else 1)


def _secret(run: RunFacts) -> str:
    file = Path(run.credentials) / "wandb" / KEY
    return file.read_text().strip() if file.exists() else os.environ.get(KEY, "")
