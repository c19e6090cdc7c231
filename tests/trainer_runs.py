"""Attempts of runs, in this process or in one of their own, and what they leave.

A conftest.py takes the fixtures from here.
"""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from crossfold_trainer.__main__ import run_to_exit
from crossfold_trainer.contract.config import CONFIG_VARIABLE, TERMINATION_VARIABLE, RunConfig, with_digest
from crossfold_trainer.contract.exits import Exit
from crossfold_trainer.contract.result import FailureClass, RunFailure, RunResult, parse_message
from crossfold_trainer.interrupt import Interrupt
from crossfold_trainer.tracking import LogText
from tests.trainer_data import run_config, write_dataset

HELD = Path(__file__).parent / "component" / "trainer" / "held"


class Ended(NamedTuple):
    """How an attempt ended."""

    code: int
    message: RunResult | RunFailure | None
    output: str


class Attempts:
    """Starts attempts of runs and reads what they say at their end."""

    def __init__(self, folder: Path) -> None:
        self.message = folder / "termination-log"

    def here(self, config: RunConfig | str, interrupt: Interrupt | None = None) -> Ended:
        """In this process."""
        self.message.write_text("")
        text = config if isinstance(config, str) else config.model_dump_json()
        log = LogText()
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(CONFIG_VARIABLE, text)
            patch.setenv(TERMINATION_VARIABLE, str(self.message))
            patch.setenv("OMP_NUM_THREADS", "1")
            code = run_to_exit(interrupt or Interrupt(), log)
        return Ended(code, parse_message(self.message.read_text()), log.item().content.decode())

    def process(
        self, config: RunConfig, /, *, program: Sequence[str] = ("-m", "crossfold_trainer"), **more: str
    ) -> "subprocess.Popen[str]":
        """In a process of its own: the trainer, or another program of Python's, with more in its environment."""
        self.message.write_text("")
        environment = {
            **os.environ,
            CONFIG_VARIABLE: config.model_dump_json(),
            TERMINATION_VARIABLE: str(self.message),
            "OMP_NUM_THREADS": "1",
            **more,
        }
        return subprocess.Popen(
            [sys.executable, *program],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self.message.parent,
        )

    def held(self, config: RunConfig, line: str, **more: str) -> "subprocess.Popen[str]":
        """A process of its own that has printed a line which begins so, and waits there until ``go_on``."""
        go_on = self._go_on
        go_on.unlink(missing_ok=True)
        path = os.pathsep.join([str(HELD), os.environ.get("PYTHONPATH", "")])
        process = self.process(config, PYTHONPATH=path, HELD_AT=line, HELD_UNTIL=str(go_on), **more)
        assert process.stdout is not None
        seen = ""
        for text in process.stdout:
            seen += text
            if text.startswith(line):
                return process
        raise AssertionError(f"no line begins with {line!r}:\n{seen}")

    def go_on(self) -> None:
        """Let the held process go on."""
        self._go_on.touch()

    @property
    def _go_on(self) -> Path:
        return self.message.with_name("go-on")

    def ended(self, process: "subprocess.Popen[str]") -> Ended:
        output, _ = process.communicate(timeout=300)
        return Ended(process.returncode, parse_message(self.message.read_text()), output)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data set of `write_dataset`."""
    return write_dataset(tmp_path_factory.mktemp("data"))


@pytest.fixture
def attempts(tmp_path: Path) -> Attempts:
    """Attempts that say how they ended in a file of this test."""
    return Attempts(tmp_path)


def result(ended: Ended) -> RunResult:
    assert ended.code == Exit.OK, ended.output
    assert isinstance(ended.message, RunResult)
    return ended.message


def failure(ended: Ended, code: Exit, kind: FailureClass) -> str:
    assert ended.code == code, ended.output
    assert isinstance(ended.message, RunFailure)
    assert ended.message.failure_class is kind
    return ended.message.message


def weights(folder: Path) -> dict[str, torch.Tensor]:
    content: dict[str, Any] = torch.load(folder / "checkpoints/best.ckpt", weights_only=True)
    return dict(content["state_dict"])


def same_weights(one: Path, other: Path) -> bool:
    a, b = weights(one), weights(other)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def config_for(data: Path, artifacts: Path, /, **replace: Any) -> RunConfig:
    return with_digest(run_config(data, artifacts, **replace), "default/tiny/tiny-cv0")


def folder_of(config: RunConfig) -> Path:
    return Path(config.artifact_uri)
