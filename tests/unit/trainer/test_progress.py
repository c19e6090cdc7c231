"""When training is over, and which validation is kept."""

import pytest

from crossfold_trainer.contract.metrics import Direction
from crossfold_trainer.contract.scoring import Score
from crossfold_trainer.contract.trainer import TrainerSpec
from crossfold_trainer.progress import Best, Progress


@pytest.mark.parametrize(
    ("settings", "progress", "reason"),
    [
        ({"maxEpochs": 3, "earlyStoppingPatience": None}, Progress(epoch=2, wait=9), None),
        ({"maxEpochs": 3}, Progress(epoch=3), "all 3 epochs trained"),
        ({"maxEpochs": 9, "earlyStoppingPatience": 2}, Progress(epoch=4, wait=1), None),
        (
            {"maxEpochs": 9, "earlyStoppingPatience": 2},
            Progress(epoch=4, wait=2),
            "no better score in 2 validations, stopped after epoch 4",
        ),
    ],
)
def test_training_ends_with_its_epochs_or_its_patience(
    settings: dict[str, int | None], progress: Progress, reason: str | None
) -> None:
    assert progress.finished(TrainerSpec.model_validate(settings)) == reason


@pytest.mark.parametrize(
    ("score", "direction", "better"),
    [
        (Score(0.6, True), Direction.MAXIMIZE, True),
        (Score(0.4, True), Direction.MAXIMIZE, False),
        (Score(0.4, True), Direction.MINIMIZE, True),
        (Score(0.5, True), Direction.MAXIMIZE, False),  # the first of equals is kept
        (Score(0.6, False, "unstable"), Direction.MAXIMIZE, False),
        (Score(None, False, "missing"), Direction.MAXIMIZE, False),
    ],
)
def test_a_better_stable_score_is_kept(score: Score, direction: Direction, better: bool) -> None:
    first = Best(1, 0.5, {"val/loss": 2.0})
    progress = Progress(best=first, wait=3, validations=4)
    values = {"val/loss": 1.0}
    assert progress.count_validation(5, score, values, direction) is better
    assert progress.best == (Best(5, score.value, values) if better else first)
    assert (progress.wait, progress.validations, progress.last_validated) == (0 if better else 4, 5, 5)
    values["val/loss"] = 0.0
    assert progress.last_metrics == {"val/loss": 1.0}
