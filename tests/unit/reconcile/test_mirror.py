"""Whole searches in both directions: with mirrored scores they ask, prune, stop, rank and tell the mirrored thing."""

import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import pytest

from crossfold_cli import report
from crossfold_cli.asjson import as_json
from crossfold_cli.explain import words
from crossfold_cli.explain.past import Past, past_of
from crossfold_cli.explain.story import trial_story, tune_story
from crossfold_cli.view import node_of
from crossfold_operator.cluster.base import Obj
from crossfold_operator.names import Kind
from crossfold_trainer.contract.objective import ObjectiveSpec
from crossfold_trainer.contract.scoring import run_score
from tests.fakes import world as w
from tests.fakes.memory_cluster import MemoryCluster
from tests.fakes.training import Training
from tests.fakes.world import World, tune
from tests.mirrored import DOWN, METRIC, UP, WRONG, Side, unsigned

LEVELS = (0.70, 0.69, 0.68, 0.71, 0.30, 0.712, 0.45, 0.66, 0.73, 0.35, 0.69, 0.40, 0.705, 0.2)
"""Of the trials, by number; the ninth is the best."""
CRASHED, DIVERGED = 2, 1
NO_VALUES = w.Ending(changes={**w.DIVERGED.changes, "values": {}})
FOLDS = 4


def unit_of(run: str) -> tuple[int, int]:
    found = re.fullmatch(r"t-cv(\d+)-f(\d+)s42", run)
    assert found is not None
    return int(found[1]), int(found[2])


def script(run: str, attempt: int) -> w.Ending:
    trial, fold = unit_of(run)
    if (trial, fold) == (CRASHED, 1):
        return w.CRASH
    return NO_VALUES if (trial, fold) == (DIVERGED, 2) else w.SUCCESS


def level(run: str) -> float:
    trial, fold = unit_of(run)
    return LEVELS[trial % len(LEVELS)] + 0.02 * fold + 0.004 * ((trial * 7 + fold * 5) % 3 - 1)


def growing(run: str, epoch: int) -> float:
    """A score that grows with the epochs, but falls a little in the last one."""
    return round(level(run) - 0.3 / epoch - 0.01 * (epoch == 6), 6)


SEARCHES: dict[str, dict[str, Any]] = {
    "racing": {"parallelism": 3},
    "audit": {"parallelism": 2, "racing": {"audit": 0.6, "minDelta": 0.005}},
    "median stop": {"parallelism": 2, "pruning": {"method": "MedianStop", "minEpochs": 2, "audit": 0.3}},
    "ASHA": {"parallelism": 4, "pruning": {"method": "ASHA", "minEpochs": 2, "reductionFactor": 2}},
    "early stopping": {"parallelism": 2, "earlyStopping": {"patience": 3, "minDelta": 0.001}},
    "target": {"parallelism": 2, "target": 0.66},
    "one trial": {"maxTrials": 1},
}


def searched(name: str, side: Side) -> World:
    """A search that has ended."""
    content: dict[str, Any] = {
        "objective": side.manifest,
        "algorithm": {"name": "TPE", "settings": {"startupTrials": 5}},
        "parameters": [
            {"name": "learning_rate", "type": "Float", "min": 1e-5, "max": 1e-2, "scale": "Log"},
            {"name": "model_encoder", "type": "Categorical", "values": ["resnet18", "resnet34"]},
        ],
        "maxTrials": len(LEVELS),
        "crossValidation": {"folds": FOLDS},
        "trainer": {"maxEpochs": 6, "checkValEveryNEpoch": 1},
        **SEARCHES[name],
    }
    if "target" in content:
        content["target"] = side.of(content["target"])
    world = Training(MemoryCluster(), script, lambda run, epoch: side.of(growing(run, epoch)))
    world.cluster.apply(tune(**content))
    return world


@cache
def kept(name: str, side: Side) -> World:
    return searched(name, side)


async def ran(name: str, side: Side) -> World:
    it = kept(name, side)
    if not it.cluster.of(Kind.CROSS_VALIDATION):
        await it.run()
    return it


OTHERWISE = {"digest", "artifactUri", "checkpointUri", "historyDigest", "direction", "objective", "configDigest"}
"""Fields that say which direction it is, or follow from a text of it."""
SCORED = {"score", "mean", "bar", "best", "predicted", "threshold", "target", "itsScore", "bestPossible"}
"""Fields that hold scores, as numbers or as decimals."""


def in_mirror(value: Any, side: Side, field: str = "") -> Any:
    """Objects as they would be where scores are maximised; texts without their signs, on either side."""
    match value:
        case Mapping():
            ends = {"min", "max"} <= value.keys() and "mean" in value
            swapped = {"min": "max", "max": "min"} if ends and side.sign < 0 else {}
            return {
                swapped.get(name, name): in_mirror(item, side, "score" if ends and name in ("min", "max") else name)
                for name, item in value.items()
                if name not in OTHERWISE
            }
        case list() | tuple():
            inner = "score" if field == "best" else field  # explain: number and score of the best trial then
            return [
                in_mirror(item, side, inner) if not (field == "best" and isinstance(item, int)) else item
                for item in value
            ]
        case str() if field in SCORED or field == METRIC:
            return number_text(value, side)
        case float() if field in SCORED or field == METRIC:
            return side.of(value)
        case str():
            return unsigned(value).replace("Minimize", "Maximize")
        case _:
            return value


def number_text(text: str, side: Side) -> Any:
    try:
        return side.of(float(text))
    except ValueError:
        return unsigned(text)


def past(it: World) -> Past:
    (found,) = it.cluster.of(Kind.TUNE)
    return past_of(found, it.cluster.of(Kind.CROSS_VALIDATION), it.cluster.of(Kind.TRAIN_RUN))


def objects(it: World, side: Side) -> Any:
    """Everything that is left in the cluster: parameters, decisions with their numbers, statuses, columns."""
    return in_mirror(w.tree(it.cluster), side)


def events(it: World, side: Side) -> Any:
    """Everything that was told as an Event."""
    return in_mirror([list(event) for event in it.cluster.events], side)


def explained(it: World, side: Side) -> Any:
    """The stories of the search and of each trial, as JSON and in words."""
    story = past(it)
    search, trials = tune_story(story), [trial_story(story, seen) for seen in story.trials]
    lines = [words.of_tune(search), *map(words.of_trial, trials)]
    moved = f"How the best score {'rose' if side.sign > 0 else 'fell'}"
    assert moved in lines[0]
    lines[0].remove(moved)
    return in_mirror([as_json(one) for one in (search, *trials)], side), in_mirror(lines, side)


def shown(it: World, side: Side) -> Any:
    """The tree that the CLI draws, and its last words."""
    (root,) = it.cluster.of(Kind.TUNE)
    below: Callable[[Kind, str], list[Obj]] = lambda kind, uid: [  # noqa: E731
        obj for obj in it.cluster.of(kind) if obj["metadata"]["ownerReferences"][0]["uid"] == uid
    ]
    nodes = [
        (node.name, node.phase, node.progress, unsigned(node.score), unsigned(node.reason), node.best)
        for node in node_of(root, below, lambda _: None).walk()
    ]
    return nodes, unsigned(report.summary(root, it.cluster.of(Kind.TRAIN_RUN), lambda _: None, ""))


@pytest.mark.parametrize("view", [objects, events, explained, shown], ids=lambda view: view.__name__)
@pytest.mark.parametrize("name", SEARCHES)
async def test_a_search_is_the_same_in_the_mirror(name: str, view: Callable[[World, Side], Any]) -> None:
    up, down = await ran(name, UP), await ran(name, DOWN)
    assert view(down, DOWN) == view(up, UP)


@pytest.mark.parametrize("name", SEARCHES)
async def test_the_searches_show_what_they_are_for(name: str) -> None:
    it = await ran(name, UP)
    status = it.cluster.status(Kind.TUNE, "t")
    stops = [trial["spec"].get("stop", {}) for trial in it.cluster.of(Kind.CROSS_VALIDATION)]
    reasons = {c["type"]: c["reason"] for c in status["conditions"] if c["status"] == "True"}
    match name:
        case "racing":
            assert status["best"]["trial"] == 8
            assert sum("look" in stop for stop in stops) >= 3
            assert status["trials"]["unstable"] == status["trials"]["failed"] == 1
        case "audit":
            assert status["audit"]["checked"] >= 2
        case "median stop" | "ASHA":
            assert sum("runLook" in stop for stop in stops) >= 2
        case "early stopping":
            assert reasons["Complete"] == "EarlyStopped"
        case "target":
            assert reasons["Complete"] == "TargetReached"
        case _:
            assert status["top"] == [{name: status["best"][name] for name in status["top"][0]}]
    # Taken for the other direction it is another search: the mirror would show it.
    wrong = await ran(name, WRONG)
    assert objects(wrong, WRONG) != objects(it, UP)


# The best value there is ------------------------------------------------------------------------------------------------


def errors(run: str, attempt: int) -> w.Ending:
    """Of the fourth trial some, of the sixth all runs are perfect."""
    trial, fold = unit_of(run)
    error = 0.0 if trial == 5 or (trial == 3 and fold == 1) else round(0.9 - level(run), 6)
    values = {"val/HammingDistance": error}
    found = run_score(values, ObjectiveSpec.model_validate({"metrics": [{"name": "val/HammingDistance"}]}))
    return w.Ending(changes={"score": found.value, "stable": found.stable, "values": values})


async def test_a_perfect_trial_is_stable_the_best_and_ends_the_search_at_its_target() -> None:
    it = World(MemoryCluster(), errors)
    it.cluster.apply(
        tune(
            objective={"metrics": [{"name": "val/HammingDistance"}]},
            algorithm={"name": "TPE", "settings": {"startupTrials": 3}},
            parameters=[{"name": "learning_rate", "type": "Float", "min": 1e-5, "max": 1e-2, "scale": "Log"}],
            crossValidation={"folds": FOLDS},
            maxTrials=12,
            parallelism=1,
            racing={"enabled": False},
            target=0,
        )
    )
    await it.run()
    status = it.cluster.status(Kind.TUNE, "t")
    assert status["trials"]["unstable"] == 0
    assert (status["best"]["trial"], status["best"]["score"]) == (5, "0.0")
    assert next(brief["trial"] for brief in status["top"]) == 5
    assert status["summary"]["best"] == "0.000±0.000"
    assert {c["reason"] for c in status["conditions"] if c["type"] == "Complete"} == {"TargetReached"}
    assert it.cluster.status(Kind.CROSS_VALIDATION, "t-cv3")["phase"] == "Complete"
    story = past(it)
    lines = words.of_tune(tune_story(story))
    assert "How the best score fell" in lines
    assert all(trial_story(story, seen).asking.reproduced for seen in story.trials)
