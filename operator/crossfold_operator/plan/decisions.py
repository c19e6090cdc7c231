"""A decision to prune a trial, whoever made it, as it is written down. Pure."""

from dataclasses import dataclass
from datetime import datetime

from crossfold_operator.api.crossvalidation import AuditSpec, TrialStopSpec
from crossfold_operator.api.pruning import RunLookSpec
from crossfold_operator.api.racing import LookSpec
from crossfold_operator.api.trainrun import StopReason
from crossfold_operator.observe.trials import Trial
from crossfold_operator.times import timestamp

MAX_MESSAGE = 1024


@dataclass(frozen=True)
class Decided:
    """A trial that is not worth going on.

    Attributes:
        trial: the trial.
        message: why, with the numbers.
        look: the numbers, where racing made it.
        run_look: the numbers, where pruning made it.
        audited: the trial runs to its end all the same.
    """

    trial: Trial
    message: str
    look: LookSpec | None = None
    run_look: RunLookSpec | None = None
    audited: bool = False

    def stop(self, now: datetime) -> TrialStopSpec:
        """The decision as it is written on the trial, which is what is remembered of it."""
        return TrialStopSpec(
            reason=StopReason.PRUNED,
            message=self.message[:MAX_MESSAGE],
            time=timestamp(now),
            look=self.look,
            run_look=self.run_look,
        )

    def audit(self, now: datetime) -> AuditSpec:
        """The decision that is not carried out, as it is written on the trial."""
        return AuditSpec(
            message=self.message[:MAX_MESSAGE], time=timestamp(now), look=self.look, run_look=self.run_look
        )
