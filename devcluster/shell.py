"""Running programs: quietly when they succeed, with their last words when they do not."""

import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from devcluster.console import DevclusterError

_LAST_LINES = 12


def run(
    command: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: str | None = None,
) -> str:
    """Runs a program to its end.

    Returns:
        Its standard output.

    Raises:
        DevclusterError: It failed; with the last lines of what it said.
    """
    done = subprocess.run(command, env=env, cwd=cwd, input=stdin, text=True, capture_output=True, check=False)
    if done.returncode:
        raise failure(command, done.returncode, (done.stdout + done.stderr).splitlines())
    return done.stdout


def follow(
    command: Sequence[str | Path],
    on_line: Callable[[str], None],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    log: Path | None = None,
) -> None:
    """Runs a long program to its end, handing over each line of its output as it comes.

    Args:
        command: The program and its arguments.
        on_line: Called with each line.
        env: Its environment; this process's own if absent.
        cwd: Where it runs.
        log: Where to keep everything that it says.

    Raises:
        DevclusterError: It failed; with the last lines of what it said.
    """
    lines: list[str] = []
    nothing, pipe, both = subprocess.DEVNULL, subprocess.PIPE, subprocess.STDOUT
    with subprocess.Popen(command, env=env, cwd=cwd, text=True, stdin=nothing, stdout=pipe, stderr=both) as process:
        for raw in process.stdout or ():
            line = raw.rstrip()
            if line:
                lines.append(line)
                on_line(line)
    if log is not None:
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text("\n".join(lines) + "\n")
    if process.returncode:
        raise failure(command, process.returncode, lines)


def failure(command: Sequence[str | Path], code: int, lines: Sequence[str]) -> DevclusterError:
    """What to tell the person about a program that failed."""
    said = "\n".join(f"      {line}" for line in lines[-_LAST_LINES:])
    words = " ".join(str(word) for word in command[:4])
    return DevclusterError(f"{words} ... ended with {code}:\n{said}")
