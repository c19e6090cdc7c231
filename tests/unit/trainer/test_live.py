"""Live progress: what is reported, and that training never waits for whom it is reported to."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from crossfold_trainer import live
from crossfold_trainer.contract import progress as contract
from crossfold_trainer.contract.curve import CurvePoint
from crossfold_trainer.contract.progress import REPORT_LIMIT, ProgressReport
from crossfold_trainer.contract.sending import Undelivered, file_sender, http_sender, sender
from crossfold_trainer.curve import scores_so_far
from crossfold_trainer.live import Live, report_of
from crossfold_trainer.meter import Meter
from crossfold_trainer.progress import Best, Progress
from tests.trainer_data import run_config
from tests.waiting import PATIENCE_S, eventually


def report(step: int = 0, **changes: Any) -> ProgressReport:
    return ProgressReport.model_validate(
        {"digest": "d", "epoch": 0, "epochs": 3, "step": step, "fraction": 0} | changes
    )


# What is reported ---------------------------------------------------------------------------------------------------


def reported(progress: Progress, *, start: float = 0.0, seconds: float = 30.0) -> ProgressReport:
    clock = iter([0.0, *[seconds] * 9])
    config = run_config(Path("d"), Path("a"), trainer={"maxEpochs": 10})
    return report_of(config, progress, 4, Meter(lambda: next(clock)), start)


def test_the_share_of_all_epochs_and_the_time_that_the_rest_takes() -> None:
    got = reported(Progress(epoch=2, batch=2, step=10))
    assert (got.epoch, got.epochs, got.step, got.fraction) == (2, 10, 10, 0.25)
    assert got.eta_seconds == 90.0


def test_an_attempt_that_resumed_reckons_with_its_own_pace() -> None:
    # 30 seconds for the second quarter: sixty for the other half.
    assert reported(Progress(epoch=5), start=0.25).eta_seconds == 60.0
    assert reported(Progress(epoch=5), start=0.5).eta_seconds is None


def test_the_score_so_far_comes_with_its_epoch_and_metrics() -> None:
    last = {"val/loss": 0.5, "val/AUROC": float("nan")}
    got = reported(Progress(epoch=4, last_metrics=last))
    assert (got.score, got.epoch_of_score, got.metrics) == (None, None, {"val/loss": 0.5, "val/AUROC": None})
    got = reported(Progress(epoch=4, best=Best(2, 0.75, {"val/JaccardIndex": 0.75}), last_metrics=last))
    assert (got.score, got.epoch_of_score, got.metrics) == (0.75, 2, {"val/JaccardIndex": 0.75})


def row(epoch: int, score: float | None = None) -> dict[str, float]:
    """What is known of an epoch, counted from 0; a score where there was a validation."""
    return {"epoch": epoch, "step": 4 * epoch, "train/loss": 0.5} | (
        {} if score is None else {"val/JaccardIndex": score}
    )


def test_the_scores_so_far_at_the_epochs_that_are_asked_for() -> None:
    config = run_config(Path("d"), Path("a"), curveEpochs=[2, 4, 6], trainer={"maxEpochs": 10})
    history = [row(0), row(1, 0.5), row(2), row(3, 0.25), row(4), row(5, 0.75)]
    first, second = CurvePoint(epoch=2, best=0.5, mean=0.5), CurvePoint(epoch=4, best=0.5, mean=0.375)
    assert scores_so_far(config, Progress(epoch=1, history=history[:1])) == []
    assert scores_so_far(config, Progress(epoch=3, history=history[:3])) == [first]
    # All of them each time: what one report said and was lost, the next one says.
    points = scores_so_far(config, Progress(epoch=6, history=history))
    assert points == [first, second, CurvePoint(epoch=6, best=0.75, mean=0.5)]
    told = report_of(config, Progress(epoch=6), 4, Meter(lambda: 1.0), 0.0, curve=points)
    assert ProgressReport.model_validate_json(told.text()).curve == points
    # A score that may not be compared counts for nothing.
    poor = [row(1, 0.0), row(3, float("nan")), row(5, 0.5)]
    assert scores_so_far(config, Progress(epoch=6, history=poor)) == [CurvePoint(epoch=6, best=0.5, mean=0.5)]
    assert scores_so_far(run_config(Path("d"), Path("a")), Progress(epoch=6, history=history)) == []


def test_the_least_loss_is_the_best_so_far() -> None:
    config = run_config(Path("d"), Path("a"), curveEpochs=[2], objective={"metrics": [{"name": "val/loss"}]})
    history = [{"epoch": 0, "val/loss": 0.5}, {"epoch": 1, "val/loss": 0.75}]
    assert scores_so_far(config, Progress(epoch=2, history=history)) == [CurvePoint(epoch=2, best=0.5, mean=0.625)]


def test_metrics_that_do_not_fit_are_left_out() -> None:
    metrics = {"x" * 64: 1.0} | {f"val/{'y' * 50}{i:05d}": i / 7 for i in range(80)}
    got = reported(Progress(epoch=1, last_metrics=metrics))
    assert len(got.metrics) == 64
    text = got.text()
    assert len(text) <= REPORT_LIMIT
    kept = ProgressReport.model_validate_json(text)
    assert 20 < len(kept.metrics) < 64
    assert kept.metrics == {name: got.metrics[name] for name in list(got.metrics)[: len(kept.metrics)]}


# How it is sent ------------------------------------------------------------------------------------------------------


def test_nobody_to_send_to_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[threading.Thread] = []

    def start(thread: threading.Thread) -> None:
        started.append(thread)

    monkeypatch.setattr(threading.Thread, "start", start)
    news = Live(None)
    news.give(report())
    assert not news.due
    news.close()
    assert started == []
    Live(lambda _: None)
    assert [thread.name for thread in started] == ["live"]


class Clock:
    """Seconds pass when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_newest_is_sent_and_no_more_often_than_allowed() -> None:
    clock, sent = Clock(), []
    news = Live(lambda text: sent.append(json.loads(text)["step"]), every=500.0, clock=clock)
    assert news.due
    news.give(report(1))
    eventually(lambda: sent == [1], "the first report")
    assert not news.due
    for step in range(2, 50):
        clock.now += 10.0
        news.give(report(step))
    clock.now += 20.0
    assert news.due
    news.give(report(50))
    eventually(lambda: len(sent) > 1, "another report")
    assert sent == [1, 50]
    news.close()


def test_a_receiver_that_hangs_holds_nothing_up() -> None:
    began, release, over = threading.Event(), threading.Event(), threading.Event()

    def hang(_: bytes) -> None:
        began.set()
        release.wait()
        over.set()

    news = Live(hang, every=0.0)
    news.give(report(1))
    assert began.wait(PATIENCE_S)
    for step in range(1000):
        news.give(report(step))
    news.close()
    assert not over.is_set()
    release.set()


def test_failures_are_told_once_and_tried_less_and_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, tries, told = Clock(), [], []
    monkeypatch.setattr(live.log, "info", lambda text, *values: told.append(text % values))

    def fail(_: bytes) -> None:
        tries.append(clock.now)
        raise OSError("nobody is there")

    news = Live(fail, every=5.0, clock=clock)
    for number in range(1, 9):
        news.give(report())
        eventually(lambda number=number: news._failures == number, f"failure {number}")
        clock.now = news._next
    news.close()
    assert tries == [0, 10, 30, 70, 130, 190, 250, 310]
    assert len(told) == 1
    assert "nobody is there" in told[0]


class Receiver(HTTPServer):
    """Answers with the codes it was given, then with 204."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.codes: list[int] = []
        self.seen: list[tuple[str, str | None, bytes]] = []
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.seen.append((self.path, self.headers["Authorization"], body))
        self.send_response(self.server.codes.pop(0) if self.server.codes else 204)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    server = Receiver()
    yield server
    server.shutdown()
    server.server_close()


def test_the_token_is_read_for_each_report(receiver: Receiver, tmp_path: Path) -> None:
    token = tmp_path / "token"
    send = http_sender(f"{receiver.url}/v1/progress/team/a", token)
    for text in ("first\n", "second"):
        token.write_text(text)
        send(b"{}")
    assert receiver.seen == [("/v1/progress/team/a", f"Bearer {t}", b"{}") for t in ("first", "second")]


@pytest.mark.parametrize(
    ("codes", "requests", "arrives"),
    [([], 1, True), ([503, 503], 3, True), ([503] * 9, 4, False), ([403], 1, False), ([413], 1, False)],
)
def test_who_stands_by_is_passed_over(
    receiver: Receiver, tmp_path: Path, codes: list[int], requests: int, arrives: bool
) -> None:
    (tmp_path / "token").write_text("t")
    receiver.codes = codes
    send = http_sender(f"{receiver.url}/p", tmp_path / "token")
    if arrives:
        send(b"{}")
    else:
        with pytest.raises(Undelivered, match=str(codes[0])):
            send(b"{}")
    assert len(receiver.seen) == requests


def test_no_token_and_no_server_are_ordinary_failures(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="token"):
        http_sender("http://127.0.0.1:9", tmp_path / "token")(b"{}")
    (tmp_path / "token").write_text("t")
    with pytest.raises(OSError):
        http_sender("http://127.0.0.1:9", tmp_path / "token")(b"{}")


def test_the_environment_says_where_to(tmp_path: Path) -> None:
    config = run_config(Path("d"), Path("a"))
    assert sender(config, {}) is None
    to_file = sender(config, {contract.FILE_VARIABLE: str(tmp_path / "p"), contract.URL_VARIABLE: "http://x"})
    assert to_file is not None
    to_file(b"1")
    to_file(b"2")
    assert (tmp_path / "p").read_bytes() == b"2"
    assert [path.name for path in tmp_path.iterdir()] == ["p"]
    file_sender(tmp_path / "q")(b"3")
    assert (tmp_path / "q").read_bytes() == b"3"
