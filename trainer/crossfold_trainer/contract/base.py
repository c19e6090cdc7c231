"""What models of the contract share: camelCase on the wire, frozen, nothing unknown accepted; and kinds of names."""

from typing import Annotated, ClassVar, NamedTuple

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

ShortText = Annotated[str, Field(max_length=253)]
Name = Annotated[str, Field(min_length=1, max_length=253)]
SecretName = Annotated[str, Field(min_length=1, max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")]


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
