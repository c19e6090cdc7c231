"""Whom a change of an object concerns."""

import pytest

from crossfold_operator.names import Kind
from crossfold_operator.observe.metadata import Obj, wakes

OURS = "crossfold.dev/v1alpha1"


def owned(kind: Kind, name: str, owner: tuple[str, str, str] | None = None, **labels: str) -> Obj:
    meta: Obj = {"name": name, "namespace": "d", "labels": {f"crossfold.dev/{k}": v for k, v in labels.items()}}
    if owner:
        version, owner_kind, owner_name = owner
        reference = {"apiVersion": version, "kind": owner_kind, "name": owner_name, "uid": "u", "controller": True}
        meta["ownerReferences"] = [{**reference, "name": "other", "controller": False}, reference]
    return {"kind": str(kind), "metadata": meta}


@pytest.mark.parametrize(
    ("obj", "keys"),
    [
        (owned(Kind.TUNE, "t"), [("Tune", "d", "t")]),
        (owned(Kind.TUNE, "t", ("argoproj.io/v1", "Workflow", "w")), [("Tune", "d", "t")]),
        (owned(Kind.CROSS_VALIDATION, "c"), [("CrossValidation", "d", "c")]),
        (
            owned(Kind.CROSS_VALIDATION, "c", (OURS, "Tune", "t"), tune="t"),
            [("CrossValidation", "d", "c"), ("Tune", "d", "t")],
        ),
        (
            owned(Kind.TRAIN_RUN, "r", (OURS, "CrossValidation", "c"), tune="t"),
            [("TrainRun", "d", "r"), ("CrossValidation", "d", "c"), ("Tune", "d", "t")],
        ),
        (
            owned(Kind.TRAIN_RUN, "r", (OURS, "CrossValidation", "c")),
            [("TrainRun", "d", "r"), ("CrossValidation", "d", "c")],
        ),
        (owned(Kind.TRAIN_RUN, "r", tune="t"), [("TrainRun", "d", "r")]),
        (owned(Kind.JOB, "r", (OURS, "TrainRun", "r")), [("TrainRun", "d", "r")]),
        (owned(Kind.JOB, "r", ("batch/v1", "CronJob", "r")), []),
        (owned(Kind.JOB, "r"), []),
        (owned(Kind.POD, "r-x", ("batch/v1", "Job", "r"), **{"train-run": "r"}), [("TrainRun", "d", "r")]),
        (owned(Kind.POD, "x"), []),
    ],
)
def test_wakes(obj: Obj, keys: list[tuple[str, str, str]]) -> None:
    assert wakes(obj) == keys
