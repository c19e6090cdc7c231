import random
from dataclasses import replace

import pytest

from crossfold_operator.search.history import Trial, TrialState, digest

TRIALS = [
    Trial(0, {"gamma": 0.9, "augment": ["D4"], "focal_loss_alpha": None}, TrialState.COMPLETE, 0.5),
    Trial(1, {"gamma": 0.8, "augment": [], "focal_loss_alpha": 0.25}, TrialState.PRUNED, 0.4, step=2),
    Trial(2, {}, TrialState.DELETED),
    Trial(0, {"gamma": 0.7}, TrialState.COMPLETE, 0.45, source="pilot"),
]


def test_the_digest_does_not_depend_on_order() -> None:
    for seed in range(4):
        shuffled = list(TRIALS)
        random.Random(seed).shuffle(shuffled)
        assert digest(shuffled) == digest(TRIALS)
    assert len(digest([])) == 64
    assert digest([replace(TRIALS[0], parameters=dict(reversed(TRIALS[0].parameters.items())))]) == digest(TRIALS[:1])


@pytest.mark.parametrize(
    "change",
    [
        {"number": 7},
        {"parameters": {"gamma": 0.91}},
        {"state": TrialState.UNSTABLE},
        {"value": 0.4000001},
        {"step": 3},
        {"source": "pilot"},
    ],
)
def test_the_digest_covers_all_that_a_sampler_is_told(change: dict[str, object]) -> None:
    assert digest([TRIALS[0], replace(TRIALS[1], **change)]) != digest(TRIALS[:2])


def test_the_digest_is_that_of_what_the_api_stores() -> None:
    asked = {"learning_rate": 1.0, "batch_size": 8, "augment": ("D4",)}
    stored = {"augment": ["D4"], "batch_size": 8.0, "learning_rate": 1}
    assert digest([Trial(0, asked, TrialState.RUNNING)]) == digest([Trial(0, stored, TrialState.RUNNING)])
    assert digest([Trial(0, asked | {"x-a": True}, TrialState.RUNNING)]) != digest(
        [Trial(0, asked | {"x-a": 1}, TrialState.RUNNING)]
    )
