"""What the importers of all formats have in common: what a source says, in a Tune's words."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from crossfold_cli.importers.located import Located, SourceError


@dataclass(frozen=True)
class Entry:
    """A hyperparameter.

    Attributes:
        name: as the source spells it.
        line: where it is.
        says: fields of a Tune's parameter without the name; ``{"value": ...}`` for a constant.
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
        maximize: whether more is better.
        line: where it is.
        target: value that is good enough.
    """

    name: str
    maximize: bool
    line: int
    target: float | None = None


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


@dataclass
class Reading:
    """Collects what is wrong with a source, and what is left behind, so that a person hears of all of it at once."""

    errors: list[SourceError] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @contextmanager
    def part(self) -> Iterator[None]:
        """Read on after an error in this part."""
        try:
            yield
        except SourceError as error:
            self.errors.append(error)

    def left(self, where: Located, what: str, why: str) -> None:
        """Note something that a Tune does not take over."""
        self.notes.append(f"line {where.line}: {what} is not carried over: {why}")

    def note(self, where: Located, text: str) -> None:
        """Note how something was read."""
        self.notes.append(f"line {where.line}: {text}")


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
