"""From the API models to the CRDs."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
import yaml
from pydantic import Field

from crossfold_operator import crdgen
from crossfold_operator.crdgen import UnknownConstructError, crd, files, name_rules, schema_of, structural
from crossfold_operator.names import OWN_KINDS, Kind
from crossfold_trainer.contract.base import Model

ROOT = Path(__file__).parents[3]


def nodes(node: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema node below a schema, with its path."""
    yield path, node
    for name, inner in node.get("properties", {}).items():
        yield from nodes(inner, f"{path}.{name}")
    for key, mark in (("items", "[]"), ("additionalProperties", "{}")):
        if isinstance(node.get(key), dict):
            yield from nodes(node[key], path + mark)


ALL = [
    pytest.param(kind, path, node, id=f"{kind}{path}") for kind in OWN_KINDS for path, node in nodes(schema_of(kind))
]
BELOW = [
    (kind, path, node) for kind in OWN_KINDS for path, node in nodes(schema_of(kind)) if path not in ("", ".metadata")
]

RULES = [(path, rule) for _, path, node in BELOW for rule in node.get("x-kubernetes-validations", ())]


@pytest.mark.parametrize("path", sorted(map(str, files())))
def test_the_committed_files_are_current(path: str) -> None:
    assert (ROOT / path).read_text() == files()[Path(path)]


def test_every_field_has_a_description() -> None:
    bare = [f"{k}{p}" for k, p, n in BELOW if not p.endswith(("[]", "{}")) and not n.get("description")]
    assert bare == []


def test_every_list_and_text_is_bounded() -> None:
    """CEL reckons with the largest value, and no object may grow without end."""
    loose = []
    for kind, path, node in BELOW:
        if not path.startswith((".spec", ".status")) or "enum" in node or node.get("format") == "date-time":
            continue
        match node.get("type"):
            case "array" if "maxItems" not in node:
                loose.append(f"{kind}{path}")
            case "string" if "maxLength" not in node:
                loose.append(f"{kind}{path}")
            case "object" if "additionalProperties" in node and "maxProperties" not in node:
                loose.append(f"{kind}{path}")
    assert loose == []


def test_a_status_has_no_defaults() -> None:
    """They would be added to what the operator wrote, and be taken out again with every write."""
    assert [f"{k}{p}" for k, p, n in BELOW if p.startswith(".status") and "default" in n] == []


def test_every_default_fits_its_schema() -> None:
    from crossfold_operator.cluster.admission import _mismatches

    defaults = [(f"{k}{p}", n) for k, p, n in BELOW if "default" in n]
    assert len(defaults) > 50
    for path, node in defaults:
        assert list(_mismatches(node["default"], node, path)) == []


def test_null_stays_only_where_it_means_something() -> None:
    assert {path for _, path, node in BELOW if node.get("nullable")} == {
        ".spec.trainer.earlyStoppingPatience",
        ".spec.trainer.checkpointEveryMinutes",
    }


def test_no_rule_mixes_spec_and_status() -> None:
    """It would run on status updates too, and block them for ever."""
    assert len(RULES) > 10
    assert [rule for path, rule in RULES if path.startswith(".status")] == []
    for kind in OWN_KINDS:
        on_top = schema_of(kind)["x-kubernetes-validations"]
        assert on_top
        assert [rule for rule in on_top if "self.metadata" not in rule["rule"]] == []


def test_messages_of_rules_are_sentences() -> None:
    messages = [rule["message"] for _, rule in RULES]
    assert messages
    assert [text for text in messages if not 10 < len(text) < 400 or text.endswith(".")] == []


@pytest.mark.parametrize("kind", OWN_KINDS)
def test_columns_show_fields_that_exist(kind: Kind) -> None:
    paths = {path for path, _ in nodes(schema_of(kind))}
    shown = {column["jsonPath"] for column in crd(kind)["spec"]["versions"][0]["additionalPrinterColumns"]}
    assert ".status.phase" in shown
    assert shown <= paths | {".metadata.creationTimestamp"}


def test_scale_points_at_numbers() -> None:
    scale = crd(Kind.TUNE)["spec"]["versions"][0]["subresources"]["scale"]
    found = dict(nodes(schema_of(Kind.TUNE)))
    assert set(scale) == {"specReplicasPath", "statusReplicasPath"}
    assert [found[path]["type"] for path in scale.values()] == ["integer"] * 2


def test_names_leave_room_for_those_of_jobs() -> None:
    longest = {Kind.TUNE: "-cv9999-f99s9999-a99", Kind.CROSS_VALIDATION: "-f99s9999-a99", Kind.TRAIN_RUN: "-a99"}
    for kind, rest in longest.items():
        assert crdgen.KINDS[kind].max_name + len(rest) <= 63
        assert f"<= {crdgen.KINDS[kind].max_name}" in name_rules(kind)[0].cel


def test_a_crd_is_small_enough_to_be_applied() -> None:
    """Client-side apply keeps a copy in an annotation of at most 262,144 bytes."""
    assert 10_000 < max(map(len, files().values())) < 150_000


def test_yaml_reads_back() -> None:
    for kind in OWN_KINDS:
        text = files()[Path("crds") / f"crossfold.dev_{crdgen.PLURALS[kind]}.yaml"]
        assert yaml.safe_load(text) == crd(kind)


class Odd(Model):
    """Constructs that a CRD has a known form for, or none."""

    either: Annotated[int, Field(gt=0, lt=5)] | None = None
    """Bounds."""
    many: Annotated[list[Annotated[str, Field(max_length=3)]], Field(max_length=2)] = []
    """A list."""


def test_a_schema_is_made_structural() -> None:
    raw = Odd.model_json_schema()
    assert structural(raw, {})["properties"] == {
        "either": {
            "type": "integer",
            "description": "Bounds.",
            "minimum": 0,
            "exclusiveMinimum": True,
            "maximum": 5,
            "exclusiveMaximum": True,
        },
        "many": {"type": "array", "description": "A list.", "maxItems": 2, "items": {"type": "string", "maxLength": 3}},
    }


@pytest.mark.parametrize(
    "node",
    [
        {"oneOf": [{"type": "string"}]},
        {"anyOf": [{"type": "string"}, {"type": "integer"}]},
        {"type": "array", "prefixItems": []},
        {"type": "object", "patternProperties": {}},
        {"type": "string", "surprise": 1},
    ],
)
def test_an_unknown_construct_raises(node: dict[str, Any]) -> None:
    with pytest.raises(UnknownConstructError):
        structural(node, {})


def test_check_tells_what_is_not_current(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr("sys.argv", ["crdgen", "--check", "--root", str(tmp_path)])
    assert crdgen.main() == 1
    assert "not current: crds/crossfold.dev_tunes.yaml" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr("sys.argv", ["crdgen", "--root", str(tmp_path)])
    assert crdgen.main() == 0
    monkeypatch.setattr("sys.argv", ["crdgen", "--check", "--root", str(tmp_path)])
    assert crdgen.main() == 0
