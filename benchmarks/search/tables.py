"""The results of racing in print, and as docs/racing.md has them."""

from collections.abc import Sequence
from typing import Any

from benchmarks.search.races import ALPHA, OURS
from benchmarks.search.rules import RULES


def table(report: dict[str, Any]) -> str:
    """The results in print."""
    parts = (rules(report), tasks(report), simulations(report), own_noise(report))
    by_rule, by_task, simulated, noise = (_columns(rows) for rows in parts)
    alphas = [
        f"{alpha:6}{_with_interval(of, 'false_prune')} / {100 * of['saved']:.0f}"
        for alpha, of in report["alpha"].items()
    ]
    return "\n".join(
        [
            "Real tasks: runs saved / false prune at equality, mean (worst task) / same winner, in %",
            *by_rule,
            "",
            "Real tasks, crossfold: false prune at equality [95 %]; the better third, in %",
            *by_task,
            above_alpha(report),
            new_bests(report),
            "",
            "Simulations, crossfold: false prune at equality [95 %]; the better third / new best pruned, in %",
            *simulated,
            "",
            "Gaussian trials at the bar whose noise is so many times their references', pruned, in %",
            *noise,
            "",
            "All tasks and designs, crossfold, by alpha: false prune at equality [95 %] / saved, in %",
            *alphas,
        ]
    )


START, END = "<!-- make bench-search: from here -->\n", "<!-- make bench-search: to here -->\n"
"""Between them a page has the results."""


def renewed(page: str, report: dict[str, Any]) -> str:
    """The page with these results.

    Raises:
        ValueError: it has no place for them.
    """
    before, _, rest = page.partition(START)
    _, found, after = rest.partition(END)
    if not found:
        raise ValueError(f"no lines {START.strip()} and {END.strip()} in this order")
    return f"{before}{START}{markdown(report)}\n{END}{after}"


def markdown(report: dict[str, Any]) -> str:
    """The results as docs/racing.md has them."""
    searches = next(iter(next(iter(report["simulations"].values())).values()))["searches"]
    return "\n".join(
        [
            "Real tasks, in %: runs saved / false prune at equality, mean over the tasks (worst task) / searches with",
            "the winner of full cross-validation. Folds x seeds:",
            "",
            *_markdown(rules(report)),
            "",
            "Crossfold by task, in %: false prune at equality near the bar [95 % interval]; of the better third:",
            "",
            *_markdown(tasks(report)),
            "",
            above_alpha(report),
            "",
            new_bests(report),
            "",
            f"Simulations of {searches} searches, in %: false prune at equality near the bar [95 % interval]; of the",
            "better third / trials that would have become the best, and were pruned:",
            "",
            *_markdown(simulations(report)),
            "",
            "Gaussian trials at the bar whose noise is so many times their references', pruned, in %:",
            "",
            *_markdown(own_noise(report)),
        ]
    )


Rows = list[list[str]]
"""Cells; the first row is the head, the first column names."""


def rules(report: dict[str, Any]) -> Rows:
    """What each rule saves and costs."""
    rows = [["", *report["designs"]]]
    for rule in RULES:
        row = [f"**{rule}**" if rule == OURS else rule]
        for design in report["designs"].values():
            of = design if rule == OURS else design["rivals"][rule]
            lost = f"{_percent(of['false_prune_mean'])} ({_percent(of['false_prune_worst'])})"
            row.append(f"{100 * of['saved_mean']:.0f} / {lost} / {100 * of['same_winner_mean']:.0f}")
        rows.append(row)
    return rows


def tasks(report: dict[str, Any]) -> Rows:
    """The operator's rule task by task."""
    return [
        ["", *report["designs"]],
        *([task, *(_both(of["tasks"][task]) for of in report["designs"].values())] for task in report["tasks"]),
    ]


def simulations(report: dict[str, Any]) -> Rows:
    """The operator's rule on simulated searches."""
    return [
        ["", *report["designs"]],
        *(
            [kind, *(f"{_both(of)} / {_percent(of['new_best_pruned'])}" for of in by_design.values())]
            for kind, by_design in report["simulations"].items()
        ),
    ]


def own_noise(report: dict[str, Any]) -> Rows:
    """The error by a trial's noise beside its references'."""
    ratios = list(next(iter(report["own_noise"].values())))
    rates = ([design, *map(_percent, of.values())] for design, of in report["own_noise"].items())
    return [["", *(f"x {ratio}" for ratio in ratios)], *rates]


def above_alpha(report: dict[str, Any]) -> str:
    """Where the operator's rule loses more than alpha allows, in a sentence."""
    above = [
        f"{task} at {name} ({_percent(of['false_prune'])})"
        for name, design in report["designs"].items()
        for task, of in design["tasks"].items()
        if of["false_prune"] > ALPHA
    ]
    return f"Above alpha near the bar: {', '.join(above) or 'none'}."


def new_bests(report: dict[str, Any]) -> str:
    """What became of trials that would have beaten the bar by themselves, in a sentence."""
    every = [of for design in report["designs"].values() for of in design["tasks"].values()]
    beat = sum(of["new_bests"] for of in every)
    lost = sum(of["new_bests"] * of["new_best_pruned"] for of in every)
    return f"Of {beat:,} trials that beat the bar as they were, {lost:.0f} were pruned ({_percent(lost / beat)} %)."


def _both(of: dict[str, Any]) -> str:
    return f"{_with_interval(of, 'false_prune')}; {_percent(of['false_prune_third'])}"


def _with_interval(of: dict[str, Any], name: str) -> str:
    return f"{_percent(of[name])} [{', '.join(map(_percent, of[f'{name}_interval']))}]"


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _markdown(rows: Rows) -> list[str]:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return [lines[0], f"|---|{'---|' * (len(rows[0]) - 1)}", *lines[1:]]


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
