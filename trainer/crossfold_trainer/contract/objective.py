"""What a run is scored by."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from crossfold_trainer.contract.base import Model, Rule
from crossfold_trainer.contract.metrics import KNOWN_OBJECTIVES, Direction, metric_info


class Combine(StrEnum):
    """How several metrics make one score."""

    HARMONIC = "Harmonic"
    ARITHMETIC = "Arithmetic"
    GEOMETRIC = "Geometric"
    MIN = "Min"


class ObjectiveMetric(Model):
    """One metric of the objective."""

    name: Annotated[str, Field(min_length=5, max_length=63, pattern=r"^val/[A-Za-z][A-Za-z0-9_]*$")]
    """Validation metric, such as val/JaccardIndex or val/Recall."""
    direction: Direction | None = None
    """Maximize or Minimize; null: the metric's own direction, where the metric is a known one."""

    rules = (
        *(
            Rule(
                f"self.name == '{known}' || !self.name.matches('(?i)^{known}$')",
                f"no metric has this name, in which capital and small letters differ: did you mean {known}?",
            )
            for known in KNOWN_OBJECTIVES
        ),
        Rule(
            f"has(self.direction) || self.name.matches('(?i)^({'|'.join(KNOWN_OBJECTIVES)})$')",
            "a metric that Crossfold does not know must say its direction: add direction: Maximize or Minimize",
        ),
    )

    @property
    def resolved_direction(self) -> Direction:
        """The direction that counts.

        Raises:
            ValueError: the metric is unknown and says no direction.
        """
        if self.direction is not None:
            return self.direction
        info = metric_info(self.name)
        if info is None:
            raise ValueError(f"metric {self.name} is unknown and must say its direction")
        return info.direction


class ObjectiveSpec(Model):
    """What a run is scored by."""

    metrics: Annotated[
        list[ObjectiveMetric],
        Field(
            min_length=1,
            max_length=8,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        ),
    ]
    """Validation metrics that make the score, at least one."""
    combine: Combine = Combine.HARMONIC
    """How several metrics make one score: Harmonic, Arithmetic or Geometric mean, or Min; unused with one metric.
    In a combined score more is better: a metric to be minimised enters it as 1/value (values below 1e-9 as 1e-9)."""
