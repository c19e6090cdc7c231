"""Tables of runs that were really trained."""

import signal
import time
from pathlib import Path

import pytest
import yaml

from crossfold_trainer import __main__ as program
from crossfold_trainer import gather, tables
from crossfold_trainer.contract.config import RunConfig
from crossfold_trainer.contract.data import ArtifactsSpec
from crossfold_trainer.contract.exits import Exit
from crossfold_trainer.contract.metrics import REPORTED
from crossfold_trainer.contract.result import FailureClass
from crossfold_trainer.interrupt import Interrupt
from crossfold_trainer.store import open_store
from tests.finished import ROOT, finish, result_of, run_of
from tests.trainer_data import ENCODER
from tests.trainer_runs import Attempts, failure, result


def test_runs_leave_tables_and_repair_them_when_they_repeat_their_results(data: Path, tmp_path: Path) -> None:
    uri = str(tmp_path / "a")
    attempts = Attempts(tmp_path)
    configs = [
        run_of(
            uri, 0, fold, runs=2, data={"uri": str(data), "split": {"method": "Region", "values": ["r0"]}},
            hyperparameters={"model_encoder": ENCODER, "batch_size": 4, "learning_rate": 3e-3}, trainer={"maxEpochs": 1},
        )
        for fold in range(2)
    ]  # fmt: skip
    results = [result(attempts.here(config)) for config in configs]
    folder = tmp_path / "a" / "default" / "t"
    wanted = {c.run: tables.row_of(c, r) for c, r in zip(configs, results, strict=True)}

    def check() -> None:
        store = open_store(ArtifactsSpec(uri=str(folder)), "artifacts")
        for path in (f"t-cv0/{gather.RUN_INFOS}", f"{gather.TUNE}/00000-{ROOT[:8]}.parquet"):
            rows = tables.unpack(store.read(path), ROOT)
            assert {n: {k: v for k, v in r.items() if v is not None} for n, r in rows.items()} == {
                n: {k: v for k, v in r.items() if v is not None} for n, r in wanted.items()
            }
        best = yaml.safe_load((folder / gather.BEST).read_text())
        assert [run["score"] for run in best["runs"]] == [r.score for r in results]

    for found in results:
        assert set(found.metrics) | set(found.values) == set(REPORTED)
    check()
    # As if the last pod had died before it wrote them.
    for path in (folder / "t-cv0" / gather.RUN_INFOS, folder / gather.BEST, *(folder / gather.TUNE).iterdir()):
        path.unlink()
    again = attempts.ended(attempts.process(configs[1]))
    assert result(again) == results[1]
    assert "epoch 1/1" not in again.output
    check()


def finished(folder: Path) -> RunConfig:
    """A run whose result is there: it is repeated, and the tables are written, without training."""
    config = run_of(str(folder), 0)
    finish(open_store(ArtifactsSpec(uri=str(folder / "default" / "t")), "artifacts"), config)
    return config


HANGING = """
import threading
from crossfold_trainer import gather
from crossfold_trainer.__main__ import main
def update(store, config):
    print("the tables are being written", flush=True)
    threading.Event().wait()
gather.update = update
main()
"""


def test_sigterm_while_the_tables_are_written_ends_within_the_grace_period(tmp_path: Path, attempts: Attempts) -> None:
    """The result is there already, so that the exit code is the result's."""
    config = finished(tmp_path / "a").model_copy(update={"grace_period_seconds": 8})
    process = attempts.process(config, program=("-c", HANGING))
    assert process.stdout is not None
    next(line for line in process.stdout if line == "the tables are being written\n")
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    ended = attempts.ended(process)
    assert time.monotonic() - began < config.grace_period_seconds
    assert result(ended) == result_of(config)
    assert "are not up to date: there was no time left" in ended.output


@pytest.mark.parametrize("there", [True, False], ids=["a result", "a failure"])
def test_sigterm_while_the_end_is_told_does_not_change_it(
    tmp_path: Path, attempts: Attempts, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    interrupt, write = Interrupt(), program.write_termination_message

    def interrupted(text: str) -> None:
        interrupt._arrived(signal.SIGTERM, None)
        write(text)

    monkeypatch.setattr(program, "write_termination_message", interrupted)
    if there:
        config = finished(tmp_path / "a")
        assert result(attempts.here(config, interrupt)) == result_of(config)
    else:
        ended = attempts.here(run_of(str(tmp_path / "a"), 0), interrupt)
        assert failure(ended, Exit.CONFIG, FailureClass.CONFIG).startswith("data.uri: ")
