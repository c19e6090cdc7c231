"""How often, and on which parts of the data, one configuration is trained."""

from enum import StrEnum
from random import Random
from typing import Annotated

from pydantic import Field

from crossfold_trainer.contract.base import Model, Rule

Seed = Annotated[int, Field(ge=0, le=9999)]
FIRST_SEEDS = (42, 21, 69)


class FoldMethod(StrEnum):
    """How the train part is cut into folds."""

    K_FOLD = "KFold"
    SHUFFLE = "Shuffle"
    STRATIFIED = "Stratified"
    REGION = "Region"
    REGION_STRATIFIED = "RegionStratified"
    NONE = "None"


class CrossValidationSpec(Model):
    """How often, and on which parts of the data, one configuration is trained."""

    folds: Annotated[int, Field(ge=1, le=100)] = 5
    """How many folds the train part is cut into."""
    run_folds: Annotated[int, Field(ge=1, le=100)] | None = None
    """How many of the folds are run, from the first on; null: all."""
    fold_method: FoldMethod = FoldMethod.REGION_STRATIFIED
    """How folds are cut; None trains and validates on the whole train part (folds must be 1)."""
    seeds: (
        Annotated[list[Seed], Field(min_length=1, max_length=30, json_schema_extra={"x-kubernetes-list-type": "set"})]
        | None
    ) = None
    """Seeds, 0 to 9999: each fold is run once per seed. Excludes randomSeeds; neither means [42]."""
    random_seeds: Annotated[int, Field(ge=1, le=30)] | None = None
    """Number of seeds to use: 42, 21, 69, then a fixed pseudo-random sequence. Excludes seeds."""

    rules = (
        Rule("!(has(self.seeds) && has(self.randomSeeds))", "seeds and randomSeeds exclude each other: remove one"),
        Rule(
            "(self.foldMethod == 'None') == (self.folds == 1)",
            "foldMethod None goes with folds 1, and folds 1 with foldMethod None",
        ),
        Rule("!has(self.runFolds) || self.runFolds <= self.folds", "runFolds must not exceed folds"),
        Rule(
            "(has(self.runFolds) ? self.runFolds : self.folds)"
            " * (has(self.seeds) ? size(self.seeds) : (has(self.randomSeeds) ? self.randomSeeds : 1)) <= 300",
            "folds run times seeds must not exceed 300: lower runFolds or the number of seeds",
        ),
    )

    @property
    def resolved_seeds(self) -> tuple[int, ...]:
        """The seeds in the order in which they run."""
        if self.seeds is not None:
            return tuple(self.seeds)
        return seed_sequence(self.random_seeds or 1)

    @property
    def units(self) -> tuple[tuple[int, int], ...]:
        """Every (fold, seed) in the order in which they run: all folds of the first seed, then the next seed."""
        folds = self.folds if self.run_folds is None else self.run_folds
        return tuple((fold, seed) for seed in self.resolved_seeds for fold in range(folds))


def seed_sequence(n: int) -> tuple[int, ...]:
    """The first n seeds: 42, 21, 69, then ``Random(42).sample(range(9999), n - 3)``."""
    if n <= len(FIRST_SEEDS):
        return FIRST_SEEDS[:n]
    return (*FIRST_SEEDS, *Random(42).sample(range(9999), n - len(FIRST_SEEDS)))
