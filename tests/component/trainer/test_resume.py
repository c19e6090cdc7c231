"""However a run is interrupted, it ends as if it had not been: the same weights, bit for bit."""

import json
import os
import random
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from crossfold_trainer import artifacts, resume
from crossfold_trainer.checkpoints import CheckpointLog
from crossfold_trainer.contract.config import CREDENTIALS_VARIABLE, RunConfig, with_digest
from crossfold_trainer.contract.exits import Exit
from crossfold_trainer.contract.result import FailureClass, RunResult
from crossfold_trainer.interrupt import Interrupt
from crossfold_trainer.training.loop import Loop, Saving
from tests.conftest import ROUND
from tests.trainer_data import run_config
from tests.trainer_runs import Attempts, config_for, failure, folder_of, result, same_weights
from tests.waiting import eventually


class Killed(BaseException):
    """SIGKILL, as far as one process can play it: nothing is saved, and no upload begins any more."""


def ending(monkeypatch: pytest.MonkeyPatch, ends: dict[int, str]) -> Callable[[], Interrupt]:
    """Make the next attempts end at these steps, one step an attempt: by "term" or "kill"."""
    watch = Loop._watch

    def watched(self: Loop, *arguments: Any) -> None:
        how = ends.pop(self._progress.step, None)
        if how == "term":
            self._interrupt.request()
        elif how is not None:
            raise Killed
        watch(self, *arguments)

    monkeypatch.setattr(Loop, "_watch", watched)
    return Interrupt


def newest_state(config: RunConfig) -> Path:
    """The file of the state that counts."""
    entry = max((folder_of(config) / "checkpoints" / "log").iterdir())
    return folder_of(config) / json.loads(entry.read_text())["snapshots"][0]["state"]["path"]


def tear(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def same_numbers(one: RunResult, other: RunResult) -> bool:
    """Whether all is the same but places and times."""
    apart = {"duration_seconds", "artifact_uri", "checkpoint_uri", "performance"}
    return one.model_dump(exclude=apart) == other.model_dump(exclude=apart)


SETTINGS: dict[str, Any] = {
    "hyperparameters": {"augment": ["D4", "RandomBrightnessContrast"], "batch_size": 2},
    # Checkpoints inside epochs too, at every step at which none is under way.
    "trainer": {"maxEpochs": 8, "checkValEveryNEpoch": 2, "accumulateGradBatches": 2, "checkpointEveryMinutes": 1e-6},
    "curveEpochs": [2, 4, 6],
}


def test_twenty_ends_at_random_steps_change_nothing(
    data: Path, tmp_path: Path, attempts: Attempts, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = config_for(data, tmp_path / "undisturbed", **SETTINGS)
    expected = result(attempts.here(undisturbed))
    assert expected.steps == 32
    assert [point.epoch for point in expected.curve] == [2, 4, 6]
    config = config_for(data, tmp_path / "a", **SETTINGS)
    chance = random.Random(5 + ROUND)
    steps = sorted(chance.sample(range(1, 33), 20))
    ends = {step: chance.choice(["term", "kill", "kill and tear"]) for step in steps}
    assert {"term", "kill", "kill and tear"} == set(ends.values())
    new, lost = ending(monkeypatch, ends), 0
    for step in steps:
        how = ends.get(step)
        if how is None:
            continue
        if how == "term":
            failure(attempts.here(config, new()), Exit.INTERRUPTED, FailureClass.PREEMPTED)
            continue
        with pytest.raises(Killed):
            attempts.here(config, new())
        if how == "kill and tear" and step > 4:
            tear(newest_state(config))
            lost += 1
    ended = attempts.here(config, new())
    assert not ends
    assert lost
    assert same_numbers(result(ended), expected)
    assert same_weights(folder_of(config), folder_of(undisturbed))
    one, other = ((folder_of(c) / "metrics.csv").read_text() for c in (config, undisturbed))
    assert one == other
    left = {path.name for path in (folder_of(config) / "checkpoints").iterdir()}
    assert left == {"best.ckpt", "last.ckpt", "log"}


AROUND = [
    (hook, epoch) for hook in ("on_validation_batch_end", "on_validation_end", "on_train_epoch_end") for epoch in (2, 8)
]


@pytest.mark.parametrize("around", AROUND)
def test_an_end_around_a_validation_changes_nothing(
    data: Path, tmp_path: Path, attempts: Attempts, monkeypatch: pytest.MonkeyPatch, around: tuple[str, int]
) -> None:
    """SIGTERM inside a validation, at its end, and before its epoch is closed; the last batch's is among the random."""
    hook, epoch = around
    undisturbed = config_for(data, tmp_path / "undisturbed", **SETTINGS)
    expected = result(attempts.here(undisturbed))
    config, ends, called = config_for(data, tmp_path / "a", **SETTINGS), [epoch], getattr(Loop, hook)

    def ending_here(self: Loop, *arguments: Any, **more: Any) -> None:
        if ends and self._progress.epoch + 1 == ends[0]:
            ends.pop()
            self._interrupt.request()
        called(self, *arguments, **more)

    monkeypatch.setattr(Loop, hook, ending_here)
    first = attempts.here(config, Interrupt())
    assert not ends
    if first.code != Exit.OK:  # what comes after the last validation may come to its end
        failure(first, Exit.INTERRUPTED, FailureClass.PREEMPTED)
        first = attempts.here(config, Interrupt())
        assert "resumed at step " in first.output
    assert same_numbers(result(first), expected)
    assert same_weights(folder_of(config), folder_of(undisturbed))
    one, other = ((folder_of(c) / "metrics.csv").read_text() for c in (config, undisturbed))
    assert one == other


def test_a_state_of_another_format_is_refused_with_the_remedy(
    data: Path, tmp_path: Path, attempts: Attempts, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_for(data, tmp_path / "a")
    with monkeypatch.context() as patch:
        patch.setattr(resume, "FORMAT", 2)
        failure(attempts.here(config, ending(patch, {5: "term"})()), Exit.INTERRUPTED, FailureClass.PREEMPTED)
    text = failure(attempts.here(config), Exit.CONFIG, FailureClass.CONFIG)
    assert "another version of the trainer" in text
    assert "template.image" in text


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_process_that_is_ended_goes_on_in_the_next(
    data: Path, tmp_path: Path, attempts: Attempts, number: signal.Signals
) -> None:
    augment = {
        "hyperparameters": {"augment": ["D4", "RandomBrightnessContrast"]},
        "trainer": {"maxEpochs": 6, "earlyStoppingPatience": None},
    }
    undisturbed = config_for(data, tmp_path / "undisturbed", **augment)
    expected = result(attempts.here(undisturbed))

    config = config_for(data, tmp_path / "a", **augment)
    process = attempts.held(config, "epoch 3/")
    process.send_signal(number)
    attempts.go_on()
    ended = attempts.ended(process)
    if number == signal.SIGTERM:
        text = failure(ended, Exit.INTERRUPTED, FailureClass.PREEMPTED)
        assert text.startswith("interrupted at step ")
        assert text.endswith("checkpoint saved")
    else:
        assert ended.code == -signal.SIGKILL
    assert not (folder_of(config) / "result.json").exists()

    ended = attempts.here(config)
    assert "resumed at step " in ended.output
    assert "epoch 1/" not in ended.output
    assert same_numbers(result(ended), expected)
    assert same_weights(folder_of(config), folder_of(undisturbed))


SLOW_MODULE = """
import pathlib, sys, time
here = pathlib.Path(__file__).parent
(here / "importing").touch()
while not (here / "go-on").exists():
    time.sleep(0.01)
sys.path.remove(str(here))
del sys.modules["obstore"]
import obstore
"""


@pytest.mark.parametrize("at", ["its own imports", "the import of torch"])
def test_a_process_that_is_ended_while_it_starts_was_preempted(
    data: Path, tmp_path: Path, attempts: Attempts, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    config = config_for(data, tmp_path / "a", trainer={"maxEpochs": 10_000})
    slow = tmp_path / "slow"
    slow.mkdir()
    if at == "its own imports":
        (slow / "obstore.py").write_text(SLOW_MODULE)
        monkeypatch.setenv("PYTHONPATH", str(slow), prepend=os.pathsep)
    process = attempts.process(config)
    assert process.stdout is not None
    if at == "its own imports":
        while not (slow / "importing").exists():
            assert process.poll() is None
            time.sleep(0.01)
    else:
        next(line for line in process.stdout if line.startswith("run tiny-cv0-f0s42: "))
    process.send_signal(signal.SIGTERM)
    (slow / "go-on").touch()
    text = failure(attempts.ended(process), Exit.INTERRUPTED, FailureClass.PREEMPTED)
    assert text == "SIGTERM arrived before training began: nothing to save"


@pytest.mark.parametrize("swallowed", [False, True])
def test_sigterm_inside_of_what_handles_errors_is_no_error(
    data: Path, tmp_path: Path, attempts: Attempts, monkeypatch: pytest.MonkeyPatch, swallowed: bool
) -> None:
    """What builds a model takes any exception for a fault of the encoder; a library may take it for anything."""
    interrupt = Interrupt()

    def create_model(*_: Any, **__: Any) -> None:
        try:
            interrupt._arrived(signal.SIGTERM, None)
        except BaseException as error:
            if swallowed:
                raise ImportError("cannot import it") from error
            raise

    monkeypatch.setattr("crossfold_trainer.model.smp.create_model", create_model)
    ended = attempts.here(config_for(data, tmp_path / "a"), interrupt)
    text = failure(ended, Exit.INTERRUPTED, FailureClass.PREEMPTED)
    assert text.startswith("SIGTERM arrived before training began")


@pytest.mark.parametrize("damage", ["last torn", "last gone", "both torn", "another digest", "best lost"])
def test_a_damaged_checkpoint_is_passed_over(
    data: Path, tmp_path: Path, attempts: Attempts, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    config = config_for(data, tmp_path / "a")
    failure(attempts.here(config, ending(monkeypatch, {9: "term"})()), Exit.INTERRUPTED, FailureClass.PREEMPTED)
    folder = folder_of(config)
    entry = json.loads(max((folder / "checkpoints" / "log").iterdir()).read_text())
    last, previous = (folder / snapshot["state"]["path"] for snapshot in entry["snapshots"])
    best = folder / entry["snapshots"][0]["best"]["path"]
    match damage:
        case "last torn":
            tear(last)
        case "last gone":
            last.unlink()
        case "both torn":
            last.write_bytes(b"")
            previous.write_bytes(previous.read_bytes()[:-100])
        case "another digest":
            for path in (last, previous):
                path.write_bytes(path.read_bytes().replace(config.digest.encode(), b"0" * 64))
        case _:
            best.write_bytes(b"torn")
            previous.unlink()
    ended = attempts.here(config)
    assert "passed over" in ended.output
    assert ("resumed at step 8" in ended.output) == (damage in ("last torn", "last gone"))
    undisturbed = config_for(data, tmp_path / "undisturbed")
    assert same_numbers(result(ended), result(attempts.here(undisturbed)))
    assert same_weights(folder, folder_of(undisturbed))


def test_the_best_weights_are_saved_again_from_their_own_state(
    data: Path, tmp_path: Path, attempts: Attempts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newest state is the best epoch's: its weights are in it, whatever became of those that were kept."""
    config = config_for(data, tmp_path / "a", trainer={"maxEpochs": 1})
    monkeypatch.setattr(artifacts, "write_result", lambda *_: (_ for _ in ()).throw(Killed))
    with pytest.raises(Killed):
        attempts.here(config)
    monkeypatch.undo()
    entry = json.loads(max((folder_of(config) / "checkpoints" / "log").iterdir()).read_text())
    (folder_of(config) / entry["snapshots"][0]["best"]["path"]).unlink()
    got = result(attempts.here(config))
    kept = torch.load(folder_of(config) / "checkpoints" / "best.ckpt", weights_only=True)
    assert (kept["epoch"], kept["score"]) == (0, got.score)


def test_checkpoints_come_by_epochs_between_validations(
    data: Path, tmp_path: Path, attempts: Attempts, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = Saving.save

    def uploaded(self: Saving, *args: Any, **arguments: Any) -> None:
        # A checkpoint that is due while another one is being uploaded is left out.
        save(self, *args, **arguments)
        eventually(lambda: not self._uploader.busy, "the checkpoint is uploaded")

    monkeypatch.setattr(Saving, "save", uploaded)
    trainer = {"maxEpochs": 6, "checkValEveryNEpoch": 6, "checkpointEveryMinutes": None}
    for every, resumed in ((None, ""), (2, "resumed at step 16")):
        config = config_for(data, tmp_path / str(every), trainer=trainer | {"checkpointEveryNEpochs": every})
        with pytest.raises(Killed):
            attempts.here(config, ending(monkeypatch, {18: "kill"})())
        ended = attempts.here(config, Interrupt())
        assert ("resumed" in ended.output) == bool(resumed)
        assert resumed in ended.output


def test_an_attempt_that_wakes_up_late_overwrites_nothing(
    data: Path, tmp_path: Path, attempts: Attempts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Attempt 2 runs from beginning to end while attempt 1 is asleep in the middle of a step."""
    config = config_for(data, tmp_path / "a").model_copy(update={"owner": "uid"})
    watch, asleep = Loop._watch, {5}
    finished: list[RunResult] = []

    def watched(self: Loop, *arguments: Any) -> None:
        if self._progress.step in asleep:
            asleep.clear()
            finished.append(result(Attempts(tmp_path).here(config.model_copy(update={"attempt": 2}))))
        watch(self, *arguments)

    monkeypatch.setattr(Loop, "_watch", watched)
    text = failure(attempts.here(config), Exit.INTERRUPTED, FailureClass.PREEMPTED)
    assert "another attempt has claimed this run" in text
    folder = folder_of(config)
    assert RunResult.model_validate_json((folder / "result.json").read_text()) == finished[0]
    assert "claimed" not in (folder / "log.txt").read_text()
    undisturbed = config_for(data, tmp_path / "undisturbed")
    attempts.here(undisturbed)
    assert same_weights(folder, folder_of(undisturbed))


def test_an_attempt_that_starts_late_does_not_begin(data: Path, tmp_path: Path, attempts: Attempts) -> None:
    config = config_for(data, tmp_path / "a").model_copy(update={"owner": "uid", "attempt": 3})
    store = artifacts.open_run_folder(config)
    CheckpointLog(store, "uid", 4).claim()
    text = failure(attempts.here(config), Exit.INTERRUPTED, FailureClass.PREEMPTED)
    assert text == "attempt 4 of this run has begun: this one is 3"
    # Another TrainRun counts its attempts anew.
    again = config.model_copy(update={"owner": "another", "attempt": 1})
    assert result(attempts.here(again)).steps == 12


class Stopping:
    """A TCP proxy that can stop passing anything on, as a network does."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._open = threading.Event()
        self._open.set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def stop(self) -> None:
        self._open.clear()

    def close(self) -> None:
        self._open.set()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self._to))
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=self._pass_on, args=(one, other), daemon=True).start()

    def _pass_on(self, one: socket.socket, other: socket.socket) -> None:
        try:
            while block := one.recv(65536):
                self._open.wait()
                other.sendall(block)
            other.shutdown(socket.SHUT_WR)
        except OSError:
            pass


def test_sigterm_with_the_store_down_ends_within_the_grace_period(
    data: Path, tmp_path: Path, attempts: Attempts, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.s3server import s3_server

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        (tmp_path / "credentials" / "artifacts").mkdir(parents=True, exist_ok=True)
        (tmp_path / "credentials" / "artifacts" / name).write_text("KEY")
    monkeypatch.setenv(CREDENTIALS_VARIABLE, str(tmp_path / "credentials"))
    (tmp_path / "s3" / "bucket").mkdir(parents=True)
    with s3_server(tmp_path / "s3", "KEY", "KEY", "us-east-1") as endpoint:
        proxy = Stopping(int(endpoint.rpartition(":")[2]))
        place = {"uri": "s3://bucket/runs", "endpoint": f"http://127.0.0.1:{proxy.port}", "region": "us-east-1"}
        config = with_digest(
            run_config(data, "", artifacts=place, trainer={"maxEpochs": 10_000, "earlyStoppingPatience": None}),
            "default/tiny/tiny-cv0",
        ).model_copy(update={"grace_period_seconds": 5})
        process = attempts.held(config, "epoch 4/")
        proxy.stop()
        process.send_signal(signal.SIGTERM)
        attempts.go_on()
        # Nothing else ends an upload: there is no answer, and no time limit of the request's own.
        text = failure(attempts.ended(process), Exit.INTERRUPTED, FailureClass.PREEMPTED)
        assert "did not take the checkpoint within the grace period" in text
        proxy.close()
        again = config.model_copy(
            update={"trainer": config.trainer, "artifacts": config.artifacts.model_copy(update={"endpoint": endpoint})}
        )
        ended = attempts.here(again, stopping_after_a_step())
        assert "resumed at step " in ended.output


def stopping_after_a_step() -> Interrupt:
    interrupt = Interrupt()
    interrupt.request()
    return interrupt
