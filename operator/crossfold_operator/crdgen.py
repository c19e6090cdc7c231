"""api -> crds/*.yaml and the chart's CRD templates. ``--check`` fails when a committed file is not current.

pydantic's JSON schema is turned into a structural schema (what a CRD may hold). A construct that this file does
not know raises: nothing passes through unseen.
"""

import argparse
import sys
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import yaml

from crossfold_operator.api.crossvalidation import CrossValidation
from crossfold_operator.api.fields import field_extra
from crossfold_operator.api.trainrun import TrainRun
from crossfold_operator.api.tune import Tune
from crossfold_operator.names import GROUP, OWN_KINDS, PLURALS, VERSION, Kind
from crossfold_trainer.contract.base import Model, Rule

Schema = dict[str, Any]

KINDS: dict[Kind, type[Tune] | type[CrossValidation] | type[TrainRun]] = {
    Kind.TUNE: Tune,
    Kind.CROSS_VALIDATION: CrossValidation,
    Kind.TRAIN_RUN: TrainRun,
}
NAME_PATTERN = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"

_KEPT = frozenset(
    {
        "type",
        "description",
        "enum",
        "format",
        "pattern",
        "minimum",
        "maximum",
        "minLength",
        "maxLength",
        "minItems",
        "maxItems",
        "maxProperties",
        "nullable",
        "required",
        "x-kubernetes-preserve-unknown-fields",
        "x-kubernetes-int-or-string",
        "x-kubernetes-list-type",
        "x-kubernetes-list-map-keys",
    }
)
_DROPPED = frozenset({"title", "mutable", "default"})
_HEADER = "# Generated from the API models by `make gen`. Do not edit.\n"


class UnknownConstructError(TypeError):
    """The models use something that a structural schema has no known form for."""


def structural(schema: Schema, definitions: Schema) -> Schema:
    """Rewrite one JSON schema node (without models' own rules) as a structural schema node."""
    node = _one_form(schema, definitions)
    out: Schema = {}
    for key, value in node.items():
        match key:
            case "const":
                out["enum"] = [value]
            case "exclusiveMinimum" | "exclusiveMaximum":
                out |= {key.removeprefix("exclusive").lower(): value, key: True}
            case "properties":
                out[key] = {name: structural(sub, definitions) for name, sub in value.items()}
            case "items":
                out[key] = structural(value, definitions)
            case "additionalProperties":
                # false is what pruning and strict validation do anyway
                if isinstance(value, dict):
                    out[key] = structural(value, definitions)
            case _ if key in _KEPT:
                out[key] = value
            case _ if key in _DROPPED:
                pass
            case _:
                raise UnknownConstructError(f"{key} in {schema}")
    if "x-kubernetes-int-or-string" in out:
        return {key: value for key, value in out.items() if key not in ("type", "maxLength")}
    if "x-kubernetes-preserve-unknown-fields" in out:
        out.pop("additionalProperties", None)
    return out


def _one_form(schema: Schema, definitions: Schema) -> Schema:
    """Follow ``$ref`` and ``X | None``, so that one form is left; null is kept where a default hides it."""
    node = dict(schema)
    if ref := node.pop("$ref", None):
        name = ref.rpartition("/")[2]
        return _one_form({**({} if name == "JsonValue" else definitions[name]), **node}, definitions)
    options = node.pop("anyOf", None)
    if options is None or node.get("x-kubernetes-int-or-string"):
        return node
    rest = [option for option in options if option.get("type") != "null"]
    if len(rest) != 1 or len(rest) == len(options):
        raise UnknownConstructError(f"anyOf with {len(rest)} forms: {options}")
    nullable = {"nullable": True} if node.get("default") is not None else {}
    return _one_form({**rest[0], **node, **nullable}, definitions)


def _inner_model(annotation: Any) -> tuple[type[Model] | None, str]:
    """The model inside an annotation, and the path of schema keys that leads to it."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _inner_model(get_args(annotation)[0])
    if origin in (Union, UnionType):
        found = [m for m in map(_inner_model, get_args(annotation)) if m[0] is not None]
        return found[0] if found else (None, "")
    if origin is list:
        return _inner_model(get_args(annotation)[0])[0], "items"
    if origin is dict:
        return _inner_model(get_args(annotation)[1])[0], "additionalProperties"
    if isinstance(annotation, type) and issubclass(annotation, Model):
        return annotation, ""
    return None, ""


def decorate(model: type[Model], node: Schema, *, immutable: bool, path: str) -> None:
    """Add a model's rules, defaults and immutability to its structural schema, and to those below it.

    Args:
        model: the model that the node was made from.
        node: its schema; changed in place.
        immutable: whether fields that do not say ``mutable`` are frozen at this level (a level that is frozen as a
            whole needs no rule of its own).
        path: how messages name the level, such as ``spec``.
    """
    rules = list(model.rules)
    for name, field in model.model_fields.items():
        alias = field.alias or name
        prop = node["properties"][alias]
        mutable = field_extra(field).get("mutable", False)
        if not field.is_required():
            default = field.get_default(call_default_factory=True)
            if default is not None:
                dumped = model.model_construct(**{name: default}).model_dump(mode="json", include={name})[alias]
                # A default in status would be added to what the operator wrote, and be taken out again for ever.
                if path.partition(".")[0] != "status":
                    prop["default"] = _without_none(dumped)
        if immutable and not mutable and _visible_to_cel(prop):
            rules.append(_frozen(alias, path))
        inner, key = _inner_model(field.annotation)
        if inner is not None:
            target = prop[key] if key else prop
            decorate(inner, target, immutable=immutable and mutable == "partly", path=f"{path}.{alias}")
    if rules:
        node["x-kubernetes-validations"] = [{"rule": rule.cel, "message": rule.message} for rule in rules]


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_none(v) for k, v in value.items() if v is not None}
    return value


def _visible_to_cel(node: Schema) -> bool:
    """CEL declares no field whose values have no type; an object is one, whatever it may hold."""
    if "items" in node:
        return _visible_to_cel(node["items"])
    return "type" in node


def _frozen(alias: str, path: str) -> Rule:
    return Rule(
        f"has(self.{alias}) == has(oldSelf.{alias}) && (!has(self.{alias}) || self.{alias} == oldSelf.{alias})",
        f"{path}.{alias} cannot be changed: create a new object under another name",
    )


def schema_of(kind: Kind) -> Schema:
    """The openAPIV3Schema of a kind."""
    model = KINDS[kind]
    raw = model.model_json_schema(mode="validation")
    definitions = raw.get("$defs", {})
    root = structural({k: v for k, v in raw.items() if k != "$defs"}, definitions)
    spec, status = model.model_fields["spec"].annotation, _inner_model(model.model_fields["status"].annotation)[0]
    if not (isinstance(spec, type) and issubclass(spec, Model)) or status is None:
        raise UnknownConstructError(f"{kind} needs a spec model and a status model")
    decorate(spec, root["properties"]["spec"], immutable=True, path="spec")
    decorate(status, root["properties"]["status"], immutable=False, path="status")
    root["properties"] = {
        "apiVersion": {"type": "string", "description": f"{GROUP}/{VERSION}"},
        "kind": {"type": "string", "description": str(kind)},
        "metadata": {"type": "object"},
        **root["properties"],
    }
    root["required"] = ["spec"]
    root["x-kubernetes-validations"] = [{"rule": rule.cel, "message": rule.message} for rule in name_rules(kind)]
    return root


def name_rules(kind: Kind) -> tuple[Rule, ...]:
    """Rules on an object's own name: children append to it, and a Job's name has 63 characters at most."""
    longest = KINDS[kind].max_name
    return (
        Rule(
            f"size(self.metadata.name) <= {longest}",
            f"metadata.name of a {kind} has at most {longest} characters: the names of its runs append to it",
        ),
        Rule(
            f"self.metadata.name.matches('{NAME_PATTERN}')",
            "metadata.name takes lower-case letters, digits and '-' only: it becomes a label",
        ),
        Rule(
            "!has(self.spec.trainer) || self.spec.trainer.nodes == 1 || self.metadata.name.matches('^[a-z]')",
            "metadata.name begins with a letter where trainer.nodes is above 1: it becomes a Service's",
        ),
    )


def crd(kind: Kind) -> Schema:
    """The CustomResourceDefinition of a kind."""
    model = KINDS[kind]
    plural = PLURALS[kind]
    columns = [
        {"name": c[0], "type": c[1], "jsonPath": c[2], **({"priority": 1} if len(c) > 3 else {})} for c in model.columns
    ]
    subresources: Schema = {"status": {}}
    if kind is Kind.TUNE:
        subresources["scale"] = Tune.scale
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": str(kind),
                "listKind": f"{kind}List",
                "plural": plural,
                "singular": str(kind).lower(),
                "shortNames": [model.short_name],
                # A Tune may have 50,000 runs: `kubectl get all` shows the Tunes only.
                "categories": ["all", "crossfold"] if kind is Kind.TUNE else ["crossfold"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "schema": {"openAPIV3Schema": schema_of(kind)},
                    "subresources": subresources,
                    "additionalPrinterColumns": columns,
                }
            ],
        },
    }


class _Dumper(yaml.SafeDumper):
    """Block style, no anchors."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 -- PyYAML's signature
        return True


def _dump(content: Schema) -> str:
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)


def _chart_template(content: Schema) -> str:
    # Helm's own braces must not be read out of a description.
    text = _dump(content).replace("{{", "{{`{{`}}")
    head, _, tail = text.partition(f"  name: {content['metadata']['name']}\n")
    annotations = "  {{- if .Values.crds.keep }}\n  annotations:\n    helm.sh/resource-policy: keep\n  {{- end }}\n"
    return (
        f"{_HEADER}{{{{- if .Values.crds.install }}}}\n{head}  name: {content['metadata']['name']}\n"
        f"{annotations}{tail}{{{{- end }}}}\n"
    )


def files() -> dict[Path, str]:
    """Every generated file, by its path below the repository."""
    out: dict[Path, str] = {}
    for kind in OWN_KINDS:
        content = crd(kind)
        name = f"{GROUP}_{PLURALS[kind]}.yaml"
        out[Path("crds") / name] = _HEADER + _dump(content)
        out[Path("charts/crossfold/templates/crds") / name] = _chart_template(content)
    return out


def main() -> int:
    """Write the generated files, or check that they are current."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail when a file is not current")
    parser.add_argument("--root", type=Path, default=Path(), help="the repository")
    args = parser.parse_args()
    stale = []
    for path, text in files().items():
        target: Path = args.root / path
        if target.exists() and target.read_text() == text:
            continue
        stale.append(path)
        if not args.check:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text)
    for path in stale:
        print(f"{'not current' if args.check else 'wrote'}: {path}")
    return 1 if args.check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
