"""What is said between the operator and its worker processes: pickled objects, each after its length."""

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

from crossfold_operator.search.history import Trial, TrialState
from crossfold_operator.search.suggest import Answer, SearchSettings

LENGTH_BYTES = 8
READY = b"ready"
"""What a worker says first."""

TrialTuple = tuple[int, Mapping[str, Any], str, float | None, int, str]


@dataclass(frozen=True)
class Request:
    """A question to a worker.

    Attributes:
        search: which Tune asks, by its UID.
        settings: of its search.
        kept: trials of which the worker keeps what it was told last; None: it forgets all of them.
        changes: those that are new or otherwise now, by their places.
        first: number of the first trial to ask for.
        count: trials to ask for.
        seconds: after which no further one is asked for.
        forget: Tunes that will not ask again.
    """

    search: str
    settings: SearchSettings
    kept: int | None
    changes: tuple[tuple[int, TrialTuple], ...]
    first: int
    count: int
    seconds: float
    forget: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reply:
    """A worker's reply: an answer, or what went wrong."""

    answer: Answer | None
    error: str = ""
    traceback: str = ""


def plain(trial: Trial) -> TrialTuple:
    """A trial as it is sent."""
    parameters = dict(trial.parameters)
    return trial.number, parameters, str(trial.state), trial.value, trial.step, trial.source


def trial_of(sent: TrialTuple) -> Trial:
    """A trial as it was sent."""
    number, parameters, state, value, step, source = sent
    return Trial(number, parameters, TrialState(state), value, step, source)


def packed(content: Any) -> bytes:
    """A frame."""
    body = pickle.dumps(content, protocol=pickle.HIGHEST_PROTOCOL)
    return len(body).to_bytes(LENGTH_BYTES, "big") + body


def read(stream: BinaryIO) -> Any:
    """The next frame.

    Raises:
        EOFError: the other side is gone.
    """
    length = _exactly(stream, LENGTH_BYTES)
    return pickle.loads(_exactly(stream, int.from_bytes(length, "big")))  # noqa: S301 -- from our own process


def _exactly(stream: BinaryIO, size: int) -> bytes:
    found = stream.read(size)
    if len(found) < size:
        raise EOFError
    return found
