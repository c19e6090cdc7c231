"""What `crossfold import` prints is what a real API server accepts, field by field."""

from pathlib import Path

import pytest

from crossfold_cli.importers.convert import convert
from crossfold_cli.importers.tune import Options
from crossfold_cli.yamljson import load_all
from tests.crds.conftest import Api

FILES = sorted((Path(__file__).parents[1] / "unit" / "cli" / "imports").iterdir())
OPTIONS = {
    "wandb": Options(drop=frozenset({"epochs"})),
    "katib": Options(rename={"lr": "learning_rate", "num-layers": "x-num-layers"}),
}


@pytest.mark.cluster
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_printed_tune_is_accepted(api: Api, file: Path) -> None:
    printed, _ = convert(str(file), None, OPTIONS.get(file.stem, Options()))
    (tune,) = load_all(printed)
    stored = api.create(tune, dry=True)
    assert stored["spec"]["parameters"] == tune["spec"]["parameters"]
    assert stored["spec"]["fixed"] == tune["spec"].get("fixed", [])
    assert stored["spec"]["maxTrials"] == tune["spec"]["maxTrials"]
