"""The command itself."""

import subprocess
import sys

HEAVY = ("crossfold_operator", "optuna", "numpy", "pydantic", "yaml", "rich", "asyncio")


def test_help_loads_nothing_that_takes_long() -> None:
    script = (
        "import sys; from typer.testing import CliRunner; before = set(sys.modules);"
        " from crossfold_cli.main import app; CliRunner().invoke(app, ['--help']);"
        f" print([name for name in {HEAVY!r} if name in sys.modules and name not in before])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
