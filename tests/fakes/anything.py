"""Hypothesis strategies: anything that the API server lets through, sensible or not."""

from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st

from crossfold_operator import names
from crossfold_operator.crdgen import schema_of
from crossfold_operator.names import Kind
from crossfold_operator.observe.attempts import FAILURE_RULES

Obj = dict[str, Any]
Schema = Mapping[str, Any]

INT64 = 2**63
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
_CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\x00")
_LONG = 12
TEXT = st.text(_CHARACTERS, max_size=_LONG)
MOMENTS = st.sampled_from(
    ["1970-01-01T00:00:00Z", "2025-12-31T23:59:00Z", "2026-01-01T00:00:00Z", "2030-01-01T00:00:00Z"]
)
TIMES = st.none() | MOMENTS


def of_schema(schema: Schema) -> st.SearchStrategy[Any]:
    """Values that a structural schema takes; rules over several fields are not heeded."""
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if schema.get("x-kubernetes-int-or-string"):
        return st.integers(-3, 9) | st.sampled_from(["1", "16Gi", "0.5", "²", ""]) | TEXT
    match schema.get("type"):
        case None:
            return JSON
        case "boolean":
            return st.booleans()
        case "integer":
            return st.integers(schema.get("minimum", -INT64), schema.get("maximum", INT64 - 1))
        case "number":
            return st.floats(
                schema.get("minimum"),
                schema.get("maximum"),
                exclude_min=schema.get("exclusiveMinimum", False),
                exclude_max=schema.get("exclusiveMaximum", False),
                allow_nan=False,
                allow_infinity=False,
            )
        case "string":
            return _string(schema)
        case "array":
            return _array(schema)
        case "object":
            return _object(schema)
        case other:
            raise NotImplementedError(other)


def _string(schema: Schema) -> st.SearchStrategy[str]:
    if schema.get("format") == "date-time":
        return MOMENTS
    low, high = schema.get("minLength", 0), schema.get("maxLength", 30)
    if "pattern" in schema:
        found = st.from_regex(schema["pattern"].removeprefix("^").removesuffix("$"), fullmatch=True)
        return found.filter(lambda text: low <= len(text) <= high)
    # The longest that fits, too: a text that is built from others must be cut.
    return st.text(_CHARACTERS, min_size=low, max_size=max(low, min(high, _LONG))) | st.just("x" * high)


def _array(schema: Schema) -> st.SearchStrategy[list[Any]]:
    identity = None
    match schema.get("x-kubernetes-list-type"):
        case "set":
            identity = repr
        case "map":
            keys = schema["x-kubernetes-list-map-keys"]
            identity = lambda item: repr([item.get(key) for key in keys])  # noqa: E731
    low = schema.get("minItems", 0)
    high = min(schema.get("maxItems", 5), low + 3)
    return st.lists(of_schema(schema["items"]), min_size=low, max_size=high, unique_by=identity)


def _object(schema: Schema) -> st.SearchStrategy[Obj]:
    if "additionalProperties" in schema:
        high = min(schema.get("maxProperties", 3), 3)
        return st.dictionaries(TEXT, of_schema(schema["additionalProperties"]), max_size=high)
    if "properties" not in schema:
        return st.dictionaries(TEXT, JSON, max_size=2)
    required = schema.get("required", ())
    properties = schema["properties"]
    return st.fixed_dictionaries(
        {name: of_schema(properties[name]) for name in required},
        optional={name: of_schema(inner) for name, inner in properties.items() if name not in required},
    )


def specs(kind: Kind, base: Obj) -> st.SearchStrategy[Obj]:
    """Specs of a kind: a sensible one with some fields replaced by anything, or anything at all."""
    schema = schema_of(kind)["properties"]["spec"]
    fields = {name: of_schema(inner) for name, inner in schema["properties"].items()}
    some = st.sets(st.sampled_from(sorted(fields)), max_size=3)
    replaced = some.flatmap(lambda chosen: st.fixed_dictionaries({name: fields[name] for name in sorted(chosen)}))
    return replaced.map(lambda changes: base | changes) | of_schema(schema)


def statuses(kind: Kind) -> st.SearchStrategy[Obj]:
    """Statuses of a kind that its schema takes; half of them know the kind's phases and conditions."""
    schema = schema_of(kind)["properties"]["status"]
    return (
        st.just({})
        | of_schema(schema)
        | st.tuples(of_schema(schema), st.lists(_condition(), max_size=4)).map(
            lambda pair: {**pair[0], "conditions": list({c["type"]: c for c in pair[1]}.values())}
        )
    )


def _condition() -> st.SearchStrategy[Obj]:
    return st.fixed_dictionaries(
        {
            "type": st.sampled_from([*names.Condition, "Other"]).map(str),
            "status": st.sampled_from(["True", "False", "Unknown"]),
            "reason": st.sampled_from([*names.Reason, "SomethingElse", ""]).map(str),
            "lastTransitionTime": MOMENTS,
        },
        optional={"message": TEXT},
    )


LAST_WORDS = [
    "",
    "[" * 4096,
    '{"result":{}}',
    '{"result":{"digest":"DIGEST"}}',
    '{"result":{"digest":"DIGEST","score":NaN}}',
    '{"result":{"digest":"DIGEST","score":1e999,"epoch":1}}',
    '{"result":{"digest":"DIGEST","score":0.5,"values":{"val/JaccardIndex":0.5}}}',
    '{"result":{"digest":"DIGEST","score":1e308,"values":{"val/JaccardIndex":-1e308},"epoch":2}}',
    '{"result":{"digest":"DIGEST","score":0.5,"epoch":' + "9" * 30 + "}}",
    '{"result":{"digest":"DIGEST","score":0.5,"dataDigest":"' + "d" * 100 + '"}}',
    '{"result":{"digest":"DIGEST","score":0.5,"checkpointUri":"' + "s" * 3000 + '"}}',
    '{"result":{"digest":"DIGEST","score":0.5,"values":{' + ",".join(f'"m{i}":{i}' for i in range(100)) + "}}}",
    '{"result":{"digest":"DIGEST","score":0.5,"metrics":{' + ",".join(f'"m{i}":null' for i in range(100)) + "}}}",
    '{"result":{"digest":"DIGEST","outcome":"Diverged","score":null}}',
    '{"result":{"digest":"DIGEST","score":0.5,"reason":"' + "r" * 3000 + '"}}',
    '{"failure":{"class":"Config","message":"no"}}',
    '{"failure":{"class":"Bored","message":"no"}}',
    "Traceback\n" * 300,
]
"""Termination messages of trainers of any kind; DIGEST stands for the right one."""
MESSAGES = st.sampled_from(LAST_WORDS) | TEXT
RULE_TEXTS = st.sampled_from(
    [f"Container trainer failed with exit code 7 matching FailJob rule at index {i}" for i in (0, 1, 2, 3, 4, 99)]
    + ["", "nothing known"]
)


def containers() -> st.SearchStrategy[Obj]:
    """The state of a container."""
    return st.one_of(
        st.just({}),
        st.fixed_dictionaries(
            {
                "waiting": st.fixed_dictionaries(
                    {},
                    optional={
                        "reason": st.sampled_from(
                            ["ImagePullBackOff", "CreateContainerConfigError", "ContainerCreating", "Else"]
                        ),
                        "message": st.sampled_from(['secret "a" not found', "no"]) | TEXT,
                    },
                )
            }
        ),
        st.fixed_dictionaries({"running": st.fixed_dictionaries({}, optional={"startedAt": TIMES})}),
        st.fixed_dictionaries(
            {
                "terminated": st.fixed_dictionaries(
                    {"exitCode": st.sampled_from([0, 1, 71, 75, 78, 137, 143, -1, 2**31 - 1])},
                    optional={
                        "startedAt": TIMES,
                        "finishedAt": TIMES,
                        "message": MESSAGES,
                        "reason": st.sampled_from(["OOMKilled", "Error", "Completed", "StartError"]),
                    },
                )
            }
        ),
    )


def pod_statuses() -> st.SearchStrategy[Obj]:
    """The status of a pod."""
    conditions = st.fixed_dictionaries(
        {
            "type": st.sampled_from(["DisruptionTarget", "PodScheduled", "Ready"]),
            "status": st.sampled_from(["True", "False", "Unknown"]),
        },
        optional={"reason": st.sampled_from(["Unschedulable", "Else"]), "message": TEXT},
    )
    container = st.fixed_dictionaries(
        {"name": st.sampled_from([names.CONTAINER, names.CONTAINER, "sidecar"]), "state": containers()}
    )
    return st.fixed_dictionaries(
        {},
        optional={
            "phase": st.sampled_from(["Pending", "Running", "Succeeded", "Failed", "Unknown"]),
            "conditions": st.lists(conditions, max_size=2),
            "containerStatuses": st.lists(container, max_size=2),
            "message": TEXT,
            "reason": TEXT,
        },
    )


def job_statuses() -> st.SearchStrategy[Obj]:
    """The status of a Job."""
    condition = st.fixed_dictionaries(
        {
            "type": st.sampled_from(
                ["Complete", "Failed", "Failed", "FailureTarget", "SuccessCriteriaMet", "Suspended"]
            ),
            "status": st.sampled_from(["True", "True", "False", "Unknown"]),
        },
        optional={
            "reason": st.sampled_from(["PodFailurePolicy", "BackoffLimitExceeded", "DeadlineExceeded", "Else"]),
            "message": RULE_TEXTS,
            "lastTransitionTime": TIMES,
        },
    )
    return st.fixed_dictionaries(
        {}, optional={"conditions": st.lists(condition, max_size=3), "startTime": TIMES, "active": st.integers(0, 2)}
    )


assert len(FAILURE_RULES) == 4, "the rule texts go up to the last rule and beyond"
