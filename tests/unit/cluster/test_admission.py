"""Admission without an API server. That both agree is tested against the real one, case by case."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from crossfold_operator.cluster.admission import admit

TUNE: dict[str, Any] = {
    "apiVersion": "crossfold.dev/v1alpha1",
    "kind": "Tune",
    "metadata": {"name": "a", "namespace": "default"},
    "spec": {
        "objective": {"metrics": [{"name": "val/JaccardIndex"}]},
        "data": {"uri": "/data"},
        "artifacts": {"uri": "/artifacts"},
        "parameters": [
            {"name": "learning_rate", "type": "Float", "min": 1e-5, "max": 1, "scale": "Log"},
            {"name": "batch_size", "type": "Int", "min": 4, "max": 16, "step": 4},
            {"name": "model_encoder", "type": "Categorical", "values": ["resnet18", None, ["x"], {"y": 1}]},
        ],
    },
}


def changed(change: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    obj = copy.deepcopy(TUNE)
    change(obj)
    return obj


def spec(**fields: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda obj: obj["spec"].update(fields)


def test_defaults() -> None:
    given = copy.deepcopy(TUNE)
    obj, problems = admit(given)
    assert problems == []
    assert given == TUNE
    assert obj["spec"]["maxTrials"] == 20
    assert obj["spec"]["crossValidation"] == {"folds": 5, "foldMethod": "RegionStratified"}
    assert obj["spec"]["template"]["terminationGracePeriodSeconds"] == 120
    assert "maxFailedTrials" not in obj["spec"]
    again, problems = admit(obj, obj)
    assert problems == []
    assert again == obj


def test_null_is_nothing_where_it_may_not_be_and_itself_where_it_may() -> None:
    obj, problems = admit(
        changed(spec(maxTrials=None, trainer={"earlyStoppingPatience": None}, data={"uri": "/d", "secretRef": None}))
    )
    assert problems == []
    assert obj["spec"]["maxTrials"] == 20
    assert obj["spec"]["trainer"]["earlyStoppingPatience"] is None
    assert "secretRef" not in obj["spec"]["data"]


@pytest.mark.parametrize(
    ("change", "problems"),
    [
        (lambda o: o.update(kind="Pod"), ["kind: must be Tune, CrossValidation or TrainRun, not 'Pod'"]),
        (lambda o: o.update(apiVersion="v1"), ["apiVersion: must be crossfold.dev/v1alpha1, not 'v1'"]),
        (lambda o: o["metadata"].pop("name"), ["metadata.name: is missing: give the object a name"]),
        (
            lambda o: o["metadata"].update(namespace="../x"),
            ["metadata.namespace: takes lower-case letters, digits and '-' only, not '../x'"],
        ),
        (
            lambda o: o["metadata"].update(labels={"a": True}),
            ["metadata.labels.a: must be a string, not True: put it into quotes"],
        ),
        (lambda o: o["metadata"].update(annotations=[1]), ["metadata.annotations: must be a mapping, not [1]"]),
        (lambda o: o.pop("spec"), ["spec: is missing: it has no default"]),
        (spec(max_trials=3), ["spec.max_trials: unknown field; did you mean 'maxTrials'?"]),
        (
            lambda o: o["spec"]["parameters"][0].update(minimum=3),
            ["spec.parameters[0].minimum: unknown field; did you mean 'min'?"],
        ),
        (spec(maxTrials=0), ["spec.maxTrials: must be at least 1, not 0"]),
        (spec(maxTrials=True), ["spec.maxTrials: must be an integer, not True"]),
        (spec(maxTrials=1.5), ["spec.maxTrials: must be an integer, not 1.5"]),
        (spec(maxTrials="4"), ["spec.maxTrials: must be an integer, not '4': remove the quotes"]),
        (spec(suspend="yes"), ["spec.suspend: must be true or false, not 'yes': remove the quotes"]),
        (
            spec(objective={"metrics": [{"name": "val/jaccardindex"}]}),
            [
                "spec.objective.metrics[0]: no metric has this name, in which capital and small letters differ: did you mean val/JaccardIndex?"
            ],
        ),
        (
            spec(algorithm={"seed": 2**31}),
            ["spec.algorithm.seed: must be at most 2147483647, not 2147483648"],
        ),
        (spec(parameters={}), ["spec.parameters: must be a list, not {}"]),
        (spec(parameters=[]), ["spec.parameters: must have at least 1 items, not 0"]),
        (spec(data=[]), ["spec.data: must be a mapping, not []"]),
        (spec(data={"uri": ""}), ["spec.data.uri: must have at least 1 characters, not 0"]),
        (
            spec(algorithm={"name": "tpe"}),
            ["spec.algorithm.name: must be one of TPE, Random, Grid, Sobol, CMAES, GP, not 'tpe'"],
        ),
        (
            spec(algorithm={"name": "Randon"}),
            [
                "spec.algorithm.name: must be one of TPE, Random, Grid, Sobol, CMAES, GP, not 'Randon'; did you mean 'Random'?"
            ],
        ),
        (
            spec(data={"uri": "/d", "split": {"method": "Random", "testFraction": 1}}),
            ["spec.data.split.testFraction: must be below 1, not 1"],
        ),
        (
            spec(data={"uri": "/d", "endpoint": "x"}),
            ["spec.data.endpoint: must match ^(https?://.+)?$, which 'x' does not"],
        ),
        (
            lambda o: o["spec"]["parameters"].append({"name": "batch_size", "type": "Int"}),
            ["spec.parameters[3]: duplicate of item 1: remove one"],
        ),
        (spec(crossValidation={"seeds": [1, 1]}), ["spec.crossValidation.seeds[1]: duplicate of item 0: remove one"]),
        (
            spec(template={"resources": {"limits": {"nvidia.com/gpu": 1.5}}}),
            ["spec.template.resources.limits.nvidia.com/gpu: must be an integer or a string, not 1.5"],
        ),
        (
            lambda o: o["spec"]["parameters"][0].update(min=2),
            ["spec.parameters[0]: Float and Int need min and max, with min below max"],
        ),
        (
            lambda o: o["spec"]["parameters"][1].update(min=4.5),
            ["spec.parameters[1]: Int needs whole numbers for min, max and step"],
        ),
        (
            spec(fixed=[{"name": "batch-size", "value": 1}]),
            ["spec: a hyperparameter is either in parameters or in fixed, not in both"],
        ),
        (
            spec(crossValidation={"folds": 1}),
            ["spec.crossValidation: foldMethod None goes with folds 1, and folds 1 with foldMethod None"],
        ),
        (
            lambda o: o["metadata"].update(name="A"),
            ["metadata.name takes lower-case letters, digits and '-' only: it becomes a label"],
        ),
    ],
)
def test_what_is_refused(change: Callable[[dict[str, Any]], Any], problems: list[str]) -> None:
    assert admit(changed(change))[1] == problems


@pytest.mark.parametrize(
    ("change", "problems"),
    [
        (spec(maxTrials=3, parallelism=4, suspend=True), []),
        (spec(template={"nodeSelector": {"a": "b"}}), []),
        (
            spec(template={"image": "x"}),
            ["spec.template.image cannot be changed: create a new object under another name"],
        ),
        (spec(data={"uri": "/other"}), ["spec.data cannot be changed: create a new object under another name"]),
    ],
)
def test_what_may_change(change: Callable[[dict[str, Any]], Any], problems: list[str]) -> None:
    old, _ = admit(TUNE)
    assert admit(changed(change), old)[1] == problems


def test_a_status_is_judged_too() -> None:
    obj, problems = admit(changed(lambda o: o.update(status={"phase": "Complete", "trials": {"asked": 3}})))
    assert problems == []
    assert obj["status"]["trials"]["asked"] == 3
    assert admit(changed(lambda o: o.update(status={"phases": "Complete"})))[1] == [
        "status.phases: unknown field; did you mean 'phase'?"
    ]
