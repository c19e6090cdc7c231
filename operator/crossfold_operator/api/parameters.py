"""The search space as a person writes it."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated

from pydantic import Field, JsonValue

from crossfold_operator.api.fields import ANY_JSON, KNOWN_NAME, HyperparameterName, named_list
from crossfold_trainer.contract.base import Model, Rule


class ParameterType(StrEnum):
    """What values a parameter takes."""

    FLOAT = "Float"
    INT = "Int"
    CATEGORICAL = "Categorical"


class Scale(StrEnum):
    """How a numeric range is sampled."""

    LINEAR = "Linear"
    LOG = "Log"
    REVERSE_LOG = "ReverseLog"


LARGEST: Mapping[ParameterType, float] = {ParameterType.FLOAT: 1e300, ParameterType.INT: 2.0**53}
"""Greatest magnitude of min and max: every width is finite, and JSON tells all integers apart."""
TOO_LARGE: Mapping[ParameterType, str] = {
    ParameterType.FLOAT: "Float takes min and max from -1e300 to 1e300: bring min and max nearer to 0",
    ParameterType.INT: "Int takes min and max from -9007199254740992 to 9007199254740992 (2^53), since JSON cannot tell"
    " greater integers apart: bring min and max nearer to 0",
}
_STEP_SLACK = 1.0001
"""The API server reckons in binary floats, in which 0.3 - 0.2 is less than 0.1."""


def _not_too_large(type_: ParameterType) -> Rule:
    bound = LARGEST[type_]
    return Rule(
        f"self.type != '{type_}' || ((!has(self.min) || self.min >= -{bound})"
        f" && (!has(self.max) || self.max <= {bound}))",
        TOO_LARGE[type_],
    )


def _whole(field: str) -> str:
    """CEL for a field that is not set, beyond what a 64-bit integer holds (another rule says so), or a whole number."""
    bound = LARGEST[ParameterType.INT]
    value = f"self.{field}"
    return f"(!has({value}) || {value} < -{bound} || {value} > {bound} || {value} == double(int({value})))"


class ParameterSpec(Model):
    """One dimension of the search space."""

    name: HyperparameterName
    """Name of the hyperparameter; '-' equals '_'."""
    type: ParameterType
    """Float, Int or Categorical."""
    min: float | None = None
    """Least value (Float, Int), inclusive."""
    max: float | None = None
    """Greatest value (Float, Int), inclusive."""
    scale: Scale | None = None
    """Linear (default), Log (Float, Int: small values more often), or ReverseLog (Float: values near 1 more often, as
    momenta need; 1 - value is log-uniform)."""
    step: Annotated[float, Field(gt=0)] | None = None
    """Distance between values, counted from min (Float, Int); not with scale Log or ReverseLog."""
    values: (
        Annotated[
            list[Annotated[JsonValue, Field(json_schema_extra=ANY_JSON)]],
            Field(min_length=1, max_length=100, json_schema_extra={"x-kubernetes-list-type": "atomic"}),
        ]
        | None
    ) = None
    """The choices (Categorical): any JSON values, lists included."""

    rules = (
        KNOWN_NAME,
        Rule(
            "self.type == 'Categorical' || (has(self.min) && has(self.max) && self.min < self.max)",
            "Float and Int need min and max, with min below max",
        ),
        Rule(
            "self.type != 'Categorical' || !(has(self.min) || has(self.max) || has(self.step) || has(self.scale))",
            "Categorical takes values only: remove min, max, step and scale",
        ),
        Rule(
            "!has(self.scale) || self.scale != 'Log' || (has(self.min) && self.min > 0.0 && !has(self.step))",
            "scale Log needs min above 0 and takes no step",
        ),
        Rule(
            "!has(self.scale) || self.scale != 'ReverseLog' || (self.type == 'Float' && has(self.max)"
            " && self.max < 1.0 && !has(self.step))",
            "scale ReverseLog is for Float, needs max below 1 and takes no step",
        ),
        Rule(
            f"self.type != 'Int' || ({' && '.join(map(_whole, ('min', 'max', 'step')))})",
            "Int needs whole numbers for min, max and step",
        ),
        *map(_not_too_large, LARGEST),
        Rule(
            "!has(self.step) || !has(self.min) || !has(self.max) || self.min >= self.max"
            f" || self.step <= (self.max - self.min) * {_STEP_SLACK}",
            "step is larger than max - min, which leaves one value: lower step, or move the parameter to spec.fixed",
        ),
    )


class ParameterValue(Model):
    """A parameter and its value."""

    name: HyperparameterName
    """Name of a parameter; '-' equals '_'."""
    value: Annotated[JsonValue, Field(json_schema_extra=ANY_JSON)] = None
    """Its value; null where there is none."""


class InitialTrial(Model):
    """A trial that is asked before the algorithm is."""

    parameters: Annotated[list[ParameterValue], named_list(64), Field(min_length=1)]
    """Its parameters; those that are left out are chosen by the algorithm."""
