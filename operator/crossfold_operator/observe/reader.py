"""CrossValidations -> the trials of a Tune, with a memory of those that have ended."""

from collections.abc import Callable, Iterable, Sequence
from itertools import compress
from operator import is_not

from crossfold_operator import names
from crossfold_operator.observe.finished import Finished, Trials
from crossfold_operator.observe.metadata import Obj
from crossfold_operator.observe.trials import Trial, read_trial
from crossfold_trainer.contract.hyperparameters import canonical_name


class TrialReader:
    """Reads the trials of one Tune.

    An object that is the one seen before is not read again once its trial has ended, and the runs of such trials are
    not asked for: a look costs what has changed and what is under way.
    """

    def __init__(self, tune: str, parameter_names: Iterable[str]) -> None:
        """Of the Tune: its name, and the hyperparameters of its search space (the others are no part of a point)."""
        self._tune = tune
        self._searched = frozenset(map(canonical_name, parameter_names))
        self._seen: list[Obj] = []
        """Objects of the last look. While they are kept, no other object has the identity of one of them."""
        self._ended: dict[int, Trial] = {}
        """The trials of those that have ended, by identity."""
        self._active: dict[int, tuple[Obj, int]] = {}
        """Objects whose trials are under way, with their numbers."""
        self._read: dict[int, tuple[list[Obj], Trial]] = {}
        """Of those, by identity: the runs that were seen, and the trial that they made."""
        self._finished = Finished()

    def read(self, cross_validations: Iterable[Obj], runs_of: Callable[[str], Iterable[Obj]]) -> Trials:
        """The trials by number.

        Args:
            cross_validations: what the Tune owns. Those that did not change are the same objects as before.
            runs_of: the TrainRuns of a CrossValidation by its UID; asked for trials that are under way.
        """
        objects = list(cross_validations)
        gone, new = _changes(self._seen, objects)
        for obj in gone:
            self._active.pop(id(obj), None)
            self._read.pop(id(obj), None)
            if self._ended.pop(id(obj), None) is not None:
                self._finished = Finished()
        for obj in new:
            number = names.trial_of(self._tune, obj["metadata"]["name"])
            if number is not None:
                self._active[id(obj)] = (obj, number)
        self._seen = objects

        active, ended = [], {}
        for identity, (obj, number) in self._active.items():
            trial = self._trial(obj, number, runs_of)
            if trial.terminal:
                ended[identity] = trial
            else:
                active.append(trial)
        for identity in ended:
            del self._active[identity]
            self._read.pop(identity, None)
        self._ended |= ended
        if len(self._finished) + len(ended) == len(self._ended):
            self._finished = self._finished.adding(ended.values())
        else:  # one that had ended is gone or has changed: what was reckoned with it is forgotten
            self._finished = Finished(self._ended.values())
        return Trials(active, self._finished)

    def _trial(self, obj: Obj, number: int, runs_of: Callable[[str], Iterable[Obj]]) -> Trial:
        """The trial of an object: the one of the last look where neither it nor its runs have changed."""
        if (obj.get("status") or {}).get("phase") in names.TERMINAL_CROSS_VALIDATION:
            return read_trial(obj, number, self._searched, runs_of)
        runs = list(runs_of(obj["metadata"]["uid"]))
        known = self._read.get(id(obj))
        if known is not None and len(known[0]) == len(runs) and not any(map(is_not, known[0], runs)):
            return known[1]
        trial = read_trial(obj, number, self._searched, lambda _: runs)
        self._read[id(obj)] = (runs, trial)
        return trial


def _changes(old: Sequence[Obj], new: Sequence[Obj]) -> tuple[list[Obj], list[Obj]]:
    """Objects that are gone, and those that are new. Both go by identity, and are as good as free where few changed."""
    if len(old) == len(new):
        changed = list(map(is_not, old, new))
        old, new = list(compress(old, changed)), list(compress(new, changed))
    before, now = set(map(id, old)), set(map(id, new))
    return [obj for obj in old if id(obj) not in now], [obj for obj in new if id(obj) not in before]
