"""What every model of the contract shares: camelCase on the wire, frozen, nothing unknown accepted."""

from typing import ClassVar, NamedTuple

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel


class Rule(NamedTuple):
    """A CEL rule over one model, and what a person reads when it does not hold.

    The rule is stated once: the API server evaluates it from the CRD, local mode from the same CRD.
    """

    cel: str
    message: str


class Model(BaseModel):
    """A frozen model with camelCase aliases that refuses unknown fields."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        serialize_by_alias=True,
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        use_enum_values=False,
    )

    rules: ClassVar[tuple[Rule, ...]] = ()
