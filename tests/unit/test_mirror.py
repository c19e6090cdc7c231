"""Every rule that compares scores, in both directions: on mirrored scores it decides the mirrored thing.

Each rule below says what it makes of scores on a side, with scores in what it says taken back to the side that is
maximised. Whole searches are mirrored in reconcile/test_mirror.py.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import pytest
import yaml

from crossfold_cli.progress import Progress as Progressed
from crossfold_cli.progress import last_progress
from crossfold_operator import problems
from crossfold_operator.api.algorithm import AlgorithmSpec
from crossfold_operator.api.parameters import ParameterSpec
from crossfold_operator.api.tune import TuneSpec
from crossfold_operator.names import CrossValidationPhase
from crossfold_operator.observe.trials import Trial
from crossfold_operator.plan.ranking import ahead, leading, ranking
from crossfold_operator.plan.spending import Spent
from crossfold_operator.plan.verdict import halt
from crossfold_operator.search import pruning, racing, racing_words, told
from crossfold_operator.search.history import Trial as Told
from crossfold_operator.search.history import TrialState
from crossfold_operator.search.sampler import ask
from crossfold_operator.search.space import space_of
from crossfold_operator.search.warm_start import Source, warm_start
from crossfold_trainer import tables
from crossfold_trainer.contract.curve import curve_of
from crossfold_trainer.contract.metrics import Direction
from crossfold_trainer.contract.objective import ObjectiveSpec
from crossfold_trainer.contract.scoring import Score, better, rank, run_score, score_direction, score_range
from crossfold_trainer.contract.trainer import TrainerSpec
from crossfold_trainer.live import report_of
from crossfold_trainer.meter import Meter
from crossfold_trainer.progress import Progress
from crossfold_trainer.tracking import epoch_line
from tests.fakes.world import tune
from tests.finished import result_of, run_of
from tests.mirrored import DOWN, METRIC, UP, WRONG, Side, unsigned

Rule = Callable[[Side], Any]

SCORES = (0.5, 0.62, 0.41, 0.62, 0.7, 0.33, 0.69, 0.55, 0.7, 0.2, 0.64, 0.31)
"""With ties at the top and below."""


# The contract and the trainer -----------------------------------------------------------------------------------------


def order(side: Side) -> Any:
    """Which of two scores is better, and who comes first."""
    pairs = [better(side.of(a), side.of(b), side.direction) for a in SCORES for b in SCORES]
    return pairs, sorted(range(len(SCORES)), key=lambda n: rank(side.of(SCORES[n]), n, side.direction))


def curve(side: Side) -> Any:
    """What a run tells of its scores while it trains."""
    points = curve_of([(n + 1, side.of(score)) for n, score in enumerate(SCORES)], [3, 6, 9], side.direction)
    return [(point.epoch, side.of(point.best), side.of(point.mean)) for point in points]


def kept_epoch(side: Side) -> Any:
    """The epoch that a run keeps, its patience, and what it reports of itself."""
    progress, told_of = Progress(), []
    settings = TrainerSpec.model_validate({"maxEpochs": 99, "earlyStoppingPatience": 4})
    config = run_of("runs", 0, objective=side.manifest)
    for epoch, score in enumerate(SCORES):
        progress.epoch = epoch + 1
        # Each third one cannot be compared.
        seen = Score(side.of(score), stable=epoch % 3 != 1)
        improved = progress.count_validation(epoch, seen, {METRIC: side.of(score)}, side.direction)
        report = report_of(config, progress, 1, Meter(), 0.0)
        assert report.epoch_of_score is not None
        told_of.append((improved, side.back(report.score), report.epoch_of_score, progress.finished(settings)))
    return told_of


def best_of_tables(side: Side) -> Any:
    """best.yaml, and the rank of a record that was written down."""
    rows = []
    for trial, mean in enumerate(SCORES):
        for fold in range(2):
            config = run_of("runs", trial, fold, runs=2, objective=side.manifest)
            score = side.of(mean + 0.01 * fold)
            result = result_of(config, score, values={METRIC: score}, stable=trial != 4)
            rows.append(tables.row_of(config, result))
    best = tables.best_of(rows, 2, side.direction)
    assert best is not None
    content = tables.record(best, run_of("runs", 0, runs=2, objective=side.manifest))
    found = yaml.safe_load(content)
    record = tables.read_record(content)
    assert record is not None
    held = record._replace(score=side.of(0.6))
    return (
        found["trial"],
        side.of(found["score"]),
        found["std"],
        [side.of(run["score"]) for run in found["runs"]],
        found["objective"]["direction"] == str(side.direction),
        best.rank(side.direction) < held.rank(side.direction),
    )


# The operator ---------------------------------------------------------------------------------------------------------


def trials_of(side: Side, scores: Sequence[float | str] = SCORES) -> list[Trial]:
    """A number is a complete trial's score, a text the phase of another one."""
    return [
        Trial(
            number=number,
            name=f"t-cv{number}",
            uid=f"u{number}",
            phase=CrossValidationPhase(score if isinstance(score, str) else "Complete"),
            parameters={},
            score=None if isinstance(score, str) else side.of(score),
        )
        for number, score in enumerate(scores)
    ]


def spec_of(side: Side, **changes: Any) -> TuneSpec:
    return TuneSpec.model_validate(tune(objective=side.manifest, **changes)["spec"])


def top_ten(side: Side) -> Any:
    """The ranking, and its first ten."""
    trials = trials_of(side)
    return [t.number for t in ranking(side.objective, trials)], [t.number for t in leading(side.objective, trials)]


def bar(side: Side) -> Any:
    """What is better by so much."""
    return [side.of(ahead(side.of(score), 0.25, side.direction)) for score in SCORES]


def target(side: Side) -> Any:
    found = [halt(spec_of(side, target=side.of(at)), trials_of(side), Spent()) for at in (0.3, 0.62, 0.7, 0.8)]
    return [None if end is None else (end.reason, unsigned(end.message)) for end in found]


def early_stopping(side: Side) -> Any:
    searches: list[list[float | str]] = [
        [0.5, 0.4, 0.3, "Running"],
        [0.3, 0.4, 0.5],
        [0.5, "Unstable", "Pruned"],
        [0.5, 0.55, 0.59],
        [0.5, 0.5, 0.5],
    ]
    rules = [{"patience": 2}, {"patience": 2, "minDelta": 0.06}]
    ends = [
        halt(spec_of(side, earlyStopping=rule), trials_of(side, scores), Spent())
        for scores in searches
        for rule in rules
    ]
    return [None if end is None else (end.reason, unsigned(end.message)) for end in ends]


def median_stop(side: Side) -> Any:
    found = [
        pruning.median_stop(5, side.of(best), [side.of(s) for s in SCORES[:count]], side.direction, min_peers=4)
        for best in (0.2, 0.5, 0.55, 0.585, 0.9)
        for count in (3, 5, 12)
    ]
    return _verdicts(side, found)


def asha(side: Side) -> Any:
    found = [
        pruning.asha(5, side.of(best), [side.of(s) for s in SCORES[:count]], side.direction, min_peers=4)
        for best in (0.2, 0.62, 0.69, 0.7, 0.9)
        for count in (3, 5, 12)
    ]
    return _verdicts(side, found)


def _verdicts(side: Side, found: Sequence[pruning.Verdict]) -> Any:
    assert {verdict.stop for verdict in found} == {True, False}
    return [
        {**asdict(v), "best": side.of(v.best), "threshold": side.back(v.threshold), "text": unsigned(pruning.text(v))}
        for v in found
    ]


def race(side: Side) -> Any:
    """Looks at good and bad trials, with a bar that minDelta moves, bounds, and a score for failed runs."""
    rng = random.Random(1)
    folds, seeds = 4, 2
    effects = [[rng.gauss(0, 0.03) for _ in range(seeds)] for _ in range(folds)]

    def score(mean: float) -> list[list[float]]:
        return [[side.of(mean + u + rng.gauss(0, 0.01)) for u in row] for row in effects]

    completed: list[racing.CompletedTrial] = [{"number": n, "scores": score(mean)} for n, mean in enumerate(SCORES)]
    bounds = tuple(sorted((side.of(-1), side.of(0.75))))
    looks = []
    for mean in (0.2, 0.6, 0.66, 0.7, 0.75):
        rows = score(mean)
        for done in range(1, folds * seeds + 1):
            obs: list[racing.Observation] = [(n % folds, n // folds, rows[n % folds][n // folds]) for n in range(done)]
            for failed in (None, side.of(0.1)):
                seen = [(f, s, None if failed is not None and (f, s) == (0, 0) else y) for f, s, y in obs]
                looks.append(
                    racing.decide(
                        seen, completed, folds, seeds, side.direction, min_delta=0.01, failure_score=failed,
                        bounds=(bounds[0], bounds[1]),
                    )
                )  # fmt: skip
    assert {look.reason for look in looks} >= {
        racing.Reason.EVIDENCE,
        racing.Reason.UNDECIDED,
        racing.Reason.NO_LOOK,
    }
    scores = ("bar", "predicted", "best_possible")
    return [
        {
            **{name: side.back(value) if name in scores else value for name, value in asdict(look).items()},
            "text": unsigned(racing_words.text(look)),
        }
        for look in looks
    ]


# What samplers are told -----------------------------------------------------------------------------------------------

SPACE = [
    ParameterSpec.model_validate(parameter)
    for parameter in (
        {"name": "learning_rate", "type": "Float", "min": 1e-5, "max": 1e-2, "scale": "Log"},
        {"name": "gamma", "type": "Float", "min": 0.1, "max": 0.9},
        {"name": "model_encoder", "type": "Categorical", "values": ["resnet18", "resnet34"]},
    )
]


def history_of(side: Side, source: str = "") -> list[Told]:
    """Trials of every state; the score falls with gamma."""
    rng = random.Random(3)
    states = [*TrialState, *[TrialState.COMPLETE] * 4]
    space, found = space_of(SPACE), []
    for number in range(40):
        parameters = space.parameters(space.draw(rng))
        state = states[number % len(states)]
        scored = state in (TrialState.COMPLETE, TrialState.PRUNED)
        value = side.of(0.9 - parameters["gamma"] + rng.gauss(0, 0.05)) if scored else None
        found.append(Told(number, parameters, state, value, 2 if state is TrialState.PRUNED else 0, source))
    return found


def samplers(side: Side) -> Any:
    """What TPE, GP and CMA-ES ask next, with trials of another Tune too."""
    history = [*history_of(side), *history_of(side, "pilot")]
    return {
        name: ask(SPACE, AlgorithmSpec.model_validate({"name": name}), side.direction, history, 40)
        for name in ("TPE", "GP", "CMAES")
    }


def the_worst(side: Side) -> Any:
    """What an unstable trial counts as, what a Gaussian process sees, and which of many trials are told."""
    trials = history_of(side)
    losses = told.losses_of(side.direction, trials)
    kept = told.window(trials, losses, 3, 2, 1)
    seen = told.observations(space_of(SPACE), side.direction, trials)
    return side.back(told.worst(trials, losses)), [trial.number for trial in kept], seen.losses, losses


def warm_started(side: Side) -> Any:
    """A Tune of the other direction does not fit."""
    other = UP if side.direction is Direction.MINIMIZE else DOWN
    sources = [Source(name, one.objective, history_of(side)) for name, one in (("same", side), ("other", other))]
    found = warm_start(SPACE, [], side.objective, sources)
    return [(t.source, t.number, side.back(t.value)) for t in found.trials], found.unfit, found.message


RULES: list[Rule] = [
    order,
    curve,
    kept_epoch,
    best_of_tables,
    top_ten,
    bar,
    target,
    early_stopping,
    median_stop,
    asha,
    race,
    samplers,
    the_worst,
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_a_rule_is_the_same_in_the_mirror(rule: Rule) -> None:
    assert rule(DOWN) == rule(UP)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_mirror_shows_a_rule_that_knows_one_direction(rule: Rule) -> None:
    """Each of these rules depends on the direction: taken for the other one, it says something else."""
    try:
        wrong = rule(WRONG)
    except AssertionError:  # it did not even see all that it should
        return
    assert wrong != rule(UP)


def test_warm_start_takes_scores_of_its_own_direction_alone() -> None:
    assert warm_started(UP) == warm_started(DOWN)
    trials, unfit, _ = warm_started(UP)
    assert {source for source, *_ in trials} == {"same"}
    assert list(unfit) == ["Tune other: its objective is another one"]


# Where the mirror is 1 - score: rules that know what the best possible score is ----------------------------------------


def objective_of(name: str) -> ObjectiveSpec:
    return ObjectiveSpec.model_validate({"metrics": [{"name": name}]})


SHARE, ERROR = objective_of("val/JaccardIndex"), objective_of("val/HammingDistance")


def bounded(objective: ObjectiveSpec, first: float) -> racing.Decision:
    """A look at a trial whose first run has a score, given as a share, against trials that are almost perfect."""
    direction = score_direction(objective)

    def of(share: float) -> float:
        return share if direction is Direction.MAXIMIZE else 1 - share

    completed: list[racing.CompletedTrial] = [
        {"number": n, "scores": [[of(0.999 - 2**-9 * ((n * 7 + f * 5) % 3))] for f in range(5)]} for n in range(6)
    ]
    return racing.decide([(0, 0, of(first))], completed, 5, 1, direction, bounds=score_range(objective))


@pytest.mark.parametrize("first", [0.2, 0.6, 0.98, 0.998, 1.0])
def test_racing_knows_the_best_possible_score_in_either_direction(first: float) -> None:
    share, error = bounded(SHARE, first), bounded(ERROR, first)
    assert error.reason == share.reason
    for name in ("p", "p_beat", "se", "z", "var_fold", "lam"):
        assert getattr(error, name) == pytest.approx(getattr(share, name), rel=1e-6, abs=1e-300), name
    for name in ("bar", "predicted", "best_possible"):
        assert getattr(error, name) == pytest.approx(1 - getattr(share, name)), name


def target_problems(objective: dict[str, Any], at: float) -> list[str]:
    return problems.of_spec(TuneSpec.model_validate(tune(objective=objective, target=at)["spec"]))


@pytest.mark.parametrize(
    ("share", "ends"), [(-0.5, ("least", "most")), (0.0, None), (0.5, None), (1.0, None), (1.5, ("most", "least"))]
)
def test_a_target_beyond_the_metric_is_refused_in_either_direction(share: float, ends: tuple[str, str] | None) -> None:
    """The end of the range that a target is beyond is the other one in the mirror, and so is the remedy."""
    remedy = {"most": "lower it", "least": "raise it"}
    for side, (name, at) in enumerate((("val/JaccardIndex", share), ("val/HammingDistance", 1 - share))):
        found = target_problems({"metrics": [{"name": name}]}, at)
        if ends is None:
            assert found == []
            continue
        (problem,) = found
        assert problem.startswith(f"spec.target: a score is at {ends[side]}")
        assert f"{at:g}" in problem
        assert problem.endswith(remedy[ends[side]])


def test_the_target_of_a_combined_score_may_be_what_a_perfect_run_scores() -> None:
    names = ("val/JaccardIndex", "val/HammingDistance")
    both = {"metrics": [{"name": name} for name in names]}
    perfect = run_score(dict(zip(names, (1.0, 0.0), strict=True)), ObjectiveSpec.model_validate(both)).value
    assert perfect is not None
    assert target_problems(both, perfect) == []
    (problem,) = target_problems(both, 2)
    assert "at most 1.999999998, and 2 is beyond it" in problem


@pytest.mark.parametrize("first", [0.5, 1.0])
def test_nothing_is_better_than_perfect(first: float) -> None:
    """Against a perfect trial any other one is pruned: by the bounds, as no score is better than 0, or than 1.

    What is not the same in this mirror: the least noise that racing reckons with is a share of the bar, so that it
    is 1e-4 where the best is 1, and next to nothing where it is 0.
    """
    found = {}
    for objective, perfect in ((SHARE, 1.0), (ERROR, 0.0)):
        direction = score_direction(objective)
        completed: list[racing.CompletedTrial] = [{"number": n, "scores": [[perfect]] * 5} for n in range(6)]
        score = first if direction is Direction.MAXIMIZE else 1 - first
        look = racing.decide([(0, 0, score)], completed, 5, 1, direction, bounds=score_range(objective))
        assert look.prune
        assert repr(look.bar) == repr(perfect)  # not -0.0
        assert "-0" not in racing_words.text(look).replace("1e-", "")
        found[direction] = look.reason
    assert len(set(found.values())) == 1


# Texts ----------------------------------------------------------------------------------------------------------------


def line_of(score: float) -> str:
    """What an epoch says of itself."""
    return epoch_line(3, 6, loss=0.1, metrics={METRIC: score}, score=Score(score, True), best=True, seconds=1.2)


def test_an_epoch_s_line_keeps_the_sign_and_the_digits_of_scores_near_0() -> None:
    for score in SCORES:
        assert unsigned(line_of(DOWN.of(score))) == line_of(score)
    assert line_of(0.7123) == "epoch 3/6 loss=0.1 val/Mine=0.7123 score=0.7123 best 1.2s"
    assert last_progress(line_of(0.000412).encode()) == Progressed(3, 6, "0.0004120")


# The one rule that is not mirrored -------------------------------------------------------------------------------------


def test_0_is_not_mirrored() -> None:
    """Where more is better, 0 is what a model scores that has learned nothing, and cannot be compared.

    Where less is better, 0 is a perfect score. Its mirror is 1, which is stable too.
    """
    assert not run_score({"val/JaccardIndex": 0.0}, SHARE).stable
    assert run_score({"val/HammingDistance": 1.0}, ERROR).stable
    assert run_score({"val/HammingDistance": 0.0}, ERROR) == (0.0, True, "")
    assert run_score({"val/JaccardIndex": 1.0}, SHARE) == (1.0, True, "")
