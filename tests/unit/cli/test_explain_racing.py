"""The looks of racing, taken once more: they are those that the operator took."""

import asyncio
import copy
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from crossfold_cli.explain import words
from crossfold_cli.explain.looks import _first, looks
from crossfold_cli.explain.past import Past, past_of
from crossfold_cli.explain.story import trial_story, tune_story
from crossfold_operator.cluster.base import Key
from crossfold_operator.names import Kind
from crossfold_operator.plan import racing as plan_racing
from crossfold_operator.search import racing
from tests.fakes import world as w
from tests.fakes.memory_cluster import MemoryCluster
from tests.fakes.world import NAMESPACE, World, tune

FOLDS = 5
MEANS = (0.80, 0.79, 0.78, 0.81, 0.50, 0.805, 0.55)
"""The fourth trial is the best; the last three are raced against it."""
BAD = 4


def script(run: str, attempt: int) -> w.Ending:
    """The trial's mean, an effect of the fold that all trials share, and a little that they do not."""
    found = re.fullmatch(r"t-cv(\d+)-f(\d+)s42", run)
    assert found is not None
    trial, fold = map(int, found.groups())
    value = round(MEANS[trial] + 0.02 * fold + 0.004 * ((trial * 7 + fold * 5) % 3 - 1), 6)
    return w.Ending(changes={"score": value, "values": {"val/JaccardIndex": value}})


Taken = list[tuple[int, racing.Decision]]


def search(patch: pytest.MonkeyPatch | None = None, **changes: Any) -> tuple[Past, MemoryCluster, Taken]:
    """A search that has ended, and every look that the operator took."""
    taken: Taken = []
    real = plan_racing.looks

    def recording(spec: Any, trials: Any) -> Any:
        found = real(spec, trials)
        taken.extend((trial.number, decision) for trial, decision in found)
        return found

    content: dict[str, Any] = {
        "algorithm": {"name": "Random"},
        "parameters": [{"name": "learning_rate", "type": "Float", "min": 1e-5, "max": 1e-2}],
        "maxTrials": len(MEANS),
        "parallelism": 2,
        "crossValidation": {"folds": FOLDS},
    }
    cluster = MemoryCluster()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(plan_racing, "looks", recording)
        cluster.apply(tune(**(content | changes)))
        asyncio.run(World(cluster, script).run())
    return past(cluster), cluster, taken


def past(cluster: MemoryCluster, keep: Callable[[Any], bool] = lambda run: True) -> Past:
    (found,) = cluster.of(Kind.TUNE)
    return past_of(found, cluster.of(Kind.CROSS_VALIDATION), [r for r in cluster.of(Kind.TRAIN_RUN) if keep(r)])


@pytest.fixture(scope="module")
def raced() -> tuple[Past, MemoryCluster, Taken]:
    return search()


def test_every_look_is_one_that_the_operator_took(raced: tuple[Past, MemoryCluster, Taken]) -> None:
    it, _, taken = raced
    judged = 0
    for seen in it.trials:
        real = [decision for number, decision in taken if number == seen.trial.number]
        numbers = {(d.reason, d.runs_done, d.p, d.predicted, d.bar) for d in real}
        for look in looks(it, seen):
            if look.recorded:
                assert look.reproduced
                assert any(d.prune and d.p == look.p and d.predicted == look.predicted for d in real)
            else:
                assert (look.reason, look.runs_done, look.p, look.predicted, look.bar) in numbers
            judged += look.p is not None
        # None is left out: whatever the operator saw of the evidence is told.
        told = {(look.runs_done, look.p) for look in looks(it, seen)}
        assert {(d.runs_done, d.p) for d in real if d.p is not None} <= told
    assert judged >= 3


def test_the_story_of_a_pruned_trial(raced: tuple[Past, MemoryCluster, Taken]) -> None:
    it, cluster, _ = raced
    (seen,) = [seen for seen in it.trials if seen.trial.number == BAD]
    told = trial_story(it, seen)
    stop = next(o for o in cluster.of(Kind.CROSS_VALIDATION) if o["metadata"]["name"] == "t-cv4")["spec"]["stop"]
    assert (told.phase, told.outcome) == ("Pruned", stop["message"])
    last = told.looks[-1]
    assert (last.recorded, last.reproduced, last.prune) == (True, True, True)
    assert (last.incumbent, last.p, last.alpha) == (3, stop["look"]["p"], 0.05)
    assert (last.predicted, last.bar) == (stop["look"]["predicted"], stop["look"]["bar"])
    text = "\n".join(words.of_trial(told))
    assert f"{stop['message']}, against trial 3, noise from" in text
    assert "(written down by the operator; looked at once more: the same numbers)" in text


def test_runs_that_ended_in_one_second_may_have_ended_in_any_order(raced: tuple[Past, MemoryCluster, Taken]) -> None:
    it, _, _ = raced
    seen = it.trials[0]
    units = [run.unit for run in seen.runs]
    at = seen.known[units[0]]

    def ways(number: int, known: dict[tuple[int, int], datetime]) -> list[list[int]]:
        return [[unit[0] for unit in (run.unit for run in way)] for way in _first(replace(seen, known=known), number)]

    assert ways(1, dict.fromkeys(units, at)) == [[0], [1], [2], [3], [4]]
    first_is_last = dict.fromkeys(units, at) | {units[0]: at + timedelta(seconds=1)}
    assert ways(3, first_is_last) == [[1, 2, 3], [1, 2, 4], [1, 3, 4], [2, 3, 4]]
    one_before = dict.fromkeys(units, at) | {units[4]: at - timedelta(seconds=1)}
    assert ways(2, one_before) == [[4, 0], [4, 1], [4, 2], [4, 3]]
    assert ways(5, one_before) == [[0, 1, 2, 3, 4]]
    assert ways(2, {}) == [], "their objects are gone: nobody knows"


def test_the_story_of_a_raced_tune(raced: tuple[Past, MemoryCluster, Taken]) -> None:
    it, cluster, _ = raced
    told = tune_story(it)
    status = cluster.status(Kind.TUNE, "t")
    assert [item.trial for item in told.others["Pruned"]] == [4, 5, 6]
    assert told.others["Pruned"][0].why.startswith("pruned after 1/5 runs: anytime p")
    assert told.summary["saved"] == status["summary"]["saved"]
    text = "\n".join(words.of_tune(told))
    assert f"saved      {status['summary']['saved']}" in text
    assert "Pruned: 3" in text


def test_a_number_that_was_changed_is_found_out(raced: tuple[Past, MemoryCluster, Taken]) -> None:
    _, cluster, _ = raced
    altered = copy.deepcopy(cluster.of(Kind.CROSS_VALIDATION))
    next(o for o in altered if o["metadata"]["name"] == "t-cv4")["spec"]["stop"]["look"]["predicted"] = 0.7
    (found,) = cluster.of(Kind.TUNE)
    it = past_of(found, altered, cluster.of(Kind.TRAIN_RUN))
    (seen,) = [seen for seen in it.trials if seen.trial.number == BAD]
    assert trial_story(it, seen).looks[-1].reproduced is False
    text = "\n".join(words.of_trial(trial_story(it, seen)))
    assert (
        "looked at once more: other numbers, though no trial is gone: scores, or what was written, were changed" in text
    )


def test_runs_that_are_gone_leave_what_was_written_down(raced: tuple[Past, MemoryCluster, Taken]) -> None:
    _, cluster, _ = raced
    it = past(cluster, keep=lambda run: False)
    (seen,) = [seen for seen in it.trials if seen.trial.number == BAD]
    (look,) = looks(it, seen)
    assert (look.recorded, look.reproduced) == (True, True)
    assert look.text.startswith("pruned after 1/5 runs")
    told = trial_story(it, seen)
    assert told.untold == 1
    assert "what was not written down cannot be told: TrainRuns are gone, and with them when 1 of its runs ended" in (
        "\n".join(words.of_trial(told))
    )
    # Of a trial that was never stopped nothing was written down.
    told = trial_story(it, it.trials[3])
    assert (told.looks, told.untold) == ((), FOLDS)
    assert not any("no look was taken" in line for line in words.of_trial(told))


def test_which_runs_had_ended_may_be_unknown() -> None:
    it, cluster, _ = search(racing={"audit": 1})
    it = past(cluster, keep=lambda run: not run["metadata"]["name"].startswith(f"t-cv{BAD}-"))
    told = trial_story(it, it.trials[BAD])
    assert told.looks[-1].reproduced is None
    assert "cannot be looked at once more: TrainRuns are gone" in "\n".join(words.of_trial(told))


def test_trials_that_are_gone_are_named(raced: tuple[Past, MemoryCluster, Taken]) -> None:
    _, cluster, _ = raced
    (found,) = cluster.of(Kind.TUNE)
    left = [cv for cv in cluster.of(Kind.CROSS_VALIDATION) if cv["metadata"]["name"] != "t-cv3"]
    it = past_of(found, left, cluster.of(Kind.TRAIN_RUN))
    (seen,) = [seen for seen in it.trials if seen.trial.number == BAD]
    told = trial_story(it, seen)
    assert (told.looks[-1].reproduced, told.looks[-1].deleted) == (False, (3,))
    text = "\n".join(words.of_trial(told))
    assert "looked at once more: other numbers, without trials 3, which were deleted" in text


def test_an_edited_alpha_changes_no_look_before_a_decision(raced: tuple[Past, MemoryCluster, Taken]) -> None:
    it, cluster, _ = raced
    (found,) = cluster.of(Kind.TUNE)
    edited = copy.deepcopy(found)
    edited["spec"]["racing"] = {**edited["spec"].get("racing", {}), "alpha": 0.5}
    later = past_of(edited, cluster.of(Kind.CROSS_VALIDATION), cluster.of(Kind.TRAIN_RUN))
    decided = max(look.at for seen in it.trials for look in looks(it, seen) if look.recorded)
    compared = 0
    for then, now in zip(it.trials, later.trials, strict=True):
        for before, after in zip(looks(it, then), looks(later, now), strict=True):
            if before.at <= decided:
                assert after == before
                compared += before.p is not None
            else:
                assert after.alpha == 0.5
    assert compared >= 3


def test_a_look_that_says_otherwise_than_what_happened_says_so() -> None:
    """Nothing was written down after the edit: today's alpha is all there is to compare with."""
    it, cluster, _ = search(racing={"alpha": 1e-12}, maxTrials=6)
    assert it.trials[5].trial.phase == "Complete"
    (found,) = cluster.of(Kind.TUNE)
    edited = copy.deepcopy(found)
    edited["spec"]["racing"]["alpha"] = 0.5
    later = past_of(edited, cluster.of(Kind.CROSS_VALIDATION), cluster.of(Kind.TRAIN_RUN))
    for known, expected in ((it, False), (later, True)):
        lines = words.of_trial(trial_story(known, known.trials[5]))
        assert any("it went on all the same" in line for line in lines) == expected


def test_an_audited_trial_says_what_it_would_have_been() -> None:
    it, _, _ = search(racing={"audit": 1})
    (seen,) = [seen for seen in it.trials if seen.trial.number == BAD]
    told = trial_story(it, seen)
    assert told.phase == "Complete"
    assert told.outcome.startswith("would have been pruned after 1/5 runs")
    assert told.looks[-1].reproduced
    assert told.comparison is not None


def test_where_racing_is_off() -> None:
    it, _, _ = search(racing={"enabled": False})
    told = trial_story(it, it.trials[BAD])
    assert told.looks == ()
    assert "  racing is off: spec.racing.enabled is false" in words.of_trial(told)


def test_a_trial_of_the_warm_up_says_so(raced: tuple[Past, MemoryCluster, Taken]) -> None:
    it, _, _ = raced
    told = trial_story(it, it.trials[1])
    assert {look.reason for look in told.looks} <= {"warmup", "no_look"}
    assert any("warm-up" in line for line in words.of_trial(told))


def test_a_trial_that_a_person_stopped() -> None:
    cluster = MemoryCluster()
    world = World(cluster, script)
    cluster.apply(tune(maxTrials=1, parallelism=1))

    async def stopped() -> None:
        await world.step()
        key = Key(Kind.CROSS_VALIDATION, NAMESPACE, "t-cv0")
        uid = cluster.objects[key]["metadata"]["uid"]
        await cluster.patch(key, uid, {"spec": {"stop": {"reason": "Stopped", "message": "not this one"}}})
        await world.run()

    asyncio.run(stopped())
    it = past(cluster)
    assert tune_story(it).others["Stopped"][0].why == "not this one"
