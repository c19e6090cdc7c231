"""`crossfold data check`: what it prints, its exit codes, and what it does without the extra."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from crossfold_cli.main import app
from tests.trainer_data import BANDS, write_dataset


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["data", "check", *map(str, arguments)])


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Values up to 10,000, a NaN, and a wrong patch_size."""
    x = np.random.default_rng(0).uniform(0, 10_000, (24, len(BANDS), 32, 32)).astype(np.float32)
    x[5, 0, 0, 0] = np.nan
    config = {"bands": list(BANDS), "patch_size": 64}
    return write_dataset(tmp_path_factory.mktemp("raw"), x=x, config=config)


def test_a_sound_data_set_is_summed_up(sound: Path) -> None:
    result = run(sound, "--folds", 3)
    assert result.exit_code == 0, result.output
    for words in ("24 patches of 32 x 32", "18 of them", "nir", "r5", "RegionStratified", "no errors and no warnings"):
        assert words in result.output, words


def test_all_that_is_wrong_is_listed(raw: Path) -> None:
    result = run(raw)
    assert result.exit_code == 1
    for words in ("patch_size = 64", "1 of 24576 pixels in band red", "out of range", "3 errors"):
        assert words in result.output, words
    assert "data.scale" in result.output
    assert result.output.splitlines()[-1].startswith(f"{raw}: wrong")


def test_what_values_mean_may_be_said(raw: Path) -> None:
    given = (raw, "-o", "json", "--non-finite", "Ignore")
    for scale in (("--scale", 0, 10_000), [word for band in BANDS for word in ("--band-scale", f"{band}=0,1e4")]):
        result = run(*given, *scale)
        content = json.loads(result.stdout)
        assert result.exit_code == 1
        assert [finding["where"] for finding in content["findings"] if finding["severity"] == "error"] == [
            "config.toml"
        ]


def test_json_has_everything(sound: Path) -> None:
    result = run(sound, "-o", "json", "--folds", 3, "--bands", "nir, red")
    content = json.loads(result.stdout)
    assert result.exit_code == 0
    assert (content["uri"], content["good"], content["findings"], content["pixelsRead"]) == (str(sound), True, [], 24)
    assert [band["name"] for band in content["summary"]["bands"]] == ["nir", "red"]
    assert len(content["summary"]["regions"]) == 6
    folds = {cut["method"]: cut["folds"] for cut in content["summary"]["folds"]}
    assert folds["KFold"][0]["val"] == {"patches": 8, "positive": 6}


def test_without_pixels(sound: Path) -> None:
    result = run(sound, "--no-pixels")
    assert result.exit_code == 0
    assert "pixels not read" in result.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["/nowhere/at/all"], "the folder /nowhere/at/all does not exist"),
        (["s3://"], "names no bucket"),
        (["ftp://host/d"], "the scheme 'ftp://' is unknown"),
        (["d", "--endpoint", "host:9000"], "--endpoint host:9000 must begin with http:// or https://"),
        (["d", "--scale", "1", "0"], "--scale from 1 to 0"),
        (["d", "--band-scale", "nir"], "write it as NAME=MIN,MAX"),
        (["d", "--band-scale", "nir=3,2"], "--band-scale nir from 3 to 2"),
        (["d", "--non-finite", "No"], "use Error or Ignore"),
        (["d", "-o", "yaml"], "-o yaml is not known: use text or json"),
    ],
)
def test_what_cannot_be_checked(arguments: list[str], words: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert words in result.stderr


def test_without_the_extra_it_says_what_to_install(sound: Path) -> None:
    script = (
        "import sys; sys.modules['obstore'] = None;"
        f" sys.argv = ['crossfold', 'data', 'check', {str(sound)!r}]; from crossfold_cli.main import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "obstore" in done.stderr
    assert "crossfold[cli,data]" in done.stderr


def test_torch_is_not_needed(sound: Path) -> None:
    script = f"""
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Missing())
sys.argv = ["crossfold", "data", "check", {str(sound)!r}]
from crossfold_cli.main import main
main()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False, text=True)
    assert done.returncode == 0, done.stderr
