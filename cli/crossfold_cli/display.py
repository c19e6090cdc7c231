"""The terminal: a live tree, or one line per change, or nothing."""

import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, TextIO

from crossfold_cli import view
from crossfold_cli.view import Node
from crossfold_operator.names import Kind

if TYPE_CHECKING:
    from rich.table import Table

_EPOCH_SECONDS = 10.0
"""Least time from one line about a run's epoch to the next."""
_COLOURS = {
    "Complete": "green",
    "Succeeded": "green",
    "Running": "cyan",
    "Starting": "cyan",
    "Failed": "red",
    "Unstable": "yellow",
    "Preempted": "yellow",
    "Stopped": "yellow",
    "Pruned": "magenta",
}
_MARGIN = 3
"""Columns and lines of the terminal that the tree leaves free: the terminal itself writes ^C at the end of a line."""


class Display(Protocol):
    """Shows what happens."""

    tells_phases: bool
    """Whether every change of a phase is a line that stays: a warning about one would say it twice."""

    def show(self, root: Node) -> None:
        """Show the tree as it is now."""
        ...

    def say(self, text: str) -> None:
        """Show a line that stays."""
        ...

    def close(self) -> None:
        """Show nothing further."""
        ...


def display_for(stream: TextIO, *, watch: bool) -> Display:
    """The display that suits a stream."""
    if not watch:
        return Quiet()
    return LiveTree() if stream.isatty() else Lines()


class Quiet:
    """Only lines that stay."""

    tells_phases = False

    def show(self, root: Node) -> None:
        """Nothing."""

    def say(self, text: str) -> None:
        """Print it."""
        print(text, flush=True)

    def close(self) -> None:
        """Nothing."""


class Lines:
    """One line per change."""

    tells_phases = True

    def __init__(self) -> None:
        self._last: Node | None = None
        self._told: dict[str, tuple[str, float]] = {}

    def show(self, root: Node) -> None:
        """Print what changed. What had ended before the first look is not news."""
        for name, news, node in view.changes(self._last, root):
            if self._last is not None or node is root or not node.over:
                self._line(name, news)
        now = time.monotonic()
        for node in root.walk():
            if node.kind is not Kind.TRAIN_RUN or node.over or not node.progress:
                continue
            text, at = self._told.get(node.name, ("", -_EPOCH_SECONDS))
            if node.progress != text and now - at >= _EPOCH_SECONDS:
                self._told[node.name] = (node.progress, now)
                self._line(node.name, f"{node.progress}, score {node.score}" if node.score else node.progress)
        self._last = root

    def say(self, text: str) -> None:
        """Print it."""
        print(text, flush=True)

    def close(self) -> None:
        """Nothing."""

    def _line(self, name: str, news: str) -> None:
        print(f"{time.strftime('%H:%M:%S')}  {name}  {news}", flush=True)


class LiveTree:
    """The tree, drawn over itself."""

    tells_phases = False

    def __init__(self) -> None:
        from rich.console import Console  # noqa: PLC0415 -- only where there is a terminal
        from rich.live import Live  # noqa: PLC0415

        self._console = Console(file=sys.stdout)
        self._live = Live(console=self._console, auto_refresh=False, vertical_overflow="crop")
        self._live.start()

    def show(self, root: Node) -> None:
        """Draw it."""
        self._live.update(tree_table(root, self._console.size), refresh=True)

    def say(self, text: str) -> None:
        """Print it above the tree."""
        self._live.console.print(text, markup=False, highlight=False)

    def close(self) -> None:
        """Leave the last drawing where it is."""
        self._live.stop()


def tree_table(root: Node, size: tuple[int, int]) -> "Table":
    """The tree as a table that fits into a terminal of so many columns and lines."""
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    rows: list[tuple[Text, ...]] = []
    width, height = size
    for line in tree_lines(root, height - _MARGIN):
        if isinstance(line, str):
            rows.append((Text(line, style="dim"), *(Text() for _ in range(4))))
            continue
        guide, node = line
        about = "; ".join(part for part in (node.about, node.reason) if part)
        rows.append(
            (
                Text.assemble((guide, "dim"), (node.name, "bold" if node.best or not guide else "")),
                Text(node.phase, style=_COLOURS.get(node.phase, "dim")),
                Text(node.progress),
                Text(f"{node.score}{' best' if node.best else ''}", style="bold green" if node.best else ""),
                Text(about, style="dim"),
            )
        )
    table = Table.grid(padding=(0, 2), expand=True)
    table.width = width - _MARGIN
    for column in range(4):
        # Without a least width, a long text in the last column would squeeze the others.
        table.add_column(no_wrap=True, min_width=max(row[column].cell_len for row in rows))
    table.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    for row in rows:
        table.add_row(*row)
    return table


def tree_lines(root: Node, height: int) -> list[tuple[str, Node] | str]:
    """The lines of a tree: what is under way unfolded, what has ended folded, and cut where the space ends.

    The best trial and the latest of the ended ones are kept longest.
    """
    active = [child for child in root.children if not child.over]
    ended = [child for child in root.children if child.over]
    unfolded = 1 + len(active) + sum(len(child.children) for child in active)
    room = max(2, height - unfolded - 1)
    best = [child for child in ended if child.best]
    latest = [child for child in ended if not child.best][-max(0, room - len(best)) :] if room > len(best) else []
    kept = [child for child in ended if child.best or child in latest]
    lines: list[tuple[str, Node] | str] = [("", root)]
    if len(kept) < len(ended):
        lines.append(f"… {len(ended) - len(kept)} more that have ended")
    lines += _branches([child for child in root.children if child in kept or not child.over], "")
    if len(lines) > height > 1:
        lines = [*lines[: height - 1], f"… {len(lines) - height + 1} more lines"]
    return lines


def _branches(nodes: Sequence[Node], prefix: str) -> list[tuple[str, Node] | str]:
    lines: list[tuple[str, Node] | str] = []
    for i, node in enumerate(nodes):
        last = i == len(nodes) - 1
        lines.append((f"{prefix}{'└─ ' if last else '├─ '}", node))
        if not node.over:
            lines += _branches(node.children, f"{prefix}{'   ' if last else '│  '}")
    return lines
