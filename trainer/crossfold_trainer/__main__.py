"""One run, from its configuration to its result: ``python -m crossfold_trainer``.

The order is that of cost: what can be refused or repeated without importing torch is, and `result.json` comes last.
"""

from crossfold_trainer.interrupt import Interrupt

if __name__ == "__main__":
    # A pod may be deleted while the rest is imported. Process 1 of a container gets no signal that it does not handle.
    INTERRUPT = Interrupt()
    INTERRUPT.install()

import contextlib
import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, NoReturn

from pydantic import ValidationError

from crossfold_trainer import artifacts, launch
from crossfold_trainer.artifacts import Item, Uploader
from crossfold_trainer.checkpoints import CheckpointLog
from crossfold_trainer.contract import hyperparameters as hp
from crossfold_trainer.contract.config import (
    CONFIG_VARIABLE,
    OutOfMemoryPolicy,
    RunConfig,
    config_digest,
)
from crossfold_trainer.contract.exits import Exit
from crossfold_trainer.contract.metrics import KNOWN_OBJECTIVES
from crossfold_trainer.contract.result import FAILURE_TEXT_LIMIT, FailureClass, RunFailure, RunResult
from crossfold_trainer.contract.sending import sender
from crossfold_trainer.contract.termination import write_termination_message
from crossfold_trainer.contract.tracking import TrackingSpec
from crossfold_trainer.data import open_dataset
from crossfold_trainer.errors import (
    AcceleratorOutOfMemory,
    ConfigError,
    Fenced,
    Interrupted,
    MicroBatchTooLarge,
    PeersLost,
    StoreError,
)
from crossfold_trainer.machine import spin_less
from crossfold_trainer.records import hparams, make_result, performance, splits_table, with_halvings
from crossfold_trainer.splits import make_splits
from crossfold_trainer.store import Store
from crossfold_trainer.task import Task
from crossfold_trainer.tracking import LogText, Tracking, read_known, speed_line

if TYPE_CHECKING:
    from crossfold_trainer.resume import Found
    from crossfold_trainer.training.fit import Fit

log = logging.getLogger("crossfold_trainer.main")

CRASH = 1
OUT_OF_MEMORY_REMEDY = "lower batch_size, set retries.outOfMemory to HalveBatch, or take a smaller encoder"


def main(interrupt: Interrupt | None = None) -> NoReturn:
    """Run, and end the process with the code that the contract gives the outcome.

    Args:
        interrupt: listens already; None: from now on.
    """
    log_text = LogText()
    if interrupt is None:
        interrupt = Interrupt()
        interrupt.install()
    code = run_to_exit(interrupt, log_text)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # nobody reads it any more
            stream.flush()
    # All that counts is written. Python's own end stops threads where they are, which C++ code answers with an abort.
    os._exit(code)


def run_to_exit(interrupt: Interrupt, log_text: LogText) -> int:
    """Run, say how it ended in the termination message and on the last line, and return the exit code."""
    store: list[Store] = []
    failed = partial(_failed, log_text=log_text, interrupt=interrupt)
    try:
        interrupt.undefer()
        result = run(interrupt, log_text, store)
        interrupt.deferred = True  # the run is over: SIGTERM only shortens what follows
    except launch.WorkersEnded as end:
        return end.code
    except ConfigError as error:
        return failed(Exit.CONFIG, FailureClass.CONFIG, str(error), store)
    except AcceleratorOutOfMemory as error:
        if isinstance(error, MicroBatchTooLarge):
            artifacts.write(store[0], Item(artifacts.HALVINGS, str(error.halvings).encode()))
        text = f"the accelerator is out of memory: {OUT_OF_MEMORY_REMEDY} ({error})"
        return failed(Exit.OUT_OF_MEMORY, FailureClass.OUT_OF_MEMORY, text, store)
    except PeersLost as error:
        return failed(Exit.PEERS_LOST, FailureClass.INFRASTRUCTURE, str(error), [])
    except Fenced as end:
        return failed(Exit.INTERRUPTED, FailureClass.PREEMPTED, str(end), [])
    except Interrupted as end:
        return failed(Exit.INTERRUPTED, FailureClass.PREEMPTED, str(end), store)
    except Exception as error:  # noqa: BLE001 - the last place to say what happened
        trace = traceback.format_exc()
        sys.stderr.write(trace)
        log_text.add(trace)
        text = "".join(traceback.format_exception_only(error))
        return failed(CRASH, FailureClass.CRASH, text, store)
    if launch.leads():
        write_termination_message(result.message())
    config = read_config(os.environ)
    if config.runs and not launch.launched():
        from crossfold_trainer import gather  # noqa: PLC0415 - a run with nothing above it needs no Parquet

        gather.leave(config, interrupt)
    return Exit.OK


def _failed(
    code: int, kind: FailureClass, text: str, store: list[Store], *, log_text: LogText, interrupt: Interrupt
) -> int:
    """Report an attempt without a result.

    A process that lost the others leaves no message: the log's last lines take its place, where they may have said why.
    """
    ended_early, interrupt.deferred = interrupt.ended_early, True  # a signal from now on changes no more
    if ended_early and code != Exit.INTERRUPTED:
        # Whose code the signal met made an error of its own out of it.
        code, kind = Exit.INTERRUPTED, FailureClass.PREEMPTED
        text = f"SIGTERM arrived before training began: {text}"
    if code == Exit.INTERRUPTED and not launch.leads():
        return int(code)
    crashed = kind is FailureClass.CRASH
    text, end = " ".join(text.split()), log_text.end() if crashed else ""
    log.error("%s (exit %d): %s", "crash" if crashed else kind.value, code, text)
    if kind is not FailureClass.INFRASTRUCTURE:
        write_termination_message(RunFailure(failure_class=kind, message=text[:FAILURE_TEXT_LIMIT], log=end).text())
    for folder in store if launch.leads() else ():
        _leave_log(folder, log_text, interrupt)
    return int(code)


def _leave_log(folder: Store, log_text: LogText, interrupt: Interrupt) -> None:
    """Write log.txt as far as there is time: its loss is not worth another failure."""

    def write() -> None:
        with contextlib.suppress(Exception):
            folder.write(artifacts.LOG, log_text.item().content)

    thread = threading.Thread(target=write, name="log", daemon=True)
    thread.start()
    deadline = interrupt.deadline
    thread.join(None if deadline is None else max(0.0, deadline - time.monotonic()))


def read_config(environment: Mapping[str, str]) -> RunConfig:
    """The RunConfig in the environment, its digest filled in where it has none.

    Raises:
        ConfigError: it is missing or not valid.
    """
    raw = environment.get(CONFIG_VARIABLE)
    if not raw:
        raise ConfigError(CONFIG_VARIABLE, "is not set: it must hold the RunConfig as JSON")
    try:
        config = RunConfig.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or CONFIG_VARIABLE
        raise ConfigError(field, first["msg"]) from None
    return config if config.digest else config.model_copy(update={"digest": _digest(config)})


def _digest(config: RunConfig) -> str:
    try:
        return config_digest(config)
    except ValueError as error:
        raise ConfigError("hyperparameters", str(error)) from None


def run(interrupt: Interrupt, log_text: LogText, opened: list[Store]) -> RunResult:
    """Train one configuration on one fold with one seed, or repeat the result that is already there.

    Args:
        interrupt: says when to end early.
        log_text: the run's log.
        opened: receives the run's folder once it may be written to.
    """
    began = time.monotonic()
    config = read_config(os.environ)
    interrupt.grace_seconds = config.grace_period_seconds
    try:
        hyperparameters = hp.resolve(config.hyperparameters)
    except ValueError as error:
        raise ConfigError("hyperparameters", str(error)) from None
    _check_objective(config)
    folder = artifacts.open_run_folder(config)
    done = artifacts.read_result(folder, config.digest)
    if done is not None:
        log.info("the result is already there: score %s", done.score)
        return done
    # Also the proof that artifacts may be written, before anything costly.
    folder.write(artifacts.CONFIG, (config.model_dump_json(indent=2) + "\n").encode())
    opened.append(folder)
    data = open_dataset(config.data, hyperparameters["bands"])
    splits = make_splits(data.metadata, config, hyperparameters["batch_size"] * config.trainer.accumulate_grad_batches)
    log.info(
        "run %s: fold %d of %d, seed %d; %d patches to train on, %d to validate, %d set aside; bands %s",
        config.run, config.fold + 1, config.folds, config.seed, len(splits.train), len(splits.val), len(splits.test),
        ", ".join(data.bands),
    )  # fmt: skip
    for warning in (*data.warnings, *splits.warnings):
        log.warning("warning: %s", warning)
    launch.check(config.trainer, hyperparameters["batch_size"])
    if config.trainer.processes > 1 and not launch.launched():
        return _together(config, folder, interrupt)
    return _train(Task(config, hyperparameters, data, splits), folder, interrupt, log_text, began)


def _together(config: RunConfig, folder: Store, interrupt: Interrupt) -> RunResult:
    """Train in several processes.

    Raises:
        WorkersEnded: they ended without a result, or this is not the node that speaks for the run.
        Interrupted: they are to begin again with smaller micro-batches.
    """
    halving = config.out_of_memory is OutOfMemoryPolicy.HALVE_BATCH
    before = artifacts.read_halvings(folder) if halving else 0
    code = launch.launch(config.trainer, interrupt)
    if code == Exit.OUT_OF_MEMORY and halving and artifacts.read_halvings(folder) > before:
        raise Interrupted("out of accelerator memory: all processes begin again with half as many patches at a time")
    done = artifacts.read_result(folder, config.digest) if code == Exit.OK and launch.leads() else None
    if done is None:
        raise launch.WorkersEnded(code or (CRASH if launch.leads() else Exit.OK))
    return done


def _check_objective(config: RunConfig) -> None:
    unknown = [metric.name for metric in config.objective.metrics if metric.name not in KNOWN_OBJECTIVES]
    if unknown:
        raise ConfigError(
            "objective.metrics",
            f"this trainer does not report {', '.join(unknown)}; it reports {', '.join(KNOWN_OBJECTIVES)}",
        )


def _train(task: Task, folder: Store, interrupt: Interrupt, log_text: LogText, began: float) -> RunResult:
    spin_less()
    # From here on torch is needed, whose import takes seconds.
    from crossfold_trainer import (  # noqa: PLC0415
        devicewatch,
        environment,
        faults,
        live,
        ranks,
        resume,
    )
    from crossfold_trainer.training.fit import Fit  # noqa: PLC0415

    threads = environment.use_cpus()
    leads = ranks.rank_of(os.environ) == 0
    config = task.config if leads else _follower(task.config)
    checkpoints = CheckpointLog(folder, config.owner, config.attempt)
    uploader = Uploader(folder, checkpoints.commit)
    news = live.Live(sender(config) if leads else None)
    known = read_known(folder.read(artifacts.TRACKERS)) if config.tracking.aim else {}
    with (
        contextlib.closing(uploader),
        Tracking(config, task.hyperparameters, known) as tracking,
        contextlib.closing(news),
        faults.explained(task.hyperparameters["batch_size"]),
        ranks.join(os.environ) as together,
    ):
        if leads:
            checkpoints.claim()
        training = Fit(
            task, uploader, tracking, log_text, interrupt, live=news, checkpoints=checkpoints, ranks=together
        )
        found = resume.find(folder, checkpoints, task.identity) if leads else None
        halvings = artifacts.read_halvings(folder) if leads and together.size > 1 else 0
        _go_on(training, *together.from_leader((found, halvings)))
        if leads:
            uploader.submit(
                [
                    hparams(task),
                    splits_table(task),
                    Item(artifacts.ENVIRONMENT, environment.environment_record(training.device, threads)),
                ]
            )
        log.info(
            "training on %s%s in %s, ready after %.1f s",
            f"{together.size} x " if together.size > 1 else "", training.device.type, training.numerics.name,
            time.monotonic() - began,
        )  # fmt: skip
        interrupt.deferred = True
        watch = devicewatch.DeviceWatch(training.device)
        try:
            with contextlib.closing(watch):
                outcome, reason = training.run()
        except Interrupted as end:
            tracking.interrupted()
            if leads and not isinstance(end, Fenced):
                with contextlib.suppress(StoreError):
                    uploader.submit([*tracking.items(), *tracking.files()])
                    uploader.flush(lambda: interrupt.deadline)
            raise
        speed = performance(training.meter, watch)
        result = make_result(task, training.progress, outcome, reason, seconds=time.monotonic() - began, speed=speed)
        if training.halvings:
            result = with_halvings(result, training.halvings, task.hyperparameters["batch_size"])
        if not leads:
            return result
        log.info("%s: %s; score %s", outcome.value.lower(), reason, result.score)
        log.info("%s", speed_line(speed))
        if config.tracking.graph:
            training.draw_graph()
        result = _tracked(result, tracking)
        uploader.submit([log_text.item(), *tracking.items(), *tracking.files()])
        if not uploader.flush(lambda: interrupt.deadline):
            raise Interrupted("interrupted after training: the last uploads did not end within the grace period")
    checkpoints.publish()
    result = artifacts.write_result(folder, result)
    with contextlib.suppress(StoreError, Fenced):  # what is left over takes room and does no harm
        checkpoints.settle()
    return result


def _go_on(training: "Fit", state: "Found | None", halvings: int) -> None:
    """From where an earlier attempt was, and with what it learned."""
    if state is not None:
        training.restore(state)
        log.info("resumed at step %d, epoch %d", training.progress.step, training.progress.epoch + 1)
    training.begin_with(halvings)


def _follower(config: RunConfig) -> RunConfig:
    """What a rank that does not lead goes by: it tracks nothing, and says what is wrong only."""
    logging.getLogger("crossfold_trainer").setLevel(logging.WARNING)
    return config.model_copy(update={"tracking": TrackingSpec(tensorboard=False)})


def _tracked(result: RunResult, tracking: Tracking) -> RunResult:
    """Tell the trackers the result; it comes back with what they had to say."""
    facts = {"outcome": result.outcome.value, "score": result.score, "epoch": result.epoch, "reason": result.reason}
    notes = tracking.finish({**result.metrics, **result.values}, {k: v for k, v in facts.items() if v is not None})
    return result.model_copy(update={"notes": [note[:512] for note in notes]})


if __name__ == "__main__":
    main(INTERRUPT)
