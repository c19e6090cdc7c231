"""Trackers: each for itself, none of them in the way of training or of another."""

import json
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event

from crossfold_trainer.contract.tracking import TrackingSpec
from crossfold_trainer.trackers import process
from crossfold_trainer.trackers.base import RunFacts
from crossfold_trainer.trackers.process import Worker, make
from crossfold_trainer.trackers.remote import Remote
from crossfold_trainer.tracking import TensorBoard, Tracking, facts_of, read_known
from tests.trainer_data import run_config
from tests.waiting import PATIENCE_S

RUN = RunFacts("0123456789abcdef", "t-cv1-f0s42", "d", "t", "t-cv1", 0, 42, "s3://b/a", {"lr": 0.1}, "/tmp", "/none")


class Fake:
    """A tracker that does what a test says."""

    def __init__(self, *, open_: list[Exception | None] | None = None, fails: int = 0, hangs: Any = None) -> None:
        self.opens = open_ or [None]
        self.fails = fails
        self.hangs = hangs
        self.opened = 0
        self.seen: list[Any] = []

    def open(self, run: RunFacts) -> str:
        self.opened += 1
        outcome = self.opens[min(self.opened, len(self.opens)) - 1]
        if outcome is not None:
            raise outcome
        return f"id of {run.name}"

    def log_scalars(self, values: Mapping[str, float], step: int) -> None:
        if self.hangs is not None:
            self.hangs.wait(30)
        if self.fails > 0:
            self.fails -= 1
            raise ConnectionError("away")
        self.seen.append((step, dict(values)))

    def log_image(self, name: str, png: bytes, step: int) -> None:
        self.seen.append((step, name, png))

    def finish(self, values: Mapping[str, Any], *, ended: bool) -> None:
        self.seen.append(("finish", dict(values), ended))


def served(tracker: Fake, *messages: dict[str, Any]) -> list[dict[str, Any]]:
    """What a worker tells of a tracker after some messages and the end."""
    told: list[dict[str, Any]] = []
    worker = Worker("fake", tracker, RUN, told.append)
    for message in (*messages, {"finish": {"score": 0.5}, "ended": True}):
        worker.put(message)
    worker.thread.join(60)
    assert not worker.thread.is_alive()
    return told


def scalars(step: int) -> dict[str, Any]:
    return {"scalars": {"loss": 1.0}, "step": step}


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "OPEN_PAUSES", (0.0, 0.0, 0.0))


def test_everything_arrives_in_order() -> None:
    tracker = Fake()
    told = served(tracker, scalars(1), {"image": "samples", "png": "AAE=", "step": 2})
    assert told == [{"tracker": "fake", "id": "id of t-cv1-f0s42"}]
    assert tracker.seen == [(1, {"loss": 1.0}), (2, "samples", b"\0\1"), ("finish", {"score": 0.5}, True)]


@pytest.mark.usefixtures("no_pauses")
@pytest.mark.parametrize(
    ("outcomes", "opened", "says"),
    [
        ([OSError("away")], 3, "OSError: away"),
        ([OSError("away"), OSError("away"), None], 3, None),
        ([ValueError("no WANDB_API_KEY: set it")], 1, "set it"),
        (
            [ModuleNotFoundError("No module named 'aim'", name="aim")],
            1,
            "aim is not installed: pip install crossfold[trackers], or build the image with TRACKERS=1",
        ),
        ([RuntimeError("a\nb" * 1000)], 3, "RuntimeError: a ba ba"),
    ],
)
def test_a_tracker_that_does_not_open(outcomes: list[Exception | None], opened: int, says: str | None) -> None:
    tracker = Fake(open_=outcomes)
    told = served(tracker, scalars(1))
    assert tracker.opened == opened
    problems = [message["problem"] for message in told if "problem" in message]
    if says is None:
        assert problems == []
        assert tracker.seen[0] == (1, {"loss": 1.0})
    else:
        assert len(problems) == 1
        assert says in problems[0]
        assert len(problems[0]) <= 300
        assert tracker.seen == []


def test_a_failure_is_told_once_and_passes() -> None:
    tracker = Fake(fails=process.MOST_FAILURES - 1)
    told = served(tracker, *(scalars(step) for step in range(8)))
    assert [m["problem"] for m in told if "problem" in m] == ["ConnectionError: away"]
    assert [seen[0] for seen in tracker.seen] == [4, 5, 6, 7, "finish"]


def test_a_tracker_that_always_fails_is_given_up() -> None:
    tracker = Fake(fails=1000)
    told = served(tracker, *(scalars(step) for step in range(50)))
    assert len([m for m in told if "problem" in m]) == 1
    assert tracker.fails == 1000 - process.MOST_FAILURES


def test_one_that_hangs_drops_numbers_and_holds_up_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "WAITING", 10)
    release, told = threading.Event(), []
    slow = Worker("slow", Fake(hangs=release), RUN, told.append)
    other = Fake()
    fast = Worker("fast", other, RUN, told.append)
    for step in range(9):
        fast.put(scalars(step))
    for step in range(100):
        slow.put(scalars(step))
    fast.put({"finish": {}, "ended": True})
    fast.thread.join(PATIENCE_S)
    assert len(other.seen) == 10
    assert [m["tracker"] for m in told if "problem" in m] == ["slow"]
    release.set()


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ValueError, match="there is no tracker x"):
        make("x", {})


# The process ----------------------------------------------------------------------------------------------------------


def script(text: str) -> tuple[str, ...]:
    """A program in the place of the trackers' process."""
    return (sys.executable, "-c", text)


WITHOUT_WANDB = """
import sys
sys.modules["wandb"] = None
from crossfold_trainer.trackers.process import main
main()
"""
WANTED = {"aim": {"uri": "aim://x"}, "wandb": {"project": "p"}}


def test_what_cannot_be_started_costs_nothing(tmp_path: Path) -> None:
    remote = Remote(RUN, WANTED, program=[str(tmp_path / "nothing")])
    remote.scalars({"loss": 1.0}, 1)
    remote.finish({}, ended=True)
    assert set(remote.problems) == {"aim", "wandb"}
    assert "cannot be started" in remote.problems["aim"]


def test_what_never_reads_and_never_ends_is_ended(tmp_path: Path) -> None:
    remote = Remote(RUN, WANTED, program=script("import signal; signal.pause()"))
    for step in range(20_000):
        remote.scalars({"loss": 1.0}, step)
    # The program ends when it is ended, so that this returns only if it was.
    remote.finish({}, ended=True, patience=0.2)
    assert set(remote.problems) == set(WANTED)
    assert {"still busy" in why for why in remote.problems.values()} == {True}


def test_what_crashes_is_noted(tmp_path: Path) -> None:
    remote = Remote(RUN, WANTED, program=script("raise SystemExit(3)"))
    remote.scalars({"loss": 1.0}, 1)
    remote.finish({}, ended=True, patience=120)
    assert remote.problems["wandb"] == "the trackers' process ended with 3"


def test_the_first_problem_of_each_counts_and_nonsense_does_not(tmp_path: Path) -> None:
    lines = [
        "nonsense",
        "[]",
        '{"x": 1}',
        '{"tracker": "aim", "problem": "first"}',
        '{"tracker": "aim", "problem": "2"}',
    ]
    lines.append('{"tracker": "wandb", "id": "abc"}')
    remote = Remote(RUN, WANTED, program=script(f"print({chr(10).join(lines)!r})"))
    remote.finish({}, ended=True, patience=120)
    assert remote.problems == {"aim": "first"}
    assert remote.ids == {"wandb": "abc"}


def test_packages_that_are_not_there_are_named() -> None:
    remote = Remote(RUN, {"wandb": {"project": "p", "mode": "Offline"}}, program=script(WITHOUT_WANDB))
    remote.finish({}, ended=True, patience=120)
    assert remote.problems == {
        "wandb": "wandb is not installed: pip install crossfold[trackers], or build the image with TRACKERS=1"
    }


# What trackers are told -------------------------------------------------------------------------------------------------


def test_every_attempt_of_a_run_has_the_same_id_and_no_other_run_has(tmp_path: Path) -> None:
    def facts(**changes: Any) -> RunFacts:
        return facts_of(run_config(tmp_path, tmp_path, **changes), {}, "f", {})

    assert facts().id == facts().id
    assert len(facts().id) == 16
    assert facts(artifactPath="other").id != facts().id
    assert RUN.group == "t"
    assert RUN.tags["crossfold.fold"] == "0"


@pytest.mark.parametrize(
    ("raw", "known"),
    [(None, {}), (b"{}", {}), (b'{"aim": "x"}', {"aim": "x"}), (b"torn {", {}), (b"[1]", {}), (b"\xff", {})],
)
def test_what_a_former_attempt_was_called(raw: bytes | None, known: dict[str, str]) -> None:
    assert read_known(raw) == known


def test_secrets_are_known_by_tracker() -> None:
    spec = TrackingSpec.model_validate(
        {
            "wandb": {"project": "p", "secretRef": {"name": "w"}},
            "mlflow": {"trackingUri": "http://m", "secretRef": {"name": "m"}},
            "aim": {"uri": "aim://a:1"},
        }
    )
    assert spec.secrets == {"wandb": "w", "mlflow": "m"}
    assert TrackingSpec().secrets == {}


# TensorBoard ------------------------------------------------------------------------------------------------------------


def events(folder: Path) -> list[Event]:
    (file,) = folder.glob("events*")
    return [Event.FromString(raw) for raw in RawEventFileLoader(str(file)).Load()]


def png() -> bytes:
    from io import BytesIO

    from PIL import Image

    buffer = BytesIO()
    Image.new("RGB", (8, 6), (255, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def test_tensorboard_holds_numbers_pictures_hyperparameters_and_the_graph(tmp_path: Path) -> None:
    config = run_config(tmp_path, tmp_path, tracking={"tensorboard": True, "graph": True})
    with Tracking(config, {"learning_rate": 0.01, "augment": ["D4"]}, {}) as tracking:
        tracking.scalars({"val/loss": 0.5, "val/AUROC": float("nan")}, 12)
        tracking.image("samples", png())
        tracking.graph(torch.nn.Conv2d(3, 1, 1).eval(), torch.zeros(1, 3, 8, 8))
        assert tracking.finish({"val/loss": 0.5, "val/AUROC": None}, {"reason": "done"}) == []
        (item,) = tracking.items()
        assert tracking.files() == []
    (tmp_path / item.path).write_bytes(item.content)
    found = events(tmp_path)
    values = {v.tag: (e.step, v) for e in found for v in e.summary.value}
    assert "val/AUROC" not in values
    assert values["val/loss"][0] == 12
    assert values["val/loss"][1].simple_value == 0.5
    image = values["samples"][1].image
    assert (image.width, image.height, image.encoded_image_string) == (8, 6, png())
    assert {"_hparams_/experiment", "_hparams_/session_start_info", "hparam/val/loss"} <= set(values)
    start = values["_hparams_/session_start_info"][1].metadata.plugin_data.content
    assert b"learning_rate" in start
    assert b"['D4']" in start
    (graph,) = [e.graph_def for e in found if e.graph_def]
    assert b"Conv2d" in graph


def test_without_tensorboard_nothing_is_written() -> None:
    board = TensorBoard(enabled=False)
    board.scalars({"a": 1.0}, 1)
    board.image("a", png(), 1)
    board.hparams({}, {}, 1)
    board.graph(None, None)
    assert board.items() == []
    board.close()


def test_a_model_that_cannot_be_traced_costs_a_warning_only(tmp_path: Path) -> None:
    config = run_config(tmp_path, tmp_path, tracking={"tensorboard": True, "graph": True})
    with Tracking(config, {}, {}) as tracking:
        tracking.graph(object(), None)
        assert tracking.finish({}, {}) == []


def test_problems_are_notes_of_the_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = script("import sys; sys.stdin.read(); sys.exit(5)")
    monkeypatch.setattr("crossfold_trainer.trackers.remote.PROGRAM", program)
    monkeypatch.setattr("crossfold_trainer.trackers.remote.FINISH_S", 120.0)
    config = run_config(tmp_path, tmp_path, tracking={"tensorboard": False, "aim": {"uri": "aim://a:1"}})
    with Tracking(config, {}, {}) as tracking:
        tracking.scalars({"a": 1.0}, 1)
        assert tracking.finish({}, {}) == ["tracking.aim: the trackers' process ended with 5"]
        assert json.dumps([item.path for item in tracking.items()]) == "[]"
