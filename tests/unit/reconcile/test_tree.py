"""Whole trees on a cluster in memory: what a person does and what Jobs do, and what comes of it."""

from typing import Any

import pytest

from crossfold_operator import names
from crossfold_operator.cluster.base import Key, Obj, Refused
from crossfold_operator.names import Kind
from crossfold_operator.settings import Settings
from tests.fakes import world as w
from tests.fakes.memory_cluster import MemoryCluster
from tests.fakes.world import NAMESPACE, World, cross_validation, train_run, tune


def world(*manifests: Obj, script: w.Script | None = None, **settings: Any) -> World:
    cluster = MemoryCluster()
    made = World(cluster, script, Settings(trainer_image="registry/trainer:1", **settings))
    for manifest in manifests:
        cluster.apply(manifest)
    return made


def key(kind: Kind, name: str) -> Key:
    return Key(kind, NAMESPACE, name)


def condition(status: Obj, kind: str) -> tuple[str, str, str]:
    found = next(c for c in status["conditions"] if c["type"] == kind)
    return found["status"], found["reason"], found["message"]


def phases(cluster: MemoryCluster, kind: Kind) -> dict[str, str]:
    return {obj["metadata"]["name"]: obj.get("status", {}).get("phase", "") for obj in cluster.of(kind)}


def scores(cluster: MemoryCluster) -> dict[str, str]:
    return {obj["metadata"]["name"]: obj["status"]["score"] for obj in cluster.of(Kind.TRAIN_RUN)}


def reasons(cluster: MemoryCluster, name: str) -> list[str]:
    return [reason for who, reason, _ in cluster.events if who == name]


# The happy path -------------------------------------------------------------------------------------------------------


async def test_a_tune_runs_to_its_best_trial() -> None:
    it = world(tune())
    await it.run()
    status = it.cluster.status(Kind.TUNE, "t")
    assert status["phase"] == "Complete"
    assert condition(status, "Complete") == ("True", "MaxTrialsReached", "all 4 trials have ended")
    assert status["trials"] == {
        "asked": 4, "running": 0, "complete": 4, "pruned": 0, "stopped": 0, "unstable": 0, "failed": 0,
        "outOfMemory": 0,
    }  # fmt: skip
    assert status["runs"]["succeeded"] == 12
    assert it.most_running == 2
    assert len(it.cluster.of(Kind.JOB)) == 12
    trials = it.cluster.of(Kind.CROSS_VALIDATION)
    assert [t["metadata"]["name"] for t in trials] == ["t-cv0", "t-cv1", "t-cv2", "t-cv3"]
    best = max(trials, key=lambda t: float(t["status"]["score"]))
    assert status["best"]["crossValidation"] == best["metadata"]["name"]
    assert status["best"]["score"] == best["status"]["score"]
    assert status["best"]["parameters"] == best["spec"]["hyperparameters"]
    ranked = [float(item["score"]) for item in status["top"]]
    assert ranked == sorted(ranked, reverse=True)
    assert len({str(t["spec"]["hyperparameters"]) for t in trials}) == 4


async def test_a_status_that_counts_further_than_there_can_be_is_no_reason_to_count_that_far() -> None:
    it = world(tune())
    obj = it.cluster.of(Kind.TUNE)[0]
    counts = {"asked": 2**40, "running": 0, "complete": 0, "pruned": 0, "stopped": 0, "unstable": 0, "failed": 0}
    it.cluster.replace(obj | {"status": {"trials": counts}})
    await it.settle()
    assert it.cluster.status(Kind.TUNE, "t")["trials"]["asked"] == 10_000


async def test_a_finished_tree_is_quiet() -> None:
    it = world(tune())
    await it.run()
    calls, events = len(it.cluster.calls), len(it.cluster.events)
    it.restart()
    await it.settle()
    assert len(it.cluster.calls) == calls
    assert len(it.cluster.events) == events
    assert it.again == {}


async def test_a_running_tree_is_quiet_between_changes() -> None:
    it = world(tune())
    await it.settle()
    for job in it.unfinished():
        it.start(job)
    await it.settle()
    calls = len(it.cluster.calls)
    it.restart()
    await it.settle()
    assert len(it.cluster.calls) == calls


async def test_one_run_in_flight_at_a_time_finishes_a_trial_before_the_next_is_asked() -> None:
    it = world(tune(parallelism=1))
    await it.run()
    assert it.most_running == 1
    created = [k.name for verb, k in it.cluster.writes if verb == "create" and k.kind is Kind.TRAIN_RUN]
    assert created == [f"t-cv{trial}-f{fold}s42" for trial in range(4) for fold in range(3)]


async def test_minimised_loss_is_best_where_it_is_least() -> None:
    it = world(tune(objective={"metrics": [{"name": "val/loss"}]}))
    await it.run()
    trials = it.cluster.of(Kind.CROSS_VALIDATION)
    best = it.cluster.status(Kind.TUNE, "t")["best"]
    assert float(best["score"]) == min(float(t["status"]["score"]) for t in trials)


async def test_an_exhausted_grid_completes_the_tune() -> None:
    it = world(tune(maxTrials=50, parallelism=4))
    await it.run()
    status = it.cluster.status(Kind.TUNE, "t")
    assert condition(status, "Complete")[:2] == ("True", "SpaceExhausted")
    assert status["trials"]["asked"] == 6
    assert status["summary"]["trials"] == "6/6"
    assert status["search"]["exhausted"] is True


async def test_a_standalone_cross_validation() -> None:
    it = world(cross_validation(hyperparameters=[{"name": "learning_rate", "value": 0.01}]))
    await it.run()
    status = it.cluster.status(Kind.CROSS_VALIDATION, "c")
    assert status["phase"] == "Complete"
    assert status["summary"]["runs"] == "3/3"
    assert it.most_running == 2
    assert float(status["score"]) == pytest.approx(sum(float(s) for s in scores(it.cluster).values()) / 3)


async def test_a_standalone_train_run() -> None:
    it = world(train_run(template={"resources": {"limits": {"nvidia.com/gpu": 2}}}))
    await it.run()
    status = it.cluster.status(Kind.TRAIN_RUN, "r")
    assert status["phase"] == "Succeeded"
    assert status["usage"] == {
        "gpuSeconds": {"useful": 120, "pruned": 0, "preempted": 0, "failed": 0},
        "runSeconds": 60,
    }
    assert reasons(it.cluster, "r") == ["JobCreated", "Succeeded"]


async def test_the_best_trial_keeps_parameters_that_are_empty_or_null() -> None:
    values = [{"name": "augment", "type": "Categorical", "values": [[]]}]
    fixed = {"name": "model_encoder_weights", "type": "Categorical", "values": [None]}
    it = world(tune(parameters=[*values, fixed], maxTrials=1))
    await it.run()
    best = it.cluster.status(Kind.TUNE, "t")["best"]
    assert best["parameters"] == [{"name": "augment", "value": []}, {"name": "model_encoder_weights"}]


# Suspend, stop, resume ------------------------------------------------------------------------------------------------


async def test_suspend_stops_what_runs_and_resume_goes_on_with_the_next_attempt() -> None:
    it = world(tune())
    await it.settle()
    await it.step()
    for job in it.unfinished():
        it.start(job)
    await it.settle()
    it.cluster.clock.advance(30)
    it.cluster.apply({**_head(Kind.TUNE, "t"), "spec": {"suspend": True}})
    await it.run()
    status = it.cluster.status(Kind.TUNE, "t")
    assert status["phase"] == "Suspended"
    assert condition(status, "Suspended")[0] == "True"
    assert it.unfinished() == []
    suspended = [n for n, p in phases(it.cluster, Kind.TRAIN_RUN).items() if p == "Suspended"]
    assert len(suspended) == 2
    asked = status["trials"]["asked"]

    it.cluster.apply({**_head(Kind.TUNE, "t"), "spec": {"suspend": False}})
    await it.run()
    status = it.cluster.status(Kind.TUNE, "t")
    assert (status["phase"], asked < 4) == ("Complete", True)
    for name in suspended:
        run = it.cluster.status(Kind.TRAIN_RUN, name)
        assert (run["attempt"], run["preemptions"], run["job"]) == (2, 1, f"{name}-a2")
        assert (run["crashes"], run["infrastructureFailures"]) == (0, 0)
    assert {"Suspended", "Resumed"} <= set(reasons(it.cluster, "t"))


async def test_time_spent_before_a_suspend_is_counted_as_preempted() -> None:
    it = world(train_run(template={"resources": {"limits": {"nvidia.com/gpu": 2}}}))
    await it.settle()
    it.start(it.unfinished()[0])
    await it.settle()
    it.cluster.clock.advance(40)
    it.cluster.apply({**_head(Kind.TRAIN_RUN, "r"), "spec": {"suspend": True}})
    await it.settle()
    status = it.cluster.status(Kind.TRAIN_RUN, "r")
    assert (status["phase"], status["preemptions"]) == ("Suspended", 1)
    assert status["usage"] == {"gpuSeconds": {"useful": 0, "pruned": 0, "preempted": 80, "failed": 0}, "runSeconds": 40}
    it.cluster.clock.advance(1000)
    it.restart()
    await it.settle()
    assert it.cluster.status(Kind.TRAIN_RUN, "r")["usage"]["runSeconds"] == 40


async def test_a_standalone_cross_validation_is_suspended_and_goes_on() -> None:
    it = world(cross_validation(parallelism=1))
    await it.step()
    head = _head(Kind.CROSS_VALIDATION, "c")
    it.cluster.apply({**head, "spec": {"suspend": True}})
    await it.run()
    assert it.cluster.status(Kind.CROSS_VALIDATION, "c")["phase"] == "Suspended"
    assert phases(it.cluster, Kind.TRAIN_RUN) == {"c-f0s42": "Succeeded", "c-f1s42": "Suspended"}
    it.cluster.apply({**head, "spec": {"suspend": False}})
    await it.run()
    assert it.cluster.status(Kind.CROSS_VALIDATION, "c")["phase"] == "Complete"


async def test_a_cross_validation_created_suspended_starts_nothing() -> None:
    it = world(cross_validation(suspend=True))
    await it.run()
    assert it.cluster.of(Kind.TRAIN_RUN) == []
    assert it.cluster.status(Kind.CROSS_VALIDATION, "c")["phase"] == "Suspended"


async def test_stopping_a_standalone_cross_validation_stops_its_runs() -> None:
    it = world(cross_validation())
    await it.settle()
    stop = {"stop": {"reason": "Stopped", "message": "enough"}}
    it.cluster.apply({**_head(Kind.CROSS_VALIDATION, "c"), "spec": stop})
    await it.run()
    assert set(phases(it.cluster, Kind.TRAIN_RUN).values()) == {"Stopped"}
    status = it.cluster.status(Kind.CROSS_VALIDATION, "c")
    assert (status["phase"], status["summary"]["reason"]) == ("Stopped", "enough")
    assert it.unfinished() == []


async def test_a_score_of_null_is_never_stable() -> None:
    said = w.Ending(changes={"score": None, "stable": True})
    it = world(cross_validation(parallelism=1), script=lambda run, attempt: said)
    await it.run()
    assert it.cluster.status(Kind.TRAIN_RUN, "c-f0s42")["stable"] is False
    assert it.cluster.status(Kind.CROSS_VALIDATION, "c")["phase"] == "Unstable"


async def test_a_tune_created_suspended_starts_nothing_until_it_is_resumed() -> None:
    it = world(tune(suspend=True))
    await it.run()
    assert it.cluster.status(Kind.TUNE, "t")["phase"] == "Suspended"
    assert it.cluster.of(Kind.CROSS_VALIDATION) == []
    it.cluster.apply({**_head(Kind.TUNE, "t"), "spec": {"suspend": False}})
    await it.run()
    assert it.cluster.status(Kind.TUNE, "t")["phase"] == "Complete"


async def test_a_suspended_tree_is_quiet_over_a_restart() -> None:
    it = world(tune())
    await it.step()
    it.cluster.apply({**_head(Kind.TUNE, "t"), "spec": {"suspend": True}})
    await it.run()
    before, calls = w.tree(it.cluster), len(it.cluster.calls)
    it.restart()
    await it.run()
    assert (w.tree(it.cluster), len(it.cluster.calls)) == (before, calls)


async def test_stopping_a_trial_by_hand_ends_it_and_the_tune_goes_on() -> None:
    it = world(tune())
    await it.step()
    stop = {"stop": {"reason": "Stopped", "message": "enough"}}
    it.cluster.apply({**_head(Kind.CROSS_VALIDATION, "t-cv0"), "spec": stop})
    await it.run()
    status = it.cluster.status(Kind.TUNE, "t")
    assert phases(it.cluster, Kind.CROSS_VALIDATION)["t-cv0"] == "Stopped"
    assert (status["phase"], status["trials"]["stopped"], status["trials"]["complete"]) == ("Complete", 1, 3)
    assert sorted(item["trial"] for item in status["top"]) == [1, 2, 3]


async def test_a_stopped_run_stops_its_trial() -> None:
    it = world(cross_validation(parallelism=1))
    await it.settle()
    it.cluster.apply({**_head(Kind.TRAIN_RUN, "c-f0s42"), "spec": {"stop": {"reason": "Stopped"}}})
    await it.run()
    assert phases(it.cluster, Kind.TRAIN_RUN) == {"c-f0s42": "Stopped"}
    assert it.cluster.status(Kind.CROSS_VALIDATION, "c")["phase"] == "Stopped"


async def test_a_result_that_arrives_after_stop_is_recorded_and_not_scored() -> None:
    it = world(train_run())
    await it.settle()
    (job,) = it.unfinished()
    it.start(job)
    await it.settle()
    it.end(job)
    it.cluster.apply({**_head(Kind.TRAIN_RUN, "r"), "spec": {"stop": {"reason": "Stopped"}}})
    await it.run()
    status = it.cluster.status(Kind.TRAIN_RUN, "r")
    assert status["phase"] == "Stopped"
    assert status["score"]


# What Jobs do ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ending", "counter", "attempts"),
    [
        (w.CRASH, "crashes", 2),
        (w.INTERRUPTED, "preemptions", 2),
        (w.EVICTED, "preemptions", 2),
        (w.LOST, "infrastructureFailures", 2),
        (w.NO_RESULT, "infrastructureFailures", 2),
    ],
)
async def test_what_is_tried_again_ends_well(ending: w.Ending, counter: str, attempts: int) -> None:
    it = world(train_run(), script=lambda run, attempt: ending if attempt == 1 else w.SUCCESS)
    await it.run()
    status = it.cluster.status(Kind.TRAIN_RUN, "r")
    assert (status["phase"], status["attempt"], status[counter]) == ("Succeeded", attempts, 1)
    assert status["job"] == "r-a2"


@pytest.mark.parametrize(
    ("ending", "reason", "failure", "attempts"),
    [
        (w.CRASH, "RunFailed", "Crash", 2),
        (w.CONFIG, "ConfigError", "Config", 1),
        (w.OUT_OF_MEMORY, "RunFailed", "OutOfMemory", 1),
        (w.OOM_KILLED, "RunFailed", "HostOutOfMemory", 1),
        (w.DEADLINE, "RunFailed", "Timeout", 1),
        (w.LOST, "Lost", "Infrastructure", 3),
        (w.NO_RESULT, "NoResult", "Infrastructure", 3),
    ],
)
async def test_what_never_ends_well_fails_the_run(ending: w.Ending, reason: str, failure: str, attempts: int) -> None:
    it = world(train_run(retries={"crash": 1, "infrastructure": 2}), script=lambda run, attempt: ending)
    await it.run()
    status = it.cluster.status(Kind.TRAIN_RUN, "r")
    assert (status["phase"], status["attempt"]) == ("Failed", attempts)
    assert condition(status, "Failed")[:2] == ("True", reason)
    assert status["failure"]["class"] == failure
    assert status["failure"]["message"]


async def test_an_image_that_cannot_be_pulled_fails_after_the_threshold() -> None:
    it = world(train_run(retries={"infrastructure": 1}), script=lambda run, attempt: w.NO_IMAGE, startup_seconds=60)
    await it.step()
    status = it.cluster.status(Kind.TRAIN_RUN, "r")
    assert status["phase"] in ("Starting", "Queued")
    assert condition(status, "Degraded")[:2] == ("True", "ImagePull")
    await it.run()
    status = it.cluster.status(Kind.TRAIN_RUN, "r")
    assert (status["phase"], status["attempt"], status["infrastructureFailures"]) == ("Failed", 2, 2)
    assert "spec.template.image" in status["failure"]["message"]
    assert it.unfinished() == []


async def test_a_missing_secret_is_named() -> None:
    it = world(train_run(data={"uri": "s3://b/d", "secretRef": {"name": "keys"}}))
    await it.settle()
    it.cluster.scripted_warnings["r"] = [("FailedMount", 'MountVolume.SetUp failed: secret "keys" not found')]
    it.cluster.clock.advance(6)
    it.cluster.woken[key(Kind.TRAIN_RUN, "r")] = None
    await it.settle()
    assert condition(it.cluster.status(Kind.TRAIN_RUN, "r"), "Degraded") == (
        "True",
        "SecretMissing",
        'Secret "keys" does not exist in this namespace: create it, or correct secretRef.name',
    )


async def test_a_failed_run_fails_its_trial_and_starts_no_further_run_of_it() -> None:
    it = world(tune(parallelism=1), script=lambda run, attempt: w.OOM_KILLED if run.startswith("t-cv1-") else w.SUCCESS)
    await it.run()
    status = it.cluster.status(Kind.TUNE, "t")
    assert (status["phase"], status["trials"]["failed"], status["trials"]["complete"]) == ("Complete", 1, 3)
    assert [n for n in phases(it.cluster, Kind.TRAIN_RUN) if n.startswith("t-cv1-")] == ["t-cv1-f0s42"]
    assert "HostOutOfMemory" in it.cluster.status(Kind.CROSS_VALIDATION, "t-cv1")["summary"]["reason"]


async def test_a_diverged_run_makes_its_trial_unstable_and_never_best() -> None:
    it = world(tune(parallelism=1), script=lambda run, attempt: w.DIVERGED if run == "t-cv2-f1s42" else w.SUCCESS)
    await it.run()
    status = it.cluster.status(Kind.TUNE, "t")
    assert phases(it.cluster, Kind.CROSS_VALIDATION)["t-cv2"] == "Unstable"
    assert phases(it.cluster, Kind.TRAIN_RUN)["t-cv2-f1s42"] == "Succeeded"
    assert "t-cv2-f2s42" not in phases(it.cluster, Kind.TRAIN_RUN)
    assert status["trials"]["unstable"] == 1
    assert {item["trial"] for item in status["top"]} == {0, 1, 3}


async def test_the_result_of_another_configuration_is_not_read() -> None:
    other = w.Ending(changes={"digest": "0" * 64})
    it = world(train_run(), script=lambda run, attempt: other if attempt == 1 else w.SUCCESS)
    await it.run()
    assert "another configuration" in " ".join(message for _, _, message in it.cluster.events)
    assert it.cluster.status(Kind.TRAIN_RUN, "r")["attempt"] == 2


async def test_other_data_in_mid_tune_is_data_invalid() -> None:
    other = w.Ending(changes={"data_digest": "e" * 64})
    it = world(tune(), script=lambda run, attempt: other if run.startswith("t-cv2-") else w.SUCCESS)
    await it.run()
    assert condition(it.cluster.status(Kind.TUNE, "t"), "Degraded")[:2] == ("True", "DataInvalid")


async def test_trials_that_all_fail_for_their_configuration_fail_the_tune() -> None:
    it = world(tune(maxTrials=6, parallelism=4), script=lambda run, attempt: w.CONFIG)
    await it.run()
    status = it.cluster.status(Kind.TUNE, "t")
    assert status["phase"] == "Failed"
    assert condition(status, "Failed")[:2] == ("True", "ConfigError")
    assert "no such band: red" in status["summary"]["reason"]
    assert it.unfinished() == []
    assert status["trials"]["asked"] < 6


async def test_a_tune_that_failed_for_its_configuration_stays_failed_while_its_other_trials_stop() -> None:
    # Ten runs in flight over four trials: when three trials have failed, the fourth is stopped.
    it = world(tune(maxTrials=6, parallelism=10), script=lambda run, attempt: w.CONFIG)
    await it.run()
    status = it.cluster.status(Kind.TUNE, "t")
    assert status["phase"] == "Failed"
    assert condition(status, "Failed")[:2] == ("True", "ConfigError")
    assert status["trials"]["stopped"] >= 1
    assert it.unfinished() == []
    assert reasons(it.cluster, "t").count("ConfigError") <= 2


async def test_a_tune_that_failed_for_its_configuration_stays_failed_when_a_run_in_flight_ends_well() -> None:
    script: w.Script = lambda run, attempt: w.SUCCESS if run.startswith("t-cv3-") else w.CONFIG  # noqa: E731
    it = world(tune(parallelism=4, crossValidation={"folds": 1, "foldMethod": "None"}), script=script)
    await it.settle()
    for act in (it.start, it.end):
        for job in it.unfinished():
            act(job)
    # All four have ended; the Tune looks when three of its trials are known to.
    for run in it.cluster.of(Kind.TRAIN_RUN):
        await it.reconcile(key(Kind.TRAIN_RUN, run["metadata"]["name"]))
    for trial in range(3):
        await it.reconcile(key(Kind.CROSS_VALIDATION, f"t-cv{trial}"))
    await it.reconcile(key(Kind.TUNE, "t"))
    assert it.cluster.status(Kind.TUNE, "t")["phase"] == "Failed"
    await it.run()
    status = it.cluster.status(Kind.TUNE, "t")
    assert phases(it.cluster, Kind.CROSS_VALIDATION)["t-cv3"] == "Complete"
    assert (status["phase"], condition(status, "Failed")[1]) == ("Failed", "ConfigError")


async def test_too_many_failed_trials_fail_the_tune_and_stop_what_runs() -> None:
    script: w.Script = lambda run, attempt: w.OOM_KILLED if "-f0s" in run else w.SUCCESS  # noqa: E731
    it = world(tune(maxFailedTrials=1, maxTrials=6, parallelism=6), script=script)
    await it.run()
    status = it.cluster.status(Kind.TUNE, "t")
    assert condition(status, "Failed")[:2] == ("True", "MaxFailedTrialsExceeded")
    assert status["trials"]["failed"] >= 2
    assert status["phase"] == "Failed"
    assert it.unfinished() == []


async def test_no_trial_with_a_score_fails_the_tune() -> None:
    it = world(tune(), script=lambda run, attempt: w.DIVERGED)
    await it.run()
    assert condition(it.cluster.status(Kind.TUNE, "t"), "Failed")[:2] == ("True", "NoScore")


# Several nodes --------------------------------------------------------------------------------------------------------


def nodes(**spec: Any) -> Obj:
    limits = {"resources": {"limits": {"nvidia.com/gpu": 4}}}
    return train_run(trainer={"nodes": 2, "devices": 2}, template=limits, **spec)


async def test_a_run_of_several_nodes_has_a_service_and_costs_all_of_their_gpus() -> None:
    it = world(nodes())
    await it.run()
    assert it.cluster.writes[1:3] == [("create", key(Kind.SERVICE, "r")), ("create", key(Kind.JOB, "r"))]
    (job,), pods = it.cluster.of(Kind.JOB), it.cluster.of(Kind.POD)
    assert [pod["metadata"]["labels"][names.LABEL_NODE] for pod in pods] == ["0", "1"]
    assert job["spec"]["completionMode"] == "Indexed"
    status = it.cluster.status(Kind.TRAIN_RUN, "r")
    assert (status["phase"], status["usage"]["runSeconds"]) == ("Succeeded", w.SECONDS)
    assert status["usage"]["gpuSeconds"]["useful"] == 2 * 4 * w.SECONDS


async def test_all_attempts_share_the_service() -> None:
    it = world(nodes(), script=lambda run, attempt: w.EVICTED if attempt == 1 else w.SUCCESS)
    await it.run()
    status = it.cluster.status(Kind.TRAIN_RUN, "r")
    assert (status["phase"], status["preemptions"]) == ("Succeeded", 1)
    assert [k.name for v, k in it.cluster.writes if v == "create"] == ["r", "r", "r-a2"]
    env = it.cluster.of(Kind.JOB)[1]["spec"]["template"]["spec"]["containers"][0]["env"]
    assert {"name": "MASTER_ADDR", "value": "r-a2-0.r"} in env


async def test_a_service_that_is_deleted_while_pods_start_is_made_again() -> None:
    it = world(nodes())
    await it.settle()
    it.cluster.remove(key(Kind.SERVICE, "r"))
    await it.settle()
    assert [s["metadata"]["name"] for s in it.cluster.of(Kind.SERVICE)] == ["r"]


async def test_a_service_of_somebody_elses_is_a_conflict_and_no_job_is_made() -> None:
    it = world()
    it.cluster.apply(_squatter(Kind.SERVICE, "r"))
    it.cluster.apply(nodes())
    await it.settle()
    found = condition(it.cluster.status(Kind.TRAIN_RUN, "r"), "Degraded")
    assert found == ("True", "NameConflict", "Service r exists and is not ours: delete or rename it")
    assert not it.cluster.of(Kind.JOB)


async def test_a_run_of_one_node_has_no_service() -> None:
    it = world(train_run())
    await it.run()
    assert not it.cluster.of(Kind.SERVICE)


async def test_a_batch_that_devices_cannot_share_is_told_before_a_pod_starts() -> None:
    it = world(nodes(hyperparameters=[{"name": "batch-size", "value": 3}]))
    await it.run()
    found = condition(it.cluster.status(Kind.TRAIN_RUN, "r"), "Valid")
    assert found[:2] == ("False", "InvalidSpec")
    assert "spec.trainer: 4 devices, all nodes together, cannot share a batch of 3" in found[2]
    assert not it.cluster.of(Kind.JOB)
    space = [{"name": "batch_size", "type": "Int", "min": 1, "max": 12}]
    it = world(tune(parameters=space, algorithm={"name": "Random"}, trainer={"devices": 2}))
    await it.settle()
    assert "a batch of 1" in condition(it.cluster.status(Kind.TUNE, "t"), "Valid")[2]


# Deletion -------------------------------------------------------------------------------------------------------------


async def test_a_deleted_job_is_made_again_under_its_name() -> None:
    it = world(train_run())
    await it.settle()
    (job,) = it.unfinished()
    it.start(job)
    await it.settle()
    it.cluster.remove(key(Kind.JOB, "r"))
    await it.run()
    status = it.cluster.status(Kind.TRAIN_RUN, "r")
    assert (status["phase"], status["attempt"], status["job"]) == ("Succeeded", 1, "r")
    assert [k.name for v, k in it.cluster.writes if v == "create" and k.kind is Kind.JOB] == ["r", "r"]


async def test_a_job_being_deleted_keeps_its_place_until_it_is_gone() -> None:
    it = world(train_run())
    await it.settle()
    (job,) = it.unfinished()
    it.start(job)
    it.cluster.remove(key(Kind.JOB, "r"), foreground=True)
    while it.cluster.woken:
        await it.reconcile(it.cluster.woken.popitem()[0])
    assert [k.name for v, k in it.cluster.writes if v == "create" and k.kind is Kind.JOB] == ["r"]
    await it.run()
    assert it.cluster.status(Kind.TRAIN_RUN, "r")["phase"] == "Succeeded"


async def test_a_deleted_pod_of_a_running_job_is_a_lost_attempt() -> None:
    it = world(train_run(), script=lambda run, attempt: w.LOST if attempt == 1 else w.SUCCESS)
    await it.run()
    status = it.cluster.status(Kind.TRAIN_RUN, "r")
    assert (status["phase"], status["infrastructureFailures"]) == ("Succeeded", 1)


async def test_deleting_finished_jobs_and_runs_changes_nothing() -> None:
    it = world(tune())
    await it.run()
    before = w.tree(it.cluster)
    for kind in (Kind.JOB, Kind.POD):
        for obj in it.cluster.of(kind):
            it.cluster.remove(key(kind, obj["metadata"]["name"]))
    await it.run()
    assert w.tree(it.cluster) == before
    for obj in it.cluster.of(Kind.TRAIN_RUN):
        it.cluster.remove(key(Kind.TRAIN_RUN, obj["metadata"]["name"]))
    it.restart()
    await it.run()
    kept = {name: obj for name, obj in before.items() if not name.startswith("TrainRun/")}
    assert w.tree(it.cluster) == kept


async def test_a_run_deleted_in_mid_trial_after_it_finished_is_not_run_again() -> None:
    it = world(cross_validation(parallelism=1))
    await it.step()
    assert phases(it.cluster, Kind.TRAIN_RUN)["c-f0s42"] == "Succeeded"
    score = it.cluster.status(Kind.TRAIN_RUN, "c-f0s42")["score"]
    it.cluster.remove(key(Kind.TRAIN_RUN, "c-f0s42"))
    await it.run()
    status = it.cluster.status(Kind.CROSS_VALIDATION, "c")
    assert (status["phase"], status["runs"][0]["score"]) == ("Complete", score)
    assert "c-f0s42" not in phases(it.cluster, Kind.TRAIN_RUN)


async def test_an_unfinished_run_that_is_deleted_comes_back_under_its_name() -> None:
    it = world(tune(parallelism=1))
    await it.settle()
    (job,) = it.unfinished()
    it.start(job)
    await it.settle()
    it.cluster.remove(key(Kind.TRAIN_RUN, "t-cv0-f0s42"))
    await it.run()
    status = it.cluster.status(Kind.TUNE, "t")
    assert (status["phase"], status["runs"]["succeeded"]) == ("Complete", 12)


async def test_a_deleted_trial_counts_as_failed_and_is_not_asked_again() -> None:
    it = world(tune())
    while it.cluster.status(Kind.TUNE, "t").get("trials", {}).get("complete", 0) < 2:
        await it.step()
    best = it.cluster.status(Kind.TUNE, "t")["best"]["crossValidation"]
    it.cluster.remove(key(Kind.CROSS_VALIDATION, best))
    await it.run()
    status = it.cluster.status(Kind.TUNE, "t")
    assert (status["trials"]["asked"], status["trials"]["failed"], status["trials"]["complete"]) == (4, 1, 3)
    assert best not in phases(it.cluster, Kind.CROSS_VALIDATION)
    assert status["best"]["crossValidation"] != best


async def test_the_last_trial_is_not_asked_again_when_it_is_deleted() -> None:
    it = world(tune())
    await it.run()
    it.cluster.remove(key(Kind.CROSS_VALIDATION, "t-cv3"))
    await it.run()
    status = it.cluster.status(Kind.TUNE, "t")
    assert (status["trials"]["asked"], status["trials"]["failed"]) == (4, 1)
    assert "t-cv3" not in phases(it.cluster, Kind.CROSS_VALIDATION)


async def test_deleting_a_tune_removes_everything_below_it() -> None:
    it = world(tune())
    await it.step()
    it.cluster.remove(key(Kind.TUNE, "t"))
    await it.run()
    assert it.cluster.objects == {}


async def test_a_tune_that_is_being_deleted_starts_nothing() -> None:
    it = world(tune())
    await it.step()
    it.cluster.remove(key(Kind.TUNE, "t"), foreground=True)
    before = len(it.cluster.writes)
    await it.reconcile(key(Kind.TUNE, "t"))
    assert len(it.cluster.writes) == before


# Edits ----------------------------------------------------------------------------------------------------------------


async def test_more_parallelism_and_more_trials_while_it_runs() -> None:
    it = world(tune(parallelism=1, maxTrials=2))
    await it.step()
    it.cluster.apply({**_head(Kind.TUNE, "t"), "spec": {"parallelism": 5, "maxTrials": 5}})
    await it.run()
    status = it.cluster.status(Kind.TUNE, "t")
    assert (it.most_running, status["trials"]["complete"], status["phase"]) == (5, 5, "Complete")


async def test_fewer_slots_let_what_runs_finish() -> None:
    it = world(tune(parallelism=6))
    await it.settle()
    assert len(it.unfinished()) == 6
    it.cluster.apply({**_head(Kind.TUNE, "t"), "spec": {"parallelism": 1}})
    await it.settle()
    assert len(it.unfinished()) == 6
    most = []
    while await it.step():
        most.append(len(it.unfinished()))
    assert most[:6] == [5, 4, 3, 2, 1, 1]
    assert it.cluster.status(Kind.TUNE, "t")["phase"] == "Complete"


async def test_max_trials_below_what_was_asked_lets_what_runs_finish() -> None:
    it = world(tune(parallelism=6, maxTrials=4))
    await it.settle()
    it.cluster.apply({**_head(Kind.TUNE, "t"), "spec": {"maxTrials": 1}})
    await it.run()
    status = it.cluster.status(Kind.TUNE, "t")
    assert (status["phase"], status["trials"]["asked"], status["trials"]["complete"]) == ("Complete", 2, 2)
    assert condition(status, "Complete")[1] == "MaxTrialsReached"


async def test_more_trials_after_the_end_go_on() -> None:
    it = world(tune(maxTrials=2))
    await it.run()
    it.cluster.apply({**_head(Kind.TUNE, "t"), "spec": {"maxTrials": 3}})
    await it.run()
    status = it.cluster.status(Kind.TUNE, "t")
    assert (status["phase"], status["trials"]["complete"]) == ("Complete", 3)


async def test_an_immutable_field_cannot_be_edited() -> None:
    it = world(tune())
    with pytest.raises(Refused, match=r"spec\.objective cannot be changed"):
        it.cluster.apply({**_head(Kind.TUNE, "t"), "spec": {"objective": {"metrics": [{"name": "val/loss"}]}}})


# Bad input ------------------------------------------------------------------------------------------------------------


async def test_an_invalid_spec_is_told_once_and_starts_nothing() -> None:
    it = world(tune(fixed=[{"name": "gamma", "value": 7}]))
    await it.run()
    status = it.cluster.status(Kind.TUNE, "t")
    assert condition(status, "Valid") == (
        "False",
        "InvalidSpec",
        "spec.fixed[0]: hyperparameter 'gamma' must be a number in (0, 1], not 7",
    )
    assert it.cluster.of(Kind.CROSS_VALIDATION) == []
    assert reasons(it.cluster, "t") == ["InvalidSpec"]
    assert it.again == {}
    calls = len(it.cluster.calls)
    it.restart()
    await it.run()
    assert len(it.cluster.calls) == calls


async def test_no_image_anywhere_is_an_invalid_spec() -> None:
    it = World(MemoryCluster(), settings=Settings())
    it.cluster.apply(tune())
    await it.run()
    valid = condition(it.cluster.status(Kind.TUNE, "t"), "Valid")
    assert valid[:2] == ("False", "InvalidSpec")
    assert valid[2].startswith("spec.template.image: set it")


async def test_the_image_is_resolved_once() -> None:
    it = world(tune())
    await it.step()
    it.settings = Settings(trainer_image="registry/trainer:2")
    it.restart()
    await it.run()
    images = {r["spec"]["template"]["image"] for r in it.cluster.of(Kind.TRAIN_RUN)}
    assert images == {"registry/trainer:1"}
    assert it.cluster.status(Kind.TUNE, "t")["image"] == "registry/trainer:1"


async def test_a_job_that_the_api_server_refuses_is_a_config_error() -> None:
    it = world(train_run(template={"labels": {"a b": "c"}}))
    message = 'Job "r" is invalid: metadata.labels: Invalid value: "a b"'
    it.cluster.refuse = lambda m: Refused(422, message) if m["kind"] == "Job" else None
    await it.run()
    status = it.cluster.status(Kind.TRAIN_RUN, "r")
    assert (status["phase"], status["failure"]["class"]) == ("Failed", "Config")
    assert message in status["failure"]["message"]
    assert "spec.template" in status["failure"]["message"]


async def test_a_full_quota_waits_and_says_so() -> None:
    it = world(train_run())
    it.cluster.refuse = lambda m: Refused(403, "exceeded quota: jobs") if m["kind"] == "Job" else None
    await it.run()
    status = it.cluster.status(Kind.TRAIN_RUN, "r")
    assert (status["phase"], condition(status, "Degraded")[:2]) == ("Queued", ("True", "QuotaExceeded"))
    assert it.again[key(Kind.TRAIN_RUN, "r")] > 0
    it.cluster.refuse = lambda m: None
    it.cluster.woken[key(Kind.TRAIN_RUN, "r")] = None
    await it.run()
    status = it.cluster.status(Kind.TRAIN_RUN, "r")
    assert (status["phase"], condition(status, "Degraded")[0]) == ("Succeeded", "False")


# Names that are taken -------------------------------------------------------------------------------------------------


def _head(kind: Kind, name: str) -> Obj:
    version = "batch/v1" if kind is Kind.JOB else "crossfold.dev/v1alpha1"
    return {"apiVersion": version, "kind": str(kind), "metadata": {"name": name, "namespace": NAMESPACE}}


def _squatter(kind: Kind, name: str, owner: Obj | None = None, *, terminating: bool = False) -> Obj:
    head = _head(kind, name)
    if owner is not None:
        head["metadata"]["ownerReferences"] = [{**owner, "apiVersion": "crossfold.dev/v1alpha1", "controller": True}]
    if terminating:
        head["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        head["metadata"]["finalizers"] = ["example.com/slow"]
    if kind is Kind.JOB:
        return {**head, "spec": {}}
    source = cross_validation() if kind is Kind.CROSS_VALIDATION else train_run()
    return {**head, "spec": source["spec"]}


@pytest.mark.parametrize("kind", [Kind.CROSS_VALIDATION, Kind.TRAIN_RUN, Kind.JOB])
async def test_somebody_elses_object_is_never_adopted(kind: Kind) -> None:
    name = "t-cv0" if kind is Kind.CROSS_VALIDATION else "t-cv0-f0s42"
    it = world()
    before = it.cluster.apply(_squatter(kind, name))["metadata"] | {"resourceVersion": ""}
    it.cluster.apply(tune(parallelism=1))
    await it.settle()
    who = {Kind.CROSS_VALIDATION: (Kind.TUNE, "t"), Kind.TRAIN_RUN: (Kind.TUNE, "t"), Kind.JOB: (Kind.TRAIN_RUN, name)}
    status = it.cluster.status(*who[kind])
    found = condition(status, "Degraded")
    assert found[:2] == ("True", "NameConflict")
    assert "delete or rename it" in found[2]
    assert it.again[key(*who[kind])] > 0
    assert it.cluster.objects[key(kind, name)]["metadata"] | {"resourceVersion": ""} == before
    # Told once, however often it is looked at.
    told = len(it.cluster.events)
    it.restart()
    await it.settle()
    assert len(it.cluster.events) == told

    it.cluster.remove(key(kind, name))
    for waiting in list(it.again):
        it.cluster.woken[waiting] = None
    await it.run()
    status = it.cluster.status(Kind.TUNE, "t")
    assert (status["phase"], condition(status, "Degraded")[0]) == ("Complete", "False")
    assert status["trials"]["complete"] == 4


async def test_a_conflict_in_the_tree_shows_on_its_root() -> None:
    it = world()
    it.cluster.apply(_squatter(Kind.JOB, "t-cv0-f0s42"))
    it.cluster.apply(tune(parallelism=1))
    await it.settle()
    assert condition(it.cluster.status(Kind.TUNE, "t"), "Degraded")[:2] == ("True", "NameConflict")


async def test_an_object_of_an_earlier_owner_is_waited_for() -> None:
    it = world()
    earlier = {"kind": "TrainRun", "name": "r", "uid": "gone"}
    it.cluster.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x", "namespace": NAMESPACE}})
    it.cluster.collect = lambda: False  # type: ignore[method-assign] -- the collector is slow
    it.cluster.apply(_squatter(Kind.JOB, "r", earlier))
    it.cluster.apply(train_run())
    await it.settle()
    found = condition(it.cluster.status(Kind.TRAIN_RUN, "r"), "Degraded")
    assert found[:2] == ("True", "NameConflict")
    assert "an earlier TrainRun of the same name" in found[2]
    it.cluster.remove(key(Kind.JOB, "r"))
    it.cluster.woken[key(Kind.TRAIN_RUN, "r")] = None
    await it.run()
    assert it.cluster.status(Kind.TRAIN_RUN, "r")["phase"] == "Succeeded"


async def test_an_object_that_is_being_deleted_is_waited_for() -> None:
    it = world()
    it.cluster.collect = lambda: False  # type: ignore[method-assign]
    it.cluster.replace(_squatter(Kind.JOB, "r", terminating=True))
    it.cluster.apply(train_run())
    await it.settle()
    found = condition(it.cluster.status(Kind.TRAIN_RUN, "r"), "Degraded")
    assert found[:2] == ("True", "NameConflict")
    assert "to be deleted" in found[2]


async def test_a_tune_applied_again_under_its_name_waits_for_the_old_tree_and_starts_anew() -> None:
    it = world(tune())
    await it.step()
    collect = it.cluster.collect
    it.cluster.collect = lambda: False  # type: ignore[method-assign]
    it.cluster.remove(key(Kind.TUNE, "t"))
    it.cluster.apply(tune())
    await it.settle()
    assert condition(it.cluster.status(Kind.TUNE, "t"), "Degraded")[:2] == ("True", "NameConflict")
    it.cluster.collect = collect  # type: ignore[method-assign]
    await it.settle()
    for waiting in list(it.again):
        it.cluster.woken[waiting] = None
    await it.run()
    assert it.cluster.status(Kind.TUNE, "t")["trials"]["complete"] == 4


async def test_objects_that_somebody_elses_controller_owns_are_roots_all_the_same() -> None:
    it = world()
    workflow = {"apiVersion": "argoproj.io/v1alpha1", "kind": "Workflow", "name": "w", "uid": "w1", "controller": True}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "w", "namespace": NAMESPACE, "uid": "w1"}}
    it.cluster.replace(pod)
    for manifest in (tune(), cross_validation(), train_run()):
        manifest["metadata"]["ownerReferences"] = [workflow]
        it.cluster.apply(manifest)
    await it.run()
    assert it.cluster.status(Kind.TUNE, "t")["phase"] == "Complete"
    assert it.cluster.status(Kind.CROSS_VALIDATION, "c")["phase"] == "Complete"
    assert it.cluster.status(Kind.TRAIN_RUN, "r")["phase"] == "Succeeded"
