"""Weights to start from: bands adapted as smp does it, names in files, the hub and its cache, and what is refused."""

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants as hub
from safetensors.torch import save_file
from segmentation_models_pytorch.encoders import encoders, get_encoder
from torch import Tensor, nn

from crossfold_trainer import pretrained
from crossfold_trainer.contract import hyperparameters as hp
from crossfold_trainer.contract.data import ArtifactsSpec
from crossfold_trainer.errors import ConfigError
from crossfold_trainer.model import build_model
from crossfold_trainer.pretrained import is_uri, load_checkpoint, load_encoder
from tests.trainer_data import ENCODER

NAME = "mobilenet_v2"
HERE = ArtifactsSpec(uri="runs")
TINY = hp.resolve({"model_encoder": ENCODER})
BANDS = ["red", "green", "nir"]


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    torch.manual_seed(1)
    return dict(get_encoder(NAME, in_channels=3, weights=None).state_dict())


def encoder(n_bands: int) -> nn.Module:
    torch.manual_seed(2)
    made: nn.Module = get_encoder(NAME, in_channels=n_bands, weights=None)
    return made


def same(one: nn.Module, other: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, other[name]) for name, value in one.state_dict().items())


@pytest.mark.parametrize("n_bands", [1, 2, 3, 5])
def test_the_first_convolution_is_adapted_as_smp_does_it(
    weights: dict[str, Tensor], tmp_path: Path, n_bands: int
) -> None:
    expected = get_encoder(NAME, in_channels=3, weights=None)
    expected.load_state_dict(dict(weights))
    expected.set_in_channels(n_bands, pretrained=True)
    torch.save(weights, tmp_path / "w.pt")
    got = encoder(n_bands)
    load_encoder(got, str(tmp_path / "w.pt"), HERE)
    assert same(got, expected.state_dict())
    assert got.state_dict()["features.0.0.weight"].shape[1] == n_bands


@pytest.mark.parametrize("prefix", ["", "encoder.", "module.", "network.encoder."])
@pytest.mark.parametrize("key", [None, "model", "state_dict"])
def test_weights_are_found_whatever_stands_before_their_names(
    weights: dict[str, Tensor], tmp_path: Path, prefix: str, key: str | None
) -> None:
    named: dict[str, Any] = {prefix + name: value for name, value in weights.items()}
    named["classifier.weight"] = torch.zeros(2)
    torch.save({key: named, "epoch": 3} if key else named, tmp_path / "w.ckpt")
    got = encoder(3)
    load_encoder(got, f"file://{tmp_path}/w.ckpt", HERE)
    assert same(got, weights)


def test_safetensors_are_read_through_the_store(
    weights: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_file(weights, tmp_path / "w.safetensors")
    seen: list[ArtifactsSpec] = []

    class Folder:
        def read(self, name: str) -> bytes | None:
            path = tmp_path / name
            return path.read_bytes() if path.exists() else None

    def opened(spec: ArtifactsSpec, side: str) -> Folder:
        seen.append(spec)
        return Folder()

    monkeypatch.setattr(pretrained, "open_store", opened)
    artifacts = ArtifactsSpec(uri="s3://runs/here", endpoint="https://s3.example")
    got = encoder(3)
    load_encoder(got, "s3://models/encoders/w.safetensors", artifacts)
    assert same(got, weights)
    assert seen == [ArtifactsSpec(uri="s3://models/encoders", endpoint="https://s3.example")]
    with pytest.raises(ConfigError, match=r"model_encoder_weights: s3://models/x\.pt does not exist"):
        load_encoder(got, "s3://models/x.pt", artifacts)


def test_what_is_no_weights_of_this_encoder_is_refused(weights: dict[str, Tensor], tmp_path: Path) -> None:
    def said(content: Any) -> str:
        path = tmp_path / "w.pt"
        path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
        with pytest.raises(ConfigError) as error:
            load_encoder(encoder(3), str(path), HERE)
        assert error.value.field == "hyperparameters.model_encoder_weights"
        return error.value.problem

    assert "holds no weights that can be read" in said(b"no weights at all")
    assert "holds a list, not weights by name" in said([1, 2])
    assert "does not fit model_encoder: it lacks features" in said({"layer1.weight": torch.zeros(3)})
    assert "does not fit model_encoder: it lacks features.0.0.weight;" in said(
        {name: value for name, value in weights.items() if name != "features.0.0.weight"}
    )
    assert "the shape of features.1.conv.0.1.weight differs" in said(
        weights | {"features.1.conv.0.1.weight": torch.zeros(7)}
    )
    with pytest.raises(ConfigError, match=r"cannot be read .No such file"):
        load_encoder(encoder(3), str(tmp_path / "nothing.pt"), HERE)


def test_a_name_has_no_slash() -> None:
    assert [is_uri(w) for w in (None, "imagenet", "imagenet+background", "s3://b/w.pt", "/models/w.pt")] == [
        False, False, False, True, True,
    ]  # fmt: skip


# -- the hub -------------------------------------------------------------------------------------------------------


@pytest.fixture
def silent_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A hub that takes connections and says nothing, and an empty cache (returned)."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(hub, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path))
        monkeypatch.setattr(pretrained, "HUB_TIMEOUT_S", 0.2)
        yield tmp_path


@pytest.mark.parametrize("name", [NAME, "tu-resnet18"])
def test_without_a_hub_a_named_weight_is_refused_at_once(silent_hub: Path, name: str) -> None:
    values = hp.resolve({"model_encoder": name, "model_encoder_weights": "imagenet"})
    with pytest.raises(ConfigError, match=r"reach the model hub .HF_ENDPOINT. or find them in its cache .HF_HOME."):
        build_model(values, 3)
    assert not hub.HF_HUB_OFFLINE


def test_without_a_hub_its_cache_serves(silent_hub: Path, weights: dict[str, Tensor]) -> None:
    settings = encoders[NAME]["pretrained_settings"]["imagenet"]
    folder = silent_hub / f"models--{settings['repo_id'].replace('/', '--')}" / "snapshots" / settings["revision"]
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    save_file(weights, folder / "model.safetensors")
    model = build_model(hp.resolve({"model_encoder": NAME, "model_encoder_weights": "imagenet"}), 3)
    assert same(model.encoder, weights)


# -- a run's checkpoint --------------------------------------------------------------------------------------------


def kept(**changes: Any) -> dict[str, Any]:
    torch.manual_seed(3)
    model = build_model(TINY, 3)
    about = {"bands": BANDS, "hyperparameters": TINY, "outputs": 1}
    weights = {f"model.{name}": value for name, value in model.network.state_dict().items()}
    return {
        "state_dict": changes.pop("state_dict", weights),
        "hyper_parameters": {"config": about | changes},
        "score": 0.5,
    }


def test_a_checkpoint_gives_all_its_weights(tmp_path: Path) -> None:
    content = kept(hyperparameters=TINY | {"learning_rate": 7.0})
    torch.save(content, tmp_path / "best.ckpt")
    torch.manual_seed(4)
    model = build_model(TINY, 3)
    load_checkpoint(model, str(tmp_path / "best.ckpt"), HERE, TINY, BANDS)
    assert same(model.network, {n.removeprefix("model."): v for n, v in content["state_dict"].items()})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"bands": ["green", "red", "nir"]},
            "was trained on the bands green, red, nir, this run reads red, green, nir",
        ),
        ({"hyperparameters": TINY | {"model_arch": "FPN"}}, "has model_arch FPN, this run Unet: set hyperparameter"),
        ({"hyperparameters": TINY | {"model_encoder": "resnet18"}}, "has model_encoder resnet18, this run tu-test"),
        ({"outputs": 3}, "answers with 3 logits a pixel, this data set's labels need 1"),
        ({"state_dict": {"a": torch.zeros(1)}}, "does not fit the model: "),
    ],
)
def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    torch.save(kept(**changes), tmp_path / "best.ckpt")
    with pytest.raises(ConfigError) as error:
        load_checkpoint(build_model(TINY, 3), str(tmp_path / "best.ckpt"), HERE, TINY, BANDS)
    assert error.value.field == "trainer.weightsFromCheckpoint"
    assert words in error.value.problem


def test_a_training_state_is_no_kept_checkpoint(tmp_path: Path) -> None:
    state = {name: value for name, value in kept().items() if name != "score"} | {"optimizer_states": [], "loops": {}}
    torch.save(state, tmp_path / "last.ckpt")
    with pytest.raises(ConfigError, match=r"is no checkpoint of a best epoch: name a run's checkpoints/best\.ckpt"):
        load_checkpoint(build_model(TINY, 3), str(tmp_path / "last.ckpt"), HERE, TINY, BANDS)
