"""Tables of runs that were really trained."""

from pathlib import Path

import yaml

from crossfold_trainer import gather, tables
from crossfold_trainer.contract.data import ArtifactsSpec
from crossfold_trainer.contract.metrics import REPORTED
from crossfold_trainer.store import open_store
from tests.finished import ROOT, run_of
from tests.trainer_data import ENCODER
from tests.trainer_runs import Attempts, result


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
