"""MLflow: a tracking server."""

import io
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from crossfold_trainer.trackers.base import RunFacts

KEYS = ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")
REQUEST_SECONDS = 5
REQUEST_RETRIES = 2
DEFAULT_EXPERIMENT = "crossfold"
MOST_TEXT = 500
"""Characters of a parameter's value that every server takes."""


class MlflowTracker:
    """experiment = the Tune, run name = the run; resumed by the tag crossfold.id."""

    def __init__(self, spec: Mapping[str, Any]) -> None:
        """Take over the spec of the API: trackingUri, experiment."""
        self._spec = spec

    def open(self, run: RunFacts) -> str:
        """Begin, or go on with, the run."""
        os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = str(REQUEST_SECONDS)
        os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = str(REQUEST_RETRIES)
        for key in KEYS:
            if (file := Path(run.credentials) / "mlflow" / key).exists():
                os.environ[key] = file.read_text().strip()
        from mlflow import MlflowClient, entities  # noqa: PLC0415

        self._entities: Any = entities
        self._client: Any = MlflowClient(tracking_uri=self._spec["trackingUri"])
        experiment = self._experiment(self._spec.get("experiment") or run.group or DEFAULT_EXPERIMENT)
        found = self._client.search_runs([experiment], f"tags.`crossfold.id` = '{run.id}'", max_results=1)
        if found:
            self._id = found[0].info.run_id
            self._client.update_run(self._id, status="RUNNING")
        else:
            made = self._client.create_run(experiment, tags=run.tags, run_name=run.name)
            self._id = made.info.run_id
            values = {**run.hyperparameters, "fold": run.fold, "seed": run.seed}
            params = [entities.Param(name, str(value)[:MOST_TEXT]) for name, value in values.items()]
            self._client.log_batch(self._id, params=params)
        return str(self._id)

    def _experiment(self, name: str) -> str:
        """The experiment's id; of runs that begin at the same time one makes it."""
        found = self._client.get_experiment_by_name(name)
        if found is None:
            try:
                return str(self._client.create_experiment(name))
            except Exception:  # noqa: BLE001 - somebody was faster, or it cannot be made: the next line tells
                found = self._client.get_experiment_by_name(name)
        if found is None:
            raise ValueError(f"experiment {name} cannot be made")
        return str(found.experiment_id)

    def log_scalars(self, values: Mapping[str, float], step: int) -> None:
        """All numbers of a step in one request."""
        now = int(time.time() * 1000)
        metrics = [self._entities.Metric(name, value, now, step) for name, value in values.items()]
        self._client.log_batch(self._id, metrics=metrics)

    def log_image(self, name: str, png: bytes, step: int) -> None:
        """A picture among the artifacts."""
        from PIL import Image  # noqa: PLC0415

        with Image.open(io.BytesIO(png)) as image:
            self._client.log_image(self._id, image, artifact_file=f"{name}-{step:08d}.png")

    def finish(self, values: Mapping[str, Any], *, ended: bool) -> None:
        """Result as tags, and end."""
        for name, value in values.items():
            self._client.set_tag(self._id, f"crossfold.{name}", str(value)[:MOST_TEXT])
        self._client.set_terminated(self._id, status="FINISHED" if ended else "KILLED")
