"""The benchmark of racing: its rivals are what they claim to be, its counts are right, its last results hold."""

import json
import random
import warnings
from typing import Any

import numpy as np
import optuna
import pytest
from scipy import stats

from benchmarks.search import rules, sampler, simulate
from benchmarks.search.__main__ import OURS, RESULTS, figures, markdown, runs_of, table
from benchmarks.search.picture import explained, results
from benchmarks.search.replay import Tally, replay

REPORT = json.loads((RESULTS / "search.json").read_text())


@pytest.mark.parametrize("seed", range(15))
def test_signed_rank_test_against_scipy(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.choice([2, 4, 6, 8, 14, 30]))
    values = rng.normal(-0.2, 1, n)
    if seed % 3:
        values = np.round(values, seed % 3)  # ties, and zeros
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = stats.wilcoxon(values, alternative="less", zero_method="zsplit").pvalue
    assert rules.signed_rank_p(values) == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize(
    ("rule", "pruner"),
    [(rules.wilcoxon, optuna.pruners.WilcoxonPruner()), (rules.median, optuna.pruners.MedianPruner())],
)
@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_optuna_s_pruners_say_the_same(rule: rules.Rule, pruner: optuna.pruners.BasePruner) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    rng = np.random.default_rng(4)
    said = set()
    for search in range(6):
        completed = [np.round(rng.normal(0.8, 0.1) + rng.normal(0, 0.05, 8), 3) for _ in range(3 + search)]
        trial = np.round(rng.normal(0.75, 0.1) + rng.normal(0, 0.05, 8), 3)
        study = optuna.create_study(direction="maximize", pruner=pruner)

        def told(y: np.ndarray, *, means: bool = rule is rules.median) -> dict[int, float]:
            return dict(enumerate(np.cumsum(y) / np.arange(1, len(y) + 1) if means else y))

        for y in completed:
            study.add_trial(optuna.trial.create_trial(value=float(y.mean()), intermediate_values=told(y)))
        stops = rule(completed, 8, 1)
        for n in range(1, 8):
            frozen = optuna.trial.create_trial(
                state=optuna.trial.TrialState.RUNNING, intermediate_values=told(trial[:n])
            )
            verdict = pruner.prune(study, frozen)
            said.add(verdict)
            assert (stops is not None and stops(trial[:n])) == verdict
    assert said == {True, False}


def test_bergman_s_rules() -> None:
    completed = [np.array([0.5, 0.7]), np.array([0.6, 0.9])]  # the best: mean 0.75, worst run 0.6
    for score, aggressive, forgiving in (
        (0.8, False, False),
        (0.75, True, False),
        (0.61, True, False),
        (0.6, True, True),
    ):
        for rule, expected in ((rules.aggressive, aggressive), (rules.forgiving, forgiving)):
            stops = rule(completed, 2, 1)
            assert stops is not None
            assert stops(np.array([score])) is expected


def test_paired_t_spends_its_alpha_over_the_looks() -> None:
    """A trial that differs by chance alone is stopped in at most about a twentieth of the cases."""
    rng = np.random.default_rng(1)
    stopped = 0
    for _ in range(400):
        best, trial = rng.normal(0, 1, (2, 10))
        stops = rules.paired_t([best], 10, 1)
        assert stops is not None
        stopped += any(stops(trial[:n]) for n in range(2, 10))
    assert 4 <= stopped <= 32


def test_replay_counts() -> None:
    """Three trials of two runs; the rule stops after one run what is below 0.5 there."""
    trials = np.array([[0.6, 0.6], [0.4, 0.9], [0.7, 0.7]])

    def rule(completed: Any, folds: int, seeds: int) -> rules.Stops:
        return lambda y: bool(y[-1] < 0.5)

    tally = replay(trials, rule, 2, 1, tests=3)
    assert (tally.planned, tally.run, tally.saved) == (6, 5, pytest.approx(1 / 6))
    # The second trial's mean of 0.65 would have been the best so far; the third is, and wins in any case.
    assert (tally.new_best, tally.new_best_lost, tally.same_winner) == (2, 1, 1)
    assert tally.regret == [0]
    total = Tally()
    total.add(tally)
    total.add(replay(trials[::-1], rule, 2, 1, tests=3))
    assert (total.searches, total.planned, total.new_best, total.same_winner_rate) == (2, 12, 2, 1)


def test_trials_at_equality_are_good_ones_that_are_not_completed() -> None:
    """No trial is stopped but at equality: the rule knows the shifted mean."""
    rng = np.random.default_rng(2)
    trials = rng.normal(0, 1, (30, 4)) + rng.normal(0, 3, (30, 1))
    seen = []

    def rule(completed: Any, folds: int, seeds: int) -> rules.Stops:
        def stops(y: np.ndarray) -> bool:
            at_equality = len(y) == 3 and not any(np.array_equal(y, trial[:3]) for trial in trials)
            seen.extend([y] if at_equality else [])
            return at_equality

        return stops

    tally = replay(trials, rule, 4, 1, tests=2)
    assert tally.tested_at_equality == [4] == tally.lost_at_equality  # two checkpoints, two each
    assert tally.false_prune == 1
    assert tally.saved == 0
    good = trials[trials.mean(axis=1) >= np.quantile(trials.mean(axis=1), 2 / 3)]
    for y in seen:
        shifts = [y - trial[:3] for trial in good]
        assert any(np.ptp(shift) < 1e-12 for shift in shifts)


def test_intervals_take_searches_as_clusters() -> None:
    alone = Tally(tested_at_equality=[1] * 100, lost_at_equality=[1] * 10 + [0] * 90)
    low, high = alone.interval()
    assert (low, high) == pytest.approx((0.1 - 0.059, 0.1 + 0.059), abs=0.001)
    clustered = Tally(tested_at_equality=[10] * 10, lost_at_equality=[10] + [0] * 9)
    assert clustered.interval()[1] > 2 * high - 0.1
    assert Tally(tested_at_equality=[50], lost_at_equality=[0]).interval() == (0, pytest.approx(0.071, abs=0.001))


def test_a_replay_runs_all_folds_with_one_seed_first() -> None:
    matrix = np.arange(2 * 4 * 3, dtype=float).reshape(2, 4, 3)
    trials = runs_of(matrix, 4, 3, 0)
    assert sorted(trials.ravel()) == sorted(matrix.ravel())
    seeds = trials.reshape(2, 3, 4) % 3
    assert (seeds == seeds[:1, :, :1]).all()
    assert runs_of(matrix, 2, 1, 0).shape == (2, 2)
    assert not np.array_equal(runs_of(matrix, 4, 3, 1), trials)


@pytest.mark.parametrize("kind", simulate.KINDS)
def test_simulated_noise_has_the_variance_that_is_said(kind: str) -> None:
    residuals = []
    for seed in range(40):
        study = simulate.study(kind, 10, 3, seed)
        good = study[np.argsort(study.mean((1, 2)))[-20:]]
        centred = good - good.mean((1, 2), keepdims=True) - good.mean(0, keepdims=True) + good.mean()
        residuals.append(centred.mean(2).std() / (0.01 * (4 / 3) ** 0.5))
    assert 0.85 < np.mean(residuals) < {"gaussian": 1.05, "t3": 1.05, "heteroscedastic": 1.4}.get(kind, 1.7)


# The results that are committed ----------------------------------------------------------------------------------


def test_real_tasks_hold() -> None:
    assert len(REPORT["tasks"]) >= 6
    assert all(shape == [60, 10, 3] for shape in REPORT["tasks"].values())
    saved = {"5x1": 0.40, "5x3": 0.55, "10x1": 0.47, "10x3": 0.57}
    assert set(REPORT["designs"]) == set(saved)
    for design, least in saved.items():
        ours = REPORT["designs"][design]
        # The bound is proven for Gaussian trials; on real ones it is met on average and not on each task.
        assert ours["false_prune_mean"] <= 0.055, design
        rival = ours["rivals"]["Optuna WilcoxonPruner"]
        assert ours["saved_mean"] > rival["saved_mean"] or ours["false_prune_mean"] < rival["false_prune_mean"]
        assert ours["same_winner_mean"] >= 0.97, design
        assert ours["saved_mean"] >= least, design


@pytest.mark.parametrize("kind", ["gaussian", "heteroscedastic", "t3", "mixed"])
def test_simulations_hold(kind: str) -> None:
    for design, ours in REPORT["simulations"][kind].items():
        assert ours["searches"] >= 400
        assert ours["false_prune"] <= 0.05, design
        assert ours["new_best_pruned"] <= 0.02, design


def test_the_sampler_is_quick() -> None:
    assert set(REPORT["ask_ms"]) == {str(size) for size in sampler.SIZES}
    assert max(REPORT["ask_ms"].values()) < 50
    assert REPORT["rebuild_s"] < 5


def test_the_comparison_with_optuna_has_the_pairs_that_it_needs() -> None:
    of = dict(REPORT["against_optuna"])
    everything = of.pop("all")
    assert set(of) <= set(sampler.COMPARISONS)
    assert len(of) >= 4
    assert all(one["seeds"] >= 30 for one in of.values())
    assert everything["seeds"] == sum(one["seeds"] for one in of.values())
    for one in (*of.values(), everything):
        assert one["not_worse"] == (one["p_worse"] > sampler.WORSE)
        assert one["difference"] < one["upper95"]


def test_verdict_of_pairs() -> None:
    rng = np.random.default_rng(1)
    same, worse = rng.normal(0, 1, 400), rng.normal(0.5, 1, 400)
    fair, bad = sampler.verdict(list(same)), sampler.verdict(list(worse))
    assert fair["not_worse"]
    assert fair["upper95"] < sampler.MARGIN < bad["upper95"]
    assert not bad["not_worse"]
    assert 0.95 < fair["power"] < 1
    assert sampler.verdict(list(same[:30]))["power"] < 0.5
    pairs = sampler.Pairs([1.0, 3.0, 5.0], [0.0, 2.0, 4.0])
    assert pairs.differences == [0.5, 0.5, 0.5]


def test_results_can_be_printed_and_drawn() -> None:
    assert f"{OURS}" in table(REPORT)
    drawn = results(REPORT)
    assert drawn.count("<circle") + drawn.count("<polygon") >= 4 * 6 + 5
    assert (RESULTS / "search.svg").read_text() == drawn
    assert (RESULTS / "racing.svg").read_text() == explained()


def test_the_documentation_shows_these_results() -> None:
    assert markdown(REPORT) in (RESULTS.parents[1] / "docs" / "racing.md").read_text()


def test_figures_are_rates() -> None:
    rng = random.Random(1)
    tally = Tally(
        planned=100, run=60, searches=2, same_winner=1, new_best=4, new_best_lost=1,
        tested_at_equality=[9, 11], lost_at_equality=[1, 0], regret=[0.0, rng.random()],
    )  # fmt: skip
    seen = figures(tally)
    assert (seen["false_prune"], seen["new_best_pruned"], seen["saved"], seen["same_winner"]) == (0.05, 0.25, 0.4, 0.5)
