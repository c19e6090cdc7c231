"""Weights to start from: an encoder's, by name from the model hub or its local cache or from a file; or a whole run's.

Files are read through the artifacts side of a run (its endpoint, its credentials), or from a path in the container.
"""

import io
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from huggingface_hub import constants as hub
from torch import Tensor, nn

from crossfold_trainer.contract.data import ArtifactsSpec
from crossfold_trainer.errors import ConfigError
from crossfold_trainer.store import open_store

if TYPE_CHECKING:
    from crossfold_trainer.model import Segmenter

HUB_TIMEOUT_S = 5.0
"""How long the model hub may take to answer at all."""
ENCODER_FIELD = "hyperparameters.model_encoder_weights"
CHECKPOINT_FIELD = "trainer.weightsFromCheckpoint"
PREFIXES = ("model.encoder.", "network.encoder.", "encoder.", "module.", "")
"""What the names of an encoder's weights may start with in a file: a checkpoint of this trainer, of others, none."""
MUST_AGREE = ("model_arch", "model_encoder")
SHOWN = 3
"""Names of weights that a message lists."""

State = Mapping[str, Tensor]


def is_uri(weights: str | None) -> bool:
    """Whether encoder weights are a file, as opposed to a name that the model hub knows."""
    return weights is not None and "/" in weights


@contextmanager
def hub_or_cache() -> Iterator[None]:
    """Inside, weights come from the hub's local cache alone when the hub does not answer within seconds."""
    before = hub.HF_HUB_OFFLINE
    hub.HF_HUB_OFFLINE = before or not _answers(hub.ENDPOINT)
    try:
        yield
    finally:
        hub.HF_HUB_OFFLINE = before


def _answers(url: str) -> bool:
    """Whether a server answers, whatever it says."""
    request = urllib.request.Request(url, method="HEAD")  # noqa: S310 - the hub's own address
    try:
        with urllib.request.urlopen(request, timeout=HUB_TIMEOUT_S):  # noqa: S310
            return True
    except urllib.error.HTTPError:
        return True
    except (OSError, ValueError):
        return False


def load_encoder(encoder: nn.Module, uri: str, artifacts: ArtifactsSpec) -> None:
    """Give an encoder the weights in a file; its first convolution is adapted to the encoder's bands.

    Raises:
        ConfigError: the file is missing or is not of such an encoder.
    """
    content = _content(uri, artifacts, ENCODER_FIELD)
    wanted = encoder.state_dict()
    state = {name: _adapted(value, wanted.get(name)) for name, value in _encoder_state(content, wanted).items()}
    missing = [name for name in wanted if name not in state and not name.endswith("num_batches_tracked")]
    unlike = [name for name, value in state.items() if name in wanted and value.shape != wanted[name].shape]
    if missing or unlike:
        what = f"it lacks {_some(missing)}" if missing else f"the shape of {_some(unlike)} differs"
        raise ConfigError(ENCODER_FIELD, f"{uri} does not fit model_encoder: {what}; name weights of this very encoder")
    for name, value in state.items():
        if name in wanted:
            wanted[name].copy_(value)


def _encoder_state(content: Mapping[str, Any], wanted: State) -> dict[str, Tensor]:
    """The encoder's part of a file: under whichever prefix most of the wanted names are found."""
    for key in ("model", "state_dict"):
        if isinstance(content.get(key), Mapping):
            content = content[key]
    tensors = {name: value for name, value in content.items() if isinstance(value, Tensor)}
    parts = [
        {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
        for prefix in PREFIXES
    ]
    return max(parts, key=lambda part: len(part.keys() & wanted.keys()))


def _adapted(weight: Tensor, wanted: Tensor | None) -> Tensor:
    """A first convolution (O, C', H, W) for C bands, as segmentation_models_pytorch adapts it: (O, C, H, W).

    One band: the sum over the C'; else band i takes channel i mod C', scaled by C' / C so that sums stay alike.
    """
    if wanted is None or weight.dim() != 4 or weight.shape == wanted.shape:
        return weight
    had, wants = weight.shape[1], wanted.shape[1]
    if (weight.shape[0], *weight.shape[2:]) != (wanted.shape[0], *wanted.shape[2:]):
        return weight
    if wants == 1:
        return weight.sum(1, keepdim=True)
    return weight[:, [i % had for i in range(wants)]] * (had / wants)


def load_checkpoint(
    model: "Segmenter", uri: str, artifacts: ArtifactsSpec, hyperparameters: Mapping[str, Any], bands: Sequence[str]
) -> None:
    """Give a model the weights of another run's kept epoch.

    Everything else, the hyperparameters among it, is the new run's.

    Raises:
        ConfigError: the checkpoint is missing, or of other bands, another architecture or other classes.
    """
    content = _content(uri, artifacts, CHECKPOINT_FIELD)
    about = content.get("hyper_parameters", {}).get("config")
    # A state of training has no score of its own: its weights are those of the latest epoch, not of the best one.
    if (
        "score" not in content
        or not isinstance(about, Mapping)
        or not {"bands", "hyperparameters", "outputs"} <= about.keys()
    ):
        raise ConfigError(
            CHECKPOINT_FIELD, f"{uri} is no checkpoint of a best epoch: name a run's checkpoints/best.ckpt"
        )
    for name in MUST_AGREE:
        had, wanted = about["hyperparameters"][name], hyperparameters[name]
        if had != wanted:
            raise ConfigError(
                CHECKPOINT_FIELD,
                f"{uri} has {name} {had}, this run {wanted}: set hyperparameter {name} to the checkpoint's, or take"
                " another checkpoint",
            )
    if list(about["bands"]) != list(bands):
        raise ConfigError(
            CHECKPOINT_FIELD,
            f"{uri} was trained on the bands {', '.join(about['bands'])}, this run reads {', '.join(bands)}: set"
            " hyperparameter bands to the checkpoint's, in its order, or take another checkpoint",
        )
    if about["outputs"] != (outputs := model.outputs):
        raise ConfigError(
            CHECKPOINT_FIELD,
            f"{uri} answers with {about['outputs']} logits a pixel, this data set's labels need {outputs}:"
            " take a checkpoint of the same classes",
        )
    try:
        weights = {name.removeprefix("model."): value for name, value in content["state_dict"].items()}
        model.network.load_state_dict(weights)
    except RuntimeError as error:
        raise ConfigError(
            CHECKPOINT_FIELD, f"{uri} does not fit the model: {str(error).splitlines()[-1].strip()}"
        ) from None


def _content(uri: str, artifacts: ArtifactsSpec, field: str) -> dict[str, Any]:
    """The tensors in a safetensors file, or what a file of torch.save holds; nothing in it is executed."""
    raw = _read(uri, artifacts, field)
    try:
        if uri.endswith(".safetensors"):
            from safetensors.torch import load  # noqa: PLC0415 - one of two formats

            return dict(load(raw))
        content = torch.load(io.BytesIO(raw), map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 - unpickling what is no checkpoint may raise anything
        raise ConfigError(
            field,
            f"{uri} holds no weights that can be read ({type(error).__name__}): name a .safetensors or torch file",
        ) from None
    if not isinstance(content, dict):
        raise ConfigError(field, f"{uri} holds a {type(content).__name__}, not weights by name")
    return content


def _read(uri: str, artifacts: ArtifactsSpec, field: str) -> bytes:
    if "://" not in uri or uri.startswith("file://"):
        try:
            return Path(uri.removeprefix("file://")).expanduser().read_bytes()
        except OSError as error:
            raise ConfigError(
                field, f"{uri} cannot be read ({error.strerror}): correct the path or mount the volume"
            ) from None
    folder, _, name = uri.rpartition("/")
    try:
        raw = open_store(artifacts.model_copy(update={"uri": folder}), "artifacts").read(name)
    except ConfigError as error:
        raise ConfigError(field, f"{uri}: {error.problem}") from None
    if raw is None:
        raise ConfigError(field, f"{uri} does not exist: correct it")
    return raw


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
