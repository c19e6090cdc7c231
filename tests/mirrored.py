"""Both directions of an objective: the same scores, once as they are to be maximised, once negated to be minimised."""

import re
from typing import Any, NamedTuple

from crossfold_trainer.contract.metrics import Direction
from crossfold_trainer.contract.objective import ObjectiveSpec

METRIC = "val/Mine"
"""A metric that may have any sign."""


class Side(NamedTuple):
    """A direction, and the sign that scores have there."""

    direction: Direction
    sign: int

    def of(self, score: float) -> float:
        """A score on this side; of one on this side, what it is on the side that is maximised."""
        return self.sign * score + 0.0

    def back(self, score: float | None) -> float | None:
        return None if score is None else self.of(score)

    @property
    def objective(self) -> ObjectiveSpec:
        return ObjectiveSpec.model_validate(self.manifest)

    @property
    def manifest(self) -> dict[str, Any]:
        return {"metrics": [{"name": METRIC, "direction": str(self.direction)}]}


UP = Side(Direction.MAXIMIZE, 1)
DOWN = Side(Direction.MINIMIZE, -1)
WRONG = Side(Direction.MAXIMIZE, -1)
"""What is to be minimised, taken for what is to be maximised."""


def unsigned(text: str) -> str:
    """A text whose negative numbers have lost their sign; exponents keep theirs."""
    return re.sub(r"(?<![\w.])-(?=\d)", "", text)
