"""What a rule costs and saves: whole searches replayed on a full score matrix.

As every run's score is known, what full cross-validation would have chosen is known too.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from benchmarks.search.rules import Rule, Stops, Trial

CHECKPOINTS = (8, 20, 40)
"""Trials after which good trials are put to the test at equality."""


@dataclass
class Tally:
    """Counts over replays."""

    planned: int = 0
    run: int = 0
    searches: int = 0
    same_winner: int = 0
    new_best: int = 0
    """Trials that would have beaten the best completed one."""
    new_best_lost: int = 0
    tested_at_equality: list[int] = field(default_factory=list)
    """Trials with a complete mean of exactly the best completed one's, by search."""
    lost_at_equality: list[int] = field(default_factory=list)
    """How many of them were stopped."""
    regret: list[float] = field(default_factory=list)
    """How much worse than full cross-validation's choice the chosen trial is, in standard deviations of the better half
    of the trials' means."""

    def add(self, other: "Tally") -> None:
        """Count the other's searches too."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)

    @property
    def saved(self) -> float:
        """Share of the planned runs that did not run."""
        return 1 - self.run / self.planned

    @property
    def same_winner_rate(self) -> float:
        """Share of the searches that chose what full cross-validation chooses."""
        return self.same_winner / self.searches

    @property
    def false_prune(self) -> float:
        """Share of the trials at equality that were stopped."""
        return sum(self.lost_at_equality) / max(1, sum(self.tested_at_equality))

    @property
    def new_best_lost_rate(self) -> float:
        """Share of the trials that would have become the best, and were stopped."""
        return self.new_best_lost / max(1, self.new_best)

    def interval(self) -> tuple[float, float]:
        """95 % interval of ``false_prune`` with searches as clusters; an upper bound where none was lost."""
        lost, tested = np.array(self.lost_at_equality), np.array(self.tested_at_equality)
        total = tested.sum()
        if total == 0:
            return 0.0, 1.0
        rate = lost.sum() / total
        if lost.sum() == 0:
            return 0.0, float(3.84 / (total + 3.84))
        n = len(lost)
        se = float(np.sqrt(n / max(1, n - 1) * np.sum((lost - rate * tested) ** 2)) / total)
        return max(0.0, float(rate - 1.96 * se)), min(1.0, float(rate + 1.96 * se))


def replay(trials: NDArray[np.float64], rule: Rule, folds: int, seeds: int, tests: int) -> Tally:
    """One search: trials one after the other, each stopped when the rule says so.

    At each checkpoint, good trials (the better third) that are not completed then are shifted so that their complete
    mean is exactly the best completed one's, and put to the rule.

    Args:
        trials: y of every trial in the order in which they start, (trials, N), runs in their order.
        rule: when to stop.
        folds: K.
        seeds: S.
        tests: how many good trials are tested at a checkpoint at most.
    """
    count, runs = trials.shape
    tally = Tally(searches=1, planned=trials.size)
    means = trials.mean(axis=1)
    good = [number for number in range(count) if means[number] >= np.quantile(means, 2 / 3)]
    completed: list[int] = []
    best = -1
    stops = rule([], folds, seeds)
    lost = tested = 0
    for number, trial in enumerate(trials):
        if number in CHECKPOINTS:
            for other in [other for other in good if other not in completed][:tests]:
                at_equality = trials[other] + (means[best] - means[other])
                tested += 1
                lost += _runs(at_equality, stops) < runs
        done = _runs(trial, stops)
        tally.run += done
        beats = best < 0 or bool(means[number] > means[best])
        if best >= 0:
            tally.new_best += beats
            tally.new_best_lost += beats and done < runs
        if done == runs:
            completed.append(number)
            best = number if beats else best
            stops = rule([trials[other] for other in completed], folds, seeds)
    tally.same_winner = int(means[best] == means.max())
    tally.regret.append(float((means.max() - means[best]) / (np.sort(means)[count // 2 :].std() or 1)))
    tally.lost_at_equality.append(lost)
    tally.tested_at_equality.append(tested)
    return tally


def _runs(trial: Trial, stops: Stops | None) -> int:
    """Runs until the rule stops a trial; all when it does not."""
    if stops is None:
        return len(trial)
    return next((n for n in range(1, len(trial)) if stops(trial[:n])), len(trial))
