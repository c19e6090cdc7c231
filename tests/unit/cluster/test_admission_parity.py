"""LocalCluster accepts and refuses what the API server does: the same cases that the real one is asked."""

from typing import Any

import pytest

from crossfold_operator.cluster.admission import admit
from crossfold_operator.cluster.folder import merge_patch
from crossfold_operator.names import OWN_KINDS, Kind
from tests.crds.cases import ACCEPTED, CASES, FROZEN, MUTABLE, RULE, STORED, VALID, Case, manifest


@pytest.mark.parametrize("case", CASES, ids=str)
def test_case(case: Case) -> None:
    _, problems = admit(case.manifest)
    if case.layer in (ACCEPTED, VALID):
        assert problems == []
    else:
        assert problems
        if case.layer is RULE:
            assert any(case.says in problem for problem in problems), problems


def stored(kind: Kind) -> dict[str, Any]:
    obj, problems = admit(manifest(kind, STORED[kind], "stored"))
    assert problems == []
    return obj


@pytest.mark.parametrize(
    ("kind", "path", "change"),
    [(kind, path, change) for kind, frozen in FROZEN.items() for path, changes in frozen.items() for change in changes],
)
def test_a_frozen_field_cannot_change(kind: Kind, path: str, change: dict[str, Any]) -> None:
    old = stored(kind)
    _, problems = admit({**old, "spec": merge_patch(old["spec"], change)}, old)
    assert any(problem.startswith(f"{path} cannot be changed") for problem in problems), problems


@pytest.mark.parametrize(("kind", "change"), [(kind, change) for kind in OWN_KINDS for change in MUTABLE[kind]])
def test_another_field_can(kind: Kind, change: dict[str, Any]) -> None:
    old = stored(kind)
    assert admit({**old, "spec": merge_patch(old["spec"], change)}, old)[1] == []
