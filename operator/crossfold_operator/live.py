"""What is known of runs that train: the newest report of each, and the one that its status shows."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from crossfold_operator.cluster.base import Key
from crossfold_trainer.contract.progress import ProgressReport

REMEMBERED = 10_000
"""Runs whose reports are kept, the latest ones: more than can train at a time."""

Shown = Callable[[str], ProgressReport | None]
"""The report that the status of the run with this UID shows; None: there is none yet."""


def nothing(_: str) -> ProgressReport | None:
    """No run reports."""
    return None


@dataclass
class _Entry:
    shown: ProgressReport
    since: float
    newest: ProgressReport | None = None
    """A report that is not shown yet."""


class Board:
    """Reports by the UID of their run.

    A run's status takes up a new one at most every so many seconds, which bounds the writes: in between, whatever
    reconciles the run sees what is shown already. It belongs to one term of leadership; what a new one does not know
    yet stays in the status as it is. All methods belong to the thread of one event loop.
    """

    def __init__(self, seconds: float, wake: Callable[[Key], None]) -> None:
        """Nothing is known.

        Args:
            seconds: from one report that is shown to the next, of one run.
            wake: has a run reconciled, since there is something new to show.
        """
        self._seconds = seconds
        self._wake = wake
        self._entries: OrderedDict[str, _Entry] = OrderedDict()

    def shown(self, uid: str) -> ProgressReport | None:
        """The report that the status of a run shows."""
        entry = self._entries.get(uid)
        return entry.shown if entry else None

    def put(self, key: Key, uid: str, report: ProgressReport) -> None:
        """Take in the newest report of a run."""
        loop = asyncio.get_running_loop()
        entry = self._entries.get(uid)
        if entry is None or loop.time() - entry.since >= self._seconds:
            self._show(key, uid, report)
        else:
            if entry.newest is None:
                loop.call_at(entry.since + self._seconds, self._due, key, uid)
            entry.newest = report

    def _due(self, key: Key, uid: str) -> None:
        entry = self._entries.get(uid)
        if entry is not None and entry.newest is not None:
            self._show(key, uid, entry.newest)

    def _show(self, key: Key, uid: str, report: ProgressReport) -> None:
        before = self.shown(uid)
        self._entries[uid] = _Entry(report, asyncio.get_running_loop().time())
        self._entries.move_to_end(uid)
        if len(self._entries) > REMEMBERED:
            self._entries.popitem(last=False)
        if report != before:
            self._wake(key)
