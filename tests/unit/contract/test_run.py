"""The helper for trainers of one's own: every way to end, as a process of its own."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from crossfold_trainer.contract.config import CONFIG_VARIABLE, TERMINATION_VARIABLE, RunConfig, with_digest
from crossfold_trainer.contract.exits import Exit
from crossfold_trainer.contract.progress import FILE_VARIABLE, ProgressReport
from crossfold_trainer.contract.result import FailureClass, RunFailure, RunResult, parse_message

CONFIG = with_digest(
    RunConfig.model_validate(
        {
            "run": "r",
            "fold": 1,
            "seed": 7,
            "hyperparameters": {"x-depth": 3},
            "objective": {"metrics": [{"name": "val/acc", "direction": "Maximize"}]},
            "data": {"uri": "/data"},
            "artifacts": {"uri": "/tmp/artifacts"},
        }
    ),
    "a/b",
)
HEAD = "from crossfold_trainer.contract.run import Run, WrongConfig, main\n"


def ended(tmp_path: Path, body: str, text: str | None = None) -> tuple[int, RunResult | RunFailure | None]:
    """Run a trainer whose ``train`` has this body."""
    said = tmp_path / "said"
    environment = {
        **os.environ,
        CONFIG_VARIABLE: CONFIG.model_dump_json() if text is None else text,
        TERMINATION_VARIABLE: str(said),
        FILE_VARIABLE: str(tmp_path / "progress"),
    }
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    program = f"{HEAD}def train(run):\n{lines}main(train)\n"
    done = subprocess.run([sys.executable, "-c", program], env=environment, check=False, capture_output=True, text=True)
    return done.returncode, parse_message(said.read_text() if said.exists() else "")


def test_a_result(tmp_path: Path) -> None:
    body = (
        "run.report(1, 2, {'val/acc': 0.5})\n"
        "assert (run.fold, run.folds, run.seed) == (1, 5, 7)\n"
        "return {'val/acc': 0.1 * run.hyperparameters['x-depth'], 'val/loss': 2.0}"
    )
    code, message = ended(tmp_path, body)
    assert code == Exit.OK
    assert isinstance(message, RunResult)
    assert message.score == pytest.approx(0.3)
    assert (message.digest, message.metrics) == (CONFIG.digest, {"val/loss": 2.0})
    report = ProgressReport.model_validate_json((tmp_path / "progress").read_text())
    assert (report.fraction, report.score, report.epoch_of_score) == (0.5, 0.5, 0)


@pytest.mark.parametrize(
    ("body", "code", "kind", "words"),
    [
        ("return {'val/iou': 0.5}", Exit.CONFIG, FailureClass.CONFIG, "no val/acc"),
        ("raise WrongConfig('spec.fixed: x-depth is too deep')", Exit.CONFIG, FailureClass.CONFIG, "x-depth"),
        ("raise KeyError('depth')", 1, FailureClass.CRASH, "KeyError: 'depth'"),
        (
            f"import os, signal\nos.kill(os.getpid(), {int(signal.SIGTERM)})\nsignal.pause()",
            Exit.INTERRUPTED,
            FailureClass.PREEMPTED,
            "SIGTERM",
        ),
    ],
)
def test_failures(tmp_path: Path, body: str, code: int, kind: FailureClass, words: str) -> None:
    got, message = ended(tmp_path, body)
    assert got == code
    assert isinstance(message, RunFailure)
    assert message.failure_class is kind
    assert words in message.message


@pytest.mark.parametrize(("text", "words"), [("", CONFIG_VARIABLE), ('{"run": 1}', "run"), ("{", CONFIG_VARIABLE)])
def test_no_configuration(tmp_path: Path, text: str, words: str) -> None:
    code, message = ended(tmp_path, "return {}", text)
    assert code == Exit.CONFIG
    assert isinstance(message, RunFailure)
    assert words in message.message


def test_it_needs_no_torch(tmp_path: Path) -> None:
    probe = "import sys, crossfold_trainer.contract.run; print([n for n in ('torch', 'numpy', 'lightning') if n in sys.modules])"
    assert (
        json.loads(subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True).stdout)
        == []
    )
