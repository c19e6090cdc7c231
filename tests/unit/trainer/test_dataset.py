"""A data set written anew: what plain zarr makes of it, what a trainer makes of it, and what is refused."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr

from crossfold_trainer.contract.data import ArtifactsSpec, DataSpec
from crossfold_trainer.data import open_dataset
from crossfold_trainer.dataset.__main__ import main
from crossfold_trainer.dataset.rewrite import rewrite
from crossfold_trainer.errors import ConfigError
from crossfold_trainer.reader import ChunkReader
from tests.trainer_data import BANDS, write_dataset

pytestmark = pytest.mark.filterwarnings("ignore:Numcodecs codecs are not in the Zarr version 3")
ROWS = np.arange(24)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_dataset(tmp_path_factory.mktemp("source") / "d")
    (folder / "labels.geojson").write_text("{}")
    return folder


@pytest.mark.parametrize("apart", [False, True])
def test_it_is_the_same_data_set(source: Path, tmp_path: Path, *, apart: bool) -> None:
    seen: list[tuple[int, int]] = []
    target = tmp_path / "t"
    written = rewrite(
        DataSpec(uri=str(source)),
        ArtifactsSpec(uri=str(target)),
        bands_apart=apart,
        progress=lambda *at: seen.append(at),
    )
    assert written.patches == 24
    assert seen[-1] == (24, 24)
    assert written.after < 0.7 * written.before
    before, after = (zarr.open_group(folder / "data.zarr", mode="r") for folder in (source, target))
    assert after["x"].dtype == np.float32
    assert after["x"].chunks == (1, 1 if apart else 3, 32, 32)
    assert np.abs(np.asarray(after["x"]) - np.asarray(before["x"])).max() <= 1 / 131070 + 1e-7
    assert np.array_equal(np.asarray(after["y"]), np.asarray(before["y"]))
    for name in ("config.toml", "metadata.parquet", "labels.geojson"):
        assert (target / name).read_bytes() == (source / name).read_bytes()
    data = open_dataset(DataSpec(uri=str(target)), ["nir", "red"])
    assert isinstance(data.reader, ChunkReader)
    assert data.reader.dtype == np.dtype("<u2")
    got = data.read(ROWS)
    assert np.array_equal(got.x, np.asarray(after["x"])[:, [2, 0]])
    assert np.array_equal(got.y, np.asarray(before["y"]))


def test_small_blocks_give_the_same(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rewrite(DataSpec(uri=str(source)), ArtifactsSpec(uri=str(tmp_path / "whole")))
    monkeypatch.setattr(
        "crossfold_trainer.dataset.rewrite.BLOCK_BYTES",
        5 * 4 * open_dataset(DataSpec(uri=str(source)), None).patch_bytes,
    )
    rewrite(DataSpec(uri=str(source)), ArtifactsSpec(uri=str(tmp_path / "parts")))
    whole, parts = (open_dataset(DataSpec(uri=str(tmp_path / name)), None).read(ROWS) for name in ("whole", "parts"))
    assert np.array_equal(whole.x, parts.x)


def test_a_target_that_is_a_data_set_is_refused(source: Path) -> None:
    with pytest.raises(ConfigError, match=r"target: .* holds a data set already: remove it, or choose another place"):
        rewrite(DataSpec(uri=str(source)), ArtifactsSpec(uri=str(source)))


@pytest.mark.parametrize(("value", "says"), [(-0.1, "data.scale: "), (1.5, "data.scale: "), (np.nan, "data.uri: ")])
def test_values_that_cannot_be_stored_are_refused(tmp_path: Path, value: float, says: str) -> None:
    x = np.zeros((24, len(BANDS), 32, 32), np.float32)
    x[9, 1, 2, 3] = value
    folder = write_dataset(tmp_path / "d", x=x)
    with pytest.raises(ConfigError, match=rf"{says}patch 9 has .* band green"):
        rewrite(DataSpec(uri=str(folder)), ArtifactsSpec(uri=str(tmp_path / "t")))
    assert not (tmp_path / "t" / "config.toml").exists()


def test_values_that_are_not_in_0_to_1_are_written_as_they_are_read(tmp_path: Path) -> None:
    x = np.random.default_rng(0).uniform(0, 10_000, (24, len(BANDS), 32, 32)).astype(np.float32)
    x[3, 1, 2, 2], x[4, 1, :2, 2] = np.nan, (-9, 10_009)
    source = write_dataset(tmp_path / "d", x=x)
    arguments = [str(source), str(tmp_path / "t"), "--scale", "0", "10000", "--non-finite", "Ignore"]
    assert main(arguments) == 0
    got = open_dataset(DataSpec(uri=str(tmp_path / "t")), None).read(ROWS)
    assert np.abs(got.x - np.nan_to_num(x / 10_000).clip(0, 1)).max() <= 1 / 131070 + 1e-7
    assert got.y[3, 2, 2] == 2
    assert main([str(source), str(tmp_path / "u"), "--scale", "0", "9000", "--non-finite", "Ignore"]) == 2


def test_what_may_be_wrong_with_the_source_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = write_dataset(tmp_path / "d")
    shutil.rmtree(folder / "data.zarr/x/c/3")
    rewrite(DataSpec(uri=str(folder)), ArtifactsSpec(uri=str(tmp_path / "t")))
    assert "3 of 72 chunks of data.zarr/x are not there" in caplog.text


def test_what_was_cut_off_is_begun_anew(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "t"
    rewrite(DataSpec(uri=str(source)), ArtifactsSpec(uri=str(target)), bands_apart=True)
    (target / "config.toml").unlink()
    rewrite(DataSpec(uri=str(source)), ArtifactsSpec(uri=str(target)))
    assert zarr.open_group(target / "data.zarr", mode="r")["x"].chunks == (1, 3, 32, 32)


def test_on_the_command_line(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = str(tmp_path / "t")
    assert main([str(source), target, "--bands-apart"]) == 0
    assert capsys.readouterr().out.startswith(f"{target}: 24 patches, 0.")
    assert main([str(source), target]) == 2
    assert "holds a data set already" in capsys.readouterr().err
    assert main([str(tmp_path / "nowhere"), target]) == 2
    assert "data.uri: the folder" in capsys.readouterr().err
    assert main([str(source), "s3://b/x", "--target-endpoint", "nonsense"]) == 2
    assert "endpoint" in capsys.readouterr().err


def test_torch_is_not_needed(tmp_path: Path) -> None:
    code = "import sys; import crossfold_trainer.dataset.__main__; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
