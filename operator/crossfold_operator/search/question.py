"""What every algorithm is asked."""

from collections.abc import Sequence
from dataclasses import dataclass

from crossfold_operator.api.algorithm import AlgorithmSpec
from crossfold_operator.search.history import Trial
from crossfold_operator.search.space import Space
from crossfold_trainer.contract.metrics import Direction


@dataclass(frozen=True)
class Question:
    """Which point is next.

    Attributes:
        space: where to look.
        algorithm: the settings, and the seed of the search.
        direction: which scores are better.
        trials: in order, those of other Tunes before one's own; those that do not fit the space are to be passed over.
        place: how many trials the algorithm chose before, whatever became of them.
        seed: of this one question.
    """

    space: Space
    algorithm: AlgorithmSpec
    direction: Direction
    trials: Sequence[Trial]
    place: int
    seed: int
