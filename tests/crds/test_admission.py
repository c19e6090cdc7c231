"""What the API server accepts and refuses, on a real one."""

from collections.abc import Iterator
from typing import Any

import pytest

from crossfold_operator import problems
from crossfold_operator.api.crossvalidation import CrossValidationSpec
from crossfold_operator.api.trainrun import TrainRunSpec
from crossfold_operator.api.tune import TuneSpec
from crossfold_operator.crdgen import schema_of
from crossfold_operator.names import OWN_KINDS, Kind
from tests.crds.cases import ACCEPTED, CASES, FROZEN, MUTABLE, RULE, SCHEMA, STORED, STRICT, VALID, Case, manifest
from tests.crds.conftest import Api

SPECS: dict[Kind, Any] = {
    Kind.TUNE: TuneSpec,
    Kind.CROSS_VALIDATION: CrossValidationSpec,
    Kind.TRAIN_RUN: TrainRunSpec,
}


def messages(node: Any) -> Iterator[tuple[str, str]]:
    """Every rule of a schema and its message."""
    if isinstance(node, dict):
        for rule in node.get("x-kubernetes-validations", ()):
            yield rule["rule"], rule["message"]
        for value in node.values():
            yield from messages(value)


RULES = {(kind, rule, message) for kind in OWN_KINDS for rule, message in messages(schema_of(kind))}
FREEZING = {(kind, message.partition(" ")[0]) for kind, rule, message in RULES if "oldSelf" in rule}
JUDGING = {message for _, rule, message in RULES if "oldSelf" not in rule}


@pytest.mark.cluster
@pytest.mark.parametrize("case", CASES, ids=str)
def test_case(api: Api, case: Case) -> None:
    answers: list[dict[str, Any]] = []
    error = api.refusal(lambda: answers.append(api.create(case.manifest, dry=True)) or answers[0])
    if case.layer in (ACCEPTED, VALID):
        assert error is None, error
        found = problems_of(answers[0])
        if case.layer is ACCEPTED:
            assert found == []
        else:
            assert case.says in "; ".join(found)
        return
    assert error is not None, "it was accepted"
    assert case.says in error.message
    assert error.code == (400 if case.layer is STRICT else 422)
    told = [message for message in JUDGING if message in error.message]
    if case.layer is RULE:
        # A rule that cannot be evaluated (an overflow) is told with CEL's own words.
        assert told or "rule" in error.message
    else:
        assert not [message for message in JUDGING if case.says in message]


def problems_of(obj: dict[str, Any]) -> list[str]:
    """What the operator says about a stored object."""
    from pydantic import ValidationError

    try:
        return problems.of_spec(SPECS[Kind(obj["kind"])].model_validate(obj["spec"]))
    except ValidationError as error:
        return problems.of_error(error)


def test_there_are_enough_cases() -> None:
    assert len(CASES) >= 60
    assert len({str(case) for case in CASES}) == len(CASES)
    for layer in (ACCEPTED, SCHEMA, RULE, VALID, STRICT):
        assert sum(case.layer is layer for case in CASES) >= 4


@pytest.mark.parametrize("message", sorted(JUDGING))
def test_every_rule_has_a_case_that_it_refuses(message: str) -> None:
    assert [str(case) for case in CASES if case.layer is RULE and case.says in message]


@pytest.mark.parametrize("kind", OWN_KINDS)
def test_every_frozen_field_has_a_change_that_is_refused(kind: Kind) -> None:
    assert {path for frozen, path in FREEZING if frozen is kind} == set(FROZEN[kind])


@pytest.mark.parametrize("kind", OWN_KINDS)
def test_every_other_field_has_a_change_that_is_accepted(kind: Kind) -> None:
    """Each field of a spec is frozen or shown to be mutable; no third kind."""
    schema = schema_of(kind)["properties"]["spec"]["properties"]
    assert schema
    changed = {(top, *fields) for change in MUTABLE[kind] for top, fields in _fields(change)}
    for name, inner in schema.items():
        if f"spec.{name}" in FROZEN[kind]:
            continue
        if not any(path.startswith(f"spec.{name}.") for path in FROZEN[kind]):
            assert any(top == name for top, *_ in changed), name
            continue
        for field in inner["properties"]:
            assert (name, field) in changed or f"spec.{name}.{field}" in FROZEN[kind], f"spec.{name}.{field}"


def _fields(change: dict[str, Any]) -> Iterator[tuple[str, tuple[str, ...]]]:
    for name, value in change.items():
        yield name, tuple(value)[:1] if isinstance(value, dict) else ()


@pytest.fixture(scope="module")
def stored(api: Api) -> dict[Kind, dict[str, Any]]:
    """One object of each kind that is really there."""
    return {kind: api.create(manifest(kind, STORED[kind], "stored")) for kind in OWN_KINDS}


CHANGES = [
    pytest.param(kind, path, change, id=f"{kind}-{path}-{i}")
    for kind, frozen in FROZEN.items()
    for path, changes in frozen.items()
    for i, change in enumerate(changes)
]


@pytest.mark.cluster
@pytest.mark.parametrize(("kind", "path", "change"), CHANGES)
def test_a_frozen_field_cannot_change(
    api: Api, stored: dict[Kind, dict[str, Any]], kind: Kind, path: str, change: dict[str, Any]
) -> None:
    error = api.refusal(lambda: api.patch(stored[kind], {"spec": change}, dry=True))
    assert error is not None, "it was accepted"
    assert error.code == 422
    assert f"{path} cannot be changed: create a new object under another name" in error.message


@pytest.mark.cluster
@pytest.mark.parametrize(
    ("kind", "change"),
    [pytest.param(k, c, id=f"{k}-{i}-{'-'.join(c)}") for k, cs in MUTABLE.items() for i, c in enumerate(cs)],
)
def test_a_mutable_field_changes(
    api: Api, stored: dict[Kind, dict[str, Any]], kind: Kind, change: dict[str, Any]
) -> None:
    changed = api.patch(stored[kind], {"spec": change}, dry=True)
    assert changed["metadata"]["generation"] == stored[kind]["metadata"]["generation"] + 1
