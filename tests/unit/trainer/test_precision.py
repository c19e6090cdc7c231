"""What a precision means on the device that a run got."""

import pytest
import torch
from torch import nn

from crossfold_trainer import model
from crossfold_trainer.contract.trainer import Precision
from crossfold_trainer.errors import ConfigError
from crossfold_trainer.precision import numerics, set_backends

GPU = torch.device("cuda")
CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("asked", "device", "bf16", "found"),
    [
        (Precision.AUTO, CPU, False, Precision.FP32),
        (Precision.AUTO, GPU, True, Precision.BF16_MIXED),
        (Precision.AUTO, GPU, False, Precision.FP32),
        (Precision.FP32, GPU, True, Precision.FP32),
        (Precision.BF16_MIXED, CPU, False, Precision.BF16_MIXED),
        (Precision.BF16_MIXED, GPU, True, Precision.BF16_MIXED),
        (Precision.FP16_MIXED, GPU, False, Precision.FP16_MIXED),
    ],
)
def test_what_is_computed_in(
    monkeypatch: pytest.MonkeyPatch, asked: Precision, device: torch.device, bf16: bool, found: Precision
) -> None:
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda *, including_emulation: bf16 and not including_emulation)
    assert numerics(asked, device).name is found


@pytest.mark.parametrize(
    ("asked", "device", "message"),
    [
        (Precision.FP16_MIXED, CPU, "trainer.precision: FP16Mixed needs a GPU and this container has none"),
        (Precision.BF16_MIXED, GPU, "trainer.precision: Old GPU has no bfloat16: choose FP16Mixed, FP32 or Auto"),
    ],
)
def test_what_a_device_cannot_do_is_refused(
    monkeypatch: pytest.MonkeyPatch, asked: Precision, device: torch.device, message: str
) -> None:
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda *, including_emulation: False)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda _: "Old GPU")
    with pytest.raises(ConfigError) as caught:
        numerics(asked, device)
    assert str(caught.value).startswith(message)


def test_switches_do_not_outlive_their_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    set_backends(precision=Precision.FP32, deterministic=True)
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.backends.cudnn.allow_tf32
    set_backends(precision=Precision.BF16_MIXED, deterministic=False)
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.backends.cudnn.allow_tf32
    assert torch.backends.cudnn.benchmark


def test_a_compiled_model_keeps_the_names_of_its_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "COMPILE_BACKEND", "eager")
    plain, compiled = nn.Sequential(nn.Linear(2, 2), nn.ReLU()), nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    compiled.load_state_dict(plain.state_dict())
    model.compile_model(compiled, CPU)
    torch._dynamo.utils.counters.clear()
    x = torch.rand(3, 2)
    assert torch.equal(compiled(x), plain(x))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    assert compiled.state_dict().keys() == plain.state_dict().keys()


def test_compiling_without_a_compiler_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(ConfigError, match=r"trainer.compile: the image has no compiler \(g\+\+ or clang\+\+\)"):
        model.compile_model(nn.Linear(2, 2), CPU)
