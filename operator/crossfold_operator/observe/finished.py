"""The trials of a Tune: those under way one by one, those that have ended by what they come to. Pure.

A Tune is looked at whenever one of its runs changes, and almost all of its trials have ended long ago. What is reckoned
from all of those is therefore kept with them, and carried on when another one ends.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from functools import cached_property
from operator import attrgetter
from typing import Any, TypeVar, TypeVarTuple, overload

from crossfold_operator.names import CrossValidationPhase
from crossfold_operator.observe.trials import Trial

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_by_number = attrgetter("number")


class Finished(Sequence[Trial]):
    """Trials that have ended, by number. It never changes: ``adding`` makes another one.

    It is the same object for as long as the trials are the same.
    """

    def __init__(self, trials: Iterable[Trial] = ()) -> None:
        self._trials = sorted(trials, key=_by_number)
        self._phases = Counter(trial.phase for trial in self._trials)
        self._folds: dict[Hashable, tuple[Callable[[Any, Trial], Any], Any]] = {}
        self._known: dict[Hashable, Any] = {}
        self._made: dict[Hashable, tuple[Callable[[Trial], Any], list[Any]]] = {}

    def adding(self, trials: Iterable[Trial]) -> "Finished":
        """With others that have ended as well."""
        more = sorted(trials, key=_by_number)
        if not more:
            return self
        new = Finished()
        new._trials = list(self._trials)
        new._made = {key: (make, list(made)) for key, (make, made) in self._made.items()}
        for trial in more:
            place = bisect_left(new._trials, trial.number, key=_by_number)
            new._trials.insert(place, trial)
            for make, made in new._made.values():
                made.insert(place, make(trial))
        new._phases = self._phases + Counter(trial.phase for trial in more)
        for key, (step, value) in self._folds.items():
            for trial in more:
                value = step(value, trial)  # noqa: PLW2901 -- carried on from trial to trial
            new._folds[key] = (step, value)
        return new

    def count(self, phase: CrossValidationPhase) -> int:
        """How many are in a phase."""
        return self._phases[phase]

    def fold(self, step: Callable[[T, Trial, *Ts], T], start: T, *settings: *Ts) -> T:
        """``step(... step(step(start, trial), trial) ..., trial)`` over all of them.

        Args:
            step: a function of a module, which must not care in which order the trials come.
            start: the value for no trials.
            settings: what else the step is given; may be hashed.
        """
        key = (step, settings)
        if key not in self._folds:

            def carry(value: T, trial: Trial) -> T:
                return step(value, trial, *settings)

            value = start
            for trial in self._trials:
                value = carry(value, trial)
            self._folds[key] = (carry, value)
        found: T = self._folds[key][1]
        return found

    def each(self, make: Callable[[Trial, *Ts], T], *settings: *Ts) -> Sequence[T]:
        """``make(trial)`` of all of them, made once for each.

        Args:
            make: a function of a module.
            settings: what else it is given; may be hashed.
        """
        key = (make, settings)
        if key not in self._made:

            def one(trial: Trial) -> T:
                return make(trial, *settings)

            self._made[key] = (one, list(map(one, self._trials)))
        return self._made[key][1]

    def once(self, reckon: Callable[["Finished", *Ts], T], *settings: *Ts) -> T:
        """``reckon(self)``, reckoned once and not carried on.

        Args:
            reckon: a function of a module.
            settings: what else it is given; may be hashed.
        """
        key = (reckon, settings)
        if key not in self._known:
            self._known[key] = reckon(self, *settings)
        found: T = self._known[key]
        return found

    @overload
    def __getitem__(self, index: int) -> Trial: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Trial]: ...
    def __getitem__(self, index: int | slice) -> Trial | Sequence[Trial]:
        return self._trials[index]

    def __len__(self) -> int:
        return len(self._trials)

    def __iter__(self) -> Iterator[Trial]:
        return iter(self._trials)


class Trials(Sequence[Trial]):
    """The trials of a Tune, by number.

    Attributes:
        active: those under way, by number.
        finished: those that have ended.
    """

    def __init__(self, active: Iterable[Trial], finished: Finished) -> None:
        self.active = tuple(sorted(active, key=_by_number))
        self.finished = finished

    @classmethod
    def of(cls, trials: Sequence[Trial]) -> "Trials":
        """Any trials."""
        if isinstance(trials, cls):
            return trials
        return cls((t for t in trials if not t.terminal), Finished(t for t in trials if t.terminal))

    @property
    def asked(self) -> int:
        """Numbers below this one were given out, as far as the trials that exist tell."""
        return 1 + max(part[-1].number if part else -1 for part in (self.active, self.finished))

    @cached_property
    def _all(self) -> list[Trial]:
        return sorted((*self.finished, *self.active), key=_by_number)

    @overload
    def __getitem__(self, index: int) -> Trial: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Trial]: ...
    def __getitem__(self, index: int | slice) -> Trial | Sequence[Trial]:
        return self._all[index]

    def __len__(self) -> int:
        return len(self.active) + len(self.finished)

    def __iter__(self) -> Iterator[Trial]:
        return iter(self._all)
