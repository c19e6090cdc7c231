"""Measure racing and the sampler: ``make bench-search``. Writes search.json and pictures.

Racing: whole searches replayed on full score matrices of real tasks and on simulated ones, with the operator's rule and
with others, see ``tasks``, ``simulate``, ``rules`` and ``replay``.
"""

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.search import picture, sampler, simulate, tasks
from benchmarks.search.replay import Tally, replay
from benchmarks.search.rules import RULES, crossfold

DESIGNS = ((5, 1), (5, 3), (10, 1), (10, 3))
"""Folds and seeds."""
ALPHAS = (0.01, 0.02, 0.05, 0.1, 0.2)
OURS = "crossfold"
RESULTS = Path(__file__).parent.parent / "results"


def main() -> None:
    """Run all, print a table, write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replays", type=int, default=40, help="replays of a task and design (rivals: a third)")
    parser.add_argument("--studies", type=int, default=400, help="simulated searches of a kind and design")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()

    start, load = time.monotonic(), os.getloadavg()[0]
    matrices = {task.name: _matrix(task, options.workers) for task in tasks.TASKS}
    print(f"score matrices of {len(matrices)} tasks: {time.monotonic() - start:.0f} s", flush=True)
    with ProcessPoolExecutor(options.workers) as pool:
        run = partial(_tallies, pool)
        few = max(1, options.replays // 3)
        report: dict[str, Any] = {
            "tasks": {name: list(matrix.shape) for name, matrix in matrices.items()},
            "designs": _designs(run, matrices, options.replays, few),
            "alpha": _alphas(run, matrices, few),
            "simulations": _simulations(run, options.studies),
        }
    report |= sampler.measure(workers=options.workers)
    report["machine"] = {"cores": os.cpu_count(), "cpu": _cpu(), "loadAtStart": round(load, 1)}
    libraries = {name: version(name) for name in ("numpy", "scipy", "scikit-learn", "optuna")}
    report["versions"] = {"python": platform.python_version(), **libraries}
    report["seconds"] = round(time.monotonic() - start)

    options.results.mkdir(parents=True, exist_ok=True)
    (options.results / "search.json").write_text(json.dumps(report, indent=1) + "\n")
    (options.results / "search.svg").write_text(picture.results(report))
    (options.results / "racing.svg").write_text(picture.explained())
    print(table(report))


def runs_of(matrix: NDArray[np.float64], folds: int, seeds: int, number: int) -> NDArray[np.float64]:
    """One replay's trials, (trials, N): trials, folds and seeds in an order of the replay's own.

    Of ten folds, five are as many as a Tune with runFolds 5 has.
    """
    rng = np.random.default_rng([folds, seeds, number])
    trials, all_folds, all_seeds = (rng.permutation(size) for size in matrix.shape)
    chosen = matrix[np.ix_(trials, all_folds[:folds], all_seeds[:seeds])]
    return chosen.transpose(0, 2, 1).reshape(len(trials), -1)  # all folds with the first seed, then the second, ...


Job = tuple[str, Any, int, int, int]
"""Rule (or "alpha 0.1"), matrix or kind of simulation, folds, seeds, number of the replay."""


def play(job: Job) -> Tally:
    """One replay."""
    name, source, folds, seeds, number = job
    rule = crossfold(float(name.removeprefix("alpha "))) if name.startswith("alpha ") else RULES[name]
    matrix = simulate.study(source, folds, seeds, number) if isinstance(source, str) else source
    return replay(runs_of(matrix, folds, seeds, number), rule, folds, seeds, tests=6)


Run = Callable[[list[Job]], Tally]


def _tallies(pool: ProcessPoolExecutor, jobs: list[Job]) -> Tally:
    total = Tally()
    for tally in pool.map(play, jobs, chunksize=max(1, len(jobs) // 16)):
        total.add(tally)
    return total


def _matrix(task: tasks.Task, workers: int) -> NDArray[np.float64]:
    """A task's y: more is better."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "crossfold" / "bench-search"
    scores = tasks.scores(task, cache, workers)
    return scores if task.direction == "maximize" else -scores


def figures(tally: Tally) -> dict[str, Any]:
    """A tally's rates."""
    low, high = tally.interval()
    return {
        "false_prune": _round(tally.false_prune),
        "false_prune_interval": [_round(low), _round(high)],
        "tested_at_equality": sum(tally.tested_at_equality),
        "new_best_pruned": _round(tally.new_best_lost_rate),
        "new_bests": tally.new_best,
        "saved": _round(tally.saved),
        "same_winner": _round(tally.same_winner_rate),
        "regret": _round(float(np.mean(tally.regret))),
        "searches": tally.searches,
    }


def _designs(run: Run, matrices: dict[str, NDArray[np.float64]], replays: int, few: int) -> dict[str, Any]:
    designs: dict[str, Any] = {}
    for folds, seeds in DESIGNS:
        rules: dict[str, Any] = {}
        for rule in RULES:
            by_task = {
                name: figures(run([(rule, matrix, folds, seeds, n) for n in range(replays if rule == OURS else few)]))
                for name, matrix in matrices.items()
            }
            rules[rule] = _over_tasks(by_task)
        ours = rules.pop(OURS)
        designs[f"{folds}x{seeds}"] = {**ours, "rivals": rules}
        print(f"{folds}x{seeds} replayed", flush=True)
    return designs


def _over_tasks(by_task: dict[str, Any]) -> dict[str, Any]:
    def each(name: str) -> list[float]:
        return [figures[name] for figures in by_task.values()]

    return {
        "false_prune_worst": max(each("false_prune")),
        "false_prune_mean": _round(float(np.mean(each("false_prune")))),
        "saved_mean": _round(float(np.mean(each("saved")))),
        "same_winner_mean": _round(float(np.mean(each("same_winner")))),
        "regret_mean": _round(float(np.mean(each("regret")))),
        "tasks": by_task,
    }


def _alphas(run: Run, matrices: dict[str, NDArray[np.float64]], few: int) -> dict[str, Any]:
    """Rates of the operator's rule over all tasks and designs, by alpha."""
    return {
        str(alpha): figures(
            run(
                [
                    (f"alpha {alpha}", matrix, folds, seeds, n)
                    for matrix in matrices.values()
                    for folds, seeds in DESIGNS
                    for n in range(few)
                ]
            )
        )
        for alpha in ALPHAS
    }


def _simulations(run: Run, studies: int) -> dict[str, Any]:
    simulations: dict[str, Any] = {}
    for kind in simulate.KINDS:
        simulations[kind] = {}
        for folds, seeds in DESIGNS:
            rules = {
                rule: figures(
                    run(
                        [
                            (rule, kind, folds, seeds, n)
                            for n in range(studies if rule == OURS else max(1, studies // 8))
                        ]
                    )
                )
                for rule in RULES
            }
            ours = rules.pop(OURS)
            simulations[kind][f"{folds}x{seeds}"] = {**ours, "rivals": rules}
        print(f"{kind} simulated", flush=True)
    return simulations


def table(report: dict[str, Any]) -> str:
    """The results in print."""
    lines = [
        "Real tasks: false prune at equality, mean (worst task) / runs saved / same winner, in %",
        f"{'':24}" + "".join(f"{design:>26}" for design in report["designs"]),
    ]
    for rule in RULES:
        row = f"{rule:24}"
        for design in report["designs"].values():
            of = design if rule == OURS else design["rivals"][rule]
            row += (
                f"{100 * of['false_prune_mean']:8.1f} ({100 * of['false_prune_worst']:4.1f})"
                f" / {100 * of['saved_mean']:2.0f} / {100 * of['same_winner_mean']:3.0f}"
            )
        lines.append(row)
    lines += [
        "",
        "Simulations, crossfold: false prune at equality [95 %] / new best pruned / saved / same winner, in %",
    ]
    for kind, designs in report["simulations"].items():
        for design, of in designs.items():
            low, high = of["false_prune_interval"]
            lines.append(
                f"{kind:16}{design:6}{100 * of['false_prune']:5.1f} [{100 * low:.1f}, {100 * high:.1f}]"
                f" / {100 * of['new_best_pruned']:.1f} / {100 * of['saved']:.0f} / {100 * of['same_winner']:.0f}"
            )
    lines += ["", "All tasks and designs, crossfold, by alpha: false prune at equality [95 %] / saved, in %"]
    for alpha, of in report["alpha"].items():
        low, high = of["false_prune_interval"]
        lines.append(
            f"{alpha:6}{100 * of['false_prune']:5.1f} [{100 * low:.1f}, {100 * high:.1f}] / {100 * of['saved']:.0f}"
        )
    return "\n".join(lines)


def markdown(report: dict[str, Any]) -> str:
    """The results as docs/racing.md has them."""

    def percent(value: float) -> str:
        return f"{100 * value:.1f}"

    designs = list(report["designs"])
    lines = [
        "Real tasks, in %: runs saved / false prune at equality, mean over the tasks (worst task) / searches with the",
        "winner of full cross-validation. Folds x seeds:",
        "",
        f"| | {' | '.join(designs)} |",
        f"|---|{'---|' * len(designs)}",
    ]
    for rule in RULES:
        cells = []
        for design in report["designs"].values():
            of = design if rule == OURS else design["rivals"][rule]
            lost = f"{percent(of['false_prune_mean'])} ({percent(of['false_prune_worst'])})"
            cells.append(f"{100 * of['saved_mean']:.0f} / {lost} / {100 * of['same_winner_mean']:.0f}")
        lines.append(f"| {f'**{rule}**' if rule == OURS else rule} | {' | '.join(cells)} |")
    searches = next(iter(next(iter(report["simulations"].values())).values()))["searches"]
    lines += [
        "",
        f"Simulations of {searches} searches, in %: false prune at equality [95 % interval] / new best trials pruned:",
        "",
        f"| | {' | '.join(designs)} |",
        f"|---|{'---|' * len(designs)}",
    ]
    for kind, by_design in report["simulations"].items():
        cells = [
            f"{percent(of['false_prune'])} [{', '.join(map(percent, of['false_prune_interval']))}]"
            f" / {percent(of['new_best_pruned'])}"
            for of in by_design.values()
        ]
        lines.append(f"| {kind} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cpu() -> str:
    """The processor's model."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _round(value: float) -> float:
    return round(value, 4)


if __name__ == "__main__":
    main()
