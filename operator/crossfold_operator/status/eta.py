"""How long the rest of a Tune takes at the pace so far. Pure."""

from collections.abc import Sequence

from crossfold_operator.api.fields import Usage
from crossfold_operator.api.tune import TuneSpec
from crossfold_operator.observe.finished import Trials
from crossfold_operator.observe.trials import Trial


def eta(spec: TuneSpec, trials: Sequence[Trial], asked: int, usage: Usage, *, ending: bool) -> str:
    """The time that is left, in one unit: ``5h``; empty while no run has ended.

    Runs to come take as long as those so far, and trials to come take as many of them: what racing saved is expected to
    be saved again. When the search is ending, no trial is to come.
    """
    trials = Trials.of(trials)
    ended, created, done = trials.finished.fold(_ended, (0, 0, 0))
    succeeded = done + trials.under_way.succeeded
    if not succeeded:
        return ""
    per_run = usage.run_seconds / succeeded
    per_trial = created / ended if ended else len(spec.cross_validation.units)
    to_ask = 0 if ending else max(0, spec.max_trials - asked)
    runs = to_ask * per_trial + sum(
        max(1.0, per_trial - (trial.tally.runs - trial.tally.in_flight)) for trial in trials.active
    )
    return text(runs * per_run / spec.parallelism)


def _ended(sums: tuple[int, int, int], trial: Trial) -> tuple[int, int, int]:
    """Trials that have ended, runs that were created for them, and runs of them that succeeded."""
    if trial.ended is None:
        return sums
    return sums[0] + 1, sums[1] + trial.ended.created, sums[2] + trial.ended.succeeded


def text(seconds: float) -> str:
    """A time in the unit that suits it: ``40s``, ``12m``, ``5h``, ``3d``."""
    for unit, size, most in (("s", 1, 90), ("m", 60, 90 * 60), ("h", 3600, 48 * 3600)):
        if seconds < most:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds / 86400:.0f}d"
