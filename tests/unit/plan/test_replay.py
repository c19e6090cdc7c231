"""A search of sixty trials whose operator is killed at every decision goes on as if nothing had happened.

The objects are all that there is: they are written and read back as JSON, and whoever decides next knows nothing else.
"""

import heapq
import json
from datetime import UTC, datetime, timedelta
from typing import Any

from crossfold_operator.api.tune import TuneSpec
from crossfold_operator.observe.metadata import Obj
from crossfold_operator.observe.reader import TrialReader
from crossfold_operator.plan.spending import Spent
from crossfold_operator.plan.tune import history
from crossfold_operator.search.history import digest
from crossfold_operator.search.sampler import ask
from crossfold_trainer.contract.metrics import Direction
from tests.fakes.planning import TunePlan, plan
from tests.fakes.world import made_up, tune

START = datetime(2026, 1, 1, tzinfo=UTC)
SPEC = TuneSpec.model_validate(
    tune(
        maxTrials=60,
        parallelism=6,
        crossValidation={"folds": 5},
        algorithm={"name": "TPE", "seed": 3},
        parameters=[
            {"name": "learning_rate", "type": "Float", "min": 1e-5, "max": 1e-1, "scale": "Log"},
            {"name": "model_encoder", "type": "Categorical", "values": ["resnet18", "resnet34", "resnet50"]},
        ],
    )["spec"]
)


def score(parameters: dict[str, Any], fold: int) -> float:
    """Best at 3e-3; a little depends on the encoder, a little on the fold, and a little on nothing that is known."""
    miss = abs(made_up(round(parameters["learning_rate"] / 3e-3, 3)) - 0.5) * 0.05
    decades = len(f"{parameters['learning_rate'] / 3e-3:e}".split("e-")) - 1
    encoder = {"resnet18": 0.0, "resnet34": 0.02, "resnet50": 0.01}[parameters["model_encoder"]]
    return round(0.7 - 0.15 * decades - miss + encoder + 0.02 * fold + 0.02 * made_up(parameters, fold), 6)


class Search:
    """The objects of a Tune, a clock, and the decisions made."""

    def __init__(self, *, killed: bool) -> None:
        self._killed = killed
        self._reader = self._new_reader()
        self._trials: dict[int, Obj] = {}
        self._runs: dict[str, list[dict[str, Any]]] = {}
        self._ends: list[tuple[float, int, int]] = []
        self._version = 0
        self.now = 0.0
        self.decisions: list[Any] = []
        self.digest = ""

    @staticmethod
    def _new_reader() -> TrialReader:
        return TrialReader("t", [parameter.name for parameter in SPEC.parameters])

    def run(self) -> None:
        """To the end."""
        self._decide()
        while self._ends:
            self.now, number, fold = heapq.heappop(self._ends)
            self._end(number, fold)
            self._decide()

    def _decide(self) -> None:
        if self._killed:
            self._reader = self._new_reader()
            self._trials, self._runs = json.loads(json.dumps([self._trials, self._runs]))
            self._trials = {int(number): obj for number, obj in self._trials.items()}
        trials = self._reader.read(self._trials.values(), lambda uid: self._runs[uid])
        asked = len(trials)

        def choose(told: Any, number: int) -> dict[str, Any] | None:
            return ask(SPEC.parameters, SPEC.algorithm, Direction.MAXIMIZE, told, number)

        self.digest = digest(history(trials, asked))
        planned = plan(SPEC, trials, asked, choose, spent=Spent(), now=START + timedelta(seconds=self.now))
        self._carry_out(planned)

    def _carry_out(self, planned: TunePlan) -> None:
        for stop in planned.stops:
            number = stop.trial.number
            said = stop.stop.model_dump(mode="json", exclude_none=True)
            self.decisions.append(("stop", number, said))
            self._trials[number] = {**self._trials[number], "spec": {**self._trials[number]["spec"], "stop": said}}
            self._runs[f"u{number}"] = [
                run if run["status"]["phase"] != "Running" else {**run, "status": {"phase": "Stopped"}}
                for run in self._runs[f"u{number}"]
            ]
            self._ends = [entry for entry in self._ends if entry[1] != number]
            heapq.heapify(self._ends)
            self._close(number, "Pruned")
        for new in planned.runs:
            self._start(new.trial.number, new.unit[0])
        for trial in planned.trials:
            self.decisions.append(("ask", trial.number, trial.parameters))
            values = [{"name": name, "value": value} for name, value in trial.parameters.items()]
            meta = {"name": f"t-cv{trial.number}", "uid": f"u{trial.number}", "resourceVersion": "0"}
            self._trials[trial.number] = {"metadata": meta, "spec": {"hyperparameters": values}, "status": {}}
            self._runs[f"u{trial.number}"] = []
            for fold, _ in trial.units:
                self._start(trial.number, fold)

    def _start(self, number: int, fold: int) -> None:
        self.decisions.append(("start", number, fold))
        meta = {"name": f"t-cv{number}-f{fold}s42", "uid": f"u{number}-{fold}"}
        self._runs[f"u{number}"].append(
            {"metadata": meta, "spec": {"fold": fold, "seed": 42}, "status": {"phase": "Running"}}
        )
        heapq.heappush(self._ends, (self.now + 60 + round(60 * made_up(number, fold)), number, fold))

    def _end(self, number: int, fold: int) -> None:
        parameters = {item["name"]: item["value"] for item in self._trials[number]["spec"]["hyperparameters"]}
        status = {"phase": "Succeeded", "score": repr(score(parameters, fold)), "stable": True}
        # As in a cache, an object that has changed is another one.
        runs = self._runs[f"u{number}"] = [
            {**run, "status": status} if run["spec"]["fold"] == fold else run for run in self._runs[f"u{number}"]
        ]
        if [run["status"]["phase"] for run in runs] == ["Succeeded"] * 5:
            self._close(number, "Complete")

    def _close(self, number: int, phase: str) -> None:
        records = [
            {"fold": run["spec"]["fold"], "seed": 42, "run": run["metadata"]["name"], **run["status"]}
            for run in sorted(self._runs[f"u{number}"], key=lambda run: run["spec"]["fold"])
        ]
        scores = [float(record["score"]) for record in records if "score" in record]
        self._version += 1
        meta = {**self._trials[number]["metadata"], "resourceVersion": str(self._version)}
        status = {"phase": phase, "runs": records, "score": repr(sum(scores) / len(scores))}
        self._trials[number] = {**self._trials[number], "metadata": meta, "status": status}


def test_a_search_that_is_killed_at_every_decision_decides_the_same() -> None:
    calm, storm = Search(killed=False), Search(killed=True)
    calm.run()
    storm.run()
    assert sum(kind == "ask" for kind, *_ in calm.decisions) == 60
    pruned = [number for kind, number, _ in calm.decisions if kind == "stop"]
    assert len(pruned) >= 10
    started = sum(kind == "start" for kind, *_ in calm.decisions)
    assert started < 0.8 * 60 * 5
    assert storm.decisions == calm.decisions
    assert (storm.now, storm.digest) == (calm.now, calm.digest)
