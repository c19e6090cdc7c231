"""Whole runs: real processes on folders, their exit codes, what they leave, and how they go on after an end.

The cases that need no process of their own run in this one, through the same function as the process does.
"""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
import segmentation_models_pytorch as smp
import torch
import yaml
from pyarrow import parquet
from torch.nn import functional

from crossfold_trainer.__main__ import run_to_exit
from crossfold_trainer.contract import hyperparameters as hp
from crossfold_trainer.contract.config import (
    CONFIG_VARIABLE,
    TERMINATION_VARIABLE,
    OutOfMemoryPolicy,
    RunConfig,
    with_digest,
)
from crossfold_trainer.contract.exits import Exit
from crossfold_trainer.contract.metrics import METRICS, TEST_METRICS
from crossfold_trainer.contract.progress import ProgressReport
from crossfold_trainer.contract.result import FailureClass, Outcome, RunFailure, RunResult
from crossfold_trainer.data import open_dataset
from crossfold_trainer.instances import InstanceMetrics
from crossfold_trainer.interrupt import Interrupt
from crossfold_trainer.live import Live
from crossfold_trainer.model import build_model
from crossfold_trainer.segmentation.module import SegmentationModule
from crossfold_trainer.splits import make_splits
from crossfold_trainer.step import TrainStep
from crossfold_trainer.tracking import LogText
from tests.trainer_data import classes_dataset, run_config, write_dataset
from tests.trainer_runs import Attempts, config_for, failure, folder_of, result, weights


def test_a_process_leaves_everything_and_repeats_its_result(data: Path, tmp_path: Path, attempts: Attempts) -> None:
    config = config_for(
        data,
        tmp_path / "a",
        tracking={"tensorboard": True, "graph": True},
        trainer={"plotEveryNValEpochs": 2},
        hyperparameters={"augment": ["HorizontalFlip"]},
    )
    ended = attempts.ended(attempts.process(config))
    message = result(ended)
    lines = [line for line in ended.output.splitlines() if line.startswith("epoch ")]
    assert [line.split()[1] for line in lines] == ["1/3", "2/3", "3/3"]
    assert all(" loss=" in line and " val/JaccardIndex=" in line and " score=" in line for line in lines)

    folder = folder_of(config)
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert {name for name in found if not name.startswith(("events.out.tfevents", "checkpoints/log/"))} == {
        "config.json", "hparams.yaml", "metrics.csv", "splits.parquet", "environment.json", "log.txt", "result.json",
        "checkpoints/best.ckpt", "checkpoints/last.ckpt",
        "figures/samples-best.png", "figures/samples-epoch0002.png", "figures/splits.png", "figures/augmented.png",
        "figures/roc-best.png", "figures/precision-recall-best.png", "figures/confusion-best.png",
    }  # fmt: skip
    assert sum(name.startswith("events.out.tfevents") for name in found) == 1
    assert sum(name.startswith("checkpoints/log/") for name in found) == 2
    assert RunConfig.model_validate_json((folder / "config.json").read_text()) == config
    assert RunResult.model_validate_json((folder / "result.json").read_text()) == message
    assert message.outcome is Outcome.TRAINED
    assert message.stable
    assert message.score == message.values["val/JaccardIndex"]
    assert message.score is not None
    assert message.digest == config.digest
    assert message.checkpoint_uri == f"{config.artifact_uri}/checkpoints/best.ckpt"
    assert (message.epochs, message.steps) == (3, 12)
    assert {"val/AUROC", "val/loss", "train/Recall"} <= set(message.metrics)
    speed = message.performance
    assert speed is not None
    assert speed.device == "cpu"
    assert speed.patches_per_second is not None
    assert 0 < speed.patches_per_second < 16 * 3 / 1e-3
    assert speed.data_wait_share is not None
    assert speed.checkpoint_wait_share is not None
    assert 0 <= speed.data_wait_share < 1
    assert 0 < speed.checkpoint_wait_share < 1
    assert (speed.device_utilisation, speed.peak_memory_bytes) == (None, None)
    machine = json.loads((folder / "environment.json").read_text())
    assert machine["packages"]["torch"] == torch.__version__.partition("+")[0]
    assert machine["cpus"] >= machine["threads"] == 1
    assert machine["memory_bytes"] > 2**28
    assert machine["processor"]
    rows = (folder / "metrics.csv").read_text().splitlines()
    assert len(rows) == 4
    parts = parquet.read_table(folder / "splits.parquet")["part"].to_pylist()
    assert (parts.count("train"), parts.count("val")) == (16, 8)
    assert (folder / "figures/samples-best.png").read_bytes()[:4] == b"\x89PNG"
    kept = torch.load(folder / "checkpoints/best.ckpt", weights_only=True)
    assert kept["epoch"] == message.epoch
    assert kept["score"] == message.score

    before = (folder / "result.json").stat().st_mtime_ns
    again = attempts.ended(attempts.process(config))
    assert result(again) == message
    assert (folder / "result.json").stat().st_mtime_ns == before


def test_a_run_tells_its_scores_so_far(
    data: Path, tmp_path: Path, attempts: Attempts, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[ProgressReport] = []
    monkeypatch.setattr(Live, "give", lambda self, report: given.append(report))
    config = config_for(data, tmp_path / "a", curveEpochs=[2, 4], trainer={"maxEpochs": 5})
    found = result(attempts.here(config))
    rows = csv.DictReader(io.StringIO((folder_of(config) / "metrics.csv").read_text()))
    scores = [float(row["score"]) for row in rows]
    assert [(point.epoch, point.best, point.mean) for point in found.curve] == [
        (epoch, pytest.approx(max(scores[:epoch]), rel=1e-5), pytest.approx(sum(scores[:epoch]) / epoch, rel=1e-5))
        for epoch in (2, 4)
    ]
    said = {epoch: [report.curve for report in given if report.epoch == epoch] for epoch in range(6)}
    for epoch, points in ((1, 0), (2, 1), (3, 1), (4, 2), (5, 2)):
        assert said[epoch], f"nothing was told after epoch {epoch}"
        assert said[epoch] == [found.curve[:points]] * len(said[epoch]), epoch
    assert given[-1].curve == found.curve


def test_batches_in_micro_batches_are_the_same_batches(data: Path, tmp_path: Path, attempts: Attempts) -> None:
    """The model has batch statistics, so that weights differ; the patches of every step do not."""
    whole = config_for(data, tmp_path / "whole", hyperparameters={"batch_size": 8})
    cut = config_for(data, tmp_path / "cut", trainer={"accumulateGradBatches": 2})
    assert whole.digest != cut.digest
    one, other = result(attempts.here(whole)), result(attempts.here(cut))
    assert (one.steps, other.steps) == (6, 6)
    assert one.metrics["train/loss"] == pytest.approx(other.metrics["train/loss"], rel=0.2)
    few = config_for(data, tmp_path / "few", trainer={"accumulateGradBatches": 2, "limitTrainBatches": 2})
    assert result(attempts.here(few)).steps == 3
    many = config_for(data, tmp_path / "many", trainer={"accumulateGradBatches": 5})
    text = failure(attempts.here(many), Exit.CONFIG, FailureClass.CONFIG)
    assert "fewer than one batch of 20: lower batch_size or trainer.accumulateGradBatches" in text


def test_an_operation_without_a_deterministic_kernel_is_refused(
    data: Path, tmp_path: Path, attempts: Attempts, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_for(data, tmp_path / "a", trainer={"deterministic": True, "maxEpochs": 1})
    assert result(attempts.here(config)).steps == 4
    assert torch.are_deterministic_algorithms_enabled()

    def without_kernel(*_: object) -> None:
        raise RuntimeError(
            "upsample_bilinear2d_backward_out_cuda does not have a deterministic implementation, but ..."
        )

    monkeypatch.setattr(TrainStep, "__call__", without_kernel)
    config = config_for(data, tmp_path / "b", trainer={"deterministic": True, "maxEpochs": 1})
    text = failure(attempts.here(config), Exit.CONFIG, FailureClass.CONFIG)
    assert text.startswith("trainer.deterministic: upsample_bilinear2d_backward_out_cuda has no deterministic kernel")
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("precision", ["BF16Mixed", "FP16Mixed"])
def test_precision_is_what_was_asked_for(data: Path, tmp_path: Path, attempts: Attempts, precision: str) -> None:
    ended = attempts.here(config_for(data, tmp_path / "a", trainer={"precision": precision, "maxEpochs": 1}))
    if precision == "BF16Mixed":
        assert "training on cpu in BF16Mixed" in ended.output
        assert result(ended).score is not None
    else:
        assert "trainer.precision: FP16Mixed needs a GPU" in failure(ended, Exit.CONFIG, FailureClass.CONFIG)


def test_a_result_of_another_digest_is_not_repeated(data: Path, tmp_path: Path, attempts: Attempts) -> None:
    config = config_for(data, tmp_path / "a", trainer={"maxEpochs": 1})
    folder = folder_of(config)
    folder.mkdir(parents=True)
    (folder / "result.json").write_text(RunResult(digest="0" * 64, score=0.99).model_dump_json())
    assert result(attempts.here(config)).score != 0.99
    for torn in ("", "{", '{"digest": 3}'):
        (folder / "result.json").write_text(torn)
        assert result(attempts.here(config)).digest == config.digest


def test_a_non_finite_loss_is_a_finished_run_without_a_score(data: Path, tmp_path: Path, attempts: Attempts) -> None:
    config = config_for(data, tmp_path / "a", hyperparameters={"learning_rate": 1e30})
    got = result(attempts.here(config))
    assert got.outcome is Outcome.DIVERGED
    assert (got.score, got.stable) == (None, False)
    assert "the loss is" in got.reason
    assert result(attempts.here(config)) == got


def test_the_last_epoch_is_validated_and_patience_counts_validations(
    data: Path, tmp_path: Path, attempts: Attempts
) -> None:
    short = config_for(data, tmp_path / "short", trainer={"maxEpochs": 2, "checkValEveryNEpoch": 5})
    assert result(attempts.here(short)).epoch == 1
    stuck = config_for(
        data,
        tmp_path / "stuck",
        hyperparameters={"learning_rate": 1e-12},
        trainer={"maxEpochs": 30, "checkValEveryNEpoch": 2, "earlyStoppingPatience": 2},
    )
    ended = attempts.here(stuck)
    got = result(ended)
    assert got.epochs < 30
    assert "no better score in 2 validations" in got.reason
    validated = [i for i, line in enumerate(ended.output.splitlines()) if " epoch " in line and "score=" in line]
    assert len(validated) == got.epochs // 2


def test_an_unstable_validation_is_never_best(data: Path, tmp_path: Path, attempts: Attempts) -> None:
    import numpy as np

    # Validation labels that are all ignored: the metric is NaN.
    y = open_dataset(run_config(data, "a").data, None).read(np.arange(24)).y
    y[:8] = 2
    blind = write_dataset(tmp_path / "blind", y=y)
    got = result(attempts.here(config_for(blind, tmp_path / "a", foldMethod="KFold", trainer={"maxEpochs": 1})))
    assert (got.score, got.stable, got.outcome) == (None, False, Outcome.TRAINED)
    assert got.values == {"val/JaccardIndex": None}
    assert "unstable" in got.reason
    assert got.checkpoint_uri.endswith("last.ckpt")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Patches that are bright and all yes, or dark and all no: a small model learns them completely."""
    import numpy as np

    y = np.zeros((24, 32, 32), np.uint8)
    y[::2] = 1
    x = np.repeat((0.2 + 0.6 * y)[:, None], 3, axis=1).astype(np.float32)
    metadata = {"region": [f"r{i // 2 % 6}" for i in range(24)], "empty": ~y.any(axis=(1, 2))}
    return write_dataset(tmp_path_factory.mktemp("plain"), x=x, y=y, metadata=metadata)


ERROR, SHARE = "val/HammingDistance", "val/JaccardIndex"


@pytest.mark.parametrize(
    ("metrics", "score"), [([ERROR], 0.0), ([SHARE], 1.0), ([SHARE, ERROR], 2.0)], ids=["error", "share", "both"]
)
def test_the_first_perfect_epoch_is_kept_in_either_direction(
    plain: Path, tmp_path: Path, attempts: Attempts, metrics: list[str], score: float
) -> None:
    config = config_for(
        plain,
        tmp_path / "a",
        objective={"metrics": [{"name": name} for name in metrics]},
        hyperparameters={"learning_rate": 1e-2},
        trainer={"maxEpochs": 12, "earlyStoppingPatience": 2},
    )
    ended = attempts.here(config)
    got = result(ended)
    with (folder_of(config) / "metrics.csv").open() as file:
        errors = [float(row[ERROR]) for row in csv.DictReader(file)]
    assert 0.0 in errors[1:], "it learned nothing, or all at once: the test tests nothing"
    assert (got.epoch, got.epochs) == (errors.index(0.0), errors.index(0.0) + 3)
    assert (got.score, got.stable, got.outcome) == (pytest.approx(score), True, Outcome.TRAINED)
    assert "unstable" not in ended.output
    kept = torch.load(folder_of(config) / "checkpoints/best.ckpt", weights_only=True)
    assert (kept["epoch"], kept["metrics"][ERROR]) == (got.epoch, 0.0)


def test_a_perfect_trial_is_the_best_of_its_tune(plain: Path, tmp_path: Path, attempts: Attempts) -> None:
    for trial, rate in enumerate((1e-12, 1e-2)):
        of = {"tune": "t", "crossValidation": f"t-cv{trial}", "root": "r", "trial": trial, "runs": 1}
        config = run_config(
            plain,
            tmp_path / "a",
            **of,
            run=f"t-cv{trial}-f0s42",
            objective={"metrics": [{"name": ERROR}]},
            hyperparameters={"learning_rate": rate},
            trainer={"maxEpochs": 1 if trial == 0 else 12, "earlyStoppingPatience": 2},
        )
        result(attempts.here(with_digest(config, f"default/t/t-cv{trial}")))
    best = yaml.safe_load((tmp_path / "a/default/t/best.yaml").read_text())
    assert (best["trial"], best["score"], best["objective"]["direction"]) == (1, 0.0, "Minimize")


def test_a_combined_objective_is_the_contracts(data: Path, tmp_path: Path, attempts: Attempts) -> None:
    objective = {"metrics": [{"name": "val/JaccardIndex"}, {"name": "val/loss"}], "combine": "Geometric"}
    got = result(attempts.here(config_for(data, tmp_path / "a", objective=objective, trainer={"maxEpochs": 1})))
    iou, loss = got.values["val/JaccardIndex"], got.values["val/loss"]
    assert iou is not None
    assert loss is not None
    assert got.score == pytest.approx((iou / loss) ** 0.5)


def test_every_augmentation_limits_and_anomaly_detection_work_together(
    data: Path, tmp_path: Path, attempts: Attempts
) -> None:
    from crossfold_trainer.contract.hyperparameters import AUGMENTATIONS

    config = config_for(
        data,
        tmp_path / "a",
        hyperparameters={"augment": list(AUGMENTATIONS), "bands": ["nir", "red"], "focal_loss_alpha": 0.6},
        trainer={"maxEpochs": 2, "limitTrainBatches": 2, "limitValBatches": 1, "detectAnomaly": True},
    )
    got = result(attempts.here(config))
    torch.autograd.set_detect_anomaly(False)
    assert got.steps == 4


TEST_PART = {"split": {"method": "Region", "values": ["r4", "r5"]}}


def test_the_kept_epoch_is_measured_on_the_test_part(data: Path, tmp_path: Path, attempts: Attempts) -> None:
    config = config_for(data, tmp_path / "a", folds=2, data=TEST_PART, trainer={"maxEpochs": 4})
    got = result(attempts.here(config))
    tested = {name.removeprefix("test/"): v for name, v in got.metrics.items() if name.startswith("test/")}
    assert set(tested) == {*METRICS, *TEST_METRICS}
    assert all(value is not None for value in tested.values())

    opened = open_dataset(config.data, None)
    rows = make_splits(opened.metadata, config, 4).test
    assert len(rows) == 8
    patches = opened.read(rows)
    kept = torch.load(folder_of(config) / "checkpoints/best.ckpt", weights_only=True)
    # A program that knows nothing of Crossfold needs the architecture's name and the weights.
    about = kept["hyper_parameters"]["config"]
    network = smp.create_model(**about["model"], encoder_weights=None)
    network.load_state_dict({name.removeprefix("model."): value for name, value in kept["state_dict"].items()})
    model = SegmentationModule.load_from_checkpoint(folder_of(config) / "checkpoints/best.ckpt", map_location="cpu")
    x = torch.from_numpy(patches.x)
    with torch.inference_mode():
        assert torch.equal(
            network.eval()(functional.pad(x, (0, -x.shape[3] % 32, 0, -x.shape[2] % 32)))[
                :, 0, : x.shape[2], : x.shape[3]
            ],
            model.eval()(x),
        )
    with torch.inference_mode():
        answer = (model.eval()(torch.from_numpy(patches.x)) > 0).numpy()
    yes = patches.y == 1
    valid = patches.y != 2
    assert tested["JaccardIndex"] == pytest.approx((answer & yes).sum() / ((answer | yes) & valid).sum(), abs=1e-6)
    assert tested["Accuracy"] == pytest.approx((answer == yes)[valid].mean(), abs=1e-6)
    assert not any(name.startswith("test/") for name in got.values)
    drawn = {path.stem for path in (folder_of(config) / "figures").iterdir()}
    assert {"samples-test", "roc-test", "precision-recall-test", "confusion-test"} <= drawn


def test_sigterm_during_the_test_leaves_the_test_to_the_next_attempt(
    data: Path, tmp_path: Path, attempts: Attempts, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_for(data, tmp_path / "a", folds=2, data=TEST_PART)
    expected = result(attempts.here(config_for(data, tmp_path / "b", folds=2, data=TEST_PART)))
    interrupt = Interrupt()
    with monkeypatch.context() as patch:
        patch.setattr(InstanceMetrics, "update", lambda *_: interrupt.request())
        failure(attempts.here(config, interrupt), Exit.INTERRUPTED, FailureClass.PREEMPTED)
    got = result(attempts.here(config))
    assert got.metrics == expected.metrics
    assert (got.score, got.steps) == (expected.score, expected.steps)


def test_a_run_starts_from_another_runs_weights_with_hyperparameters_of_its_own(
    data: Path, tmp_path: Path, attempts: Attempts
) -> None:
    first = config_for(data, tmp_path / "a", trainer={"maxEpochs": 4})
    assert result(attempts.here(first)).stable
    start = str(folder_of(first) / "checkpoints/best.ckpt")
    slow = {"hyperparameters": {"learning_rate": 1e-12}}
    trainer = {"maxEpochs": 1, "weightsFromCheckpoint": start}
    second = config_for(data, tmp_path / "b", trainer=trainer, **slow)
    result(attempts.here(second))
    one, other = weights(folder_of(first)), weights(folder_of(second))
    names = [name for name in one if name.endswith("weight")]
    convolutions = [name for name in names if one[name].dim() == 4]
    assert convolutions
    assert all(torch.allclose(one[name], other[name], atol=1e-9) for name in names)
    torch.manual_seed(second.seed)
    fresh = build_model(hp.resolve(second.hyperparameters), 3).network.state_dict()
    assert not any(torch.allclose(one[name], fresh[name.removeprefix("model.")], atol=1e-9) for name in convolutions)

    other_bands = config_for(data, tmp_path / "d", trainer=trainer, hyperparameters={"bands": ["nir", "red", "green"]})
    said = failure(attempts.here(other_bands), Exit.CONFIG, FailureClass.CONFIG)
    assert said.startswith("trainer.weightsFromCheckpoint: ")
    assert "was trained on the bands red, green, nir, this run reads nir, red, green" in said


def test_several_classes_are_learnt(tmp_path: Path, attempts: Attempts) -> None:
    config = config_for(
        classes_dataset(tmp_path / "d"),
        tmp_path / "a",
        hyperparameters={"augment": ["D4", "Posterize"], "learning_rate": 0.02},
        trainer={"maxEpochs": 8, "checkValEveryNEpoch": 4, "earlyStoppingPatience": None},
    )
    got = result(attempts.here(config))
    assert got.score is not None
    assert got.score > 0.5
    assert got.metrics["val/AUROC"] is not None
    assert got.metrics["val/AUROC"] > 0.8
    kept = torch.load(folder_of(config) / "checkpoints/best.ckpt", weights_only=True)
    assert kept["hyper_parameters"]["config"]["classes"] == ["ground", "water", "ice"]
    assert kept["state_dict"]["model.segmentation_head.0.weight"].shape[0] == 3
    assert (folder_of(config) / "figures/samples-best.png").exists()


@pytest.mark.parametrize(
    "settings",
    [
        {"scheduler": "OneCycle", "loss": "Sum", "lossSum": [{"loss": "BCE", "weight": 0.5}, {"loss": "Lovasz"}]},
        {"scheduler": "Cosine", "loss": "Tversky", "gradientClip": 0.1},
    ],
)
def test_losses_and_schedules_train(data: Path, tmp_path: Path, attempts: Attempts, settings: dict[str, Any]) -> None:
    config = config_for(data, tmp_path / "a", trainer={"maxEpochs": 4, "checkValEveryNEpoch": 2} | settings)
    got = result(attempts.here(config))
    assert got.stable
    rows = list(csv.DictReader(io.StringIO((folder_of(config) / "metrics.csv").read_text())))
    assert float(rows[-1]["train/loss"]) < float(rows[0]["train/loss"])
    rates = [float(row["learning_rate"]) for row in rows]
    assert rates[-1] < max(rates)


@pytest.mark.parametrize(
    ("replace", "message"),
    [
        (
            {"hyperparameters": {"learning_rat": 1}},
            "unknown hyperparameter 'learning_rat'; did you mean 'learning_rate'?",
        ),
        ({"hyperparameters": {"batch_size": 0}}, "hyperparameter 'batch_size' must be an integer of at least 1, not 0"),
        (
            {"hyperparameters": {"batch_size": 100}},
            "hyperparameters.batch_size: the train part of fold 0 has 16 patches",
        ),
        ({"hyperparameters": {"bands": ["uv"]}}, "hyperparameters.bands: the data set has no band uv"),
        (
            {"hyperparameters": {"model_arch": "Unnet"}},
            "hyperparameters.model_arch: 'Unnet' is unknown; did you mean 'Unet'?",
        ),
        ({"hyperparameters": {"model_encoder": "resnet19"}}, "hyperparameters.model_encoder: 'resnet19' is unknown"),
        ({"hyperparameters": {"model_encoder": "tu-nothing"}}, "hyperparameters.model_encoder"),
        (
            {"hyperparameters": {"model_encoder": "resnet18", "model_encoder_weights": "nothing"}},
            "hyperparameters.model_encoder_weights: the weights 'nothing' of resnet18 cannot be had",
        ),
        (
            {"folds": 9},
            "crossValidation.folds: 9 folds by RegionStratified need at least 9 regions; the train part has 6",
        ),
        ({"data": {"uri": "nowhere"}}, "data.uri: the folder"),
        ({"data": {"split": {"method": "Region", "values": ["r9"]}}}, "data.split.values: no patch is of region r9"),
        ({"artifacts": {"uri": "/proc/nothing"}}, "artifacts.uri"),
        (
            {"objective": {"metrics": [{"name": "val/Beauty", "direction": "Maximize"}]}},
            "objective.metrics: this trainer does not report val/Beauty; it reports val/Accuracy",
        ),
    ],
)
def test_a_wrong_configuration_is_refused(
    data: Path, tmp_path: Path, attempts: Attempts, replace: dict[str, Any], message: str
) -> None:
    config = run_config(data, tmp_path / "a", **replace).model_copy(update={"digest": "0" * 64})
    assert message in failure(attempts.here(config), Exit.CONFIG, FailureClass.CONFIG)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "CROSSFOLD_CONFIG: is not set"),
        ("{", "CROSSFOLD_CONFIG: Invalid JSON"),
        (json.dumps({"run": "r"}), "objective: Field required"),
        (
            json.dumps(run_config("d", "a").model_dump(mode="json") | {"fold": 7}),
            "fold 7 does not exist: there are 3",
        ),
    ],
)
def test_an_unreadable_configuration_is_refused(attempts: Attempts, text: str, message: str) -> None:
    assert message in failure(attempts.here(text), Exit.CONFIG, FailureClass.CONFIG)


def test_a_refusal_is_a_processes_last_line(tmp_path: Path, attempts: Attempts) -> None:
    ended = attempts.ended(attempts.process(config_for(tmp_path / "nowhere", tmp_path / "a")))
    failure(ended, Exit.CONFIG, FailureClass.CONFIG)
    assert ended.output.strip().splitlines()[-1].startswith("Config (exit 78): data.uri: the folder")


def test_how_a_library_leaves_does_not_change_how_a_run_ended(tmp_path: Path, attempts: Attempts) -> None:
    """A library's thread that Python stops in its midst aborts the process: as here, whenever Python ends by itself."""
    config = config_for(tmp_path / "nowhere", tmp_path / "a")
    code = "import atexit, os; atexit.register(os.abort); from crossfold_trainer.__main__ import main; main()"
    ended = attempts.ended(attempts.process(config, program=("-c", code)))
    failure(ended, Exit.CONFIG, FailureClass.CONFIG)
    assert ended.output.splitlines()[-1].startswith("Config (exit 78)")


def test_what_needs_no_training_imports_no_torch(tmp_path: Path, attempts: Attempts) -> None:
    config = config_for(write_dataset(tmp_path / "d"), tmp_path / "a", folds=9)
    code = (
        "import sys; from crossfold_trainer.__main__ import *; code = run_to_exit(Interrupt(), LogText());"
        "heavy = {'torch', 'pandas', 'sklearn', 'matplotlib', 's3fs', 'tensorboard'} & set(sys.modules);"
        "sys.exit(f'imported {heavy}' if heavy else code)"
    )
    ended = attempts.ended(attempts.process(config, program=("-c", code)))
    assert ended.code == Exit.CONFIG, ended.output


def test_an_accelerator_out_of_memory_is_classified(
    data: Path, tmp_path: Path, attempts: Attempts, monkeypatch: pytest.MonkeyPatch
) -> None:
    def out_of_memory(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(TrainStep, "__call__", out_of_memory)
    text = failure(attempts.here(config_for(data, tmp_path / "a")), Exit.OUT_OF_MEMORY, FailureClass.OUT_OF_MEMORY)
    assert "lower batch_size" in text


def test_a_run_whose_micro_batches_are_halved_says_so_and_resumes_so(
    data: Path, tmp_path: Path, attempts: Attempts, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward, refused = TrainStep._forward, []

    def little_room(self: TrainStep, x: torch.Tensor) -> torch.Tensor:
        if len(x) > 2:
            refused.append(len(x))
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return forward(self, x)

    monkeypatch.setattr(TrainStep, "_forward", little_room)
    config = config_for(data, tmp_path / "a").model_copy(update={"out_of_memory": OutOfMemoryPolicy.HALVE_BATCH})
    soon = Interrupt()
    soon.request()
    failure(attempts.here(config, soon), Exit.INTERRUPTED, FailureClass.PREEMPTED)
    got = result(attempts.here(config))
    assert refused == [4], "the second attempt begins with what the first one learned"
    assert (got.steps, got.halvings) == (12, 1)
    assert got.reason.endswith("2 instead of 4 patches at a time, for want of accelerator memory")
    plenty = result(attempts.here(config_for(data, tmp_path / "plenty", hyperparameters={"batch_size": 2})))
    assert (plenty.steps, plenty.halvings) == (24, 0)


def test_batches_of_ignored_pixels_make_no_step_and_no_wrong_score(
    data: Path, tmp_path: Path, attempts: Attempts
) -> None:
    """No pixel of a train patch is a number, and all are ignored: weights stay finite, and no loss is made up."""
    import numpy as np

    config = config_for(data, tmp_path / "a", trainer={"maxEpochs": 2})
    result(attempts.here(config))
    parts = parquet.read_table(folder_of(config) / "splits.parquet")["part"].to_pylist()
    x = open_dataset(config.data, None).read(np.arange(24)).x
    x[[part == "train" for part in parts]] = np.nan
    blind = write_dataset(tmp_path / "blind", x=x)
    config = config_for(blind, tmp_path / "b", trainer={"maxEpochs": 2}, data={"nonFinite": "Ignore"})
    got = result(attempts.here(config))
    assert got.outcome is Outcome.TRAINED
    assert got.metrics["train/loss"] is None
    kept = torch.load(folder_of(config) / "checkpoints/last.ckpt", weights_only=True)
    assert all(value.isfinite().all() for value in kept["state_dict"].values())


def test_a_crash_ends_with_one_clean_line_and_leaves_the_log(
    data: Path, tmp_path: Path, attempts: Attempts, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("something\nbroke")

    monkeypatch.setattr(TrainStep, "__call__", broken)
    config = config_for(data, tmp_path / "a")
    ended = attempts.here(config)
    assert ended.code == 1
    assert isinstance(ended.message, RunFailure)
    assert ended.message.failure_class is FailureClass.CRASH
    assert ended.message.message == "RuntimeError: something broke"
    assert ended.message.log.endswith("RuntimeError: something\nbroke")
    assert 'raise RuntimeError("something' in ended.message.log
    captured = capsys.readouterr()
    assert captured.out.strip().splitlines()[-1] == "crash (exit 1): RuntimeError: something broke"
    assert "Traceback" in captured.err
    assert "Traceback" in (folder_of(config) / "log.txt").read_text()


def test_without_a_termination_log_a_run_works_all_the_same(
    data: Path, tmp_path: Path, attempts: Attempts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crossfold_trainer.contract.termination.TERMINATION_LOG", str(tmp_path / "nowhere" / "log"))
    monkeypatch.delenv(TERMINATION_VARIABLE, raising=False)
    monkeypatch.setenv(CONFIG_VARIABLE, config_for(data, tmp_path / "a", trainer={"maxEpochs": 1}).model_dump_json())
    assert run_to_exit(Interrupt(), LogText()) == Exit.OK
    assert not (tmp_path / "nowhere").exists()
