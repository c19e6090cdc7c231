"""Racing measured: searches on real tasks and simulated ones, with the operator's rule and with others."""

import os
from collections.abc import Callable
from concurrent.futures import Executor
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.search import simulate, tasks
from benchmarks.search.replay import Tally, interval, lost_rate, replay, runs
from benchmarks.search.rules import RULES, crossfold

DESIGNS = ((5, 1), (5, 3), (10, 1), (10, 3))
"""Folds and seeds."""
ALPHA = 0.05
"""The operator's default."""
ALPHAS = (0.01, 0.02, 0.05, 0.1, 0.2)
OURS = "crossfold"
RATIOS = (0.75, 1.0, 1.25, 1.5, 2.0, 3.0)
"""Standard deviations of a trial's noise, in those of its references'."""


class Job(NamedTuple):
    """One replay."""

    source: str
    """A task or a kind of simulation."""
    folds: int
    seeds: int
    number: int
    rule: str = OURS
    alpha: float = ALPHA
    """Of the operator's rule."""


Run = Callable[[list[Job]], Tally]


def measure(pool: Executor, workers: int, replays: int, studies: int) -> dict[str, Any]:
    """All of it, as it goes into the results.

    Args:
        pool: where replays run.
        workers: processes that compute score matrices.
        replays: of a task and design; an eighth of them with other rules and other values of alpha.
        studies: simulated searches of a kind and design.
    """
    shapes = {task.name: list(tasks.scores(task, cache_folder(), workers).shape) for task in tasks.TASKS}
    print(f"{len(shapes)} score matrices", flush=True)
    run, few = partial(_tallies, pool), max(1, replays // 8)
    return {
        "tasks": shapes,
        "designs": _designs(run, replays, few),
        "alpha": _alphas(run, few),
        "simulations": _simulations(run, studies),
        "own_noise": _own_noise(pool, studies),
    }


def cache_folder() -> Path:
    """Where score matrices are kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "crossfold" / "bench-search"


@cache
def _matrix(name: str) -> NDArray[np.float64]:
    """A task's y: more is better."""
    task = next(task for task in tasks.TASKS if task.name == name)
    scores = tasks.scores(task, cache_folder(), workers=1)
    return scores if task.direction == "maximize" else -scores


def order(shape: tuple[int, ...], folds: int, seeds: int, number: int) -> tuple[NDArray[np.int64], ...]:
    """Trials, folds and seeds of a replay: some of the matrix's, in an order of its own.

    Of ten folds, five are as many as a Tune with runFolds 5 has.
    """
    rng = np.random.default_rng([folds, seeds, number])
    trials, all_folds, all_seeds = (rng.permutation(size) for size in shape)
    return trials[: simulate.TRIALS], all_folds[:folds], all_seeds[:seeds]


def runs_of(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Runs of each trial (trials, folds, seeds) as they follow one another, (trials, N): all folds, seed by seed."""
    return matrix.transpose(0, 2, 1).reshape(len(matrix), -1)


def play(job: Job) -> Tally:
    """One replay."""
    rule = crossfold(job.alpha) if job.rule == OURS else RULES[job.rule]
    if job.source in simulate.KINDS:
        matrix = simulate.study(job.source, job.folds, job.seeds, job.number)
        return replay(runs_of(matrix), rule, job.folds, job.seeds, search=job)
    matrix = _matrix(job.source)
    chosen = order(matrix.shape, job.folds, job.seeds, job.number)
    what = [(job.source, int(trial)) for trial in chosen[0]]
    return replay(runs_of(matrix[np.ix_(*chosen)]), rule, job.folds, job.seeds, search=job, configurations=what)


def _tallies(pool: Executor, jobs: list[Job]) -> Tally:
    total = Tally()
    for tally in pool.map(play, jobs, chunksize=max(1, len(jobs) // 16)):
        total.add(tally)
    return total


def figures(tally: Tally) -> dict[str, Any]:
    """A tally's rates."""
    return {
        "false_prune": _round(lost_rate(tally.near)),
        "false_prune_interval": [_round(bound) for bound in interval(tally.near)],
        "tested_at_equality": len(tally.near),
        "false_prune_third": _round(lost_rate(tally.good)),
        "false_prune_third_interval": [_round(bound) for bound in interval(tally.good)],
        "new_best_pruned": _round(tally.new_best_lost_rate),
        "new_bests": tally.new_best,
        "saved": _round(tally.saved),
        "same_winner": _round(tally.same_winner_rate),
        "regret": _round(float(np.mean(tally.regret))),
        "searches": tally.searches,
    }


def _designs(run: Run, replays: int, few: int) -> dict[str, Any]:
    designs: dict[str, Any] = {}
    for folds, seeds in DESIGNS:
        rules: dict[str, Any] = {}
        for rule in RULES:
            numbers = range(replays if rule == OURS else few)
            rules[rule] = _over_tasks(
                {
                    task.name: figures(run([Job(task.name, folds, seeds, n, rule) for n in numbers]))
                    for task in tasks.TASKS
                }
            )
        ours = rules.pop(OURS)
        for of in rules.values():
            del of["tasks"]
        designs[f"{folds}x{seeds}"] = {**ours, "rivals": rules}
        print(f"{folds}x{seeds} replayed", flush=True)
    return designs


def _over_tasks(by_task: dict[str, Any]) -> dict[str, Any]:
    def mean(name: str) -> float:
        return _round(float(np.mean([of[name] for of in by_task.values()])))

    return {
        "false_prune_worst": max(of["false_prune"] for of in by_task.values()),
        "false_prune_mean": mean("false_prune"),
        "false_prune_third_worst": max(of["false_prune_third"] for of in by_task.values()),
        "false_prune_third_mean": mean("false_prune_third"),
        "saved_mean": mean("saved"),
        "same_winner_mean": mean("same_winner"),
        "regret_mean": mean("regret"),
        "tasks": by_task,
    }


def _alphas(run: Run, few: int) -> dict[str, Any]:
    """Rates of the operator's rule over all tasks and designs, by alpha."""
    return {
        str(alpha): figures(
            run(
                [
                    Job(task.name, folds, seeds, n, alpha=alpha)
                    for task in tasks.TASKS
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
        simulations[kind] = {
            f"{folds}x{seeds}": figures(run([Job(kind, folds, seeds, n) for n in range(studies)]))
            for folds, seeds in DESIGNS
        }
        print(f"{kind} simulated", flush=True)
    return simulations


def _own_noise(pool: Executor, studies: int) -> dict[str, dict[str, float]]:
    """False prune at equality by design and by how noisy a trial is beside its references, all else being Gaussian."""
    jobs = [(folds, seeds, ratio, studies // 4) for folds, seeds in DESIGNS for ratio in RATIOS]
    rates: dict[str, dict[str, float]] = {}
    for (folds, seeds, ratio, _), rate in zip(jobs, pool.map(lost_by_noise, *zip(*jobs, strict=True)), strict=True):
        rates.setdefault(f"{folds}x{seeds}", {})[f"{ratio:g}"] = _round(rate)
    return rates


def lost_by_noise(folds: int, seeds: int, ratio: float, studies: int) -> float:
    """Share of trials at equality that the operator's rule stops, by their noise beside the completed ones'."""
    lost: list[bool] = []
    for number in range(studies):
        completed, racers = (runs_of(part) for part in simulate.alike(folds, seeds, ratio, number))
        stops = crossfold()(list(completed), folds, seeds)
        racers += completed.mean(axis=1).max() - racers.mean(axis=1, keepdims=True)
        lost += [runs(trial, stops) < len(trial) for trial in racers]
    return sum(lost) / len(lost)


def _round(value: float) -> float:
    return round(value, 4)
