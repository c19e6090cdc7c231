"""What is said at the end of a run: the result, where it is, and what to type next. Pure."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from crossfold_cli.view import score_text, value_text
from crossfold_operator.names import (
    CrossValidationPhase,
    Kind,
    TrainRunPhase,
    TunePhase,
)

Obj = Mapping[str, Any]

_GOOD = (TunePhase.COMPLETE, CrossValidationPhase.COMPLETE, TrainRunPhase.SUCCEEDED)

_FAILURES = 3
"""Different failures that are listed."""


def succeeded(root: Obj) -> bool:
    """Whether a run that is over ended well."""
    return (root.get("status") or {}).get("phase") in _GOOD


def summary(root: Obj, runs: Sequence[Obj], log_of: Callable[[Obj], Path | None], go_on: str) -> str:
    """The last words.

    Args:
        root: the object that was run, in its last form.
        runs: the TrainRuns below it.
        log_of: the log of a TrainRun's last attempt.
        go_on: what to type for twice as many trials.
    """
    status: Obj = root.get("status") or {}
    head = f"{root['kind']} {root['metadata']['name']} is {status.get('phase', 'Pending')}"
    why = _why(root)
    lines = [f"{head}: {why}" if why else head]
    match Kind(root["kind"]):
        case Kind.TUNE:
            lines += _tune(root, status, go_on)
        case Kind.CROSS_VALIDATION:
            lines += _cross_validation(root, status)
        case _:
            lines += _train_run(root, status)
    lines += _failures(runs, log_of)
    return "\n".join(lines)


def _why(root: Obj) -> str:
    """The condition that says how it ended, or what is wrong."""
    conditions = (root.get("status") or {}).get("conditions", ())
    for kind, value in (("Valid", "False"), ("Failed", "True"), ("Complete", "True")):
        for condition in conditions:
            if condition["type"] == kind and condition["status"] == value:
                return str(condition.get("message", "") or condition["reason"])
    return ""


def _row(name: str, text: str) -> str:
    return f"  {name:<11} {text}"


def _score(score: str, std: str | None, objective: Obj) -> str:
    metrics = objective.get("metrics", [])
    name = metrics[0]["name"] if len(metrics) == 1 else objective.get("combine", "Harmonic")
    return f"{score_text(float(score), None if std is None else float(std))} ({name})"


def _tune(root: Obj, status: Obj, go_on: str) -> list[str]:
    best: Obj | None = status.get("best")
    trials, runs = status.get("trials", {}), status.get("runs", {})
    counted = [
        f"{trials.get(name)} {name}"
        for name in ("complete", "pruned", "unstable", "stopped", "failed")
        if trials.get(name)
    ]
    counted.append(f"{runs.get('succeeded', 0)} runs succeeded")
    if saved := status.get("summary", {}).get("saved"):
        counted.append(f"{runs.get('skipped', 0)} not needed ({saved} saved)")
    lines = [_row("trials", ", ".join(counted))]
    if best is not None:
        parameters = ", ".join(f"{p['name']}={value_text(p.get('value'))}" for p in best.get("parameters", ()))
        lines += [
            _row("best", f"trial {best['trial']}, {best['crossValidation']}"),
            _row("score", _score(best["score"], best.get("std"), root["spec"]["objective"])),
            _row("parameters", parameters),
            _row("artifacts", best.get("artifactUri", "")),
        ]
        if status.get("phase") == TunePhase.COMPLETE and not status.get("search", {}).get("exhausted"):
            lines.append(_row("go on", go_on))
        folder = best.get("artifactUri", "")
        if root["spec"].get("tracking", {}).get("tensorboard", True) and folder and "://" not in folder:
            lines.append(_row("curves", f"tensorboard --logdir {folder}"))
    return lines


def _cross_validation(root: Obj, status: Obj) -> list[str]:
    lines = [_row("runs", f"{status.get('succeeded', 0)} of {status.get('expected', 0)} succeeded")]
    if status.get("score") is not None:
        lines.append(_row("score", _score(status["score"], status.get("std"), root["spec"]["objective"])))
    lines.append(_row("artifacts", status.get("artifactUri", "")))
    return lines


def _train_run(root: Obj, status: Obj) -> list[str]:
    lines = []
    if status.get("score") is not None:
        lines.append(_row("score", _score(status["score"], None, root["spec"]["objective"])))
    if status.get("checkpointUri"):
        lines.append(_row("checkpoint", status["checkpointUri"]))
    lines.append(_row("artifacts", status.get("artifactUri", "")))
    return lines


def _failures(runs: Sequence[Obj], log_of: Callable[[Obj], Path | None]) -> list[str]:
    """Runs that failed for good, by what they said: the first few of these, each with a log."""
    by_message: dict[str, list[Obj]] = {}
    for run in runs:
        status: Obj = run.get("status") or {}
        if status.get("phase") == TrainRunPhase.FAILED:
            failure = status.get("failure", {})
            said = str(failure.get("message", "")).strip().splitlines() or [""]
            by_message.setdefault(f"{failure.get('class', '')}: {said[-1]}", []).append(run)
    lines = []
    for message, failed in list(by_message.items())[:_FAILURES]:
        more = f" and {len(failed) - 1} more" if len(failed) > 1 else ""
        lines.append(_row("failed", f"{failed[0]['metadata']['name']}{more}: {message}"))
        if log := log_of(failed[0]):
            lines.append(_row("log", str(log)))
    if len(by_message) > _FAILURES:
        lines.append(_row("", f"and {len(by_message) - _FAILURES} other failures"))
    return lines
