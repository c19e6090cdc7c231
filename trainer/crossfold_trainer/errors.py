"""The ways in which a run ends without a result. Each maps to one exit code in ``__main__``."""


class ConfigError(Exception):
    """The configuration or the data is wrong: trying again would not help (exit 78).

    Attributes:
        field: path of the field to look at, such as ``data.uri``.
        problem: what is wrong with it, with numbers, and the remedy.
    """

    def __init__(self, field: str, problem: str) -> None:
        """Name the field and the problem."""
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem


class StoreError(Exception):
    """Object storage did not answer as it should, after bounded retries: a crash, worth another attempt."""


class Interrupted(BaseException):
    """SIGTERM arrived and what there was to save is saved (exit 75).

    No Exception: the signal may arrive inside of anything, and whoever handles errors there must not take it for one.
    """


class Fenced(Interrupted):
    """Another attempt has taken the run over: nothing that this one does counts any more (exit 75)."""


class AcceleratorOutOfMemory(Exception):
    """The accelerator ran out of memory (exit 71)."""


class Diverged(Exception):
    """The loss became non-finite: a finished run without a score (exit 0)."""


class MicroBatchTooLarge(AcceleratorOutOfMemory):
    """The accelerator ran out of memory, and all ranks are to begin again with smaller micro-batches (exit 75).

    Attributes:
        halvings: how often the micro-batches are to be halved from then on.
    """

    def __init__(self, text: str, halvings: int) -> None:
        """Say what did not fit."""
        super().__init__(text)
        self.halvings = halvings


class PeersLost(Exception):
    """Other ranks are gone or were never met (exit 76)."""
