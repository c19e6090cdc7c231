"""What an API server would say to an object of ours: unknown fields, defaults, schema, then CEL.

For clusters without an API server. It reads the very schema that the CRDs hold, rules included, so that a manifest
that one of the two accepts is accepted by the other. One step after the other, as there: an object with an unknown
field is not looked at any further, and rules see only what the schema accepts.
"""

import difflib
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

from crossfold_operator.api.quantities import is_quantity
from crossfold_operator.cluster.base import Obj
from crossfold_operator.crdgen import NAME_PATTERN, schema_of
from crossfold_operator.names import API_VERSIONS, OWN_KINDS, Kind

Schema = Mapping[str, Any]

_OPAQUE = "x-kubernetes-preserve-unknown-fields"
_INT_OR_STRING = "x-kubernetes-int-or-string"
_LARGEST_WHOLE = 1e16
"""Greatest whole number that is written without an exponent."""
_SUGGEST = 0.6
"""How alike two field names must be for one to be suggested in the place of the other."""


def admit(obj: Obj, old: Obj | None = None) -> tuple[Obj, list[str]]:
    """Judge an object of one of our kinds.

    Args:
        obj: the object as it was written.
        old: what is stored under its name, on an update.

    Returns:
        The object with its defaults, and what is wrong with it (``spec.parameters[0]: message``).
    """
    problem = _type_problem(obj)
    if problem:
        return obj, [problem]
    kind = Kind(obj["kind"])
    schema = schema_of_kind(kind)
    unknown = [f"{path}: {text}" for path, text in _unknown(obj, schema, "")]
    if unknown:
        return obj, unknown
    defaulted: Obj = _defaulted(obj, schema)
    wrong = [f"{path}: {text}" for path, text in _mismatches(defaulted, schema, "")]
    if wrong:
        return defaulted, wrong
    broken = _broken_rules(defaulted, old, schema, "")
    # Some messages name the field themselves.
    return defaulted, [text if text.startswith(("spec.", "metadata.")) else f"{path}: {text}" for path, text in broken]


@cache
def schema_of_kind(kind: Kind) -> Schema:
    """The schema of a kind's CRD."""
    return schema_of(kind)


def _type_problem(obj: Obj) -> str | None:
    kinds = [str(kind) for kind in OWN_KINDS]
    kind, version = obj.get("kind"), obj.get("apiVersion")
    if kind not in kinds:
        return f"kind: must be {', '.join(kinds[:-1])} or {kinds[-1]}, not {kind!r}"
    wanted = API_VERSIONS[Kind(kind)]
    if version != wanted:
        return f"apiVersion: must be {wanted}, not {version!r}"
    metadata = obj.get("metadata")
    if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str) or not metadata["name"]:
        return "metadata.name: is missing: give the object a name"
    namespace = metadata.get("namespace", "default")
    if not isinstance(namespace, str) or not re.match(NAME_PATTERN, namespace):
        return f"metadata.namespace: takes lower-case letters, digits and '-' only, not {_show(namespace)}"
    for field in ("labels", "annotations"):
        marks = metadata.get(field) or {}
        if not isinstance(marks, dict):
            return f"metadata.{field}: must be a mapping, not {_show(marks)}"
        for name, value in marks.items():
            if not isinstance(value, str):
                return f"metadata.{field}.{name}: must be a string, not {_show(value)}: put it into quotes"
    return None


def _below(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _children(value: Any, schema: Schema, path: str) -> Iterator[tuple[Any, Schema, str]]:
    """Every value inside that the schema describes, with its schema and path."""
    if isinstance(value, dict):
        properties: Mapping[str, Schema] = schema.get("properties", {})
        rest: Schema | None = schema.get("additionalProperties")
        for name, item in value.items():
            inner = properties.get(name, rest)
            if inner is not None:
                yield item, inner, _below(path, name)
    elif isinstance(value, list) and "items" in schema:
        for i, item in enumerate(value):
            yield item, schema["items"], f"{path}[{i}]"


# Unknown fields ---------------------------------------------------------------------------------------------------


def _unknown(value: Any, schema: Schema, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and "properties" in schema and not schema.get(_OPAQUE):
        for name in value:
            if name not in schema["properties"]:
                yield _below(path, name), _unknown_text(name, list(schema["properties"]))
    for item, inner, where in _children(value, schema, path):
        yield from _unknown(item, inner, where)


def _unknown_text(name: str, known: list[str]) -> str:
    """Name the closest known field, or all of them."""
    folded = {k.lower(): k for k in known}
    close = difflib.get_close_matches(name.replace("_", "").lower(), folded, n=1, cutoff=_SUGGEST)
    if close:
        return f"unknown field; did you mean '{folded[close[0]]}'?"
    return f"unknown field; known ones are {', '.join(known)}"


# Defaults ---------------------------------------------------------------------------------------------------------


def _defaulted(value: Any, schema: Schema) -> Any:
    """A copy with defaults filled in; a null where none may be is as good as nothing."""
    if isinstance(value, list):
        return [_defaulted(item, schema.get("items", {})) for item in value]
    if not isinstance(value, dict) or schema.get(_OPAQUE):
        return value
    properties: Mapping[str, Schema] = schema.get("properties", {})
    out = {
        name: _defaulted(item, properties.get(name, schema.get("additionalProperties", {})))
        for name, item in value.items()
        if not (item is None and name in properties and not properties[name].get("nullable"))
    }
    for name, inner in properties.items():
        if name not in out and "default" in inner:
            out[name] = _defaulted(inner["default"], inner)
    return out


# Schema -----------------------------------------------------------------------------------------------------------

_TYPES: Mapping[str, tuple[tuple[type, ...], str]] = {
    "object": ((dict,), "a mapping"),
    "array": ((list,), "a list"),
    "string": ((str,), "a string"),
    "boolean": ((bool,), "true or false"),
    "integer": ((int,), "an integer"),
    "number": ((int, float), "a number"),
}


def _mismatches(value: Any, schema: Schema, path: str) -> Iterator[tuple[str, str]]:
    if value is None and (schema.get("nullable") or "type" not in schema):
        return
    problem = _type_mismatch(value, schema)
    if problem:
        yield path, problem
        return
    for text in _bounds(value, schema):
        yield path, text
    if isinstance(value, dict):
        for name in schema.get("required", ()):
            if name not in value:
                yield _below(path, name), "is missing: it has no default"
    if isinstance(value, list):
        for i, text in _duplicates(value, schema):
            yield f"{path}[{i}]", text
    for item, inner, where in _children(value, schema, path):
        yield from _mismatches(item, inner, where)


def _type_mismatch(value: Any, schema: Schema) -> str | None:
    if schema.get(_INT_OR_STRING):
        fits = isinstance(value, int | str) and not isinstance(value, bool)
        return None if fits else f"must be an integer or a string, not {_show(value)}"
    if "type" not in schema:
        return None
    types, words = _TYPES[schema["type"]]
    if isinstance(value, types) and isinstance(value, bool) == (schema["type"] == "boolean"):
        return None
    hint = ""
    if isinstance(value, str) and schema["type"] in ("integer", "number", "boolean"):
        hint = ": remove the quotes"
    return f"must be {words}, not {_show(value)}{hint}"


def _bounds(value: Any, schema: Schema) -> Iterator[str]:
    if "enum" in schema and value not in schema["enum"]:
        close = difflib.get_close_matches(str(value), map(str, schema["enum"]), n=1, cutoff=_SUGGEST)
        hint = f"; did you mean '{close[0]}'?" if close else ""
        yield f"must be one of {', '.join(map(str, schema['enum']))}, not {_show(value)}{hint}"
    if isinstance(value, str):
        if "pattern" in schema and not re.search(schema["pattern"], value):
            yield f"must match {schema['pattern']}, which {_show(value)} does not"
        yield from _length(len(value), schema, "Length", "characters")
    elif isinstance(value, list):
        yield from _length(len(value), schema, "Items", "items")
    elif isinstance(value, dict):
        yield from _length(len(value), schema, "Properties", "entries")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        low, high = schema.get("minimum"), schema.get("maximum")
        if low is not None and (value < low or (value == low and schema.get("exclusiveMinimum"))):
            words = "above" if schema.get("exclusiveMinimum") else "at least"
            yield f"must be {words} {_exact(low)}, not {_show(value)}"
        if high is not None and (value > high or (value == high and schema.get("exclusiveMaximum"))):
            words = "below" if schema.get("exclusiveMaximum") else "at most"
            yield f"must be {words} {_exact(high)}, not {_show(value)}"


def _exact(bound: float) -> str:
    """A bound with all its digits: 2147483647, not 2.14748e+09."""
    return str(int(bound)) if abs(bound) <= _LARGEST_WHOLE and bound == int(bound) else repr(bound)


def _length(length: int, schema: Schema, what: str, words: str) -> Iterator[str]:
    if length < schema.get(f"min{what}", 0):
        yield f"must have at least {schema[f'min{what}']} {words}, not {length}"
    if length > schema.get(f"max{what}", length):
        yield f"must have at most {schema[f'max{what}']} {words}, not {length}"


def _identity(schema: Schema) -> Callable[[Any], str] | None:
    """What tells the items of a list apart; None where nothing does."""
    match schema.get("x-kubernetes-list-type"):
        case "set":
            return repr
        case "map":
            keys = schema["x-kubernetes-list-map-keys"]
            return lambda item: repr([item.get(key) for key in keys]) if isinstance(item, dict) else ""
        case _:
            return None


def _duplicates(value: list[Any], schema: Schema) -> Iterator[tuple[int, str]]:
    identity = _identity(schema)
    seen: dict[str, int] = {}
    for i, item in enumerate(value if identity else ()):
        own = identity(item) if identity else ""
        if own in seen:
            yield i, f"duplicate of item {seen[own]}: remove one"
        seen.setdefault(own, i)


def _show(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


# Rules ------------------------------------------------------------------------------------------------------------


def _broken_rules(value: Any, old: Any, schema: Schema, path: str) -> Iterator[tuple[str, str]]:
    rules = schema.get("x-kubernetes-validations", ())
    if rules:
        variables = {"self": _typed(value, schema)}
        if old is not None:
            variables["oldSelf"] = _typed(old, schema)
        for rule in rules:
            if "oldSelf" in rule["rule"] and old is None:
                continue
            if not _holds(rule["rule"], variables):
                yield path, rule["message"]
    for item, inner, where in _children(value, schema, path):
        yield from _broken_rules(item, _counterpart(old, schema, where, item), inner, where)


def _counterpart(old: Any, schema: Schema, path: str, item: Any) -> Any:
    """The old value that a new one takes the place of; None where there is none, or none can be told."""
    if isinstance(old, dict):
        return old.get(path.rpartition(".")[2])
    identity = _identity(schema)
    if isinstance(old, list) and identity and schema.get("x-kubernetes-list-type") == "map":
        return next((candidate for candidate in old if identity(candidate) == identity(item)), None)
    return None


def _typed(value: Any, schema: Schema) -> Any:
    """The value as CEL is to see it: 1 is a double where the schema says number."""
    if isinstance(value, dict):
        properties: Mapping[str, Schema] = schema.get("properties", {})
        rest = schema.get("additionalProperties", {})
        return {name: _typed(item, properties.get(name, rest)) for name, item in value.items()}
    if isinstance(value, list):
        return [_typed(item, schema.get("items", {})) for item in value]
    if schema.get("type") == "number" and isinstance(value, int):
        return float(value)
    return value


_FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "replace": lambda text, old, new: text.replace(old, new),
    "isQuantity": is_quantity,
}
"""Functions of the API server's CEL that the package lacks."""


def _holds(rule: str, variables: Mapping[str, Any]) -> bool:
    from cel import Context  # noqa: PLC0415 -- only local mode has it

    try:
        return _program(rule).execute(Context(variables=dict(variables), functions=dict(_FUNCTIONS))) is True
    except (ValueError, TypeError, RuntimeError, ArithmeticError):
        # As the API server does: a rule that cannot be evaluated does not hold.
        return False


@cache
def _program(rule: str) -> Any:
    from cel import compile as compile_rule  # noqa: PLC0415

    return compile_rule(rule)
