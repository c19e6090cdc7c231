"""What is remembered of an attempt that is being ended."""

from crossfold_operator.api.trainrun import CurrentAttempt
from crossfold_operator.observe.attempts import Attempt, AttemptState
from crossfold_operator.status.trainrun import _current

START = "2026-01-01T00:00:00Z"
SEEN = CurrentAttempt(attempt=2, start_time=START, seconds=19)


def attempt(number: int = 2, *, started: str | None = None, seconds: int = 0, deleting: bool = True) -> Attempt:
    return Attempt(
        number=number, job="r-a2", uid="u", state=AttemptState.STARTING, deleting=deleting, started=started, seconds=seconds
    )  # fmt: skip


def test_its_time_is_kept_when_its_pod_goes_before_its_job() -> None:
    assert _current(attempt(), SEEN) == SEEN


def test_its_time_is_that_of_its_pod_while_there_is_one() -> None:
    assert _current(attempt(started=START, seconds=21), SEEN) == SEEN.model_copy(update={"seconds": 21})


def test_another_attempt_has_a_time_of_its_own() -> None:
    assert _current(attempt(number=3), SEEN) == CurrentAttempt(attempt=3)
    assert _current(attempt(deleting=False), SEEN) == CurrentAttempt(attempt=2)
    assert _current(attempt(), None) == CurrentAttempt(attempt=2)
