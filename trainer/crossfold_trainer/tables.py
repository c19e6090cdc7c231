"""The tables of runs, and what is best in them: rows, their columns, and the objects that hold them. Pure.

A row is a run that ended with a result. It follows from config.json and result.json of the run's folder alone, which
never change once the result is there: a row that is in a table need not be reckoned again.
"""

import io
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow as pa
import yaml
from pyarrow import parquet

from crossfold_trainer.contract import hyperparameters as hp
from crossfold_trainer.contract.config import RunConfig, config_digest
from crossfold_trainer.contract.metrics import REPORTED, Direction
from crossfold_trainer.contract.objective import ObjectiveSpec
from crossfold_trainer.contract.result import Performance, RunResult
from crossfold_trainer.contract.scoring import mean_std, rank, score_direction

Row = dict[str, Any]
Rows = dict[str, Row]
"""Rows by the name of the run."""

_ROOT = b"crossfold.root"
_FORM = b"crossfold.form"
FORM = b"1"
"""Of the columns; a table of another form is written anew."""

_IDENTITY = {
    "name": pa.string(),
    "cv": pa.string(),
    "tune": pa.string(),
    "trial": pa.int64(),
    "fold": pa.int64(),
    "seed": pa.int64(),
}
_OUTCOME = {
    "outcome": pa.string(),
    "score": pa.float64(),
    "stable": pa.bool_(),
    "epoch": pa.int64(),
    "epochs": pa.int64(),
    "steps": pa.int64(),
    "halvings": pa.int64(),
    "duration_seconds": pa.float64(),
    "reason": pa.string(),
    "checkpoint_uri": pa.string(),
    "artifact_uri": pa.string(),
    "digest": pa.string(),
    "data_digest": pa.string(),
    "splits_digest": pa.string(),
}
_PERFORMANCE = {
    "device": pa.string(),
    "patches_per_second": pa.float64(),
    "data_wait_share": pa.float64(),
    "checkpoint_wait_share": pa.float64(),
    "device_utilisation": pa.float64(),
    "peak_memory_bytes": pa.int64(),
}
_LISTS = ("augment", "bands")


def _hyperparameter_type(name: str) -> pa.DataType:
    number = hp.HYPERPARAMETERS[name].number
    if number is not None:
        return pa.int64() if number is int else pa.float64()
    return pa.list_(pa.string()) if name in _LISTS else pa.string()


COLUMNS: Mapping[str, pa.DataType] = {
    **_IDENTITY,
    **_OUTCOME,
    **{name: _hyperparameter_type(name) for name in hp.HYPERPARAMETERS},
    **dict.fromkeys(REPORTED, pa.float64()),
    **_PERFORMANCE,
}
"""Every column that all tables have, whether or not a run has a value: parts of one table must not differ in them."""


def row_of(config: RunConfig, result: RunResult) -> Row:
    """The row of a run."""
    own = hp.resolve(config.hyperparameters)
    return {
        "name": config.run,
        "cv": config.cross_validation,
        "tune": config.tune or None,
        "trial": config.trial,
        "fold": config.fold,
        "seed": config.seed,
        **{name: getattr(result, name) for name in _OUTCOME},
        # Of an x- hyperparameter nobody knows which types its other values have.
        **{name: value if name in hp.HYPERPARAMETERS else _json(value) for name, value in own.items()},
        **result.metrics,
        **result.values,
        **(result.performance or Performance()).model_dump(by_alias=False),
    }


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def belongs(config: RunConfig, other: RunConfig, result: RunResult) -> bool:
    """Whether another run is of the same CrossValidation, not of an earlier one of its name, and the result its own."""
    return (
        (other.root, other.cross_validation) == (config.root, config.cross_validation)
        and result.digest == other.digest
        and result.digest == config_digest(config.model_copy(update={"fold": other.fold, "seed": other.seed}))
    )


def pack(rows: Mapping[str, Row], root: str) -> bytes:
    """A table as Parquet, by trial, seed and fold.

    Args:
        rows: at least one.
        root: the uid of the object at the root of their tree.
    """
    ordered = sorted(rows.values(), key=_place)
    further = sorted({name for row in ordered for name in row} - COLUMNS.keys())
    types = {name: pa.string() if name.startswith(hp.EXTENSION_PREFIX) else pa.float64() for name in further}
    schema = pa.schema({**COLUMNS, **types}, metadata={_ROOT: root.encode(), _FORM: FORM})
    sink = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist(ordered, schema=schema), sink, compression="zstd")
    return sink.getvalue()


def _place(row: Row) -> tuple[Any, ...]:
    return row["trial"] or 0, row["cv"], row["seed"], row["fold"]


def unpack(content: bytes | None, root: str) -> Rows:
    """The rows of a table; none where there is no such table, or it is another tree's, or cannot be read."""
    if content is None:
        return {}
    try:
        table = parquet.ParquetFile(io.BytesIO(content)).read()  # read_table would import pyarrow's data sets too
    except (pa.ArrowException, OSError):
        return {}
    about = table.schema.metadata or {}
    if about.get(_ROOT) != root.encode() or about.get(_FORM) != FORM:
        return {}
    return {row["name"]: row for row in table.to_pylist()}


class Best(NamedTuple):
    """A complete trial whose runs are all stable."""

    trial: int
    mean: float
    std: float
    rows: tuple[Row, ...]

    def rank(self, direction: Direction) -> tuple[float, int]:
        """What it is compared by."""
        return rank(self.mean, self.trial, direction)


def whole(rows: Iterable[Row], runs: int) -> dict[int, list[Row]]:
    """The rows of the trials that have all of their runs, by trial."""
    found: dict[int, list[Row]] = defaultdict(list)
    for row in rows:
        found[row["trial"]].append(row)
    return {trial: own for trial, own in found.items() if len(own) >= runs}


def best_of(rows: Iterable[Row], runs: int, direction: Direction) -> Best | None:
    """The best of the trials that have all of their runs, each with a score that may be compared."""
    found: list[Best] = []
    for trial, own in whole(rows, runs).items():
        scores = [row["score"] for row in own if row["stable"] and row["score"] is not None]
        if len(scores) == len(own):
            found.append(Best(trial, *mean_std(scores), tuple(sorted(own, key=_place))))
    return min(found, key=lambda best: best.rank(direction), default=None)


def record(best: Best, config: RunConfig) -> bytes:
    """A best trial as YAML; its `hyperparameters` fit into those of a CrossValidation and into `fixed` of a Tune."""
    first = best.rows[0]
    names = [name for name in first if name in hp.HYPERPARAMETERS or name.startswith(hp.EXTENSION_PREFIX)]
    content = {
        "tune": config.tune,
        "uid": config.root,
        "trial": best.trial,
        "crossValidation": first["cv"],
        "score": best.mean,
        "std": best.std,
        "objective": _objective(config.objective),
        "hyperparameters": [
            {"name": name, "value": first[name] if name in hp.HYPERPARAMETERS else json.loads(first[name])}
            for name in names
        ],
        "metrics": {name: _summary(best.rows, name) for name in _measured(best.rows, config.objective)},
        "dataDigest": first["data_digest"],
        "runs": [
            {
                "name": row["name"],
                "fold": row["fold"],
                "seed": row["seed"],
                "score": row["score"],
                "checkpointUri": row["checkpoint_uri"],
                "digest": row["digest"],
            }
            for row in best.rows
        ],
    }
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True).encode()


def _objective(objective: ObjectiveSpec) -> dict[str, Any]:
    content = objective.model_dump(mode="json")
    return {**content, "direction": str(score_direction(objective))}


def _measured(rows: Sequence[Row], objective: ObjectiveSpec) -> list[str]:
    """The metrics that all of the runs have, those of the objective first."""
    scoring = [metric.name for metric in objective.metrics]
    return [name for name in dict.fromkeys([*scoring, *REPORTED]) if all(row.get(name) is not None for row in rows)]


def _summary(rows: Sequence[Row], name: str) -> dict[str, float]:
    values = [row[name] for row in rows]
    mean, std = mean_std(values)
    return {"mean": mean, "std": std, "min": min(values), "max": max(values)}


class Record(NamedTuple):
    """A best trial that was written down before."""

    uid: str
    trial: int
    score: float

    def rank(self, direction: Direction) -> tuple[float, int]:
        """What it is compared by."""
        return rank(self.score, self.trial, direction)


def read_record(content: bytes) -> Record | None:
    """What a record says; None when it is none."""
    try:
        found = yaml.safe_load(content)
        return Record(str(found["uid"]), int(found["trial"]), float(found["score"]))
    except (yaml.YAMLError, KeyError, TypeError, ValueError):
        return None
