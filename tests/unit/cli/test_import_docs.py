"""docs/import.md: its examples do what it shows."""

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from crossfold_cli.importers.convert import FORMATS
from crossfold_cli.main import app

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "import.md").read_text()
FILES = dict(re.findall(r"```yaml\n# (\S+)\n(.*?)```", PAGE, re.DOTALL))
EXAMPLES = re.findall(r"```console\n\$ crossfold (import [^\n]*)\n(.*?)```", PAGE, re.DOTALL)


def test_there_is_an_example_of_every_format() -> None:
    assert len(FILES) == len(EXAMPLES) == len(FORMATS)
    for name, form in FORMATS.items():
        assert any(form.title in shown for _, shown in EXAMPLES), name


@pytest.mark.parametrize(("command", "shown"), EXAMPLES)
def test_examples_print_what_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, shown: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, text in FILES.items():
        Path(name).write_text(f"# {name}\n{text}")
    result = CliRunner().invoke(app, shlex.split(command))
    assert result.exit_code == 0
    assert result.stderr + result.stdout == shown
