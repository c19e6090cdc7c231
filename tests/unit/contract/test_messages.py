"""Termination messages: what a trainer says at its end."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossfold_trainer.contract.exits import Exit
from crossfold_trainer.contract.hyperparameters import (
    HYPERPARAMETERS,
    canonical_name,
    name_problem,
    non_default,
    resolve,
    value_problem,
)
from crossfold_trainer.contract.result import (
    FAILURE_LOG_LIMIT,
    FAILURE_TEXT_LIMIT,
    MESSAGE_LIMIT,
    FailureClass,
    Outcome,
    RunFailure,
    RunResult,
    end_of_log,
    parse_message,
)


def result(**fields: Any) -> RunResult:
    return RunResult.model_validate({"digest": "d" * 64, "score": 0.5, "values": {"val/loss": 0.5}} | fields)


def test_a_result_comes_back() -> None:
    whole = result(metrics={"val/Recall": None}, epoch=3, epochs=9, outcome="Diverged", reason="wörds")
    assert parse_message(whole.message()) == whole


def test_optional_metrics_are_left_out_from_the_end_when_it_would_be_too_long() -> None:
    metrics = {f"val/Metric{i:03}": i / 7 for i in range(300)}
    message = result(metrics=metrics).message()
    assert len(message.encode()) <= MESSAGE_LIMIT
    kept = parse_message(message)
    assert isinstance(kept, RunResult)
    assert list(kept.metrics) == list(metrics)[: len(kept.metrics)]
    assert 0 < len(kept.metrics) < 300
    assert kept.values == {"val/loss": 0.5}
    # No more than was needed.
    assert len(result(metrics=dict(list(metrics.items())[: len(kept.metrics) + 1])).message()) <= MESSAGE_LIMIT
    longer = {**kept.model_dump(mode="json"), "metrics": dict(list(metrics.items())[: len(kept.metrics) + 1])}
    assert len(json.dumps({"result": longer}, separators=(",", ":"))) > MESSAGE_LIMIT


@given(
    reason=st.text(max_size=6000),
    names=st.lists(st.text(min_size=1, max_size=63), max_size=64, unique=True),
    uri=st.text(max_size=2048),
)
def test_a_message_is_never_too_long(reason: str, names: list[str], uri: str) -> None:
    whole = result(reason=reason, metrics=dict.fromkeys(names, 0.1), checkpoint_uri=uri)
    message = whole.message()
    assert len(message.encode()) <= MESSAGE_LIMIT
    kept = parse_message(message)
    assert isinstance(kept, RunResult)
    assert (kept.score, kept.values, kept.digest) == (whole.score, whole.values, whole.digest)


@pytest.mark.parametrize("character", ["r", "ü", "😀", '"', "\x00"])
def test_a_long_reason_is_cut_when_it_would_be_too_long(character: str) -> None:
    message = result(reason=character * 5000, metrics={"val/Recall": 0.5}).message()
    assert len(message.encode()) <= MESSAGE_LIMIT
    kept = parse_message(message)
    assert isinstance(kept, RunResult)
    assert set(kept.reason) == {character}
    assert len(message.encode()) > MESSAGE_LIMIT // 2


def test_a_failure_comes_back_and_fits() -> None:
    for text in ("no such band", '"wörds"'):
        failure = RunFailure(failure_class=FailureClass.CONFIG, message=text)
        assert parse_message(failure.text()) == failure
    for character in ("x", "ü", "😀"):
        long = RunFailure(failure_class=FailureClass.CONFIG, message=character * FAILURE_TEXT_LIMIT)
        assert len(long.text().encode()) <= MESSAGE_LIMIT
        cut = parse_message(long.text())
        assert isinstance(cut, RunFailure)
        assert set(cut.message) == {character}
        crash = RunFailure(
            failure_class=FailureClass.CRASH,
            message=character * 300,
            log="y" + character * (FAILURE_LOG_LIMIT - 2) + "z",
        )
        assert len(crash.text().encode()) <= MESSAGE_LIMIT
        kept = parse_message(crash.text())
        assert isinstance(kept, RunFailure)
        assert kept.message == crash.message, "the log gives way first"
        assert kept.log.endswith("z")
    assert json.loads(RunFailure(failure_class=FailureClass.CRASH, message="x").text()) == {
        "failure": {"class": "Crash", "message": "x"}
    }


@pytest.mark.parametrize(
    ("log", "end"),
    [
        ("", ""),
        ("one\ntwo\n", "one\ntwo"),
        ("x" * FAILURE_LOG_LIMIT, "x" * FAILURE_LOG_LIMIT),
        ("first\n" + "x" * FAILURE_LOG_LIMIT, "x" * FAILURE_LOG_LIMIT),
        ("y" + "x" * FAILURE_LOG_LIMIT, "x" * FAILURE_LOG_LIMIT),
        ("half of it goes\n" + "x" * (FAILURE_LOG_LIMIT - 7), "x" * (FAILURE_LOG_LIMIT - 7)),
    ],
    ids=["nothing", "all", "fits", "a line fits", "a line too long", "whole lines"],
)
def test_the_end_of_a_log(log: str, end: str) -> None:
    assert end_of_log(log) == end


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Traceback (most recent call last)",
        "[]",
        "null",
        "5",
        "{}",
        '{"result":null}',
        '{"result":{}}',
        '{"result":{"digest":1}}',
        '{"result":{"digest":"d","surprise":1}}',
        '{"result":{"digest":"d","score":NaN}}',
        '{"result":{"digest":"d","score":Infinity}}',
        '{"result":{"digest":"d","epoch":-1}}',
        '{"result":{"digest":"' + "d" * 65 + '"}}',
        '{"failure":{"class":"Bored","message":""}}',
        '{"result":{"digest":"d"}',
        "[" * MESSAGE_LIMIT,
        '{"a":' * 800,
        "9" * MESSAGE_LIMIT,
    ],
)
def test_what_is_no_message(text: str) -> None:
    assert parse_message(text) is None


def test_defaults_of_a_result() -> None:
    short = parse_message('{"result":{"digest":"d"}}')
    assert short == RunResult(digest="d")
    assert isinstance(short, RunResult)
    assert (short.outcome, short.score) == (Outcome.TRAINED, None)


def test_exit_codes() -> None:
    assert {code.name: int(code) for code in Exit} == {
        "OK": 0,
        "OUT_OF_MEMORY": 71,
        "INTERRUPTED": 75,
        "PEERS_LOST": 76,
        "CONFIG": 78,
    }


# Hyperparameters ------------------------------------------------------------------------------------------------------


def test_the_table_of_hyperparameters() -> None:
    assert {name: h.default for name, h in HYPERPARAMETERS.items()} == {
        "model_arch": "Unet",
        "model_encoder": "dpn107",
        "model_encoder_weights": None,
        "augment": [],
        "learning_rate": 1e-3,
        "gamma": 0.9,
        "focal_loss_alpha": None,
        "focal_loss_gamma": 2.0,
        "batch_size": 8,
        "bands": None,
    }


@pytest.mark.parametrize("name", HYPERPARAMETERS)
def test_a_default_fits(name: str) -> None:
    assert value_problem(name, HYPERPARAMETERS[name].default) is None
    assert non_default({name: HYPERPARAMETERS[name].default}) == {}


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("model_arch", ["FPN"], ["", None, 1]),
        ("model_encoder", ["resnet18"], ["", []]),
        ("model_encoder_weights", [None, "imagenet"], [1]),
        ("augment", [[], ["D4", "Blur"]], ["D4", ["Rotate"], ["D4", "D4"], [1], None]),
        ("learning_rate", [1, 1e-9], [0, -1, True, "1", None, float("nan"), float("inf")]),
        ("gamma", [1, 0.1], [0, 1.1, None]),
        ("focal_loss_alpha", [None, 0, 1, 0.5], [-0.1, 1.1, "x"]),
        ("focal_loss_gamma", [0, 5], [-1, None]),
        ("batch_size", [1, 8.0], [0, 8.5, True, "8", None]),
        ("bands", [None, ["red"]], [[], ["red", "red"], "red", [""]]),
        ("x-own", [None, {"a": 1}], []),
    ],
)
def test_values(name: str, good: list[Any], bad: list[Any]) -> None:
    for value in good:
        assert value_problem(name, value) is None
    for value in bad:
        problem = value_problem(name.replace("_", "-"), value)
        assert problem is not None
        assert problem.startswith(f"hyperparameter '{name}' must be ")


def test_names() -> None:
    assert canonical_name("learning-rate") == "learning_rate"
    assert canonical_name("x-learning-rate") == "x-learning-rate"
    assert name_problem("learning-rate") is None
    assert name_problem("x-anything") is None
    assert "did you mean 'learning_rate'" in str(name_problem("learnin-rate"))


def test_resolve() -> None:
    found = resolve({"batch-size": 16.0, "x-a": 1})
    assert (found["batch_size"], type(found["batch_size"])) == (16, int)
    assert found["x-a"] == 1
    assert found["gamma"] == 0.9
    assert non_default({"batch-size": 16.0, "gamma": 0.9}) == {"batch_size": 16}
