"""Which metric an imported Tune optimises, and which score of it is good enough."""

import re
from typing import Any

from crossfold_cli.importers.located import SourceError
from crossfold_cli.importers.placeholders import METRIC, PLACEHOLDER
from crossfold_cli.importers.shape import Metric
from crossfold_trainer.contract.metrics import KNOWN_OBJECTIVES, METRICS, Direction, MetricInfo, metric_info

Obj = dict[str, Any]
_VALIDATION = ("validation", "valid", "val")


def metric_of(
    metric: Metric | None, chosen: str, comments: dict[str, str], notes: list[str], found: list[SourceError]
) -> Obj:
    """The objective's metric.

    Args:
        metric: what the source optimises; None: it does not say.
        chosen: the metric that ``--metric`` names; empty: the source's.
        comments: receives what to write beside it, by its path.
        notes: receives what a person should know.
        found: receives what is wrong.

    Returns:
        An item of ``spec.objective.metrics``; a stand-in where something is wrong.
    """
    known_ones = ", ".join(KNOWN_OBJECTIVES)
    info = _info(chosen)
    if metric is not None and metric.assumed and info is None:
        notes.append(f"line {metric.line}: {metric.assumed}")
    if chosen:
        if info is None and (metric is None or metric.maximize is None):
            found.append(SourceError(0, f"--metric {chosen} is not known: use one of {known_ones}"))
            return {"name": METRIC}
        if metric is None:
            return {"name": chosen}
        if info is None:
            return {"name": chosen, "direction": _direction(metric)}
        notes.append(
            f"line {metric.line}: {chosen} stands for metric '{metric.name}',"
            f" in {chosen}'s own direction, {info.direction}"
        )
        return {"name": chosen}
    if metric is None:
        comments["spec.objective"] = f"{PLACEHOLDER}: --metric NAME"
        return {"name": METRIC}
    known = _known_metric(metric.name)
    if known is None:
        text = f"Crossfold's trainer knows no metric '{metric.name}': choose by --metric one of {known_ones}"
        found.append(SourceError(metric.line, text))
        return {"name": METRIC}
    if known != metric.name:
        notes.append(f"line {metric.line}: metric '{metric.name}' is read as {known}")
    info = metric_info(known)
    if info is None or info.direction == _direction(metric):
        return {"name": known}
    comments["spec.objective"] = f"as the source says, against the metric's own direction, {info.direction}"
    notes.append(
        f"line {metric.line}: the source wants to {_direction(metric).lower()} {known}, of which"
        f" {'more' if info.direction is Direction.MAXIMIZE else 'less'} is better: is that meant?"
    )
    return {"name": known, "direction": _direction(metric)}


def target_of(metric: Metric | None, chosen: str, comments: dict[str, str], notes: list[str]) -> float | None:
    """The score that is good enough, where the source says it of the metric that is optimised.

    Args:
        metric: what the source optimises; None: it does not say.
        chosen: the metric that ``--metric`` names; empty: the source's.
        comments: receives what to write beside it, by its path.
        notes: receives what a person should know.

    Returns:
        ``spec.target``; None: there is none, or it is one of another metric or direction.
    """
    if metric is None or metric.target is None:
        return None
    if chosen and chosen != _known_metric(metric.name):
        notes.append(
            f"line {metric.line}: the target {metric.target:g} is not carried over: it is one of '{metric.name}'"
        )
        return None
    info = _info(chosen)
    if info is not None and info.direction != _direction(metric):
        notes.append(
            f"line {metric.line}: the target {metric.target:g} is not carried over: the source wants to"
            f" {_direction(metric).lower()} '{metric.name}'"
        )
        return None
    comments["spec.target"] = "for the mean over folds and seeds; the source means one training"
    return metric.target


def _info(chosen: str) -> MetricInfo | None:
    """What is known of a chosen metric; None: nothing, or none was chosen."""
    return metric_info(chosen) if chosen in KNOWN_OBJECTIVES else None


def _direction(metric: Metric) -> str:
    return str(Direction.MAXIMIZE if metric.maximize else Direction.MINIMIZE)


def _known_metric(name: str) -> str | None:
    """The validation metric that a name means, if it can mean only one."""
    words = [word for word in re.split(r"[^a-z0-9]+", name.lower()) if word]
    if words and words[0] in _VALIDATION:
        words = words[1:]
    key = "".join(words)
    return next((f"val/{known}" for known in METRICS if known.lower() == key), None)
