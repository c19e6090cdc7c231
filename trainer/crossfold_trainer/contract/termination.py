"""The termination message: where a container leaves the JSON of its result or failure."""

import contextlib
import os
from pathlib import Path

from crossfold_trainer.contract.config import TERMINATION_VARIABLE

TERMINATION_LOG = "/dev/termination-log"
"""Mounted by the kubelet; written only where it exists."""


def write_termination_message(text: str) -> None:
    """Leave the message where the kubelet reads it; nowhere when there is no such place."""
    given = os.environ.get(TERMINATION_VARIABLE)
    path = Path(given or TERMINATION_LOG)
    if not given and not path.exists():
        return
    with contextlib.suppress(OSError):
        path.write_text(text)
