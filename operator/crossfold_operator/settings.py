"""The operator's settings: environment variables, read once, frozen."""

from collections.abc import Mapping
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field

PREFIX = "CROSSFOLD_"


class Settings(BaseModel):
    """Settings by environment variable: CROSSFOLD_ and the field's name in capitals."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    trainer_image: str = ""
    """Image of runs whose template names none."""
    namespace: str = ""
    """Namespace to watch; empty: all of them."""
    startup_seconds: Annotated[int, Field(ge=1)] = 300
    """Seconds after which an attempt that cannot start for a reason of its own (image, Secret) counts as failed."""
    workers: Annotated[int, Field(ge=1, le=256)] = 16
    """Reconciles at the same time, of different keys."""
    reconcile_seconds: Annotated[int, Field(ge=1, le=3600)] = 60
    """Seconds after which a reconcile of one object is cancelled, told in its status, and tried again."""
    search_workers: Annotated[int, Field(ge=1, le=64)] = 2
    """Processes that choose parameters of trials."""
    search_seconds: Annotated[int, Field(ge=1, le=3600)] = 60
    """Seconds that a sampler may take over a question."""
    trials_per_tune: Annotated[int, Field(ge=0)] = 0
    """Trials of a Tune; 0: as many as its spec says."""
    parallelism_per_tune: Annotated[int, Field(ge=0)] = 0
    """Runs in flight of a Tune, or of a CrossValidation of its own; 0: as many as its spec says."""
    runs_per_namespace: Annotated[int, Field(ge=0)] = 0
    """Runs in flight in a namespace; 0: no limit."""
    resync_seconds: Annotated[int, Field(ge=1)] = 300
    """Seconds from one comparison of the cache with the API server to the next."""
    kube_api_qps: Annotated[float, Field(gt=0, le=100_000)] = 500
    """Requests per second to the API server, in the long run. Leader election is not limited."""
    kube_api_burst: Annotated[int, Field(ge=1, le=100_000)] = 1000
    """Requests that may be sent at once after a quiet time."""
    http_port: Annotated[int, Field(ge=0, le=65535)] = 8080
    """Port of probes, metrics and live progress; 0: none."""
    progress_url: Annotated[str, Field(pattern="^(https?://[^/]+/?)?$")] = ""
    """URL under which trainer pods reach that port; empty: they report no live progress."""
    progress_seconds: Annotated[int, Field(ge=1, le=3600)] = 10
    """Seconds from one status that shows live progress to the next, of one run."""
    leader_election: bool = True
    """Hold a Lease while working, so that only one operator writes."""
    pod_name: str = "crossfold-operator"
    """Identity in the Lease."""
    pod_namespace: str = "default"
    """Namespace of the Lease."""
    log_format: Annotated[str, Field(pattern="^(json|text)$")] = "json"
    """json (one object a line) or text."""
    log_level: Annotated[str, Field(pattern="^(DEBUG|INFO|WARNING|ERROR)$")] = "INFO"
    """Least level that is logged."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self:
        """Read the settings.

        Raises:
            pydantic.ValidationError: a variable has a value that does not fit.
        """
        given = {
            name: environment[PREFIX + name.upper()]
            for name in cls.model_fields
            if environment.get(PREFIX + name.upper(), "") != ""
        }
        return cls.model_validate(given)
