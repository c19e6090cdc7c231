"""best.yaml, which trainers write from their results, and status.best, which the operator knows from statuses, agree."""

import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import yaml
from obstore.store import MemoryStore

from crossfold_operator.api.crossvalidation import CrossValidationSpec
from crossfold_operator.api.tune import TuneSpec
from crossfold_operator.cluster.base import Key, Obj
from crossfold_operator.names import Kind
from crossfold_trainer import artifacts, gather
from crossfold_trainer.contract.data import ArtifactsSpec
from crossfold_trainer.store import Store
from tests.fakes import world as w
from tests.fakes.memory_cluster import MemoryCluster
from tests.finished import begin


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gather, "PART", 4)


class WithArtifacts(w.World):
    """A world whose trainers leave what real ones do."""

    def __init__(self, script: w.Script) -> None:
        super().__init__(MemoryCluster(), script)
        self.store = Store(MemoryStore(), ArtifactsSpec(uri="memory://"), "artifacts")

    def end(self, job: Obj) -> None:
        ending = self._ending(job)
        if ending.exit_code == 0:
            config = w.config_of(job)
            path = begin(self.store, config)
            result = w.result_of(config, **ending.changes)
            self.store.write(f"{path}/{artifacts.RESULT}", result.model_dump_json().encode())
            with ThreadPoolExecutor(1) as pool:  # it has an event loop of its own
                pool.submit(gather.update, self.store, config).result()
        super().end(job)

    @property
    def best(self) -> Any:
        content = self.store.read(gather.BEST)
        return None if content is None else yaml.safe_load(content)


OBJECTIVES: list[Obj] = [
    {"metrics": [{"name": "val/JaccardIndex"}]},
    {"metrics": [{"name": "val/loss"}]},
    {"metrics": [{"name": "val/JaccardIndex"}, {"name": "val/loss"}], "combine": "Geometric"},
]


def script_of(seed: int, metrics: list[str]) -> w.Script:
    """Few different scores, so that trials tie; some runs fail, some diverge."""

    def script(run: str, attempt: int) -> w.Ending:
        trial, _, unit = run.partition("-cv")[2].partition("-")
        fate = random.Random(f"{seed}/{run}").random()
        if fate < 0.1:
            return w.OUT_OF_MEMORY if fate < 0.05 else w.DIVERGED
        value = random.Random(f"{seed}/{trial}").choice([0.3, 0.5, 0.7]) + 0.01 * int(unit[1])
        return w.Ending(changes={"score": value, "values": dict.fromkeys(metrics, value)})

    return script


@pytest.mark.parametrize("seed", range(6))
async def test_best_is_the_operators_best(seed: int) -> None:
    objective = OBJECTIVES[seed % len(OBJECTIVES)]
    it = WithArtifacts(script_of(seed, [metric["name"] for metric in objective["metrics"]]))
    racing = {"warmupTrials": 4} if seed % 2 else {"enabled": False}
    it.cluster.apply(
        w.tune(
            objective=objective,
            algorithm={"name": "Random", "seed": seed},
            parameters=[{"name": "learning_rate", "type": "Float", "min": 1e-5, "max": 1e-2}],
            fixed=[{"name": "augment", "value": ["D4"]}],
            crossValidation={"folds": 5},
            maxTrials=9,
            maxFailedTrials=9,
            parallelism=3,
            racing=racing,
        )
    )
    await it.run()
    status = it.cluster.status(Kind.TUNE, "t")
    wanted, found = status.get("best"), it.best
    assert (wanted is None) == (found is None)
    if wanted is None:
        return
    assert (found["trial"], found["crossValidation"]) == (wanted["trial"], wanted["crossValidation"])
    assert (repr(found["score"]), repr(found["std"])) == (wanted["score"], wanted["std"])
    assert wanted["metrics"]
    for name, summary in wanted["metrics"].items():
        assert {key: repr(value) for key, value in found["metrics"][name].items()} == summary
    given = {item["name"]: item["value"] for item in found["hyperparameters"]}
    assert given | {p["name"]: p["value"] for p in wanted["parameters"]} == given
    assert found["uid"] == it.cluster.objects[Key(Kind.TUNE, "d", "t")]["metadata"]["uid"]


async def test_the_worlds_above_differ() -> None:
    """Ties, pruned, failed and unstable trials occur, or the test above would compare little."""
    seen = set()
    for seed in range(6):
        script = script_of(seed, ["val/JaccardIndex"])
        scores = {t: script(f"t-cv{t}-f0s42", 1).changes.get("score") for t in range(9)}
        seen |= {"tie"} if len(set(scores.values())) < 9 else set()
        endings = [script(f"t-cv{t}-f{f}s42", 1) for t in range(9) for f in range(5)]
        seen |= {"failed"} if w.OUT_OF_MEMORY in endings else set()
        seen |= {"unstable"} if w.DIVERGED in endings else set()
    assert seen == {"tie", "failed", "unstable"}


async def test_what_best_says_can_be_asked_for_again() -> None:
    """As a CrossValidation's hyperparameters it trains the same runs, of the same digests; a Tune takes it as fixed."""
    it = WithArtifacts(lambda run, attempt: w.SUCCESS)
    it.cluster.apply(w.tune())
    await it.run()
    best = it.best
    digests = {run["digest"] for run in best["runs"]}
    again = WithArtifacts(lambda run, attempt: w.SUCCESS)
    manifest = w.cross_validation(hyperparameters=best["hyperparameters"])
    CrossValidationSpec.model_validate(manifest["spec"])
    again.cluster.apply(manifest)
    await again.run()
    runs = again.cluster.of(Kind.TRAIN_RUN)
    assert {run["status"]["digest"] for run in runs} == digests
    search = w.tune(
        parameters=[{"name": "gamma", "type": "Float", "min": 0.5, "max": 0.9}],
        algorithm={"name": "TPE"},
        fixed=[item for item in best["hyperparameters"] if item["name"] != "gamma"],
    )
    TuneSpec.model_validate(search["spec"])
    it.cluster.apply({**search, "metadata": {"name": "next", "namespace": w.NAMESPACE}})
    await it.settle()
    conditions = {c["type"]: c["status"] for c in it.cluster.status(Kind.TUNE, "next")["conditions"]}
    assert conditions["Valid"] == "True"


async def test_a_cross_validation_of_its_own_and_a_single_run() -> None:
    it = WithArtifacts(lambda run, attempt: w.SUCCESS)
    it.cluster.apply(w.cross_validation())
    it.cluster.apply(w.train_run())
    await it.settle()
    configs = {config.run: config for job in it.cluster.of(Kind.JOB) for config in [w.config_of(job)]}
    alone = configs.pop("r")
    assert (alone.root, alone.trial, alone.runs) == ("", None, 0)
    uid = it.cluster.objects[Key(Kind.CROSS_VALIDATION, "d", "c")]["metadata"]["uid"]
    assert {(c.root, c.trial, c.runs) for c in configs.values()} == {(uid, None, 3)}
