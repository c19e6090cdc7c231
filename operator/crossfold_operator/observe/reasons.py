"""The end of a container's log -> why it ended, in one line. Pure.

What a log holds is anybody's: the trainer's, another program's, Python's, the C library's, those of several processes
and threads at a time, and its first line may be half a line.
"""

import re
import signal
from collections.abc import Sequence

REASON_LIMIT = 500
"""Characters of a reason."""
_HEADER = "Traceback (most recent call last):"
_FRAME = re.compile(r"\s+File \".*\", line \d+")
_MARGIN = re.compile(r"^\s*\|( |$)")
"""What Python draws beside the tracebacks of an ExceptionGroup."""
_RAISED = re.compile(r"(?:[A-Z]\w*|(?:\w+\.)+\w+)(?:: .*|:)?$")
"""An exception as Python prints it: its type, and its message if it has one."""
_NAMED = re.compile(r"(?:\w+\.)*\w*(?:Error|Exception|Interrupt|Exit)(?:: .*|:)?$")
"""The same without a traceback around it: nothing but its name tells it from other text."""
_NOT_THE_END = ("Exception in thread ", "Exception ignored in")
"""What stands above the traceback of an exception that does not end a process."""
_FATAL = ("Fatal Python error: ", "terminate called ")
_WHAT = "what():"
"""Where C++ goes on after "terminate called after throwing an instance of"."""


def reason_of(log: str, exit_code: int | None) -> str:
    """Why a container ended that left no word of its own.

    The exception of the last traceback; else what the interpreter or the C++ library said when it gave up; else an
    exception's name; else the signal; else the last line. Empty where neither log nor exit code says anything.

    Args:
        log: the end of its log.
        exit_code: of the container, where there is one.
    """
    lines = [_MARGIN.sub("", line).rstrip() for line in log.splitlines()]
    name = _signal_name(exit_code)
    said = _raised(lines) or _fatal(lines) or _named(lines)
    if name:
        ended = f"ended by {name} (exit code {exit_code})"
        return f"{said[:REASON_LIMIT]}; {ended}" if said else ended + _OFTEN.get(name, "")
    said = said or next((line.strip() for line in reversed(lines) if line.strip()), "")
    return said[:REASON_LIMIT] or ("" if exit_code is None else f"the container ended with exit code {exit_code}")


_OFTEN = {
    "SIGKILL": ": as a rule the kernel does so where memory ran out; raise spec.template.resources.limits.memory or"
    " lower batch_size",
    "SIGBUS": ": as a rule /dev/shm is full",
}
"""What ends a process without a word from it."""


def _raised(lines: Sequence[str]) -> str:
    """The exception of the last traceback that ended a process; empty without one."""
    heads = [i for i, line in enumerate(lines) if line.endswith(_HEADER)]
    own = [i for i in heads if not (i and lines[i - 1].startswith(_NOT_THE_END))]
    # Of a traceback whose head was cut off the frames are left.
    starts = own[-1:] or [i for i, line in enumerate(lines) if _FRAME.match(line) and not heads][-1:] or heads[-1:]
    if not starts:
        return ""
    after = [line for line in lines[starts[0] + 1 :] if line and not line[0].isspace()]
    return next((line for line in after if _RAISED.match(line)), "")


def _fatal(lines: Sequence[str]) -> str:
    """What Python or C++ said when it gave up; empty where neither did."""
    for i, line in reversed(list(enumerate(lines))):
        if line.startswith(_FATAL):
            following = lines[i + 1].strip() if i + 1 < len(lines) else ""
            return f"{line}: {following.removeprefix(_WHAT).strip()}" if following.startswith(_WHAT) else line
    return ""


def _named(lines: Sequence[str]) -> str:
    """The last line that reads like an exception, whose traceback is out of sight; empty without one."""
    return next((line for line in reversed(lines) if _NAMED.match(line)), "")


def _signal_name(exit_code: int | None) -> str:
    """The signal that ended a process, as shells tell it (128 + its number); empty for an exit of its own."""
    try:
        return signal.Signals((exit_code or 0) - 128).name
    except ValueError:
        return ""
