"""What is shown of a tree: objects -> nodes, and the steps from one picture to the next -> lines. Pure."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from crossfold_cli.progress import Progress
from crossfold_operator.names import (
    LABEL_TRIAL,
    TERMINAL_CROSS_VALIDATION,
    TERMINAL_TRAIN_RUN,
    TERMINAL_TUNE,
    Kind,
    TrainRunPhase,
)
from crossfold_trainer.contract.hyperparameters import canonical_name
from crossfold_trainer.contract.scoring import decimals_of

Obj = Mapping[str, Any]
Children = Callable[[Kind, str], Sequence[Obj]]

_TERMINAL: Mapping[Kind, frozenset[str]] = {
    Kind.TUNE: frozenset(TERMINAL_TUNE),
    Kind.CROSS_VALIDATION: frozenset(TERMINAL_CROSS_VALIDATION),
    Kind.TRAIN_RUN: frozenset(TERMINAL_TRAIN_RUN),
}
_CHILD = {Kind.TUNE: Kind.CROSS_VALIDATION, Kind.CROSS_VALIDATION: Kind.TRAIN_RUN}


@dataclass(frozen=True)
class Node:
    """One object as it is shown."""

    name: str
    kind: Kind
    phase: str
    about: str = ""
    """What it is: a trial's parameters, a run's fold and seed."""
    progress: str = ""
    """How far it is: trials, runs or epochs."""
    score: str = ""
    reason: str = ""
    best: bool = False
    children: tuple["Node", ...] = ()

    @property
    def over(self) -> bool:
        """Whether it has ended for good."""
        return self.phase in _TERMINAL[self.kind]

    def walk(self) -> Iterator["Node"]:
        """The node and all below it, from the top."""
        yield self
        for child in self.children:
            yield from child.walk()


def node_of(
    obj: Obj, children: Children, progress: Callable[[Obj], Progress | None], searched: frozenset[str] | None = None
) -> Node:
    """The tree from an object down.

    Args:
        obj: its root.
        children: objects of a kind by the UID of their owner.
        progress: how far a TrainRun is.
        searched: names of the hyperparameters that are worth showing: those of the search space above; None: all.
    """
    kind = Kind(obj["kind"])
    status: Obj = obj.get("status") or {}
    summary: Obj = status.get("summary", {})
    found = children(_CHILD[kind], obj["metadata"]["uid"]) if kind in _CHILD else ()
    if kind is Kind.TUNE:
        searched = frozenset(canonical_name(parameter["name"]) for parameter in obj["spec"].get("parameters", ()))
    below = [node_of(child, children, progress, searched) for child in sorted(found, key=_order)]
    best = status.get("best", {}).get("crossValidation") if kind is Kind.TUNE else None
    node = Node(
        name=obj["metadata"]["name"],
        kind=kind,
        phase=status.get("phase", "Pending"),
        reason=summary.get("reason", ""),
        children=tuple(_mark(child) if child.name == best else child for child in below),
    )
    match kind:
        case Kind.TUNE:
            return _with(node, progress=f"{summary.get('trials', '')} trials".strip(), score=summary.get("best", ""))
        case Kind.CROSS_VALIDATION:
            score = summary.get("score", "")
            score = f"{score}±{summary.get('std')}" if score and summary.get("std") else score
            return _with(
                node, about=_parameters(obj, searched), progress=f"{summary.get('runs', '')} runs".strip(), score=score
            )
        case _:
            return _run(node, obj, summary, progress(obj))


def _run(node: Node, obj: Obj, summary: Obj, progress: Progress | None) -> Node:
    spec = obj["spec"]
    about = f"fold {spec.get('fold', 0)} seed {spec.get('seed', 42)}"
    attempt = (obj.get("status") or {}).get("attempt", 0)
    if attempt > 1:
        about += f" try {attempt}"
    if node.over:
        epoch = summary.get("epoch", "")
        return _with(node, about=about, progress=f"epoch {epoch}" if epoch else "", score=summary.get("score", ""))
    if progress is not None and node.phase == TrainRunPhase.RUNNING:
        return _with(node, about=about, progress=str(progress), score=progress.score)
    return _with(node, about=about)


def _with(node: Node, **changes: Any) -> Node:
    return Node(**{**node.__dict__, **changes})


def _mark(node: Node) -> Node:
    return _with(node, best=True)


def _order(obj: Obj) -> tuple[int, int, int, str]:
    """Trials by number, runs in the order in which they start."""
    spec, labels = obj.get("spec", {}), obj["metadata"].get("labels", {})
    trial = labels.get(LABEL_TRIAL, "")
    return int(trial) if trial.isdigit() else 0, spec.get("seed", 0), spec.get("fold", 0), obj["metadata"]["name"]


def _parameters(obj: Obj, shown: frozenset[str] | None) -> str:
    given = obj["spec"].get("hyperparameters", ())
    wanted = [p for p in given if shown is None or canonical_name(p["name"]) in shown]
    return ", ".join(f"{p['name']}={value_text(p.get('value'))}" for p in wanted)


def value_text(value: Any) -> str:
    """A hyperparameter's value, short."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return f"[{', '.join(map(value_text, value))}]"
    return "null" if value is None else str(value)


def score_text(score: float, std: float | None) -> str:
    """A score with its standard deviation, if there is one: ``0.8124 ± 0.0110``."""
    decimals = decimals_of(score, 4)
    return f"{score:.{decimals}f}" if std is None else f"{score:.{decimals}f} ± {std:.{decimals}f}"


def changes(before: Node | None, after: Node) -> Iterator[tuple[str, str, Node]]:
    """Name and news of every node whose phase changed: what ended from below, then what began from above."""
    old = {node.name: node.phase for node in before.walk()} if before else {}
    changed = [node for node in after.walk() if old.get(node.name) != node.phase]
    for node in (*(n for n in reversed(changed) if n.over), *(n for n in changed if not n.over)):
        if node.kind is Kind.CROSS_VALIDATION and node.name not in old and not node.over:
            yield node.name, f"{node.phase}: {node.about}", node
            continue
        parts = [node.phase, node.progress if node.over else "", f"score {node.score}" if node.score else ""]
        news = ", ".join(part for part in parts if part)
        yield node.name, f"{news}: {node.reason}" if node.reason else news, node
