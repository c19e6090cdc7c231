"""Where data and artifacts are: stores, the data set, its test part and its cache."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from crossfold_trainer.contract.base import Model, Name, Rule, SecretName

Uri = Annotated[str, Field(min_length=1, max_length=1024)]
BUCKETS = ("s3", "gs", "az")
"""Schemes of object storage that are read."""
SCHEMES = (*BUCKETS, "file")
"""All schemes that are read; a URI without one is an absolute path."""


def uri_rules(field: str, *, optional: bool = False) -> tuple[Rule, ...]:
    """Rules on a field that holds a URI. Local mode makes relative paths absolute before it asks them.

    Args:
        field: its name in the schema.
        optional: whether it may be missing.
    """
    uri, guard = f"self.{field}", f"!has(self.{field}) || " if optional else ""
    starts = " || ".join(f"{uri}.startsWith('{scheme}://')" for scheme in BUCKETS)
    shown = ", ".join(f"{scheme}://" for scheme in BUCKETS)
    return (
        Rule(
            f"{guard}!{uri}.contains('://') || {starts} || {uri}.startsWith('file:///')",
            f"{field} has a scheme that nothing reads: use {shown} or file:///, or an absolute path",
        ),
        Rule(
            f"{guard}{uri}.contains('://') || {uri}.startsWith('/')",
            f"{field} is a relative path, which no pod has: write s3://bucket/prefix, or an absolute path (/data)",
        ),
        Rule(
            f"{guard}!{uri}.matches('^({'|'.join(BUCKETS)})://(/|$)')",
            f"{field} names no bucket: write it as s3://bucket/prefix",
        ),
    )


class SplitMethod(StrEnum):
    """How the test part is set aside before the folds are cut."""

    NONE = "None"
    RANDOM = "Random"
    REGION = "Region"
    SAMPLE = "Sample"


class SecretRef(Model):
    """A Secret in the same namespace."""

    name: SecretName
    """Name of the Secret; its keys are AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and, optionally, AWS_SESSION_TOKEN."""


class NonFinite(StrEnum):
    """What a run does about values of x that are NaN or infinite."""

    ERROR = "Error"
    IGNORE = "Ignore"


class StoreSpec(Model):
    """A place in object storage, or a folder."""

    uri: Uri
    """Where it is: s3://bucket/prefix, gs://, az://, file:/// or an absolute path inside the container."""
    endpoint: Annotated[str, Field(max_length=253, pattern=r"^(https?://.+)?$")] = ""
    """URL of the S3 server (http:// or https://), used with path-style addresses; empty: the provider's own."""
    region: Annotated[str, Field(max_length=64)] = ""
    """Region that requests are signed for; empty: the provider's default."""
    secret_ref: SecretRef | None = None
    """Secret with the credentials, mounted into the pod as files; without it the pod's own identity is used."""

    rules = uri_rules("uri")


class SplitSpec(Model):
    """How the test part is set aside."""

    method: SplitMethod = SplitMethod.NONE
    """None (no test part), Random (testFraction of the patches), Region or Sample (the listed values)."""
    test_fraction: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Share of the patches that Random sets aside for the test, in (0, 1)."""
    values: Annotated[list[Name], Field(max_length=1000, json_schema_extra={"x-kubernetes-list-type": "set"})] = []
    """Names of the regions or samples that make the test part."""

    rules = (
        Rule(
            "self.method == 'Random' ? has(self.testFraction) : !has(self.testFraction)",
            "testFraction goes with method Random, and only with it",
        ),
        Rule(
            "self.method in ['Region', 'Sample'] ? (has(self.values) && size(self.values) > 0)"
            " : (!has(self.values) || size(self.values) == 0)",
            "values goes with method Region or Sample, and must then list at least one name",
        ),
    )


class CacheSpec(Model):
    """A disk near the pods for chunks of the data set; without hostPath and claimName an emptyDir of each pod."""

    host_path: Annotated[str, Field(max_length=1024, pattern=r"^(/.+)?$")] = ""
    """Folder of the node, which all runs on it share; it must be writable for the user that pods run as (65532)."""
    claim_name: Annotated[str, Field(max_length=253, pattern=r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?)?$")] = ""
    """PersistentVolumeClaim in the same namespace, such as one on the node's own disk; runs share it."""
    size_limit: Annotated[str, Field(max_length=16, pattern=r"^[1-9][0-9]{0,8}(Mi|Gi|Ti|M|G|T)$")] = "50Gi"
    """Most that the cached chunks of all data sets may take together, such as 50Gi or 2Ti."""

    rules = (
        Rule(
            "!has(self.hostPath) || self.hostPath == '' || !has(self.claimName) || self.claimName == ''",
            "hostPath and claimName exclude each other: remove one",
        ),
    )

    @property
    def limit_bytes(self) -> int:
        """The size limit in bytes."""
        number = self.size_limit.rstrip("MGTi")
        unit = self.size_limit[len(number) :]
        factor: int = (1024 if unit.endswith("i") else 1000) ** (2 + "MGT".index(unit[0]))
        return int(number) * factor


Value = Annotated[float, Field(ge=-1e15, le=1e15)]  # integers in YAML are compared with bounds as 64-bit integers


class ValueRange(Model):
    """Values of x that become 0 and 1."""

    min: Value = 0.0
    """The value that becomes 0."""
    max: Value = 1.0
    """The value that becomes 1."""

    rules = (Rule("self.min < self.max", "min must be below max"),)


class BandRange(ValueRange):
    """Values of one band that become 0 and 1."""

    name: Name
    """Name of the band, as in the data set's config.toml."""


class ScaleSpec(ValueRange):
    """What x ranges over: a value v becomes (v - min) / (max - min). Values outside are an error, but for rounding."""

    bands: Annotated[
        list[BandRange],
        Field(
            max_length=256,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
        ),
    ] = []
    """Bands with a range of their own; min and max above are for all others."""


class DataSpec(StoreSpec):
    """The data set (darts layout): config.toml, data.zarr and metadata.parquet below the URI."""

    anonymous: bool = False
    """Read without credentials (public buckets)."""
    subsample: Annotated[int, Field(ge=2, le=100_000_000)] | None = None
    """Use only this many patches, sampled with seed 42 before anything else; null: all."""
    split: SplitSpec = SplitSpec()
    """The test part, set aside before the folds are cut."""
    scale: ScaleSpec | None = None
    """What x ranges over, such as {min: 0, max: 10000} for reflectances; null: x is float32 in [0, 1]."""
    non_finite: NonFinite = NonFinite.ERROR
    """What is done about values that are NaN or infinite: Error; Ignore: they become 0, their pixels ignored labels."""
    cache: CacheSpec | None = None
    """Keep the chunks that runs read on a disk near them; null: fetch them in each epoch that memory cannot hold."""

    rules = (
        *StoreSpec.rules,
        Rule(
            "!self.anonymous || !has(self.secretRef)",
            "anonymous and secretRef exclude each other: remove one",
        ),
        Rule(
            "!has(self.cache) || (self.uri.contains('://') && !self.uri.startsWith('file:'))",
            "cache goes with a data set in object storage; uri is a folder: remove cache",
        ),
    )


class ArtifactsSpec(StoreSpec):
    """Where runs leave checkpoints, metrics and figures."""
