"""What a run says of its scores while it trains, and at its end."""

from crossfold_trainer.contract.config import RunConfig
from crossfold_trainer.contract.curve import CurvePoint, curve_of
from crossfold_trainer.contract.scoring import run_score, score_direction
from crossfold_trainer.progress import Progress


def scores_so_far(config: RunConfig, progress: Progress) -> list[CurvePoint]:
    """The run's scores at the epochs that its configuration names, all attempts together."""
    reached = [epoch for epoch in config.curve_epochs if epoch <= progress.epoch]
    if not reached:
        return []
    scored = ((int(row["epoch"]) + 1, run_score(row, config.objective)) for row in progress.history)
    comparable = [(epoch, score.value) for epoch, score in scored if score.stable and score.value is not None]
    return curve_of(comparable, reached, score_direction(config.objective))
