"""A model that cannot take the run's patches is refused before training, and trying it changes nothing."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from crossfold_trainer.errors import ConfigError
from crossfold_trainer.faults import explained
from crossfold_trainer.model import Segmenter, build_model
from crossfold_trainer.shape import check_shape

VIT, SWIN, MAXVIT = "tu-vit_tiny_patch16_224", "tu-swin_tiny_patch4_window7_224", "tu-maxvit_tiny_rw_224"


def named(arch: str, encoder: str) -> dict[str, Any]:
    return {"model_arch": arch, "model_encoder": encoder, "model_encoder_weights": None}


@pytest.mark.parametrize(
    ("arch", "encoder", "side", "says"),
    [
        (
            "Unet",
            MAXVIT,
            64,
            rf"model_encoder: {MAXVIT} does not take patches of 64 x 64; 224 x 224 would do.*window",
        ),
        ("FPN", SWIN, 40, rf"model_encoder: {SWIN} .* 40 x 40 \(padded to 64 x 64\); 224 x 224 would do"),
        ("DPT", VIT, 64, rf"model_encoder: {VIT} .* of 64 x 64; 224 x 224 would do: .*resnet34"),
        ("PAN", "resnet18", 64, r"model_arch: PAN with resnet18 .* of 64 x 64; 128 x 128 would do: .*Unet"),
        ("PAN", "resnet18", 96, r"model_arch: PAN with resnet18 .* of 96 x 96; 128 x 128 would do"),
    ],
)
def test_what_does_not_take_the_patches_is_refused(arch: str, encoder: str, side: int, says: str) -> None:
    values = named(arch, encoder)
    with pytest.raises(ConfigError, match=f"hyperparameters.{says}"):
        check_shape(build_model(values, 4), values, (2, 4, side, side))


@pytest.mark.parametrize(
    ("arch", "encoder", "size"),
    [
        ("PAN", "resnet18", (128, 128)),
        ("DPT", VIT, (224, 224)),
        ("DPT", VIT, (200, 210)),  # padded to what it takes
        ("Unet", "resnet18", (33, 64)),
    ],
)
def test_what_takes_the_patches_is_not(arch: str, encoder: str, size: tuple[int, int]) -> None:
    values = named(arch, encoder)
    check_shape(build_model(values, 2, outputs=3), values, (2, 2, *size))


class Network(nn.Module):
    """Statistics, chance, and a body that a test chooses."""

    def __init__(self, body: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout(0.5))
        self.head = nn.Conv2d(4, 1, 1)
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.head(self.body(self.encoder(x)))
        return answer


def check(body: Callable[[Tensor], Tensor], n: int = 2) -> Segmenter:
    torch.manual_seed(0)
    model = Segmenter(Network(body), 1)
    check_shape(model, named("Fork", "spoon"), (n, 3, 32, 32))
    return model


def numbers_needed(x: Tensor) -> Tensor:
    return x * float(x.mean().item())


@pytest.mark.parametrize("body", [nn.Identity(), numbers_needed])
def test_nothing_is_changed(body: Callable[[Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    untouched = Segmenter(Network(body), 1)
    random = torch.get_rng_state()
    model = check(body)
    assert torch.equal(torch.get_rng_state(), random)
    assert model.training
    after, before = model.state_dict(), untouched.state_dict()
    assert after["network.encoder.1.num_batches_tracked"] == 0
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert all(tensor.device.type == "cpu" for tensor in after.values())


@pytest.mark.parametrize("factor", [0.5, 2])
def test_an_answer_of_another_size_is_refused(factor: float) -> None:
    with pytest.raises(
        ConfigError,
        match=r"model_arch: Fork with spoon .* 32 x 32: choose .* instead of \(2, 1, 32, 32\)\)",
    ):
        check(lambda x: functional.interpolate(x, scale_factor=factor))


def test_an_error_without_words_is_named() -> None:
    def body(_: Tensor) -> Tensor:
        raise AssertionError

    with pytest.raises(ConfigError, match=r"of 32 x 32: choose .* \(AssertionError\)$"):
        check(body)


def test_memory_is_not_judged() -> None:
    def body(_: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    check(body)


def test_one_value_a_channel_is_a_matter_of_the_batch() -> None:
    values = named("DeepLabV3Plus", "resnet18")
    model = build_model(values, 3)
    check_shape(model, values, (2, 3, 64, 64))
    with pytest.raises(ConfigError, match=r"hyperparameters.batch_size: .* raise batch_size \(1\)"), explained(1):
        check_shape(model, values, (1, 3, 64, 64))
