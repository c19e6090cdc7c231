"""`crossfold run`: the operator's own reconcile over a folder and processes of this machine, until the root is over."""

import asyncio
import logging
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from crossfold_cli import report
from crossfold_cli.display import Display
from crossfold_cli.errors import UsageError
from crossfold_cli.progress import LogFollower, Progress, ReportReader
from crossfold_cli.view import Node, node_of
from crossfold_operator import problems
from crossfold_operator.api.crossvalidation import CrossValidationSpec
from crossfold_operator.api.trainrun import TrainRunSpec
from crossfold_operator.api.tune import TuneSpec
from crossfold_operator.cluster.admission import admit
from crossfold_operator.cluster.base import Key, Obj, Refused, key_of
from crossfold_operator.cluster.folder import FolderError
from crossfold_operator.cluster.kubelet import DEFAULT_COMMAND
from crossfold_operator.cluster.local import LocalCluster
from crossfold_operator.cluster.slots import Slot
from crossfold_operator.live import Board
from crossfold_operator.names import Condition, Kind, Reason, TrainRunPhase
from crossfold_operator.observe.metadata import wakes
from crossfold_operator.queue import Spacing, WorkQueue
from crossfold_operator.reconcile.reconciler import Reconciler
from crossfold_operator.settings import Settings
from crossfold_operator.workers.pool import SearchPool

IMAGE = "local"
"""Stands in the place of an image: trainers run in this Python environment."""
_WORKERS = 4
_STARTUP_SECONDS = 10
"""Nothing has to be pulled here: a program that does not start will not start."""
_LOOK_SECONDS = 0.25
_END_SECONDS = 0.2
_SETTLE_SECONDS = 2.0
_PROGRESS_SECONDS = 1.0
"""From one status that shows live progress to the next, of one run."""
_FAILED = 1
_INTERRUPTED = 130
_NO_NEWS = (Reason.UNSCHEDULABLE, Reason.TRIAL_FINISHED, Reason.CONFIG_ERROR)
"""Warnings that say nothing new: waiting for a slot is as it should be, and a failed run was told before its trial."""
_TOLD_BY_PHASE = (Reason.RUN_FAILED,)
_SPECS: dict[str, type[TuneSpec] | type[CrossValidationSpec] | type[TrainRunSpec]] = {
    Kind.TUNE: TuneSpec,
    Kind.CROSS_VALIDATION: CrossValidationSpec,
    Kind.TRAIN_RUN: TrainRunSpec,
}


@dataclass(frozen=True)
class Options:
    """How to run."""

    state: Path
    """Folder of the objects and logs of this run."""
    slots: Sequence[Slot]
    command: str
    """What was typed, for saying how to go on."""
    trainer: Sequence[str] = DEFAULT_COMMAND
    """The program that trains."""


def state_folder(base: Path, obj: Obj) -> Path:
    """Each object has its own folder, so that objects of one base can run side by side."""
    return base / f"{obj['kind'].lower()}-{obj['metadata']['name']}"


def check(obj: Obj, source: str) -> Obj:
    """The object with its defaults, as an API server would store it.

    Raises:
        UsageError: it would not be accepted, or the operator would not act on it.
    """
    admitted, found = admit(obj)
    if not found:
        try:
            spec = _SPECS[admitted["kind"]].model_validate(admitted["spec"])
            found = problems.of_spec(spec)
            if spec.suspend:
                found.append("spec.suspend: is true, so that nothing would run: --set spec.suspend=false")
        except ValidationError as error:
            found = problems.of_error(error)
    if found:
        raise UsageError(f"{source} is not accepted", found)
    return admitted


class LocalRun:
    """One object on its way from its manifest to its end."""

    def __init__(self, obj: Obj, options: Options, display: Display) -> None:
        self._obj = obj
        self._key = key_of(obj)
        self._options = options
        self._display = display
        self._logs = LogFollower()
        self._reports = ReportReader()
        self._stopping = asyncio.Event()
        self._signals = 0
        self._code = _INTERRUPTED
        self._cluster = LocalCluster(
            options.state,
            options.slots,
            on_change=self._on_change,
            on_event=self._on_event,
            command=options.trainer,
        )
        settings = Settings(trainer_image=IMAGE, startup_seconds=_STARTUP_SECONDS)
        self._board = Board(_PROGRESS_SECONDS, self._has_news)
        self._search = SearchPool(size=settings.search_workers, seconds=settings.search_seconds)
        reconciler = Reconciler(
            self._cluster, settings, live=self._board.shown, search=self._search, wake=self._has_news
        )
        self._queue = WorkQueue(
            reconciler,
            workers=_WORKERS,
            spacing=Spacing(),
            deadline=settings.reconcile_seconds,
            tell=reconciler.tell,
        )

    async def run(self) -> int:
        """Run to the end, or to ctrl-C.

        Returns:
            The exit code: 0 complete, 1 failed, 130 interrupted.

        Raises:
            UsageError: the folder cannot be used, or does not take this object.
        """
        try:
            await self._cluster.start()
        except FolderError as error:
            raise UsageError(str(error)) from error
        self._handle_signals()
        working: asyncio.Task[None] | None = None
        try:
            await self._apply()
            working = asyncio.create_task(self._queue.run())
            await self._follow()
        finally:
            self._queue.stop()
            if working is not None:
                await working
            await self._search.close()
            await self._stop_cluster()
            self._display.close()
        return self._end()

    async def _stop_cluster(self) -> None:
        """End all trainers: at once after a second signal, also those that began between it and this."""
        ending = asyncio.create_task(self._cluster.stop())
        while not ending.done():
            if self._signals > 1:
                self._cluster.kill()
            await asyncio.wait({ending}, timeout=_END_SECONDS)
        await ending

    async def _apply(self) -> None:
        try:
            await self._cluster.apply(self._obj)
        except Refused as refused:
            raise UsageError(
                f"{self._options.state} holds this {self._key.kind} with another spec",
                refused.message.splitlines(),
                hint="Give the object another metadata.name, start elsewhere with --state, or remove the folder.",
            ) from refused

    async def _follow(self) -> None:
        """Show the tree until it is over or to be stopped."""
        began = asyncio.get_running_loop().time()
        while not self._stopping.is_set():
            self._read_reports()
            root, idle = self._tree(), self._queue.idle
            if root is None:
                return
            # What a folder holds from before may say that all is over: the first reconciles judge it anew.
            if idle or asyncio.get_running_loop().time() - began > _SETTLE_SECONDS:
                self._display.show(root)
            if idle and self._refused():
                return
            if idle and all(node.over for node in root.walk()):
                return
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), _LOOK_SECONDS)

    def _end(self) -> int:
        root = self._cluster.get(self._key)
        if self._signals:
            self._display.say(f"stopped; go on with: {self._options.command}")
            return self._code
        if root is None:
            self._display.say(f"{self._key.kind} {self._key.name} was deleted")
            return _FAILED
        runs = self._cluster.all(Kind.TRAIN_RUN)
        go_on = f"{self._options.command} --set spec.maxTrials={root['spec'].get('maxTrials', 1) * 2}"
        self._display.say(report.summary(root, runs, self._log_of, go_on))
        return 0 if report.succeeded(root) else _FAILED

    def _refused(self) -> bool:
        """Whether the operator does not act on the object, which would be so for ever."""
        conditions = ((self._cluster.get(self._key) or {}).get("status") or {}).get("conditions", ())
        return any(c["type"] == Condition.VALID and c["status"] == "False" for c in conditions)

    # What happens meanwhile -----------------------------------------------------------------------------------------

    def _on_change(self, obj: Obj) -> None:
        for key in wakes(obj):
            self._queue.add(Key(*key))

    def _on_event(self, key: Key, warning: bool, reason: str, message: str) -> None:
        known = _TOLD_BY_PHASE if self._display.tells_phases else ()
        if warning and reason not in _NO_NEWS and reason not in known:
            lines = message.strip().splitlines() or [""]
            self._display.say(f"warning: {key.name}: {reason}: {lines[-1]}")

    def _has_news(self, key: Key) -> None:
        self._queue.add(key)

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._interrupt, number)

    def _interrupt(self, number: int) -> None:
        self._signals += 1
        if self._signals == 1:
            self._code = 128 + number
            self._display.say("stopping: trainers save their checkpoints; ctrl-C again ends them at once")
            self._stopping.set()
        else:
            self._cluster.kill()

    def _tree(self) -> Node | None:
        root = self._cluster.get(self._key)
        return None if root is None else node_of(root, self._cluster.children, self._progress)

    def _progress(self, run: Mapping[str, Any]) -> Progress | None:
        log = self._log_of(run)
        return None if log is None else self._logs.progress(log)

    def _log_of(self, run: Mapping[str, Any]) -> Path | None:
        """The log of the latest attempt of a TrainRun."""
        pod = self._pod_of(run)
        return None if pod is None else self._cluster.log_of(pod)

    def _pod_of(self, run: Mapping[str, Any]) -> Obj | None:
        """The pod of the latest attempt of a TrainRun."""
        name = (run.get("status") or {}).get("job")
        job = self._cluster.get(Key(Kind.JOB, self._key.namespace, name)) if name else None
        pods = self._cluster.children(Kind.POD, job["metadata"]["uid"]) if job else []
        return pods[-1] if pods else None

    def _read_reports(self) -> None:
        """Take in what running trainers say of their progress."""
        for run in self._cluster.all(Kind.TRAIN_RUN):
            if (run.get("status") or {}).get("phase") != TrainRunPhase.RUNNING:
                continue
            pod = self._pod_of(run)
            report = self._reports.news(self._cluster.progress_of(pod)) if pod else None
            if report is not None:
                self._board.put(key_of(run), run["metadata"]["uid"], report)


def log_to_file(state: Path) -> None:
    """Send the operator's log into a file beside the objects, and its errors to the terminal too."""
    state.mkdir(parents=True, exist_ok=True)
    file = logging.FileHandler(state / "operator.log")
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    console = logging.StreamHandler(sys.stderr)
    console.setLevel(logging.ERROR)
    console.setFormatter(_Brief(state / "operator.log"))
    logger = logging.getLogger("crossfold_operator")
    logger.handlers = [file, console]
    logger.setLevel(logging.INFO)
    logger.propagate = False


class _Brief(logging.Formatter):
    """One line a record; the traceback is in the file."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self._file = file

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        return f"internal error: {record.getMessage()} (see {self._file})"
