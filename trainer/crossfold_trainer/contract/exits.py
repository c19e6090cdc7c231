"""Exit codes of the trainer container: the trainer exits with them, the operator classifies by them."""

from enum import IntEnum


class Exit(IntEnum):
    """The trainer's exit codes; any other code is a crash."""

    OK = 0
    """A result was written (a diverged run too)."""
    OUT_OF_MEMORY = 71
    """The accelerator ran out of memory."""
    INTERRUPTED = 75
    """Stopped by SIGTERM after a checkpoint was saved; started again it resumes (EX_TEMPFAIL)."""
    PEERS_LOST = 76
    """Others of the processes that train together are gone or were never met: what ended them says why."""
    CONFIG = 78
    """The configuration or the data is wrong; trying again would not help (EX_CONFIG)."""
