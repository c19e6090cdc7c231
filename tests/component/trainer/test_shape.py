"""A run whose model cannot take its patches ends with exit 78 before it trains, however many processes it has."""

import re
from pathlib import Path
from typing import Any

import pytest

from crossfold_trainer.contract.exits import Exit
from crossfold_trainer.contract.result import FailureClass
from tests.trainer_data import write_dataset
from tests.trainer_runs import Attempts, config_for, failure, folder_of


@pytest.fixture(scope="module")
def patches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Patches of 64 x 64."""
    return write_dataset(tmp_path_factory.mktemp("patches"), side=64)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"model_encoder": "tu-maxvit_tiny_rw_224"}, "model_encoder: .* 64 x 64; 224 x 224 would do"),
        ({"model_encoder": "tu-swin_tiny_patch4_window7_224"}, "model_encoder: .* 64 x 64; 224 x 224 would do"),
        (
            {"model_arch": "DPT", "model_encoder": "tu-vit_tiny_patch16_224"},
            "model_encoder: .* 64 x 64; 224 x 224 would do",
        ),
        ({"model_arch": "PAN", "model_encoder": "resnet18"}, "model_arch: .* 64 x 64; 128 x 128 would do"),
        # Normalised at 1 x 1.
        ({"model_arch": "DeepLabV3Plus", "model_encoder": "resnet18", "batch_size": 1}, "batch_size: .* more than one"),
    ],
)
def test_a_model_that_does_not_take_the_patches(
    patches: Path, tmp_path: Path, attempts: Attempts, values: dict[str, Any], says: str
) -> None:
    config = config_for(patches, tmp_path / "a", hyperparameters=values)
    ended = attempts.here(config)
    assert re.match(f"hyperparameters.{says}", failure(ended, Exit.CONFIG, FailureClass.CONFIG))
    assert "training on" not in ended.output
    assert not list(folder_of(config).rglob("*.ckpt"))


def test_all_of_several_processes_end(patches: Path, tmp_path: Path, attempts: Attempts) -> None:
    config = config_for(
        patches,
        tmp_path / "a",
        hyperparameters={"model_arch": "PAN", "model_encoder": "resnet18"},
        trainer={"devices": 2},
    )
    ended = attempts.ended(attempts.process(config))
    assert failure(ended, Exit.CONFIG, FailureClass.CONFIG).startswith("hyperparameters.model_arch: PAN with resnet18")
