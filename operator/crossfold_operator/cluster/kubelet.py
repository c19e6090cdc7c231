"""Job controller and kubelet of a local cluster: every Job gets a pod, every pod a slot and a process."""

import asyncio
import fcntl
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from crossfold_operator.cluster import jobs
from crossfold_operator.cluster.base import Key, Obj, key_of
from crossfold_operator.cluster.folder import Folder
from crossfold_operator.cluster.slots import Slot, SlotPool
from crossfold_operator.names import CACHE_VOLUME, Kind
from crossfold_operator.times import timestamp
from crossfold_trainer.contract.config import CACHE_VARIABLE, CREDENTIALS_VARIABLE, TERMINATION_VARIABLE
from crossfold_trainer.contract.progress import FILE_VARIABLE as PROGRESS_FILE_VARIABLE
from crossfold_trainer.contract.result import MESSAGE_LIMIT

logger = logging.getLogger(__name__)

DEFAULT_COMMAND = (sys.executable, "-m", "crossfold_trainer")
"""What a container without a command runs."""
_GRACE_SECONDS = 30
"""Seconds between SIGTERM and SIGKILL where the pod says nothing."""
_FALLBACK_LINES = 80
_FALLBACK_BYTES = 2048
"""How much of a log's end takes the place of a termination message (the kubelet's numbers)."""
_POLL_SECONDS = 0.1


@dataclass
class _Run:
    """A Job whose pod has not ended."""

    job: Key
    pod: Key
    ending: asyncio.Event = field(default_factory=asyncio.Event)
    process: asyncio.subprocess.Process | None = None
    started: bool = False
    deadline: bool = False
    task: asyncio.Task[None] | None = None


class Kubelet:
    """Runs Jobs as processes.

    A process inherits a locked file, so that after a crash of this one it is known to live on, and can be ended before
    its Job is tried again.
    """

    def __init__(
        self,
        folder: Folder,
        root: Path,
        pool: SlotPool,
        command: Sequence[str],
        on_pod_gone: Callable[[Obj], None],
    ) -> None:
        self._folder = folder
        self._logs = root / "logs"
        self._locks = root / "processes"
        self._credentials = root.absolute() / "credentials"
        self._pool = pool
        self._command = tuple(command)
        self._on_pod_gone = on_pod_gone
        self._runs: dict[str, _Run] = {}
        self._stopping = False

    # What becomes of Jobs and pods ---------------------------------------------------------------------------------

    def start(self, job: Obj) -> None:
        """Give a new Job its pod, and run it when a slot is free."""
        self._begin(job, self._folder.add(jobs.pod_of(job)))

    async def resume(self) -> None:
        """Take up the Jobs that are stored: those that waited wait on, those that ran when we ended were disrupted."""
        unfinished = [job for job in self._folder.all(Kind.JOB) if not jobs.is_over(job)]
        pods = {job["metadata"]["uid"]: self._folder.children(Kind.POD, job["metadata"]["uid"]) for job in unfinished}
        await asyncio.gather(*(self._end_orphan(pod) for group in pods.values() for pod in group))
        for job in unfinished:
            pod = next(iter(pods[job["metadata"]["uid"]]), None)
            if pod is None:
                self.start(job)
            elif pod["status"]["phase"] == "Pending":
                self._begin(job, pod)
            else:
                self._conclude(key_of(job), self._folder.get(key_of(pod)) or pod)

    def delete(self, pod: Obj) -> None:
        """End a pod: SIGTERM, the grace period, SIGKILL. It is removed when its process is gone."""
        if not pod["metadata"].get("deletionTimestamp"):
            grace = pod["spec"].get("terminationGracePeriodSeconds", _GRACE_SECONDS)
            marks = {"deletionTimestamp": timestamp(), "deletionGracePeriodSeconds": grace}
            pod = self._folder.replace(pod, {**pod, "metadata": {**pod["metadata"], **marks}})
        run = self._runs.get(pod["metadata"]["uid"])
        if run is not None:
            run.ending.set()
        else:
            self._folder.remove(pod)
            self._on_pod_gone(pod)

    async def stop(self) -> None:
        """End all processes as a node that shuts down does: they save a checkpoint, and their Jobs were disrupted."""
        self._stopping = True
        runs = list(self._runs.values())
        for run in runs:
            run.ending.set()
        await asyncio.gather(*(run.task for run in runs if run.task is not None), return_exceptions=True)

    def kill(self) -> None:
        """SIGKILL all processes now."""
        for run in self._runs.values():
            if run.process is not None and run.process.returncode is None:
                _kill_group(run.process.pid)

    def log_of(self, pod: Obj) -> Path:
        """Where a pod's standard output and error go."""
        key = key_of(pod)
        return self._logs / key.namespace / f"{key.name}.log"

    def progress_of(self, pod: Obj) -> Path:
        """Where a pod's trainer writes how far it is."""
        return self.log_of(pod).with_suffix(".progress")

    # One pod ------------------------------------------------------------------------------------------------------

    def _begin(self, job: Obj, pod: Obj) -> None:
        run = _Run(key_of(job), key_of(pod))
        self._runs[pod["metadata"]["uid"]] = run
        if self._stopping:
            run.ending.set()
        run.task = asyncio.get_running_loop().create_task(self._live(run, pod), name=f"pod {run.pod.name}")

    async def _live(self, run: _Run, pod: Obj) -> None:
        try:
            slot = await self._slot(run)
            if slot is not None:
                try:
                    await self._execute(run, slot)
                finally:
                    self._pool.give_back(slot)
        except Exception:
            logger.exception("a pod could not be run", extra={"object": str(run.pod)})
        finally:
            del self._runs[pod["metadata"]["uid"]]
            if run.started or not self._stopping:
                self._conclude(run.job, self._pod(run), deadline=run.deadline)

    def _pod(self, run: _Run) -> Obj:
        pod = self._folder.get(run.pod)
        assert pod is not None, "a pod is removed by its own task only"  # noqa: S101
        return pod

    def _conclude(self, job_key: Key, pod: Obj, *, deadline: bool = False) -> None:
        """Write into the Job what became of its pod. A Job that is being deleted goes as it is."""
        job = self._folder.get(job_key)
        if job is not None and not job["metadata"].get("deletionTimestamp") and not jobs.is_over(job):
            self._folder.replace(job, jobs.ended(job, pod, timestamp(), deadline=deadline))
        if pod["metadata"].get("deletionTimestamp"):
            self._folder.remove(pod)
            self._on_pod_gone(pod)

    async def _slot(self, run: _Run) -> Slot | None:
        """Wait for a slot; None when the pod is to end before it got one."""
        request = self._pool.request()
        if not request.done():
            text = f"{self._pool.size} of {self._pool.size} slots are taken"
            pod = self._pod(run)
            waiting = jobs.with_condition(
                pod, "PodScheduled", timestamp(), status="False", reason="Unschedulable", message=text
            )
            self._folder.replace(pod, waiting)
        ending = asyncio.ensure_future(run.ending.wait())
        either: set[asyncio.Future[Any]] = {request, ending}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not run.ending.is_set():
            ending.cancel()
            return request.result()
        if not request.cancel():
            self._pool.give_back(request.result())
        return None

    async def _execute(self, run: _Run, slot: Slot) -> None:
        """Run a pod's process to its end."""
        pod = self._pod(run)
        log = self.log_of(pod)
        log.parent.mkdir(parents=True, exist_ok=True)
        said = log.with_suffix(".termination")
        said.unlink(missing_ok=True)
        container = jobs.container_of(pod)
        command = [*container.get("command", self._command), *container.get("args", ())]
        environment = self._environment(container, _cache_folder(pod), slot, said)
        environment[PROGRESS_FILE_VARIABLE] = str(self.progress_of(pod).absolute())
        now = timestamp()
        scheduled = {**pod, "spec": {**pod["spec"], "nodeName": socket.gethostname()}}
        scheduled = jobs.with_condition(scheduled, "PodScheduled", now, reason="Scheduled", message="")
        scheduled["status"]["startTime"] = now
        job = self._folder.get(run.job)
        with self._lock(pod) as lock, log.open("ab") as output:
            try:
                process = await asyncio.create_subprocess_exec(
                    *command,
                    env=environment,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=output,
                    stderr=asyncio.subprocess.STDOUT,
                    start_new_session=True,
                    pass_fds=(lock.fileno(),),
                )
            except OSError as error:
                waiting = {"waiting": {"reason": "CreateContainerError", "message": f"{command[0]}: {error.strerror}"}}
                stuck = jobs.with_state(scheduled, "Pending", waiting)
                self._folder.replace(self._pod(run), self._marked(run, stuck))
                await run.ending.wait()
                return
            lock.write(str(process.pid))
        run.process, run.started = process, True
        running = jobs.with_state(scheduled, "Running", {"running": {"startedAt": now}})
        self._folder.replace(self._pod(run), self._marked(run, running))
        if job is not None:
            self._folder.replace(job, jobs.started(job, now))
        limit = job["spec"].get("activeDeadlineSeconds") if job is not None else None
        code = await self._until_exit(run, process, limit)
        terminated = {
            "exitCode": code,
            "reason": "Completed" if code == 0 else "Error",
            "message": _message(said, log, code),
            "startedAt": now,
            "finishedAt": timestamp(),
        }
        phase = "Succeeded" if code == 0 else "Failed"
        self._folder.replace(self._pod(run), jobs.with_state(self._pod(run), phase, {"terminated": terminated}))
        self._lock_path(pod).unlink(missing_ok=True)

    def _marked(self, run: _Run, pod: Obj) -> Obj:
        """The pod with the marks of a deletion that came while its process was started."""
        return {**pod, "metadata": self._pod(run)["metadata"]}

    async def _until_exit(self, run: _Run, process: asyncio.subprocess.Process, limit: float | None) -> int:
        """Wait for a process, and end it when that is wanted or its time is up."""
        exited = asyncio.ensure_future(process.wait())
        ending = asyncio.ensure_future(run.ending.wait())
        await asyncio.wait({exited, ending}, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
        if not exited.done():
            run.deadline = not run.ending.is_set()
            if self._stopping:
                self._disrupt(run)
            with suppress(ProcessLookupError):
                process.terminate()
            grace = self._pod(run)["spec"].get("terminationGracePeriodSeconds", _GRACE_SECONDS)
            await asyncio.wait({exited}, timeout=grace)
        # What is left of its session goes too, as a container's processes do.
        _kill_group(process.pid)
        ending.cancel()
        code = await exited
        return 128 - code if code < 0 else code

    def _disrupt(self, run: _Run) -> None:
        """Say that the end of a pod is not its own fault."""
        why = "Pod was terminated in response to imminent node shutdown."
        pod = self._pod(run)
        told = jobs.with_condition(pod, "DisruptionTarget", timestamp(), reason="TerminationByKubelet", message=why)
        self._folder.replace(pod, told)

    def _environment(self, container: Mapping[str, object], cache: Path, slot: Slot, said: Path) -> dict[str, str]:
        environment = {
            CREDENTIALS_VARIABLE: str(self._credentials),
            CACHE_VARIABLE: str(cache),
            **os.environ,
            "PYTHONUNBUFFERED": "1",
        }
        given = container.get("env", ())
        if isinstance(given, list):
            # Secrets and ConfigMaps are a cluster's: here such a variable keeps the value that this program has.
            environment |= {one["name"]: one.get("value", "") for one in given if "valueFrom" not in one}
        environment[TERMINATION_VARIABLE] = str(said.absolute())
        if slot.gpu is not None:
            environment["CUDA_VISIBLE_DEVICES"] = slot.gpu
        elif self._pool.size > 1:
            # Each process would start as many threads as there are cores.
            environment.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // self._pool.size)))
        return environment

    # Processes that outlived us -----------------------------------------------------------------------------------

    def _lock_path(self, pod: Obj) -> Path:
        return self._locks / str(pod["metadata"]["uid"])

    def _lock(self, pod: Obj) -> IO[str]:
        """A locked file for the process to hold open as long as it lives."""
        path = self._lock_path(pod)
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("w")
        fcntl.flock(file, fcntl.LOCK_EX)
        return file

    async def _end_orphan(self, pod: Obj) -> None:
        """End what is left of a pod that ran when this program ended without its leave, and write that it is lost."""
        if pod["status"]["phase"] != "Running":
            return
        path = self._lock_path(pod)
        text = path.read_text() if path.exists() else ""
        if text.isdigit() and _is_locked(path):
            pid = int(text)
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
            grace = pod["spec"].get("terminationGracePeriodSeconds", _GRACE_SECONDS)
            for _ in range(int(grace / _POLL_SECONDS)):
                if not _is_locked(path):
                    break
                await asyncio.sleep(_POLL_SECONDS)
            else:
                _kill_group(pid)
        path.unlink(missing_ok=True)
        now = timestamp()
        started = pod["status"]["containerStatuses"][0]["state"]["running"]["startedAt"]
        terminated = {
            "exitCode": 137,
            "reason": "ContainerStatusUnknown",
            "message": "The container could not be located when the pod was terminated",
            "startedAt": started,
            "finishedAt": now,
        }
        lost = jobs.with_state(pod, "Failed", {"terminated": terminated})
        why = "the program that ran it ended without stopping it"
        lost = jobs.with_condition(lost, "DisruptionTarget", now, reason="DeletionByPodGC", message=why)
        self._folder.replace(pod, {**lost, "status": {**lost["status"], "message": why}})


def _is_locked(path: Path) -> bool:
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def _cache_folder(pod: Mapping[str, Any]) -> Path:
    """Where a run caches its data: the folder that its volume names, else one of this user's that all runs share."""
    for volume in pod["spec"].get("volumes", ()):
        if volume["name"] == CACHE_VOLUME and "hostPath" in volume:
            return Path(volume["hostPath"]["path"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "crossfold" / "data"


def _kill_group(pid: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


def _message(said: Path, log: Path, code: int) -> str:
    """The termination message: what the process wrote, else the last lines of its log when it failed."""
    text = _tail(said, MESSAGE_LIMIT)
    if text or code == 0:
        return text
    return "".join(_tail(log, _FALLBACK_BYTES).splitlines(keepends=True)[-_FALLBACK_LINES:])


def _tail(path: Path, limit: int) -> str:
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - limit))
            return file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
