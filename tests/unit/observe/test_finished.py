"""What is reckoned from the trials that have ended is kept, carried on, and the same as reckoned anew."""

import random
from collections.abc import Iterable

from crossfold_operator.names import CrossValidationPhase as Phase
from crossfold_operator.observe.finished import Finished, Trials
from crossfold_operator.observe.reader import TrialReader
from crossfold_operator.observe.trials import Trial

PHASES = [Phase.COMPLETE, Phase.PRUNED, Phase.FAILED]


def trial(number: int, phase: Phase = Phase.COMPLETE) -> Trial:
    return Trial(number, f"t-cv{number}", f"u{number}", phase, {}, score=number / 10)


def ended(numbers: Iterable[int]) -> list[Trial]:
    return [trial(number, PHASES[number % 3]) for number in numbers]


calls: list[int] = []


def _sum(so_far: int, one: Trial, factor: int) -> int:
    calls.append(one.number)
    return so_far + factor * one.number


def _numbers(finished: Finished, plus: int) -> list[int]:
    calls.append(-1)
    return [one.number + plus for one in finished]


def _name(one: Trial) -> str:
    calls.append(one.number)
    return one.name


def test_sums_are_carried_on_and_each_trial_is_seen_once() -> None:
    calls.clear()
    finished = Finished(ended([5, 1, 3]))
    assert finished.fold(_sum, 0, 2) == finished.fold(_sum, 0, 2) == 18
    assert sorted(calls) == [1, 3, 5]
    calls.clear()
    more = finished.adding(ended([4, 2]))
    assert more.fold(_sum, 0, 2) == 30
    assert calls == [2, 4]
    assert finished.fold(_sum, 0, 2) == 18, "the one before is as it was"
    assert more.fold(_sum, 0, 3) == 45, "another setting is another sum"


def test_what_depends_on_the_order_is_reckoned_anew_when_one_ends() -> None:
    calls.clear()
    finished = Finished(ended([5, 1]))
    assert finished.once(_numbers, 1) == finished.once(_numbers, 1) == [2, 6]
    assert finished.adding(ended([3])).once(_numbers, 1) == [2, 4, 6]
    assert calls == [-1, -1]


def test_what_is_made_of_each_is_made_once() -> None:
    calls.clear()
    finished = Finished(ended([5, 1]))
    assert finished.each(_name) == ["t-cv1", "t-cv5"]
    assert finished.adding(ended([3])).each(_name) == ["t-cv1", "t-cv3", "t-cv5"]
    assert finished.each(_name) == ["t-cv1", "t-cv5"]
    assert calls == [1, 5, 3]


def test_trials_that_end_in_any_order_come_to_the_same() -> None:
    rng = random.Random(1)
    numbers = list(range(30))
    rng.shuffle(numbers)
    grown = Finished()
    for number in numbers:
        grown = grown.adding(ended([number]))
        grown.fold(_sum, 0, 1)
    whole = Finished(ended(range(30)))
    assert list(grown) == list(whole) == ended(range(30))
    assert all(grown.count(phase) == whole.count(phase) == 10 for phase in PHASES)
    assert grown.fold(_sum, 0, 1) == whole.fold(_sum, 0, 1)
    assert whole.adding([]) is whole


def test_trials_are_a_sequence_by_number() -> None:
    several = [trial(0), trial(1, Phase.RUNNING), trial(2, Phase.FAILED), trial(3, Phase.PENDING)]
    trials = Trials.of(several)
    assert list(trials) == several
    assert (len(trials), trials[1], trials[-2:], trials.asked) == (4, several[1], several[2:], 4)
    assert trials.active == (several[1], several[3])
    assert list(trials.finished) == [several[0], several[2]]
    assert Trials.of(trials) is trials
    assert Trials.of([]).asked == 0


def test_a_reader_keeps_what_was_reckoned_until_an_ended_trial_changes() -> None:
    def obj(number: int, phase: str, version: str = "1") -> dict[str, object]:
        meta = {"name": f"t-cv{number}", "uid": f"u{number}", "resourceVersion": version}
        return {"metadata": meta, "spec": {}, "status": {"phase": phase}}

    reader = TrialReader("t", [])
    objects = [obj(0, "Complete"), obj(1, "Running"), obj(2, "Pruned")]
    first = reader.read(objects, lambda _: []).finished
    assert reader.read(list(objects), lambda _: []).finished is first
    objects[1] = obj(1, "Running", "2")
    assert reader.read(list(objects), lambda _: []).finished is first
    calls.clear()
    assert first.fold(_sum, 0, 1) == 2
    objects[1] = obj(1, "Failed", "3")
    grown = reader.read(list(objects), lambda _: []).finished
    assert (grown.fold(_sum, 0, 1), calls) == (3, [0, 2, 1])
    objects[0] = obj(0, "Failed", "4")
    changed = reader.read(list(objects), lambda _: []).finished
    assert (changed.count(Phase.COMPLETE), changed.count(Phase.FAILED)) == (0, 2)
    assert [one.number for one in reader.read(objects[1:], lambda _: []).finished] == [1, 2]
    # One goes in the very look in which another ends.
    objects = [obj(3, "Complete"), objects[2]]
    assert [one.number for one in reader.read(objects, lambda _: []).finished] == [2, 3]
