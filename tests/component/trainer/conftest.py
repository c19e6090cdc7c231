"""What tests of whole runs begin with: a data set, and attempts of runs on it."""

from pathlib import Path

import pytest

from tests.trainer_data import write_dataset
from tests.trainer_runs import Attempts


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data set of `write_dataset`."""
    return write_dataset(tmp_path_factory.mktemp("data"))


@pytest.fixture
def attempts(tmp_path: Path) -> Attempts:
    """Attempts that say how they ended in a file of this test."""
    return Attempts(tmp_path)
