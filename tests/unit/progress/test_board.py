"""Which report a run's status shows, and how often that changes."""

import asyncio
from collections.abc import Callable
from typing import Any

from crossfold_operator import live
from crossfold_operator.cluster.base import Key
from crossfold_operator.live import Board, nothing
from crossfold_operator.names import Kind
from crossfold_trainer.contract.progress import ProgressReport

KEY = Key(Kind.TRAIN_RUN, "d", "r")
Virtual = Callable[[Any], Any]


def report(step: int) -> ProgressReport:
    return ProgressReport(digest="x", epoch=0, epochs=3, step=step, fraction=0)


class Woken:
    """What a board wakes, with the step that is shown then."""

    def __init__(self, seconds: float = 10) -> None:
        self.board = Board(seconds, self._wake)
        self.seen: list[tuple[float, int]] = []
        self.began = asyncio.get_running_loop().time()

    def _wake(self, key: Key) -> None:
        assert key == KEY
        shown = self.board.shown("u")
        assert shown is not None
        self.seen.append((asyncio.get_running_loop().time() - self.began, shown.step))


def test_the_first_report_shows_at_once_and_the_newest_after_that_when_it_is_time(virtual: Virtual) -> None:
    async def story() -> list[tuple[float, int]]:
        woken = Woken()
        for step in range(1, 26):
            woken.board.put(KEY, "u", report(step))
            await asyncio.sleep(1)
        await asyncio.sleep(60)
        return woken.seen

    # Of 25 reports, one a second: 1 at once, and then what is newest every ten seconds; the last is not lost.
    assert virtual(story()) == [(0, 1), (10, 10), (20, 20), (30, 25)]


def test_what_is_shown_stays_the_same_in_between(virtual: Virtual) -> None:
    async def story() -> None:
        woken = Woken()
        woken.board.put(KEY, "u", report(1))
        woken.board.put(KEY, "u", report(2))
        assert woken.board.shown("u") == report(1)
        assert woken.board.shown("someone else") is None

    virtual(story())


def test_a_report_that_says_nothing_new_wakes_nobody(virtual: Virtual) -> None:
    async def story() -> list[tuple[float, int]]:
        woken = Woken()
        for _ in range(30):
            woken.board.put(KEY, "u", report(1))
            await asyncio.sleep(5)
        return woken.seen

    assert virtual(story()) == [(0, 1)]


def test_memory_is_bounded(virtual: Virtual, monkeypatch: Any) -> None:
    monkeypatch.setattr(live, "REMEMBERED", 3)

    async def story() -> list[bool]:
        board = Board(10, lambda _: None)
        for uid in "abcde":
            board.put(KEY, uid, report(1))
        board.put(KEY, "c", report(2))
        await asyncio.sleep(20)
        return [board.shown(uid) is not None for uid in "abcde"]

    assert virtual(story()) == [False, False, True, True, True]


def test_where_nobody_reports_there_is_nothing() -> None:
    assert nothing("u") is None
