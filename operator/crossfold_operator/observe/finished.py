"""The trials of a Tune: those under way one by one, those that have ended by what they come to. Pure.

A Tune is looked at whenever one of its runs changes, and almost all of its trials have ended long ago. What is reckoned
from all of those is therefore kept with them, and carried on when another one ends.
"""

from bisect import bisect_left
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from functools import cached_property, reduce
from operator import attrgetter
from typing import Any, TypeVar, TypeVarTuple, overload

from crossfold_operator.names import CrossValidationPhase
from crossfold_operator.observe.tally import Tally, total
from crossfold_operator.observe.trials import Trial

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_by_number = attrgetter("number")


class Finished(Sequence[Trial]):
    """Trials that have ended, by number. It never changes: ``adding`` makes another one.

    It is the same object for as long as the trials are the same, and keeps what was reckoned from them. The next one
    takes over what one more trial changes alone (``fold``, ``each``), and reckons the rest anew (``once``). What is
    reckoned is told apart by the function, which is one of a module, and its settings, which may be hashed.
    """

    def __init__(self, trials: Iterable[Trial] = ()) -> None:
        self._trials = sorted(trials, key=_by_number)
        self._known: dict[Hashable, Any] = {}
        self._carry: dict[Hashable, Callable[[Any, Trial, int], Any]] = {}
        """(what is known, another trial, its place) -> what is known then; of what is taken over."""

    def adding(self, trials: Iterable[Trial]) -> "Finished":
        """With others that have ended as well."""
        more = sorted(trials, key=_by_number)
        if not more:
            return self
        new = Finished()
        new._trials = list(self._trials)
        new._carry = dict(self._carry)
        new._known = {key: self._known[key] for key in self._carry}
        for trial in more:
            place = bisect_left(new._trials, trial.number, key=_by_number)
            new._trials.insert(place, trial)
            for key, carry in new._carry.items():
                new._known[key] = carry(new._known[key], trial, place)
        return new

    def count(self, phase: CrossValidationPhase) -> int:
        """How many are in a phase."""
        return self.fold(_in_phase, 0, phase)

    def fold(self, step: Callable[[T, Trial, *Ts], T], start: T, *settings: *Ts) -> T:
        """``step(... step(step(start, trial), trial) ..., trial)`` over all of them.

        Args:
            step: which must not care in which order the trials come.
            start: the value for no trials.
            settings: what else the step is given.
        """

        def carry(value: T, trial: Trial, _: int) -> T:
            return step(value, trial, *settings)

        return self._kept(
            (step, settings), lambda: reduce(lambda v, t: step(v, t, *settings), self._trials, start), carry
        )

    def each(self, make: Callable[[Trial, *Ts], T], *settings: *Ts) -> Sequence[T]:
        """``make(trial, *settings)`` of all of them, made once for each."""

        def carry(made: list[T], trial: Trial, place: int) -> list[T]:
            return [*made[:place], make(trial, *settings), *made[place:]]

        return self._kept((make, settings), lambda: [make(trial, *settings) for trial in self._trials], carry)

    def once(self, reckon: Callable[["Finished", *Ts], T], *settings: *Ts) -> T:
        """``reckon(self, *settings)``, for what depends on all of them or on their order."""
        return self._kept((reckon, settings), lambda: reckon(self, *settings))

    def _kept(self, key: Hashable, reckon: Callable[[], T], carry: Callable[[T, Trial, int], T] | None = None) -> T:
        if key not in self._known:
            self._known[key] = reckon()
            if carry is not None:
                self._carry[key] = carry
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


def _in_phase(count: int, trial: Trial, phase: CrossValidationPhase) -> int:
    return count + (trial.phase is phase)


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
    def under_way(self) -> Tally:
        """The runs of the trials that are under way, counted."""
        return total([trial.tally for trial in self.active])

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
