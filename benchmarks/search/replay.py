"""What a rule costs and saves: whole searches replayed on a full score matrix.

As every run's score is known, what full cross-validation would have chosen is known too.

**False prune at equality** is P(prune | M = bar), M a trial's complete mean and the bar the best completed trial's: the
error that alpha bounds, where it is largest. No trial of a matrix has a mean of exactly the bar, so that a constant is
added to all its runs, which leaves its noise as it is. Which trials, and when, decides what is measured:

- At its own turn, past the warm-up, before it has run: against the completed trials that the search has by then, at
  every look. All orders being as likely, its turn tells nothing of its runs. (Trials that were pruned before must not
  be tested again: their first runs lie below their own mean, which is why they were pruned. On real tasks they are lost
  up to five times as often as others.)
- Trials whose own mean is near the bar: the ``NEAR`` of all configurations that are nearest to it, the incumbent left
  out. They need the least shift. Noise depends on the mean on most tasks, and a trial that is far below the bar, moved
  up to it, is no trial that is as good as the best one: it is one with the noise of a bad one.

The better third of all configurations are put to the same test, near the bar or not, to show how much that matters.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from benchmarks.search.rules import Rule, Stops, Trial

WARMUP = 4
"""Trials before the first test: none is stopped before."""
NEAR = 10
"""How many configurations count as near the bar: a sixth of a search's 60."""


@dataclass(frozen=True)
class AtEquality:
    """A trial moved to the bar."""

    configuration: Hashable
    search: Hashable
    near: bool
    """One of the nearest to the bar."""
    good: bool
    """One of the better third."""
    lost: bool
    """It was stopped."""


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
    tests: list[AtEquality] = field(default_factory=list)
    """Trials at equality."""
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
    def new_best_lost_rate(self) -> float:
        """Share of the trials that would have become the best, and were stopped."""
        return self.new_best_lost / max(1, self.new_best)

    @property
    def near(self) -> list[AtEquality]:
        """Tests of trials near the bar."""
        return [test for test in self.tests if test.near]

    @property
    def good(self) -> list[AtEquality]:
        """Tests of trials of the better third."""
        return [test for test in self.tests if test.good]


def lost_rate(tests: Sequence[AtEquality]) -> float:
    """Share of the trials at equality that were stopped."""
    return sum(test.lost for test in tests) / max(1, len(tests))


def interval(tests: Sequence[AtEquality]) -> tuple[float, float]:
    """95 % interval of ``lost_rate``; an upper bound where none was lost.

    A search tests several trials against the same completed ones, and a configuration is tested in many searches: both
    are clusters (Cameron, Gelbach and Miller, 2011). With searches alone, a task with one odd configuration would look
    more certain than it is.
    """
    rate, count = lost_rate(tests), len(tests)
    if count == 0:
        return 0.0, 1.0
    if rate == 0:
        return 0.0, 3.84 / (count + 3.84)
    off = np.array([test.lost - rate for test in tests])
    variance = (
        _between(off, [test.search for test in tests])
        + _between(off, [test.configuration for test in tests])
        - _between(off, list(range(count)))
    )
    # Never narrower than for tests that have nothing to do with one another.
    reach = 1.96 * float(np.sqrt(max(variance, float(off @ off)))) / count
    return max(0.0, rate - reach), min(1.0, rate + reach)


def _between(off: NDArray[np.float64], clusters: Sequence[Hashable]) -> float:
    """Sum over clusters of the squared sums within, with the usual correction for few of them."""
    place = {cluster: index for index, cluster in enumerate(dict.fromkeys(clusters))}
    sums = np.bincount([place[cluster] for cluster in clusters], weights=off)
    return float(sums @ sums) * len(sums) / max(1, len(sums) - 1)


def replay(
    trials: NDArray[np.float64],
    rule: Rule,
    folds: int,
    seeds: int,
    *,
    search: Hashable = 0,
    configurations: Sequence[Hashable] | None = None,
) -> Tally:
    """One search: trials one after the other, each stopped when the rule says so.

    Args:
        trials: y of every trial in the order in which they start, (trials, N), runs in their order.
        rule: when to stop.
        folds: K.
        seeds: S.
        search: what tells this search from others.
        configurations: what each trial is, if it is the same in another search.
    """
    count, planned = trials.shape
    tally = Tally(searches=1, planned=trials.size)
    means = trials.mean(axis=1)
    good = means >= np.quantile(means, 2 / 3)
    completed: list[int] = []
    best = -1
    stops = rule([], folds, seeds)
    for number, trial in enumerate(trials):
        if number >= WARMUP:
            near = number in np.argsort(np.abs(means - means[best]), kind="stable")[: NEAR + 1]
            if near or good[number]:
                lost = runs(trial + (means[best] - means[number]), stops) < planned
                what = (search, number) if configurations is None else configurations[number]
                tally.tests.append(AtEquality(what, search, near=near, good=bool(good[number]), lost=lost))
        done = runs(trial, stops)
        tally.run += done
        beats = best < 0 or bool(means[number] > means[best])
        if best >= 0:
            tally.new_best += beats
            tally.new_best_lost += beats and done < planned
        if done == planned:
            completed.append(number)
            best = number if beats else best
            stops = rule([trials[other] for other in completed], folds, seeds)
    tally.same_winner = int(means[best] == means.max())
    tally.regret.append(float((means.max() - means[best]) / (np.sort(means)[count // 2 :].std() or 1)))
    return tally


def runs(trial: Trial, stops: Stops | None) -> int:
    """Runs until the rule stops a trial; all when it does not."""
    return len(trial) if stops is None else stops(trial)
