"""The trials of a Tune, as they are seen and remembered."""

from collections.abc import Iterable
from typing import Any

from crossfold_operator.observe.metadata import Obj
from crossfold_operator.observe.reader import TrialReader
from crossfold_operator.observe.trials import read_trial


def train_run(fold: int, phase: str) -> Obj:
    meta = {"name": f"c-f{fold}s42", "uid": f"uid{fold}"}
    return {"metadata": meta, "spec": {"fold": fold, "seed": 42}, "status": {"phase": phase}}


def trial(number: int, phase: str, version: str = "1", **status: Any) -> Obj:
    return {
        "metadata": {"name": f"t-cv{number}", "uid": f"u{number}", "resourceVersion": version},
        "spec": {
            "hyperparameters": [
                {"name": "batch_size", "value": 8},
                {"name": "bands"},
                {"name": "gamma", "value": 0.5},
            ]
        },
        "status": {"phase": phase, **status},
    }


SEARCHED = frozenset({"batch_size", "bands"})
FAILED = {"fold": 1, "seed": 42, "run": "r", "phase": "Failed", "failureClass": "Config", "message": "no such band"}


def test_a_trial_under_way() -> None:
    cv = trial(3, "Running", score="0.5", runs=[FAILED])
    seen = read_trial(cv, 3, SEARCHED, lambda uid: [train_run(0, "Running")] if uid == "u3" else [])
    assert (seen.number, seen.name, seen.score, seen.std) == (3, "t-cv3", 0.5, None)
    # Fixed hyperparameters are no part of the point.
    assert seen.parameters == {"batch_size": 8, "bands": None}
    assert [r.unit for r in seen.runs] == [(0, 42), (1, 42)]
    assert (seen.config_failure, seen.ended, seen.terminal) == ("no such band", None, False)
    assert read_trial({**cv, "status": None}, 3, SEARCHED, Runs()).phase.value == "Pending"


def test_a_trial_that_has_ended() -> None:
    counts = {"succeeded": 2, "failed": 1, "preemptions": 4, "dataDigest": "d", "usage": {"runSeconds": 7}}
    stopped = {"fold": 2, "seed": 42, "run": "q", "phase": "Stopped"}
    seen = read_trial(trial(3, "Failed", runs=[FAILED, stopped], **counts), 3, SEARCHED, Runs())
    assert (seen.runs, seen.config_failure) == ((), "no such band")
    ended = seen.ended
    assert ended is not None
    assert (ended.succeeded, ended.failed, ended.stopped, ended.preemptions) == (2, 1, 1, 4)
    assert (ended.data_digest, ended.usage.run_seconds) == ("d", 7)


class Runs:
    """The TrainRuns of CrossValidations, and whose were asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, uid: str) -> Iterable[Obj]:
        self.asked.append(uid)
        return [train_run(0, "Running")]


def test_what_has_ended_is_read_once() -> None:
    reader, runs = TrialReader("t", ["batch-size"]), Runs()
    objects = [trial(10, "Running"), trial(2, "Complete", score="0.5"), trial(1, "Failed"), trial(0, "Complete")]
    first = reader.read(objects, runs)
    assert [t.number for t in first] == [0, 1, 2, 10]
    again = reader.read([*objects[:1], trial(2, "Complete", "2", score="0.6"), *objects[2:]], runs)
    # The same version is the same record, another version is read anew, what is under way always is.
    assert again[1] is first[1]
    assert again[0] is first[0]
    assert (first[2].score, again[2].score) == (0.5, 0.6)
    assert again[3] is not first[3]
    assert runs.asked == ["u10", "u10"], "runs of trials that have ended are not asked for"


def test_what_is_gone_is_forgotten_and_a_namesake_is_read_anew() -> None:
    reader, runs = TrialReader("t", []), Runs()
    (first,) = reader.read([trial(0, "Complete", score="0.5")], runs)
    assert not reader.read([], runs)
    namesake = trial(0, "Complete", score="0.7")
    (seen,) = reader.read([{**namesake, "metadata": {**namesake["metadata"], "uid": "other"}}], runs)
    assert (first.score, seen.score) == (0.5, 0.7)


def test_what_is_no_trial_is_passed_over() -> None:
    strange = trial(0, "Complete")
    objects = [{**strange, "metadata": {**strange["metadata"], "name": name}} for name in ("t-cv01", "t-x", "u-cv1")]
    assert not TrialReader("t", []).read(objects, Runs())
