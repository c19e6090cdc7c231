"""configDigest: what counts and what does not."""

import hashlib
from typing import Any

import pytest

from crossfold_trainer.contract.config import RunConfig, config_digest, with_digest
from crossfold_trainer.contract.crossvalidation import seed_sequence
from crossfold_trainer.contract.trainer import TrainerSpec

MINIMAL: dict[str, Any] = {
    "run": "r",
    "objective": {"metrics": [{"name": "val/JaccardIndex"}]},
    "data": {"uri": "s3://bucket/data"},
    "artifacts": {"uri": "s3://bucket/artifacts"},
}
GOLDEN = "5ca1429c7aec89a63b8428becac5cacc71401df95563ecacb3b9f6e46d3bf4d9"
"""Results in people's buckets carry it: a change of it makes all of them unreadable."""
GOLDEN_RICH = "5b18fcab9815c81571a10523a71a449c1e6b7277819df9213d6b980d0ab5dc8e"
RICH: dict[str, Any] = {
    "fold": 2,
    "seed": 7,
    "folds": 3,
    "foldMethod": "KFold",
    "hyperparameters": {"learning-rate": 0.01, "augment": ["D4"], "bands": ["red", "nir"], "x-own": {"a": [1]}},
    "objective": {"metrics": [{"name": "val/JaccardIndex"}, {"name": "val/loss"}], "combine": "Min"},
    "data": {
        "uri": "s3://bucket/data",
        "endpoint": "https://s3",
        "subsample": 100,
        "split": {"method": "Region", "values": ["Banks"]},
    },
    "trainer": {"maxEpochs": 7, "earlyStoppingPatience": None},
}


def digest(**changes: Any) -> str:
    return config_digest(RunConfig.model_validate(MINIMAL | changes))


def test_golden() -> None:
    canonical = (
        '{"data":{"uri":"s3://bucket/data"},"hyperparameters":{},'
        '"objective":{"metrics":[{"direction":"Maximize","name":"val/JaccardIndex"}]}}'
    )
    assert hashlib.sha256(canonical.encode()).hexdigest() == GOLDEN
    assert digest() == GOLDEN
    assert digest(**RICH) == GOLDEN_RICH


@pytest.mark.parametrize(
    "changes",
    [
        # Said or left out: a default is a default.
        {"fold": 0, "seed": 42, "folds": 5, "foldMethod": "RegionStratified"},
        {"trainer": {"maxEpochs": 100, "earlyStoppingPatience": 5}},
        {"trainer": {"loss": "Focal", "lossSum": [], "scheduler": "Exponential", "gradientClip": None}},
        {"hyperparameters": {"batch_size": 8}},
        {"hyperparameters": {"batch_size": 8.0}},
        {"hyperparameters": {"learning-rate": 1e-3}},
        {"hyperparameters": {"model_encoder_weights": None, "bands": None, "augment": []}},
        {"data": {"uri": "s3://bucket/data", "split": {"method": "None"}}},
        {"objective": {"metrics": [{"name": "val/JaccardIndex", "direction": "Maximize"}]}},
        # One metric is not combined.
        {"objective": {"metrics": [{"name": "val/JaccardIndex"}], "combine": "Min"}},
        # Names and places.
        {"run": "other", "namespace": "n", "tune": "t", "crossValidation": "c"},
        {"artifacts": {"uri": "s3://elsewhere", "secretRef": {"name": "s"}}, "artifactPath": "a/b"},
        {"data": {"uri": "s3://bucket/data", "region": "eu", "secretRef": {"name": "s"}}},
        {"data": {"uri": "s3://bucket/data", "anonymous": True}},
        {"data": {"uri": "s3://bucket/data", "scale": None, "nonFinite": "Error"}},
        {"tracking": {"tensorboard": False}},
        {"trainer": {"numWorkers": 8, "logEveryNSteps": 1, "plotEveryNValEpochs": 0}},
        {"trainer": {"checkpointEveryNEpochs": 2, "checkpointEveryMinutes": 1, "devices": 2}},
        {"trainer": {"devices": 4, "nodes": 2, "strategy": "FSDP"}},
        {"trainer": {"cudaGraphs": True}},
        {"owner": "uid", "attempt": 3, "gracePeriodSeconds": 30, "outOfMemory": "HalveBatch"},
        {"digest": "x"},
    ],
)
def test_what_does_not_count(changes: dict[str, Any]) -> None:
    assert digest(**changes) == GOLDEN


COUNTING: list[dict[str, Any]] = [
    {"fold": 1},
    {"seed": 43},
    {"folds": 4},
    {"foldMethod": "KFold"},
    {"objective": {"metrics": [{"name": "val/Recall"}]}},
    {"objective": {"metrics": [{"name": "val/JaccardIndex", "direction": "Minimize"}]}},
    {"objective": {"metrics": [{"name": "val/JaccardIndex"}, {"name": "val/Recall"}]}},
    {"objective": {"metrics": [{"name": "val/JaccardIndex"}, {"name": "val/Recall"}], "combine": "Min"}},
    {"objective": {"metrics": [{"name": "val/Recall"}, {"name": "val/JaccardIndex"}]}},
    {"data": {"uri": "s3://bucket/other"}},
    {"data": {"uri": "s3://bucket/data", "endpoint": "http://other"}},
    {"data": {"uri": "s3://bucket/data", "subsample": 100}},
    {"data": {"uri": "s3://bucket/data", "split": {"method": "Random", "testFraction": 0.1}}},
    {"data": {"uri": "s3://bucket/data", "split": {"method": "Random", "testFraction": 0.2}}},
    {"data": {"uri": "s3://bucket/data", "split": {"method": "Region", "values": ["a"]}}},
    {"data": {"uri": "s3://bucket/data", "split": {"method": "Sample", "values": ["a"]}}},
    {"data": {"uri": "s3://bucket/data", "nonFinite": "Ignore"}},
    {"data": {"uri": "s3://bucket/data", "scale": {"max": 255}}},
    {"data": {"uri": "s3://bucket/data", "scale": {"min": 1, "max": 255}}},
    {"data": {"uri": "s3://bucket/data", "scale": {"max": 255, "bands": [{"name": "a", "max": 7}]}}},
    {"data": {"uri": "s3://bucket/data", "scale": {"max": 255, "bands": [{"name": "b", "max": 7}]}}},
    {"hyperparameters": {"batch_size": 9}},
    {"hyperparameters": {"learning_rate": 0.0010000001}},
    {"hyperparameters": {"augment": ["D4", "Blur"]}},
    {"hyperparameters": {"augment": ["Blur", "D4"]}},
    {"hyperparameters": {"model_arch": "FPN"}},
    {"hyperparameters": {"x-own": 1}},
    {"hyperparameters": {"x-own": None}},
    {"trainer": {"maxEpochs": 99}},
    {"trainer": {"earlyStoppingPatience": None}},
    {"trainer": {"checkValEveryNEpoch": 1}},
    {"trainer": {"limitTrainBatches": 1}},
    {"trainer": {"limitValBatches": 1}},
    {"trainer": {"detectAnomaly": True}},
    {"trainer": {"accumulateGradBatches": 2}},
    {"trainer": {"precision": "FP32"}},
    {"trainer": {"compile": True}},
    {"trainer": {"deterministic": True}},
    {"trainer": {"weightsFromCheckpoint": "s3://bucket/best.ckpt"}},
    {"trainer": {"loss": "Dice"}},
    {"trainer": {"loss": "Sum", "lossSum": [{"loss": "Dice"}, {"loss": "BCE"}]}},
    {"trainer": {"loss": "Sum", "lossSum": [{"loss": "Dice"}, {"loss": "BCE", "weight": 0.5}]}},
    {"trainer": {"tverskyAlpha": 0.5}},
    {"trainer": {"tverskyBeta": 0.5}},
    {"trainer": {"scheduler": "Cosine"}},
    {"trainer": {"gradientClip": 1}},
]


def test_what_counts() -> None:
    found = [digest(**changes) for changes in COUNTING]
    assert GOLDEN not in found
    assert len(set(found)) == len(found)


def test_every_setting_of_the_trainer_is_known_to_count_or_not() -> None:
    """A new setting needs a decision, and a row above."""
    counted = {name for changes in COUNTING for name in changes.get("trainer", {})}
    unscored = {
        "plotEveryNValEpochs",
        "logEveryNSteps",
        "numWorkers",
        "inMemory",
        "checkpointEveryNEpochs",
        "checkpointEveryMinutes",
        "devices",
        "nodes",
        "strategy",
        "cudaGraphs",
    }
    assert {field.alias for field in TrainerSpec.model_fields.values()} == counted | unscored


def test_two_spellings_are_one() -> None:
    spelt = [{"learning-rate": 0.5}, {"learning_rate": 0.5}, {"learning_rate": 0.50}]
    assert len({digest(hyperparameters=h) for h in spelt}) == 1
    assert digest(hyperparameters={"batch-size": 16}) == digest(hyperparameters={"batch_size": 16.0})


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"batch_size": "8"}, "must be an integer of at least 1, not '8'"),
        ({"learning_rat": 1}, "did you mean 'learning_rate'"),
        ({"batch-size": 8, "batch_size": 8}, "given twice"),
    ],
)
def test_what_makes_no_digest(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        digest(hyperparameters=values)


def test_a_run_is_put_into_a_folder_of_its_own() -> None:
    config = with_digest(RunConfig.model_validate(MINIMAL), "n/t/c")
    assert config.digest == GOLDEN
    assert config.artifact_path == f"n/t/c/r-{GOLDEN[:12]}"
    assert config.artifact_uri == f"s3://bucket/artifacts/n/t/c/r-{GOLDEN[:12]}"
    assert config_digest(config) == GOLDEN


def test_a_config_survives_its_journey() -> None:
    config = with_digest(RunConfig.model_validate(MINIMAL | RICH), "n")
    assert RunConfig.model_validate_json(config.model_dump_json(exclude_defaults=True)) == config


def test_seeds() -> None:
    more = (1824, 409, 4506, 4012, 3657, 2286, 1679, 8935, 1424, 9674, 6912, 520)
    assert seed_sequence(15) == (42, 21, 69, *more)
    assert [seed_sequence(n) for n in (1, 2, 3)] == [(42,), (42, 21), (42, 21, 69)]
    assert len(set(seed_sequence(30))) == 30
    assert all(0 <= seed <= 9999 for seed in seed_sequence(30))
