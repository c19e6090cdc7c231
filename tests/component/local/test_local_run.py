"""`crossfold run` as a person has it: a process of its own, stopped and killed at will."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

FAKE = f"{sys.executable} {Path(__file__).with_name('fake_trainer.py')}"

TUNE: dict[str, Any] = {
    "apiVersion": "crossfold.dev/v1alpha1",
    "kind": "Tune",
    "metadata": {"name": "small"},
    "spec": {
        "objective": {"metrics": [{"name": "val/JaccardIndex"}]},
        "parameters": [
            {"name": "learning_rate", "type": "Categorical", "values": [1e-4, 1e-3, 1e-2]},
            {"name": "batch_size", "type": "Int", "min": 4, "max": 8, "step": 4},
        ],
        "algorithm": {"name": "Grid", "seed": 7},
        "maxTrials": 6,
        "parallelism": 3,
        "crossValidation": {"folds": 2},
        "data": {"uri": "data"},
        "artifacts": {"uri": "artifacts"},
        "trainer": {"maxEpochs": 3},
    },
}


class Here:
    """A folder with a manifest, and `crossfold run` in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "tune.yaml").write_text(yaml.safe_dump(TUNE))
        self.environment = os.environ | {"CROSSFOLD_TRAINER_COMMAND": FAKE, "PYTHONUNBUFFERED": "1"}

    def start(self, *arguments: str, **variables: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "crossfold_cli.main", "run", *(arguments or ("tune.yaml", "--slots", "3"))],
            cwd=self.folder,
            env=self.environment | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *arguments: str, **variables: str) -> tuple[int, str]:
        process = self.start(*arguments, **variables)
        output, _ = process.communicate(timeout=500)
        return process.returncode, output

    def until(self, process: subprocess.Popen[str], line: Callable[[str], bool]) -> str:
        """Read output up to a line."""
        assert process.stdout is not None
        seen = ""
        for text in process.stdout:
            seen += text
            if line(text):
                return seen
        raise AssertionError(f"the line never came:\n{seen}")

    def objects(self, plural: str, tune: str = "small") -> dict[str, dict[str, Any]]:
        paths = (self.folder / "runs" / "state" / f"tune-{tune}" / "objects" / plural).glob("default/*.json")
        return {path.stem: json.loads(path.read_text()) for path in sorted(paths)}

    def outcome(self) -> Any:
        """What does not depend on when and how often it was stopped."""
        tune = self.objects("tunes")["small"]["status"]
        trials = {
            name: (trial["spec"]["hyperparameters"], trial["status"]["score"], trial["status"]["phase"])
            for name, trial in self.objects("crossvalidations").items()
        }
        return tune["phase"], tune["best"]["trial"], tune["best"]["score"], trials

    def trained(self) -> Counter[str]:
        """How often each run was trained to its end."""
        return Counter((self.folder / "artifacts" / "trained.txt").read_text().split())


@pytest.fixture
def here(tmp_path: Path) -> Here:
    (tmp_path / "here").mkdir()
    return Here(tmp_path / "here")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Here:
    here = Here(tmp_path_factory.mktemp("undisturbed"))
    code, output = here.run()
    assert code == 0, output
    return here


def test_a_status_moves_while_a_run_trains(here: Here) -> None:
    process = here.start("tune.yaml", "--slots", "1", "--set", "spec.trainer.maxEpochs=500", FAKE_SECONDS="0.1")

    def seen() -> set[str]:
        runs = [run.get("status", {}) for run in here.objects("trainruns").values()]
        return {run["summary"]["epoch"] for run in runs if run.get("phase") == "Running" and run.get("epoch")}

    moved: set[str] = set()
    end = time.monotonic() + 120
    while len(moved) < 2 and time.monotonic() < end:
        with suppress(ValueError, FileNotFoundError):  # a file that is being written
            moved |= seen()
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=120)
    assert len(moved) >= 2, output
    assert all(text.endswith("/500") for text in moved)


def test_a_whole_tune(undisturbed: Here) -> None:
    assert undisturbed.trained() == {f"small-cv{t}-f{f}s42": 1 for t in range(6) for f in range(2)}
    phase, best, _, trials = undisturbed.outcome()
    assert phase == "Complete"
    points = {json.dumps(parameters) for parameters, _, _ in trials.values()}
    assert len(points) == len(trials) == 6
    assert max(trials.values(), key=lambda trial: float(trial[1])) == trials[f"small-cv{best}"]


def test_a_run_is_pruned_in_its_midst(here: Here) -> None:
    """Four trials are alike, and the fifth is behind from the first epoch; each tells it while it trains.

    One after the other: of runs that end in the second of a decision nobody knows whether they were known to it.
    """
    rates = [1e-3, 1.01e-3, 1.02e-3, 1.03e-3, 1e-2]
    epochs = 30
    search = TUNE["spec"] | {
        "parallelism": 1,
        "parameters": [{"name": "learning_rate", "type": "Float", "min": 1e-5, "max": 1e-1, "scale": "Log"}],
        "algorithm": {"name": "Random"},
        "initialTrials": [{"parameters": [{"name": "learning_rate", "value": rate}]} for rate in rates],
        "maxTrials": len(rates),
        "trainer": {"maxEpochs": epochs, "checkValEveryNEpoch": 1},
        "racing": {"enabled": False},
        "pruning": {"method": "MedianStop", "minEpochs": 3, "minPeers": 3},
    }
    (here.folder / "tune.yaml").write_text(yaml.safe_dump(TUNE | {"spec": search}))
    code, output = here.run(FAKE_SECONDS="0.2")
    assert code == 0, output
    trials = here.objects("crossvalidations")
    assert {name: trial["status"]["phase"] for name, trial in trials.items()} == {
        **{f"small-cv{number}": "Complete" for number in range(4)},
        "small-cv4": "Pruned",
    }
    stop = trials["small-cv4"]["spec"]["stop"]
    look, first = stop["runLook"], here.objects("trainruns")["small-cv4-f0s42"]
    assert stop["message"].startswith(f"pruned at epoch {look['epoch']} of its first run: best score 0.")
    assert look["peers"] >= 3
    assert look["best"] < look["threshold"]
    assert first["status"]["phase"] == "Stopped"
    assert look["epoch"] <= first["status"]["epoch"] < epochs
    assert "small-cv4-f0s42" not in here.trained()
    status = here.objects("tunes")["small"]["status"]
    assert status["lastDecision"]["message"] == stop["message"]
    assert status["usage"]["gpuSeconds"]["pruned"] == first["status"]["usage"]["runSeconds"]
    assert status["runs"]["skipped"] == 1
    events = (here.folder / "runs" / "state" / "tune-small" / "events.jsonl").read_text()
    assert f"trial 4: {stop['message']}" in events
    told = subprocess.run(
        [sys.executable, "-m", "crossfold_cli.main", "explain", "tune/small", "--trial", "4"],
        cwd=here.folder, env=here.environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert f"{stop['message']}\n" in told.stdout
    assert "looked at once more: the same numbers" in told.stdout


def test_what_is_said(undisturbed: Here) -> None:
    code, output = undisturbed.run("tune.yaml", "--no-watch", "--slots", "3")
    lines = output.splitlines()
    assert code == 0
    assert lines[0] == "Tune small is Complete: all 6 trials have ended"
    assert any(line.startswith("  score       0.99") and line.endswith("(val/JaccardIndex)") for line in lines), output
    assert any(
        line.startswith(f"  artifacts   {undisturbed.folder}/artifacts/default/small/small-cv") for line in lines
    )
    assert undisturbed.trained().most_common(1)[0][1] == 1


def test_more_trials_later(undisturbed: Here) -> None:
    code, output = undisturbed.run("tune.yaml", "--slots", "3", "--set", "spec.maxTrials=7")
    assert code == 0
    assert "all 6 points of the search space were tried" in output
    code, output = undisturbed.run("tune.yaml", "--set", "spec.algorithm.seed=8")
    assert code == 2
    assert "spec.algorithm cannot be changed" in output
    assert "Give the object another metadata.name" in output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_and_gone_on(here: Here, undisturbed: Here, number: signal.Signals) -> None:
    process = here.start(FAKE_PAUSE="1")
    here.until(process, lambda line: "epoch 1/3" in line)
    process.send_signal(number)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 128 + number
    assert "stopping: trainers save their checkpoints" in output
    assert output.splitlines()[-1] == "stopped; go on with: crossfold run tune.yaml --slots 3"
    phases = {run["status"]["phase"] for run in here.objects("trainruns").values()}
    assert phases
    assert not phases & {"Failed", "Succeeded"}
    code, output = here.run()
    assert code == 0, output
    assert here.outcome() == undisturbed.outcome()
    assert set(here.trained().values()) == {1}
    first = here.objects("trainruns")["small-cv0-f0s42"]["status"]
    assert (first["preemptions"], first["attempt"], first.get("crashes", 0)) == (1, 2, 0)


def test_killed_with_a_trainer_and_gone_on(here: Here, undisturbed: Here) -> None:
    for seen in ("epoch 1/3", "Succeeded", "small-cv5"):  # the last trial: a slow machine may be past others by then
        process = here.start(FAKE_SECONDS="0.3")
        here.until(process, lambda line, seen=seen: seen in line)  # type: ignore[misc]
        held = here.folder / "runs" / "state" / "tune-small" / "processes"
        victim = None
        with suppress(FileNotFoundError):  # of a process that has just ended
            victim = next((int(text) for path in held.iterdir() if (text := path.read_text()).isdigit()), None)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        if victim is not None:
            with suppress(ProcessLookupError):
                os.killpg(victim, signal.SIGKILL)
    code, output = here.run()
    assert code == 0, output
    assert here.outcome() == undisturbed.outcome()
    assert set(here.trained().values()) == {1}
    assert [run["status"].get("crashes", 0) for run in here.objects("trainruns").values()] == [0] * 12


def test_two_at_a_time_in_one_folder(here: Here) -> None:
    process = here.start(FAKE_PAUSE="1")
    here.until(process, lambda line: "Running" in line)
    code, output = here.run()
    assert code == 2
    assert f"error: process {process.pid} works in runs/state/tune-small" in output
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=120)


def test_a_second_ctrl_c_does_not_wait(here: Here) -> None:
    stubborn = f"{sys.executable} -c 'import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(\"up\", flush=True); time.sleep(300)'"
    process = here.start(CROSSFOLD_TRAINER_COMMAND=stubborn)
    logs = here.folder / "runs" / "state" / "tune-small" / "logs"
    while not any("up" in log.read_text() for log in logs.rglob("*.log")):
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    here.until(process, lambda line: "stopping" in line)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)  # of a grace period of 120 seconds
    assert process.returncode == 130


def test_a_trainer_that_crashes(here: Here) -> None:
    code, output = here.run(
        "tune.yaml", "--set", "spec.maxTrials=1", "--set", "spec.retries.crash=0", FAKE_CRASH="out of luck"
    )
    assert code == 1
    assert "  failed      small-cv0-f0s42" in output
    assert "Crash: RuntimeError: out of luck" in output
    run = here.objects("trainruns")["small-cv0-f0s42"]
    (trial,) = here.objects("crossvalidations").values()
    assert run["status"]["failure"]["message"] == "RuntimeError: out of luck"
    assert "Traceback" in run["status"]["failure"]["log"]
    assert run["status"]["summary"]["reason"] == "Crash: RuntimeError: out of luck"
    assert trial["status"]["summary"]["reason"] == "small-cv0-f0s42: Crash: RuntimeError: out of luck"
    log = next(line for line in output.splitlines() if line.startswith("  log ")).split()[1]
    assert "Traceback" in (here.folder / log).read_text()


def test_a_program_that_is_not_there(here: Here) -> None:
    code, output = here.run(
        "tune.yaml",
        "--set",
        "spec.maxTrials=1",
        "--set",
        "spec.retries.infrastructure=0",
        CROSSFOLD_TRAINER_COMMAND="/no/such/trainer",
    )
    assert code == 1
    assert "/no/such/trainer: No such file or directory" in output


@pytest.mark.parametrize(
    ("arguments", "lines"),
    [
        (
            ("--set", "spec.max_trials=1"),
            ["error: tune.yaml is not accepted:", "  spec.max_trials: unknown field; did you mean 'maxTrials'?"],
        ),
        (
            ("--set", "spec.parameters[0].values[1]=-1", "--set", "spec.fixed=[{name: gamma, value: 2}]"),
            [
                "error: tune.yaml is not accepted:",
                "  spec.parameters[0].values[1]: hyperparameter 'learning_rate' must be a number above 0, not -1: change or remove it",
                "  spec.fixed[0]: hyperparameter 'gamma' must be a number in (0, 1], not 2",
            ],
        ),
        (
            ("--set", "spec.suspend=true"),
            [
                "error: tune.yaml is not accepted:",
                "  spec.suspend: is true, so that nothing would run: --set spec.suspend=false",
            ],
        ),
        (("-f", "none.yaml"), ["error: none.yaml cannot be read: No such file or directory"]),
    ],
)
def test_what_is_not_accepted(here: Here, arguments: tuple[str, ...], lines: list[str]) -> None:
    code, output = here.run("tune.yaml", *arguments)
    assert code == 2
    assert output.splitlines() == lines
    assert not (here.folder / "runs").exists()


def test_the_other_kinds(here: Here) -> None:
    shared = {key: TUNE["spec"][key] for key in ("objective", "data", "artifacts", "trainer")}
    for kind, extra in (
        ("CrossValidation", {"crossValidation": {"folds": 2}, "parallelism": 2}),
        ("TrainRun", {"fold": 1}),
    ):
        obj = {"apiVersion": TUNE["apiVersion"], "kind": kind, "metadata": {"name": "alone"}, "spec": shared | extra}
        (here.folder / "alone.yaml").write_text(yaml.safe_dump(obj))
        code, output = here.run("alone.yaml", "--slots", "2")
        assert code == 0, output
        assert f"{kind} alone is {'Succeeded' if kind == 'TrainRun' else 'Complete'}" in output


def test_tiny(here: Here) -> None:
    code, output = here.run("tune.yaml", "--dev", "--set", "spec.maxTrials=1")
    assert code == 0, output
    assert output.startswith("--dev: metadata.name=small-dev spec.trainer.maxEpochs=2 ")
    assert set(here.trained()) == {"small-dev-cv0-f0s42", "small-dev-cv0-f1s42"}


def test_help_is_quick() -> None:
    best = min(_seconds([sys.executable, "-m", "crossfold_cli.main", "--help"]) for _ in range(3))
    assert best < 1.0  # 0.2, of a CPU: how long it waits for one is not its own
    loaded = subprocess.run(
        [sys.executable, "-c", "import sys, crossfold_cli.main; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert not {"optuna", "pydantic", "crossfold_operator", "numpy", "torch", "kopf"} & set(loaded)


def _seconds(command: list[str]) -> float:
    """CPU time of a command."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_a_reader_that_goes_away(here: Here) -> None:
    process = here.start(FAKE_SECONDS="0.2")
    here.until(process, lambda line: "Running" in line)
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait(timeout=60) == 141
