"""Worker processes that answer questions to samplers, so that no question keeps anything else from its turn."""

import asyncio
import logging
import os
import pickle
import sys
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from crossfold_operator import metrics
from crossfold_operator.fair import FairQueue
from crossfold_operator.search.history import Trial
from crossfold_operator.search.suggest import Answer, SearchSettings
from crossfold_operator.workers import frames
from crossfold_operator.workers.frames import LENGTH_BYTES, Reply, Request

logger = logging.getLogger(__name__)

WORKER = (sys.executable, "-m", "crossfold_operator.workers.worker")
START_SECONDS = 120.0
"""How long a worker may take to start: it imports numpy and scipy, on a node that may be busy."""
BATCH_SECONDS = 1.0
"""After which a worker answers with the trials that it has, rather than with all that it was asked for."""
KEPT = 16
"""Tunes of which a worker keeps the history."""
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
"""Linear algebra in as many threads as a node has CPUs would take the time of whoever shares the node."""


class SearchError(Exception):
    """A question was not answered.

    Attributes:
        timed_out: it took too long.
    """

    def __init__(self, message: str, *, timed_out: bool = False) -> None:
        super().__init__(message)
        self.timed_out = timed_out


@dataclass(frozen=True)
class Question:
    """What a Tune asks.

    Attributes:
        namespace: of the Tune.
        search: its UID.
        settings: of its search.
        told: the trials so far. Those that have not changed are the same objects as before, or equal.
        first: number of the first trial to ask for.
        count: trials to ask for.
    """

    namespace: str
    search: str
    settings: SearchSettings
    told: Sequence[Trial]
    first: int
    count: int


@dataclass
class _Job:
    question: Question
    answer: "asyncio.Future[Answer]"


class _Worker:
    """One process, started when it is needed."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = command
        self._process: asyncio.subprocess.Process | None = None
        self._sent: OrderedDict[str, list[Trial]] = OrderedDict()
        """What the process was told last, by Tune."""

    async def ask(self, question: Question, seconds: float) -> Answer:
        """Ask.

        Raises:
            SearchError: the sampler failed or took longer than so many seconds, or its process ended.
        """
        try:
            if self._process is None:
                async with asyncio.timeout(START_SECONDS):
                    await self._start()
            try:
                async with asyncio.timeout(seconds):
                    await self._write(self._request(question))
                    reply = await self._read()
            except TimeoutError:
                raise SearchError(f"took longer than {seconds:g} s", timed_out=True) from None
        except TimeoutError:
            await self.stop()
            raise SearchError(f"the worker process did not start within {START_SECONDS:g} s") from None
        except (EOFError, OSError, pickle.UnpicklingError):
            code = await self.stop()
            raise SearchError(f"the worker process ended with status {code}") from None
        except BaseException:
            # What it is reckoning nobody waits for.
            await self.stop()
            raise
        if reply.answer is None:
            logger.warning("a sampler failed: %s", reply.error, extra={"traceback": reply.traceback})
            self._sent.pop(question.search, None)
            raise SearchError(reply.error)
        answer: Answer = reply.answer
        return answer

    async def stop(self) -> int | None:
        """End the process; its exit status."""
        process, self._process = self._process, None
        self._sent.clear()
        if process is None:
            return None
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.kill()
        return await process.wait()

    async def _start(self) -> None:
        # What this process imports its own modules from need not be in the environment.
        path = os.pathsep.join(filter(None, sys.path))
        self._process = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, **ONE_THREAD, "PYTHONPATH": path},
        )
        if await self._read() != frames.READY:
            raise EOFError
        metrics.SEARCH_WORKERS_STARTED.inc()

    def _request(self, question: Question) -> bytes:
        search, told = question.search, list(question.told)
        before = self._sent.pop(search, None)
        known = before or []
        changes = tuple(
            (place, frames.plain(trial))
            for place, trial in enumerate(told)
            if place >= len(known) or (known[place] is not trial and known[place] != trial)
        )
        self._sent[search] = told
        forget = tuple(self._sent.popitem(last=False)[0] for _ in range(len(self._sent) - KEPT))
        return frames.packed(
            Request(
                search=search,
                settings=question.settings,
                kept=None if before is None else min(len(before), len(told)),
                changes=changes,
                first=question.first,
                count=question.count,
                seconds=BATCH_SECONDS,
                forget=forget,
            )
        )

    async def _write(self, frame: bytes) -> None:
        if self._process is None or self._process.stdin is None:
            raise EOFError
        self._process.stdin.write(frame)
        await self._process.stdin.drain()

    async def _read(self) -> Any:
        if self._process is None or self._process.stdout is None:
            raise EOFError
        length = await self._process.stdout.readexactly(LENGTH_BYTES)
        content = await self._process.stdout.readexactly(int.from_bytes(length, "big"))
        reply: Reply | bytes = pickle.loads(content)  # noqa: S301 -- from our own process
        return reply


class SearchPool:
    """Answers questions in worker processes; Tunes and namespaces take turns.

    All methods belong to the thread of one event loop.
    """

    def __init__(self, *, size: int, seconds: float, command: Sequence[str] = WORKER) -> None:
        """A pool without processes: they start when they are needed.

        Args:
            size: processes.
            seconds: that an answer may take; a process that takes longer is replaced.
            command: the program of a worker.
        """
        self._seconds = seconds
        self._workers = [_Worker(command) for _ in range(size)]
        self._queue: FairQueue[_Job] = FairQueue()
        self._tasks: list[asyncio.Task[None]] = []

    def submit(self, question: Question) -> "asyncio.Future[Answer]":
        """Have a question answered. The future raises SearchError; cancelled, the question is not asked any more."""
        if not self._tasks:
            self._tasks = [asyncio.create_task(self._serve(worker), name="search") for worker in self._workers]
        job = _Job(question, asyncio.get_running_loop().create_future())
        self._queue.put((question.namespace, question.search), job)
        return job.answer

    async def close(self) -> None:
        """End all processes."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for worker in self._workers:
            await worker.stop()

    async def _serve(self, worker: _Worker) -> None:
        while True:
            job = await self._queue.get()
            if job.answer.done():
                continue
            with metrics.SEARCH_SECONDS.labels(job.question.settings.algorithm.name).time():
                try:
                    answer = await worker.ask(job.question, self._seconds)
                except Exception as error:  # noqa: BLE001 -- whoever asks is told; the next question is another's
                    if not job.answer.done():
                        known = isinstance(error, SearchError)
                        job.answer.set_exception(error if known else SearchError(f"{type(error).__name__}: {error}"))
                    continue
            if not job.answer.done():
                job.answer.set_result(answer)
