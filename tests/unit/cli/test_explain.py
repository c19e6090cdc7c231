"""Stories of whole searches on a cluster in memory, held against what the operator really did."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from crossfold_cli.asjson import as_json
from crossfold_cli.errors import UsageError
from crossfold_cli.explain import command, source, words
from crossfold_cli.explain.asking import STARTUP
from crossfold_cli.explain.past import Past, past_of
from crossfold_cli.explain.story import trial_story, tune_story
from crossfold_cli.main import app
from crossfold_operator.names import PLURALS, Kind
from crossfold_operator.search import suggest
from crossfold_operator.search.history import Trial as SearchTrial
from crossfold_operator.search.history import TrialState
from tests.fakes import world as w
from tests.fakes.memory_cluster import MemoryCluster
from tests.fakes.world import World, tune

TRIALS = 16
SPEC: dict[str, Any] = {
    "algorithm": {"name": "TPE", "seed": 7},
    "parameters": [
        {"name": "learning_rate", "type": "Float", "min": 1e-5, "max": 1e-2, "scale": "Log"},
        {"name": "model_encoder", "type": "Categorical", "values": ["resnet18", "resnet34"]},
    ],
    "crossValidation": {"folds": 2},
    "maxTrials": TRIALS,
    "parallelism": 3,
}
CRASHED, DIVERGED = 4, 6
"""Trials that do not end well."""


def script(run: str, attempt: int) -> w.Ending:
    if run == f"t-cv{CRASHED}-f1s42":
        return w.CRASH
    return w.DIVERGED if run == f"t-cv{DIVERGED}-f0s42" else w.SUCCESS


Asked = dict[int, Sequence[SearchTrial]]


@pytest.fixture(scope="module")
def ran() -> tuple[MemoryCluster, Asked]:
    """A search that has ended, and the history with which each trial was really asked."""
    asked: Asked = {}
    real = suggest.ask

    def recording(parameters: Any, algorithm: Any, direction: Any, history: Any, number: int, **more: Any) -> Any:
        asked[number] = list(history)
        return real(parameters, algorithm, direction, history, number, **more)

    cluster = MemoryCluster()
    world = World(cluster, script)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(suggest, "ask", recording)
        cluster.apply(tune(**SPEC))
        asyncio.run(world.run())
    return cluster, asked


def past(cluster: MemoryCluster, name: str = "t") -> Past:
    (found,) = [obj for obj in cluster.of(Kind.TUNE) if obj["metadata"]["name"] == name]
    return past_of(found, cluster.of(Kind.CROSS_VALIDATION), cluster.of(Kind.TRAIN_RUN))


def of_state(history: Sequence[SearchTrial], *states: TrialState) -> tuple[int, ...]:
    return tuple(sorted(trial.number for trial in history if trial.state in states))


# Why these parameters -------------------------------------------------------------------------------------------------


def test_every_trial_is_explained_by_what_the_sampler_was_told(ran: tuple[MemoryCluster, Asked]) -> None:
    cluster, asked = ran
    it = past(cluster)
    assert len(it.trials) == TRIALS
    modelled = 0
    for seen in it.trials:
        asking = trial_story(it, seen).asking
        told = asked[seen.trial.number]
        assert asking.reproduced
        assert asking.running == of_state(told, TrialState.RUNNING)
        telling = of_state(told, TrialState.COMPLETE, TrialState.UNSTABLE, TrialState.PRUNED)
        if len(telling) >= STARTUP:
            modelled += 1
            assert asking.informed_by == telling
            assert asking.how == f"by the model, which {len(telling)} ended trials informed"
            assert DIVERGED not in asking.good
            assert CRASHED not in asking.informed_by
        else:
            assert asking.informed_by == asking.good == ()
            assert (
                asking.how == f"at random: the model needs {STARTUP} ended trials to learn from, and had {len(telling)}"
            )
        complete = [trial for trial in told if trial.state is TrialState.COMPLETE]
        best = max(complete, key=lambda trial: (trial.value or 0, -trial.number), default=None)
        assert asking.best == (None if best is None else (best.number, best.value))
    assert modelled >= 3


def test_a_story_that_cannot_be_told_again_says_so(ran: tuple[MemoryCluster, Asked]) -> None:
    cluster, _ = ran
    (found,) = cluster.of(Kind.TUNE)
    edited = {**found, "spec": {**found["spec"], "algorithm": {**found["spec"]["algorithm"], "seed": 8}}}
    it = past_of(edited, cluster.of(Kind.CROSS_VALIDATION), [])
    told = trial_story(it, it.trials[-1])
    assert told.asking.reproduced is False
    assert any("the sampler chooses otherwise" in line for line in words.of_trial(told))


@pytest.mark.parametrize(
    ("algorithm", "how"),
    [
        ({"name": "Grid", "seed": 3}, "cell 2 of 4 in the order of the seed 3, whatever the others scored"),
        ({"name": "Random", "seed": 3}, "at random, by the seed 3 and the trial's number alone"),
    ],
)
def test_samplers_that_learn_nothing(algorithm: Mapping[str, Any], how: str) -> None:
    cluster = MemoryCluster()
    parameters = [{"name": "batch_size", "type": "Categorical", "values": [4, 8, 12, 16]}]
    cluster.apply(tune(algorithm=algorithm, parameters=parameters, maxTrials=3))
    asyncio.run(World(cluster).run())
    it = past(cluster)
    asking = trial_story(it, it.trials[1]).asking
    assert asking.how == how
    assert asking.reproduced
    assert asking.informed_by == asking.running == asking.good == ()


@pytest.mark.parametrize(
    ("algorithm", "first", "last"),
    [
        ({"name": "TPE", "settings": {"startupTrials": 3}}, "at random: the model needs 3", "by the model, which 6"),
        ({"name": "GP", "settings": {"startupTrials": 3}}, "from a Sobol sequence: the model needs 3", "by the model"),
        ({"name": "CMAES"}, "from the generation that 1", "from the generation that 6"),
        ({"name": "Sobol", "seed": 5}, "the next point of the Sobol sequence of the seed 5", "the next point"),
    ],
    ids=lambda value: value["name"] if isinstance(value, dict) else "",
)
def test_every_algorithm_is_asked_once_more(algorithm: Mapping[str, Any], first: str, last: str) -> None:
    cluster = MemoryCluster()
    parameters = [
        {"name": "learning_rate", "type": "Float", "min": 1e-5, "max": 1e-2, "scale": "Log"},
        {"name": "gamma", "type": "Float", "min": 0.9, "max": 0.999, "scale": "ReverseLog"},
    ]
    initial = [{"parameters": [{"name": "learning_rate", "value": 1e-3}]}]
    cluster.apply(
        tune(
            algorithm=algorithm,
            parameters=parameters,
            initialTrials=initial,
            maxTrials=7,
            parallelism=1,
            racing={"enabled": False},
        )
    )
    asyncio.run(World(cluster).run())
    it = past(cluster)
    told = [trial_story(it, seen).asking for seen in it.trials]
    assert [asking.reproduced for asking in told] == [True] * 7
    assert told[0].how.startswith("as spec.initialTrials[0] says")
    assert told[1].how.startswith(first)
    assert told[6].how.startswith(last)


def test_a_search_that_started_from_another() -> None:
    cluster = MemoryCluster()
    world = World(cluster)
    spec = {**SPEC, "parallelism": 1, "racing": {"enabled": False}}
    cluster.apply(tune("pilot", **{**spec, "maxTrials": 11}))
    asyncio.run(world.run())
    cluster.apply(tune("next", **{**spec, "maxTrials": 3}, warmStart=[{"name": "pilot"}]))
    asyncio.run(world.run())

    def run(*arguments: str) -> str:
        kinds = {
            "tunes": [Kind.TUNE],
            "crossvalidations": [Kind.CROSS_VALIDATION],
            "crossvalidations,trainruns": [Kind.CROSS_VALIDATION, Kind.TRAIN_RUN],
        }
        return json.dumps({"items": [obj for kind in kinds[arguments[1]] for obj in cluster.of(kind)]})

    found = source.from_cluster("next", run)
    it = past_of(found.tune, found.cross_validations, found.train_runs, found.sources)
    assert len(it.start) == 11
    told = trial_story(it, it.trials[0])
    assert told.asking.reproduced
    assert told.asking.how == "by the model, which 11 ended trials informed"
    assert told.asking.started_from == tuple(f"pilot/{number}" for number in range(11))
    assert "  started from 11 trials of pilot" in words.of_trial(told)
    assert tune_story(it).history_reproduced
    alone = past_of(found.tune, found.cross_validations, found.train_runs)
    assert not trial_story(alone, alone.trials[0]).asking.reproduced


def test_numbers_in_a_row_are_one() -> None:
    assert words.numbers_text([0, 1, 2, 5, 4, 7, 8]) == "0-2, 5, 4, 7-8"
    assert words.numbers_text(range(0, 60, 2)) == "0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22 and 18 more"


# What became of them --------------------------------------------------------------------------------------------------


def test_a_complete_trial_is_compared_with_the_best_there_was(ran: tuple[MemoryCluster, Asked]) -> None:
    cluster, _ = ran
    it = past(cluster)
    trials = {seen.trial.number: seen for seen in it.trials}
    complete = sorted(
        (seen for seen in trials.values() if seen.trial.score is not None and seen.trial.phase == "Complete"),
        key=lambda seen: (seen.ended, seen.trial.number),
    )
    order = sorted(complete, key=lambda seen: -seen.trial.score)
    for seen in complete:
        before = [other for other in complete if other.ended < seen.ended]
        compared = trial_story(it, seen).comparison
        assert compared is not None
        assert compared.rank == order.index(seen) + 1
        assert compared.ranked == len(complete)
        if not before:
            assert compared.against is None
            continue
        best = max(before, key=lambda other: other.trial.score)
        assert compared.against == best.trial.number
        assert compared.better_by == pytest.approx(seen.trial.score - best.trial.score)
        own = {run.unit: float(run.record.score) for run in seen.runs}
        theirs = {run.unit: float(run.record.score) for run in best.runs}
        assert compared.units == 2
        assert compared.units_better == sum(own[unit] > theirs[unit] for unit in own)


def test_trials_that_did_not_end_well(ran: tuple[MemoryCluster, Asked]) -> None:
    cluster, _ = ran
    it = past(cluster)
    crashed = trial_story(it, it.trials[CRASHED])
    assert (crashed.phase, crashed.comparison) == ("Failed", None)
    assert crashed.outcome == "fold 1 seed 42: Crash: Traceback: KeyError"
    diverged = trial_story(it, it.trials[DIVERGED])
    assert diverged.phase == "Unstable"
    assert diverged.outcome == "fold 0 seed 42: no score to compare: the loss is not finite"


def test_the_story_of_the_tune(ran: tuple[MemoryCluster, Asked]) -> None:
    cluster, _ = ran
    it = past(cluster)
    told = tune_story(it)
    assert (told.phase, told.why) == ("Complete", f"all {TRIALS} trials have ended")
    status = cluster.status(Kind.TUNE, "t")
    assert told.leader is not None
    assert told.leader.trial == status["best"]["trial"]
    assert told.records[-1].trial == told.leader.trial
    scores = [record.score for record in told.records]
    assert scores == sorted(scores)
    assert [trial.trial for trial in told.others["Failed"]] == [CRASHED]
    assert [trial.trial for trial in told.others["Unstable"]] == [DIVERGED]
    assert told.comparison is not None
    assert told.comparison.against == status["top"][1]["trial"]
    assert told.history_digest == status["search"]["historyDigest"]
    assert told.history_reproduced
    text = "\n".join(words.of_tune(told))
    assert f"Tune t is Complete: all {TRIALS} trials have ended" in text
    assert "ahead of trial" in text
    assert f"trial {CRASHED}: fold 1 seed 42: Crash: Traceback: KeyError" in text


def test_a_running_search() -> None:
    cluster = MemoryCluster()
    world = World(cluster)
    cluster.apply(tune(**SPEC))

    async def begin() -> None:
        for _ in range(3):
            await world.step()

    assert words.of_tune(tune_story(past(cluster)))[0] == "Tune t is Pending"
    asyncio.run(begin())
    it = past(cluster)
    assert it.trials[-1].ended is None
    told = trial_story(it, it.trials[-1])
    assert told.comparison is None
    assert words.of_trial(told)[-1].strip() == "Running"


def test_the_json_has_the_data_as_they_are(ran: tuple[MemoryCluster, Asked]) -> None:
    cluster, _ = ran
    it = past(cluster)
    content = json.loads(json.dumps(as_json(trial_story(it, it.trials[-1]))))
    assert set(content["parameters"]) == {"learning_rate", "model_encoder"}
    assert content["asking"]["informedBy"] == list(trial_story(it, it.trials[-1]).asking.informed_by)
    assert content["asked"].startswith("2026-01-01T")
    assert json.dumps(as_json(tune_story(it)))


# Where the objects are ------------------------------------------------------------------------------------------------


def folder(base: Path, cluster: MemoryCluster) -> Path:
    """The cluster's objects as a local run keeps them."""
    for kind in (Kind.TUNE, Kind.CROSS_VALIDATION, Kind.TRAIN_RUN):
        for obj in cluster.of(kind):
            path = base / "tune-t" / "objects" / PLURALS[kind] / "default" / f"{obj['metadata']['name']}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(obj))
    return base


def kubectl(cluster: MemoryCluster) -> Any:
    """Kubectl's answers."""

    def run(*arguments: str) -> str:
        kinds = {"tunes": [Kind.TUNE], "crossvalidations,trainruns": [Kind.CROSS_VALIDATION, Kind.TRAIN_RUN]}
        assert arguments[0] == "get"
        return json.dumps({"items": [obj for kind in kinds[arguments[1]] for obj in cluster.of(kind)]})

    return run


def test_a_folder_and_a_cluster_tell_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ran: tuple[MemoryCluster, Asked]
) -> None:
    cluster, _ = ran
    folder(tmp_path / "runs" / "state", cluster)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "kubectl_in", lambda namespace: kubectl(cluster))
    arguments: dict[str, Any] = {"trial": 12, "namespace": None, "state": None, "output": "text"}
    local, where = command.explain("tune/t", **arguments)
    assert where == "runs/state/tune-t"
    remote, where = command.explain("tn/t", **{**arguments, "namespace": "d"})
    assert where == "the cluster"
    assert local == remote
    result = CliRunner().invoke(app, ["explain", "tune/t", "--trial", "12"])
    assert result.exit_code == 0
    assert result.stdout == f"{local}\n"
    assert result.stderr == "from runs/state/tune-t\n"
    parsed = json.loads(CliRunner().invoke(app, ["explain", "t", "-o", "json"]).stdout)
    assert parsed["phase"] == "Complete"


def test_an_earlier_tree_of_the_same_name_is_not_mixed_in(ran: tuple[MemoryCluster, Asked]) -> None:
    cluster, _ = ran
    (found,) = cluster.of(Kind.TUNE)
    anew = {**found, "metadata": {**found["metadata"], "uid": "another"}, "status": {}}

    def run(*arguments: str) -> str:
        items = [anew] if arguments[1] == "tunes" else cluster.of(Kind.CROSS_VALIDATION)
        return json.dumps({"items": items})

    assert source.from_cluster("t", run).cross_validations == []


@pytest.mark.parametrize(
    ("target", "options", "message"),
    [
        ("tune/u", {}, "there is no Tune 'u' below .*: there are t"),
        ("u", {}, "there is no Tune 'u' below .*: there are t"),
        ("tune/t", {"trial": 99}, "--trial 99 does not exist: Tune t has trials 0 to 15"),
        ("cv/t-cv1", {}, "'cv/t-cv1' is a CrossValidation, and only a Tune has a story"),
        ("trainruns.crossfold.dev/a", {}, "is a TrainRun, and only a Tune has a story"),
        ("pod/t", {}, "'pod/t' names no kind that is known: write tune/t"),
        ("tune/", {}, "'tune/' has no name"),
        ("tune/t", {"output": "yaml"}, "-o yaml is not known: use text or json"),
    ],
)
def test_what_cannot_be_explained(
    tmp_path: Path, ran: tuple[MemoryCluster, Asked], target: str, options: dict[str, Any], message: str
) -> None:
    arguments = {"trial": None, "namespace": None, "state": folder(tmp_path, ran[0]), "output": "text"}
    with pytest.raises(UsageError, match=message):
        command.explain(target, **{**arguments, **options})


def test_a_trial_that_was_deleted(tmp_path: Path, ran: tuple[MemoryCluster, Asked]) -> None:
    base = folder(tmp_path, ran[0])
    (base / "tune-t" / "objects" / "crossvalidations" / "default" / "t-cv2.json").unlink()
    arguments: dict[str, Any] = {"namespace": None, "state": base, "output": "text"}
    with pytest.raises(UsageError, match="--trial 2: its CrossValidation was deleted"):
        command.explain("tune/t", trial=2, **arguments)
    text, _ = command.explain("tune/t", trial=None, **arguments)
    assert "Deleted: 1\n  trial 2: its CrossValidation is gone" in text
    assert "it was told other things than the objects say now" in text


def test_no_tune_at_all(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"there is no Tune 't' below .*: there is none"):
        command.explain("tune/t", trial=None, namespace=None, state=tmp_path, output="text")


def test_a_file_that_is_no_object(tmp_path: Path, ran: tuple[MemoryCluster, Asked]) -> None:
    base = folder(tmp_path, ran[0])
    (base / "tune-t" / "objects" / "trainruns" / "default" / "t-cv2-f0s42.json").write_text("{")
    with pytest.raises(UsageError, match=r"t-cv2-f0s42\.json holds no object"):
        command.explain("tune/t", trial=None, namespace=None, state=base, output="text")
