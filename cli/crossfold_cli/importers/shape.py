"""What the importers of all formats have in common: what a source says, in a Tune's words."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from crossfold_cli.importers.located import Located, SourceError
from crossfold_trainer.contract import hyperparameters as hp

GAUSSIAN_PROCESS = "a Gaussian process with expected improvement, whatever the source's acquisition function"
"""What becomes of other tools' Bayesian optimisation."""


@dataclass(frozen=True)
class Entry:
    """A hyperparameter.

    Attributes:
        name: as the source spells it.
        line: where it is.
        says: fields of a Tune's parameter without the name; ``{"value": ...}`` for a constant; empty where it is
            dropped, or cannot be read.
        texts: whether the format writes every choice as a text, so that "16" may be a number.
    """

    name: str
    line: int
    says: Mapping[str, Any]
    texts: bool = False


@dataclass(frozen=True)
class Metric:
    """What a source optimises.

    Attributes:
        name: as the source spells it.
        maximize: whether more is better; None: that cannot be read.
        line: where it is.
        target: value that is good enough.
        assumed: how the direction was read, where the source does not say it.
    """

    name: str
    maximize: bool | None
    line: int
    target: float | None = None
    assumed: str = ""


@dataclass(frozen=True)
class Search:
    """A search as its source says it. What is None or empty, the source does not say."""

    entries: tuple[Entry, ...]
    name: str = ""
    metric: Metric | None = None
    algorithm: str = ""
    seed: int | None = None
    settings: Mapping[str, float] = field(default_factory=dict)
    max_trials: int | None = None
    max_failed_trials: int | None = None
    parallelism: int | None = None


GOALS = {"minimize": False, "maximize": True}
"""What most tools call the directions: whether more is better."""


@dataclass
class Reading:
    """Collects what is wrong with a source, and what is left behind, so that a person hears of all of it at once.

    Attributes:
        dropped: canonical names of hyperparameters that are left out.
        replaced: fields of a Search that something else takes the place of.
        errors: what is wrong; never with what is dropped or replaced.
        notes: how it was read, and what was left behind.
    """

    dropped: frozenset[str] = frozenset()
    replaced: frozenset[str] = frozenset()
    errors: list[SourceError] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @contextmanager
    def part(self, of: str = "") -> Iterator[None]:
        """Read on after an error in this part, a field of a Search or anything else."""
        try:
            yield
        except SourceError as error:
            if of not in self.replaced:
                self.errors.append(error)

    def entry(self, name: str, line: int, says: Callable[[], Mapping[str, Any]], *, texts: bool = False) -> Entry:
        """A hyperparameter; one that is dropped, or that cannot be read, is there by its name alone.

        Args:
            name: as the source spells it.
            line: where it is.
            says: reads the fields of a Tune's parameter; raises SourceError where they cannot be read.
            texts: whether the format writes every choice as a text.
        """
        if hp.canonical_name(name) not in self.dropped:
            with self.part():
                return Entry(name, line, says(), texts)
        return Entry(name, line, {}, texts)

    def left(self, where: Located, what: str, why: str) -> None:
        """Note something that a Tune does not take over."""
        self.notes.append(f"line {where.line}: {what} is not carried over: {why}")

    def note(self, where: Located, text: str) -> None:
        """Note how something was read."""
        self.notes.append(f"line {where.line}: {text}")


def metric_of(name: str, goal: Located, what: str, target: Located | None, reading: Reading, *, line: int) -> Metric:
    """A metric by its name, whatever else of it cannot be read.

    Args:
        name: as the source spells it.
        goal: whether less or more of it is better.
        what: name of that field, for messages.
        target: value that is good enough.
        reading: hears of what is wrong with goal and target.
        line: where the metric is.
    """
    maximize, enough = None, None
    with reading.part("metric"):
        if goal.content not in GOALS:
            raise goal.error(f"{what} must be minimize or maximize, not {goal.plain!r}")
        maximize = GOALS[str(goal.content)]
    if target is not None:
        with reading.part("metric"):
            enough = target.number("the metric's target")
    return Metric(name, maximize, line, enough)


def interval(
    where: Located,
    kind: str,
    bounds: tuple[int | float, int | float],
    *,
    scale: str = "",
    step: float | None = None,
) -> dict[str, Any]:
    """A Float or Int parameter; bounds and steps are inclusive.

    Raises:
        SourceError: the bounds are the wrong way round, no whole numbers, or outside what the scale has.
    """
    low, high = bounds
    if not low < high:
        raise where.error(f"the lower bound {low!r} must be below the upper one, {high!r}; a constant is no range")
    if kind == "Int" and not (float(low).is_integer() and float(high).is_integer()):
        raise where.error(f"an integer range needs whole numbers, not {low!r} and {high!r}")
    if scale == "Log" and low <= 0:
        raise where.error(f"a logarithmic range needs a lower bound above 0, not {low!r}")
    cast = int if kind == "Int" else float
    says: dict[str, Any] = {"type": kind, "min": cast(low), "max": cast(high)}
    if scale:
        says["scale"] = scale
    if step is not None:
        if step <= 0 or (kind == "Int" and not float(step).is_integer()):
            raise where.error(f"the step must be a {'whole ' if kind == 'Int' else ''}number above 0, not {step!r}")
        if scale == "Log":
            raise where.error("a step on a logarithmic scale has no counterpart: remove the step, or list the values")
        says["step"] = cast(step)
    return says


def choices(values: Located, what: str) -> dict[str, Any]:
    """A Categorical parameter.

    Raises:
        SourceError: there is no list of choices.
    """
    return {"type": "Categorical", "values": [item.plain for item in values.items(what)]}


def only(where: Located, given: Mapping[str, Located], known: tuple[str, ...], what: str) -> None:
    """Refuse keys that would be dropped silently.

    Raises:
        SourceError: there is one.
    """
    for name, item in given.items():
        if name not in known:
            raise item.error(f"{what} has '{name}', which is not understood here: it takes {', '.join(known)}")
    if not given:
        raise where.error(f"{what} is empty: it takes {', '.join(known)}")


def required(where: Located, given: Mapping[str, Located], name: str, what: str) -> Located:
    """An entry that must be there.

    Raises:
        SourceError: it is not.
    """
    if name not in given:
        raise where.error(f"{what} needs '{name}'")
    return given[name]


def is_kind(document: Located, kind: str) -> bool:
    """Whether a document is a Kubernetes object of a kind."""
    top = document.content
    return isinstance(top, dict) and "kind" in top and top["kind"].content == kind


def object_name(top: Mapping[str, Located], reading: Reading) -> str:
    """The name of a Kubernetes object, or what its name begins with; the rest of its metadata is noted."""
    metadata = top.get("metadata")
    if metadata is None or not isinstance(metadata.content, dict):
        return ""
    given = metadata.content
    for key, item in given.items():
        if key not in ("name", "generateName"):
            reading.left(item, f"metadata.{key}", "add it to the Tune where it is wanted")
    name = given.get("name") or given.get("generateName")
    return "" if name is None else str(name.plain)
