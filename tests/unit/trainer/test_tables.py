"""The tables above runs: what is in them, that nobody's row is lost, and what they cost."""

import os
import random
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest
import yaml
from obstore.store import MemoryStore
from pyarrow import parquet

from crossfold_trainer import gather, tables
from crossfold_trainer.contract.config import RunConfig, config_digest
from crossfold_trainer.contract.data import ArtifactsSpec
from crossfold_trainer.contract.metrics import REPORTED
from crossfold_trainer.interrupt import Interrupt
from crossfold_trainer.store import Entry, Fetched, Store, open_store
from tests.finished import ROOT, begin, finish, result_of, run_of

URI = "runs"


class Spied(Store):
    """An object store in memory that says what is asked of it, before it is done."""

    def __init__(self, client: MemoryStore, about: Callable[[str, str], None] = lambda verb, path: None) -> None:
        super().__init__(client, ArtifactsSpec(uri="memory://"), "artifacts")
        self.about = about

    def read(self, path: str) -> bytes | None:
        self.about("read", path)
        return super().read(path)

    async def fetch(self, path: str) -> Fetched | None:
        self.about("read", path)
        return await super().fetch(path)

    def write(self, path: str, content: bytes | Path) -> None:
        self.about("write", path)
        super().write(path, content)

    def create(self, path: str, content: bytes) -> bool:
        self.about("create", path)
        return super().create(path, content)

    def delete(self, path: str) -> None:
        self.about("delete", path)
        super().delete(path)

    def folders(self, prefix: str = "") -> tuple[str, ...]:
        self.about("list", prefix)
        return super().folders(prefix)

    def list(self, prefix: str = "", after: str = "", before: str = "") -> Iterator[Entry]:
        self.about("list", prefix)
        return super().list(prefix, after, before)


@pytest.fixture
def store() -> Spied:
    return Spied(MemoryStore())


def rows_of(store: Store, path: str, root: str = ROOT) -> tables.Rows:
    return tables.unpack(store.read(path), root)


def names_in(store: Store) -> set[str]:
    """The runs in all parts of a Tune's table."""
    return {name for entry in store.list(gather.TUNE) for name in rows_of(store, entry.path)}


def best_in(store: Store) -> Any:
    content = store.read(gather.BEST)
    return None if content is None else yaml.safe_load(content)


def end(store: Store, config: RunConfig, score: float | None = 0.5, **changes: Any) -> None:
    finish(store, config, score, **changes)
    gather.update(store, config)


# What is in them ------------------------------------------------------------------------------------------------------


def test_a_row_has_every_column_with_its_type(store: Spied) -> None:
    config = run_of(URI, 7, 1)
    end(store, config, 0.75)
    table = parquet.read_table(pa.BufferReader(store.read(f"t-cv7/{gather.RUN_INFOS}")))
    assert dict(zip(table.schema.names, table.schema.types, strict=True)) == {**tables.COLUMNS, "x-width": pa.string()}
    (row,) = table.to_pylist()
    told = {name: value for name, value in row.items() if value is not None}
    assert told == {
        "name": "t-cv7-f1s42", "cv": "t-cv7", "tune": "t", "trial": 7, "fold": 1, "seed": 42,
        "outcome": "Trained", "score": 0.75, "stable": True, "epoch": 2, "epochs": 3, "steps": 12, "halvings": 0,
        "duration_seconds": 1.5, "reason": "maxEpochs reached",
        "checkpoint_uri": f"{config.artifact_uri}/checkpoints/best.ckpt", "artifact_uri": config.artifact_uri,
        "digest": config.digest, "data_digest": "d" * 64, "splits_digest": "",
        "val/JaccardIndex": 0.75, "val/Recall": 0.5, "train/loss": 0.25,
        "model_arch": "Unet", "model_encoder": "tu-test_efficientnet", "learning_rate": 1e-3 / 8, "gamma": 0.9,
        "focal_loss_gamma": 2.0, "batch_size": 4, "augment": ["D4"], "x-width": "7", "device": "",
    }  # fmt: skip


def test_parts_have_the_same_columns_whatever_is_in_them() -> None:
    """A reader of many parts goes by the columns of the first."""
    one, other = run_of(URI, 0), run_of(URI, 1)
    schemas = [
        parquet.read_schema(pa.BufferReader(tables.pack({c.run: tables.row_of(c, result)}, ROOT)))
        for c, result in ((one, result_of(one, None, values={}, metrics={})), (other, result_of(other)))
    ]
    assert schemas[0].equals(schemas[1])
    assert set(REPORTED) <= set(schemas[0].names)


def test_the_table_of_a_cross_validation_of_its_own() -> None:
    store = Spied(MemoryStore())
    for fold, score in enumerate([0.5, 0.7, None]):
        config = run_of(URI, 0, fold, tune="", root="c-uid")
        path = f"{config.run}-{config.digest[:12]}"
        begin(store, config, path)
        store.write(f"{path}/result.json", result_of(config, score).model_dump_json().encode())
        gather.update(store, config)
    rows = rows_of(store, gather.RUN_INFOS, "c-uid").values()
    assert [(row["fold"], row["score"], row["stable"]) for row in rows] == [
        (0, 0.5, True),
        (1, 0.7, True),
        (2, None, False),
    ]
    assert {row["trial"] for row in rows} == {row["tune"] for row in rows} == {None}
    kept = {entry.path.rsplit("/", 1)[-1] for entry in store.list()}
    assert kept == {"config.json", "result.json", gather.RUN_INFOS}


def test_runs_without_a_result_have_no_row_and_are_looked_for_again(store: Spied) -> None:
    under_way = run_of(URI, 0, 1)
    begin(store, under_way)
    end(store, run_of(URI, 0, 0))
    assert names_in(store) == {"t-cv0-f0s42"}
    end(store, under_way)
    assert names_in(store) == {"t-cv0-f0s42", "t-cv0-f1s42"}


def test_a_run_that_died_before_its_row_is_added_by_the_next_one_or_when_it_repeats_its_result(store: Spied) -> None:
    finish(store, run_of(URI, 0, 0))
    end(store, run_of(URI, 0, 1))
    assert names_in(store) == {"t-cv0-f0s42", "t-cv0-f1s42"}
    last = run_of(URI, 0, 2)
    finish(store, last)
    gather.update(store, last)  # what the next attempt does
    assert len(names_in(store)) == 3
    assert best_in(store)["trial"] == 0
    written = Counter[str]()
    store.about = lambda verb, path: written.update([verb])
    gather.update(store, last)
    assert set(written) == {"read", "list"}


@pytest.mark.parametrize(
    "other",
    [
        {"trainer": {"maxEpochs": 9}},  # another digest under the same name
        {"root": "22222222-uid"},  # the same digest, left by an earlier object of the name
    ],
)
def test_results_of_others_in_the_same_folders_do_not_mix(store: Spied, other: dict[str, Any]) -> None:
    for fold in range(3):
        end(store, run_of(URI, 0, fold, **other), 0.99)
        end(store, run_of(URI, 60, fold, **other), 0.98)
    for fold in range(2):
        end(store, run_of(URI, 0, fold, root="33333333-uid"), 0.4)
    found = {entry.path: rows_of(store, entry.path, "33333333-uid") for entry in store.list(gather.TUNE)}
    assert list(found) == [f"{gather.TUNE}/00000-33333333.parquet"]
    assert {row["score"] for rows in found.values() for row in rows.values()} == {0.4}
    assert best_in(store)["uid"] != "33333333-uid"
    end(store, run_of(URI, 0, 2, root="33333333-uid"), 0.4)
    assert (best_in(store)["uid"], best_in(store)["score"]) == ("33333333-uid", pytest.approx(0.4))


def test_a_result_that_is_repeated_for_a_new_tune_counts_for_that(store: Spied) -> None:
    for fold in range(3):
        end(store, run_of(URI, 0, fold), 0.6)
    again = [run_of(URI, 0, fold, root="22222222-uid") for fold in range(3)]
    gather.update(store, again[0])
    assert set(rows_of(store, f"t-cv0/{gather.RUN_INFOS}", "22222222-uid")) == {"t-cv0-f0s42"}
    for config in again[1:]:
        gather.update(store, config)
    assert best_in(store)["uid"] == "22222222-uid"
    assert [entry.path for entry in store.list(gather.TUNE)] == [f"{gather.TUNE}/00000-22222222.parquet"]


def test_a_table_that_cannot_be_read_is_made_anew(store: Spied) -> None:
    end(store, run_of(URI, 0, 0))
    for entry in list(store.list()):
        if entry.path.endswith(".parquet"):
            store.write(entry.path, b"PAR1 and no more")
    end(store, run_of(URI, 0, 1))
    assert names_in(store) == {"t-cv0-f0s42", "t-cv0-f1s42"}


# best.yaml ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("direction", "scores", "best"),
    [
        ("Maximize", [[0.5, 0.5, 0.5], [0.6, 0.6, 0.6], [0.4, 0.4, 0.4]], 1),
        ("Minimize", [[0.5, 0.5, 0.5], [0.6, 0.6, 0.6], [0.4, 0.4, 0.4]], 2),
        ("Maximize", [[0.6, 0.6, 0.6], [0.6, 0.6, 0.6]], 0),
        ("Maximize", [[0.5, 0.5, 0.5], [0.9, 0.9], [0.9, 0.9, None]], 0),
        ("Maximize", [[0.9, 0.9]], None),
    ],
)
def test_best_is_complete_stable_and_of_equal_ones_the_first(
    store: Spied, direction: str, scores: list[list[float | None]], best: int | None
) -> None:
    objective = {"metrics": [{"name": "val/JaccardIndex", "direction": direction}]}
    for trial, own in reversed(list(enumerate(scores))):
        for fold, score in enumerate(own):
            end(store, run_of(URI, trial, fold, objective=objective), score)
    found = best_in(store)
    assert (None if found is None else found["trial"]) == best


def test_best_says_all_that_is_needed_to_train_it_again(store: Spied) -> None:
    for fold, score in enumerate([0.5, 0.6, 0.7]):
        end(store, run_of(URI, 3, fold), score)
    best = best_in(store)
    assert (best["tune"], best["uid"], best["trial"], best["crossValidation"]) == ("t", ROOT, 3, "t-cv3")
    assert (best["score"], best["std"]) == (pytest.approx(0.6), pytest.approx(0.1))
    assert best["objective"] == {
        "metrics": [{"name": "val/JaccardIndex", "direction": None}], "combine": "Harmonic", "direction": "Maximize",
    }  # fmt: skip
    assert best["metrics"]["val/JaccardIndex"] == {
        "mean": pytest.approx(0.6), "std": pytest.approx(0.1), "min": 0.5, "max": 0.7,
    }  # fmt: skip
    assert "val/loss" not in best["metrics"]
    assert best["dataDigest"] == "d" * 64
    given = {item["name"]: item["value"] for item in best["hyperparameters"]}
    for fold, run in enumerate(best["runs"]):
        config = run_of(URI, 3, fold)
        assert run == {
            "name": config.run, "fold": fold, "seed": 42, "score": [0.5, 0.6, 0.7][fold],
            "checkpointUri": f"{config.artifact_uri}/checkpoints/best.ckpt", "digest": config.digest,
        }  # fmt: skip
        assert config_digest(config.model_copy(update={"hyperparameters": given})) == run["digest"]


# Nobody's row is lost -------------------------------------------------------------------------------------------------


class Killed(BaseException):
    """The pod is gone."""


class Turns:
    """Lets one of several threads go on, each time one of them is about to ask the store; or kills it there."""

    def __init__(self, rng: random.Random, deaths: int) -> None:
        self._rng = rng
        self._deaths = deaths
        self._changed = threading.Condition()
        self._waiting: set[str] = set()
        self._alive: set[str] = set()
        self._next = ""
        self._dies = False

    def take(self, who: str) -> None:
        with self._changed:
            self._waiting.add(who)
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._next == who)
            self._next = ""
            self._waiting.discard(who)
            if self._dies:
                raise Killed

    def run(self, work: dict[str, Callable[[], None]]) -> list[str]:
        """Run them all; the names of those that were killed."""
        killed: list[str] = []

        def guarded(who: str) -> None:
            try:
                work[who]()
            except Killed:
                killed.append(who)
            with self._changed:
                self._alive.discard(who)
                self._changed.notify_all()

        self._alive, last = set(work), ""
        threads = [threading.Thread(target=guarded, args=[who], daemon=True) for who in work]
        for thread in threads:
            thread.start()
        with self._changed:
            while self._alive:
                assert self._changed.wait_for(lambda: not self._next and self._waiting == self._alive, timeout=60)
                if not self._alive:
                    break
                self._dies = self._deaths > 0 and self._rng.random() < 0.02
                self._deaths -= self._dies
                if last not in self._waiting or self._rng.random() < 0.1:  # some sleep while others do all they have to
                    last = self._rng.choice(sorted(self._waiting))
                self._next = last
                self._changed.notify_all()
        return killed


SEEDS = 20


def interleaved(seed: int, deaths: int) -> Spied:
    """Seven runs of three trials end side by side, in an order that the seed decides; who is killed is started again."""
    rng = random.Random(seed)
    client = MemoryStore()
    turns = Turns(rng, deaths)
    configs = {c.run: c for c in [run_of(URI, trial, fold, runs=2) for trial in range(3) for fold in range(2)]}
    configs["t-cv3-f0s42"] = run_of(URI, 3, 0, runs=2)  # the rest of this trial was pruned

    def work(config: RunConfig) -> Callable[[], None]:
        own = Spied(client, lambda verb, path: turns.take(config.run))
        return lambda: end(own, config, 0.5 + 0.1 * (config.trial or 0))

    waiting = dict(configs)
    while waiting:
        waiting = {name: configs[name] for name in turns.run({name: work(c) for name, c in waiting.items()})}
    return Spied(client)


def complete(store: Spied) -> bool:
    best = best_in(store)
    return len(names_in(store)) == 7 and best is not None and best["trial"] == 2


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gather, "PART", 2)  # several parts, and few reads that do not matter here


@pytest.mark.usefixtures("small_parts")
@pytest.mark.parametrize("deaths", [0, 2])
def test_whatever_the_order_in_which_runs_write_nothing_is_lost(deaths: int) -> None:
    for seed in range(SEEDS):
        assert complete(interleaved(seed, deaths)), seed


@pytest.mark.usefixtures("small_parts")
def test_without_the_look_after_the_write_rows_are_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above can fail."""

    def once(store: Store, path: str, config: RunConfig, look: Callable[[tables.Rows], tables.Rows]) -> tables.Rows:
        rows = tables.unpack(store.read(path), config.root)
        rows |= look(rows)
        store.write(path, tables.pack(rows, config.root))
        return rows

    monkeypatch.setattr(gather, "_settle", once)
    assert not all(complete(interleaved(seed, 0)) for seed in range(SEEDS))


WORKER = """
import sys
from crossfold_trainer import gather
from crossfold_trainer.contract.data import ArtifactsSpec
from crossfold_trainer.store import open_store
from tests.finished import finish, run_of
uri, seed, trials = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
store = open_store(ArtifactsSpec(uri=uri + "/default/t"), "artifacts")
print("ready", flush=True)
sys.stdin.readline()
for trial in range(trials):
    for fold in range(3):
        config = run_of(uri, trial, fold, seed, runs=6)
        finish(store, config, 0.5 + trial / 100)
        gather.update(store, config)
"""


def test_two_processes_at_a_time_lose_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WORKER, str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([p for p in sys.path if p] + [str(Path.cwd())])}
    workers = [
        subprocess.Popen([*command, str(seed), "5"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        for seed in (1, 2)
    ]  # fmt: skip
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("\n")
        worker.stdin.flush()
    assert [worker.wait(120) for worker in workers] == [0, 0]
    folder = tmp_path / "default" / "t"
    assert len(pd.read_parquet(folder / gather.TUNE)) == 30
    for trial in range(5):
        assert len(pd.read_parquet(folder / f"t-cv{trial}" / gather.RUN_INFOS)) == 6
    assert yaml.safe_load((folder / gather.BEST).read_text())["trial"] == 4
    assert [path.name for path in (folder / gather.TUNE).iterdir()] == ["00000-11111111.parquet"]


# What they cost -------------------------------------------------------------------------------------------------------


def requests(store: Spied, config: RunConfig) -> Counter[str]:
    """What a run asks of the store at its end."""
    finish(store, config, 0.5)
    asked = Counter[str]()
    store.about = lambda verb, path: asked.update([verb])
    gather.update(store, config)
    store.about = lambda verb, path: None
    return asked


def test_the_last_run_of_a_long_search_asks_for_no_more_than_the_first(store: Spied) -> None:
    first = requests(store, run_of(URI, 0, 0, runs=15))
    for trial in range(50, 150):  # two parts of complete trials
        own = {c.run: tables.row_of(c, result_of(c)) for c in [run_of(URI, trial, 0, s, runs=15) for s in range(15)]}
        store.write(f"t-cv{trial}/{gather.RUN_INFOS}", tables.pack(own, ROOT))
    finish(store, run_of(URI, 149, 1, runs=15))
    gather.update(store, run_of(URI, 149, 1, runs=15))
    gather.update(store, run_of(URI, 99, 0, 14, runs=15))
    assert len(names_in(store)) == 1 + 100 * 15 + 1 - 0
    later = requests(store, run_of(URI, 0, 1, runs=15))
    assert (later["list"], later["write"]) == (first["list"], first["write"])
    assert later.total() <= first.total() + 4
    assert later.total() <= 2 * gather.PART + 20


# How they are read ----------------------------------------------------------------------------------------------------


def test_the_example_of_the_documentation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (Path(__file__).parents[3] / "docs" / "trainer.md").read_text()
    (code,) = [block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "read_parquet" in block]
    assert len([line for line in code.splitlines() if line]) == 3
    uri = str(tmp_path / "runs" / "artifacts")
    store = open_store(ArtifactsSpec(uri=f"{uri}/default/slumps"), "artifacts")
    for trial, scores in {3: [0.5, 0.75], 51: [0.5, 0.5], 60: [None]}.items():
        for fold, score in enumerate(scores):
            end(store, run_of(uri, trial, fold, tune="slumps", runs=2), score)
    monkeypatch.chdir(tmp_path)
    exec(code, {})  # noqa: S102 -- our own
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[2:]] == [["51", "0.500"], ["3", "0.625"], ["60", "NaN"]]


def test_the_documentation_lists_every_column() -> None:
    text = (Path(__file__).parents[3] / "docs" / "trainer.md").read_text()
    table = text.partition("| columns | type | |")[2].partition("\n\n")[0]
    named = set(re.findall(r"`([^`]+)`", table))
    families = {name.partition("/")[0] + "/..." if "/" in name else name for name in tables.COLUMNS}
    assert named - {"x-..."} == families


# It fails no run ------------------------------------------------------------------------------------------------------


def warned(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == gather.__name__]


def test_what_cannot_be_written_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = run_of(str(tmp_path), 0)
    folder = tmp_path / "default" / "t"
    finish(open_store(ArtifactsSpec(uri=str(folder)), "artifacts"), config)
    (folder / "t-cv0" / gather.RUN_INFOS).mkdir()
    gather.leave(config, Interrupt())
    (text,) = warned(caplog)
    assert text.startswith(f"warning: the tables in {folder} are not up to date: ")


def test_a_store_that_does_not_answer_holds_a_run_up_for_a_while_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    release = threading.Event()
    monkeypatch.setattr(gather, "update", lambda store, config: release.wait())
    monkeypatch.setattr(gather, "LIMIT_S", 0.2)
    gather.leave(run_of(str(tmp_path), 0), Interrupt())
    assert "there was no time left" in warned(caplog)[0]
    # A pod that is to end has less.
    monkeypatch.setattr(gather, "LIMIT_S", 60.0)
    interrupt = Interrupt()
    interrupt.grace_seconds = 2.5
    interrupt.request()
    began = time.monotonic()
    gather.leave(run_of(str(tmp_path), 0), interrupt)
    assert time.monotonic() - began < 30
    assert "there was no time left" in warned(caplog)[1]
    release.set()


@pytest.mark.parametrize("changes", [{"runs": 0}, {"crossValidation": ""}, {"crossValidation": "elsewhere"}])
def test_a_run_of_its_own_leaves_no_table(tmp_path: Path, changes: dict[str, Any]) -> None:
    config = run_of(str(tmp_path), 0).model_copy(
        update={"runs": 0} if "runs" in changes else {"cross_validation": changes["crossValidation"]}
    )
    gather.leave(config, Interrupt())
    assert list(tmp_path.iterdir()) == []
