import io
from pathlib import Path
from typing import Any

import pytest

from crossfold_cli.errors import UsageError
from crossfold_cli.manifest import absolute_uris, apply_settings, load, merge

TUNE = "apiVersion: crossfold.dev/v1alpha1\nkind: Tune\nmetadata: {name: a}\nspec: {maxTrials: 3, parameters: [{name: x-a, min: 1}]}\n"


@pytest.mark.parametrize(
    ("base", "over", "merged"),
    [
        ({"a": 1}, {"b": 2}, {"a": 1, "b": 2}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 3}}, {"a": {"b": 3, "c": 2}}),
        ({"a": [1, 2]}, {"a": [3]}, {"a": [3]}),
        ({"a": {"b": 1}}, {"a": None}, {"a": None}),
        ({"a": 1}, {"a": {"b": 1}}, {"a": {"b": 1}}),
        ({}, {"a": {"b": {"c": 1}}}, {"a": {"b": {"c": 1}}}),
    ],
)
def test_merge(base: Any, over: Any, merged: Any) -> None:
    assert merge(base, over) == merged


@pytest.mark.parametrize(
    ("setting", "spec"),
    [
        ("spec.maxTrials=4", {"maxTrials": 4}),
        ("spec.target=1e-1", {"target": 0.1}),
        ("spec.data.uri=a=b", {"data": {"uri": "a=b"}}),
        ("spec.parameters[0].max=2", {"parameters": [{"name": "x-a", "min": 1, "max": 2}]}),
        ("spec.parameters=[]", {"parameters": []}),
        ("spec.data={uri: x}", {"data": {"uri": "x"}}),
        ("spec.data=", {"data": None}),
        (r"spec.limits.nvidia\.com/gpu=1", {"limits": {"nvidia.com/gpu": 1}}),
    ],
)
def test_settings(tmp_path: Path, setting: str, spec: dict[str, Any]) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(TUNE)
    assert load(str(file), [], [setting])["spec"] == {"maxTrials": 3, "parameters": [{"name": "x-a", "min": 1}]} | spec


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("spec.maxTrials", "has no value"),
        ("=1", "no path"),
        ("spec..a=1", "no path"),
        ("spec.a.=1", "no path"),
        (".spec=1", "no path"),
        ("spec.parameters[7].min=1", r"1 items at \[7\]"),
        ("spec.maxTrials[0]=1", r"no list at \[0\]"),
        ("spec.maxTrials.x=1", "no object to put 'x' into"),
        ("spec.parameters.x=1", r"count list items as \[0\]"),
        ("spec.a={", "no YAML"),
    ],
)
def test_settings_that_lead_nowhere(setting: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        apply_settings({"spec": {"maxTrials": 3, "parameters": [{}]}}, [setting])


def test_overlays_merge_left_to_right_and_settings_last(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("kind: Secret\n---\n" + TUNE)
    (tmp_path / "b.yaml").write_text("spec: {maxTrials: 5, parallelism: 2}\n---\nkind: Secret\nspec: {maxTrials: 99}\n")
    (tmp_path / "c.yaml").write_text("kind: Tune\nspec: {parallelism: 3}\n")
    files = [str(tmp_path / name) for name in ("a.yaml", "b.yaml", "c.yaml")]
    spec = load(files[0], files[1:], ["spec.maxTrials=7", "spec.maxTrials=8"])["spec"]
    assert (spec["maxTrials"], spec["parallelism"]) == (8, 3)


def test_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(TUNE))
    assert load("-", [], [])["metadata"] == {"name": "a"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kind: Secret\n", r"holds none of Tune, CrossValidation, TrainRun \(but Secret\)"),
        ("", r"\(but nothing\)"),
        (f"{TUNE}---\n{TUNE}", "holds 2 objects to run"),
        ("- 1\n", "holds a list"),
        ("a: {", "is no YAML"),
    ],
)
def test_files_without_an_object_to_run(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(text)
    with pytest.raises(UsageError, match=message):
        load(str(file), [], [])


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        load(str(tmp_path / "none.yaml"), [], [])


def test_relative_places_become_absolute() -> None:
    spec = {"data": {"uri": "data/x", "region": "r"}, "artifacts": {"uri": "s3://b/a"}, "maxTrials": 1}
    assert absolute_uris({"spec": spec}, Path("/here"))["spec"] == spec | {
        "data": {"uri": "/here/data/x", "region": "r"}
    }
    for odd in ({"data": {"uri": 3}}, {"data": None}, {"data": {"uri": "/abs"}, "artifacts": {"uri": "file:///x"}}):
        assert absolute_uris({"spec": odd}, Path("/here"))["spec"] == odd
    assert absolute_uris({"spec": 1}, Path("/here")) == {"spec": 1}
    trainer = {"weightsFromCheckpoint": "best.ckpt", "maxEpochs": 3}
    assert absolute_uris({"spec": {"trainer": trainer}}, Path("/here"))["spec"] == {
        "trainer": {"weightsFromCheckpoint": "/here/best.ckpt", "maxEpochs": 3}
    }
