"""Whole runs that report to real servers of Aim and MLflow on this machine, and by W&B's client, online and offline."""

import base64
import csv
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from crossfold_trainer.__main__ import run_to_exit
from crossfold_trainer.contract.config import CONFIG_VARIABLE, RunConfig, with_digest
from crossfold_trainer.contract.exits import Exit
from crossfold_trainer.contract.result import RunResult
from crossfold_trainer.interrupt import Interrupt
from crossfold_trainer.tracking import LogText
from tests.ports import own_port, silent_port
from tests.trainer_data import run_config
from tests.wandbserver import wandb_server

READ = Path(__file__).with_name("read_trackers.py")
WAIT_SECONDS = 300


@dataclass
class Servers:
    """Servers of Aim and MLflow, empty at first."""

    aim: str
    mlflow: str

    def read(self, *what: str) -> Any:
        done = subprocess.run(
            [sys.executable, str(READ), *what], capture_output=True, text=True, check=False, timeout=120
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    folder = tmp_path_factory.mktemp("servers")
    for_aim, for_mlflow = own_port(), own_port()
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "HOME": str(folder)}
    programs = Path(sys.executable).parent
    subprocess.run(
        [programs / "aim", "init", "--yes", "--repo", folder], env=environment, check=True, capture_output=True
    )
    commands = [
        [programs / "aim", "server", "--host", "127.0.0.1", "--port", for_aim, "--repo", folder],
        [
            *(sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", for_mlflow, "--workers", "1"),
            *("--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", folder / "mlflow"),
        ],
    ]
    running = []
    for command in commands:
        log = (folder / f"{len(running)}.log").open("wb")
        # A session of their own: each server starts another process, which would outlive it.
        running.append(
            subprocess.Popen(
                list(map(str, command)), cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True
            )
        )
    try:
        for port, path in ((for_aim, "/status/"), (for_mlflow, "/health")):
            until_answers(f"http://127.0.0.1:{port}{path}", folder)
        yield Servers(f"aim://127.0.0.1:{for_aim}", f"http://127.0.0.1:{for_mlflow}")
    finally:
        for process in running:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def until_answers(url: str, logs: Path) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    end = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            opener.open(url, timeout=5)
        except urllib.error.HTTPError:
            return
        except OSError:
            if time.monotonic() > end:
                pytest.fail("\n".join(log.read_text()[-2000:] for log in logs.glob("*.log")))
            time.sleep(0.2)
        else:
            return


def train(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> tuple[RunResult, str]:
    """One run in this process, to its result and its log."""
    log = _attempt(config, monkeypatch, Interrupt(), Exit.OK)
    return RunResult.model_validate_json((Path(config.artifact_uri) / "result.json").read_text()), log


def _attempt(config: RunConfig, monkeypatch: pytest.MonkeyPatch, interrupt: Interrupt, code: Exit) -> str:
    """One attempt in this process, and its log."""
    log = LogText()
    monkeypatch.setenv(CONFIG_VARIABLE, config.model_dump_json())
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    # A run of seconds is over before its trackers have started on a busy machine.
    monkeypatch.setattr("crossfold_trainer.trackers.remote.FINISH_S", float(WAIT_SECONDS))
    ended = run_to_exit(interrupt, log)
    text = log.item().content.decode()
    assert ended == code, text
    return text


def config_for(data: Path, artifacts: Path, **tracking: Any) -> RunConfig:
    named = {"run": "tiny-cv3-f0s42", "tune": "tiny", "crossValidation": "tiny-cv3"}
    return with_digest(run_config(data, artifacts, tracking=tracking, **named), "default/tiny/tiny-cv3")


def test_a_run_is_told_to_all_of_them(
    data: Path, tmp_path: Path, servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_for(
        data,
        tmp_path,
        wandb={"project": "maps", "mode": "Offline"},
        aim={"uri": servers.aim},
        mlflow={"trackingUri": servers.mlflow},
    )
    result, _ = train(config, monkeypatch)
    assert result.notes == []
    folder = Path(config.artifact_uri)
    epochs = [row.split(",") for row in (folder / "metrics.csv").read_text().splitlines()]
    column = {name: [float(row[i]) for row in epochs[1:]] for i, name in enumerate(epochs[0]) if name != "score"}
    wanted = list(zip(column["step"], column["val/JaccardIndex"], strict=True))

    (file,) = folder.glob("wandb/offline-run-*/*.wandb")
    seen = servers.read("wandb", str(file))
    assert {name: seen["run"][name] for name in ("name", "group", "job_type", "project")} == {
        "name": "tiny-cv3-f0s42", "group": "tiny", "job_type": "tiny-cv3", "project": "maps",
    }  # fmt: skip
    assert seen["run"]["config"]["batch_size"] == config.hyperparameters["batch_size"]
    history = [(row["step"], row["val/JaccardIndex"]) for row in seen["history"] if "val/JaccardIndex" in row]
    assert history == wanted
    assert any(name.partition("/")[0] == "samples-best" for row in seen["history"] for name in row)
    assert seen["exit"] == 0

    known = json.loads((folder / "trackers.json").read_text())
    seen = servers.read("aim", servers.aim, known["aim"])
    assert (seen["name"], seen["experiment"]) == ("tiny-cv3-f0s42", "tiny")
    assert seen["hparams"]["batch_size"] == config.hyperparameters["batch_size"]
    assert seen["metrics"]["val/JaccardIndex"] == sorted(value for _, value in wanted)
    assert seen["result"]["score"] == result.score
    assert seen["crossfold"]["fold"] == "0"

    (run,) = servers.read("mlflow", servers.mlflow, "tiny")
    assert (run["name"], run["status"]) == ("tiny-cv3-f0s42", "FINISHED")
    assert [tuple(point) for point in run["metrics"]["val/JaccardIndex"]] == wanted
    assert run["params"]["batch_size"] == str(config.hyperparameters["batch_size"])
    assert run["tags"]["crossfold.outcome"] == "Trained"
    assert any(name.startswith("samples-") for name in run["files"])

    # A later attempt goes on with the same run everywhere.
    (folder / "result.json").unlink()
    train(config, monkeypatch)
    assert json.loads((folder / "trackers.json").read_text()) == known
    assert len(servers.read("mlflow", servers.mlflow, "tiny")) == 1


def test_a_run_goes_to_a_server_of_wandb_and_goes_on_there(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = tmp_path / "credentials" / "wandb" / "WANDB_API_KEY"
    secret.parent.mkdir(parents=True)
    secret.write_text("k" * 40 + "\n")
    monkeypatch.setenv("CROSSFOLD_CREDENTIALS", str(tmp_path / "credentials"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setattr("crossfold_trainer.trackers.remote.INTERRUPTED_S", float(WAIT_SECONDS))
    with wandb_server() as server:
        wandb = {"project": "maps", "entity": "team", "baseUrl": server.url, "secretRef": {"name": "w"}}
        config = config_for(data, tmp_path, wandb=wandb)
        interrupt = Interrupt()
        interrupt.request()
        _attempt(config, monkeypatch, interrupt, Exit.INTERRUPTED)
        ((place, run),) = server.runs.items()
        assert (place[:2], run.exit_codes, run.resumed) == (("team", "maps"), [1], 0)
        result, _ = train(config, monkeypatch)
    assert result.notes == []
    assert list(server.runs) == [place], "a later attempt is the same run"
    assert (run.exit_codes, run.resumed) == ([1, 0], 1)
    assert server.keys == {f"Basic {base64.b64encode(b'api:' + b'k' * 40).decode()}"}
    said = {name: run.upserted[name] for name in ("displayName", "groupName", "jobType")}
    assert said == {"displayName": "tiny-cv3-f0s42", "groupName": "tiny", "jobType": "tiny-cv3"}
    with (Path(config.artifact_uri) / "metrics.csv").open() as file:
        wanted = [(int(row["step"]), float(row["val/JaccardIndex"])) for row in csv.DictReader(file)]
    rows = [run.history[place] for place in sorted(run.history)]
    assert [(row["step"], row["val/JaccardIndex"]) for row in rows if "val/JaccardIndex" in row] == wanted
    assert run.summary["score"] == result.score
    hyperparameters = server.files["config.yaml"].decode()
    assert f"batch_size:\n    value: {config.hyperparameters['batch_size']}\n" in hyperparameters
    pictures = [content for name, content in server.files.items() if name.startswith("media/images/samples-best")]
    assert pictures
    assert all(content.startswith(b"\x89PNG") for content in pictures)


def test_trackers_that_are_away_or_wrong_cost_a_run_nothing(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CROSSFOLD_CREDENTIALS", str(tmp_path / "none"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    with silent_port() as nobody:
        config = config_for(
            data,
            tmp_path,
            wandb={"project": "maps"},
            aim={"uri": f"aim://127.0.0.1:{nobody}"},
            mlflow={"trackingUri": f"http://127.0.0.1:{nobody}"},
        )
        result, log = train(config, monkeypatch)
    assert result.score is not None
    assert [note.partition(": ")[0] for note in result.notes] == ["tracking.aim", "tracking.mlflow", "tracking.wandb"]
    assert "tracking.wandb.secretRef" in result.notes[2]
    for name in ("aim", "mlflow", "wandb"):
        assert log.count(f"warning: tracking.{name} does not work") == 1
