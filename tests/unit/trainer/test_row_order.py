"""Which patch a row of metadata.parquet describes, by what pandas and other tools write."""

import io
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from crossfold_trainer.documents import Table, read_metadata
from crossfold_trainer.findings import Severity

N = 6
ORDER = [4, 0, 5, 1, 3, 2]
"""Row i of the shuffled frame describes patch ORDER[i]."""
FRAME = pd.DataFrame({"empty": [False] * N, "region": [f"r{i}" for i in range(N)]})
"""Region i of patch i."""
SHUFFLED = FRAME.iloc[ORDER]


def read(frame: "pd.DataFrame | pa.Table", **options: Any) -> tuple[Table, list[tuple[Severity, str]]]:
    sink = io.BytesIO()
    if isinstance(frame, pa.Table):
        parquet.write_table(frame, sink)
    else:
        frame.to_parquet(sink, **options)
    table, found = read_metadata(sink.getvalue())
    assert table is not None
    return table, [(finding.severity, str(finding)) for finding in found]


def regions(table: Table) -> list[str]:
    assert table.metadata is not None
    assert table.metadata.region is not None
    return table.metadata.region.tolist()


IN_ORDER = FRAME["region"].tolist()
AS_WRITTEN = SHUFFLED["region"].tolist()


@pytest.mark.parametrize(
    ("frame", "by"),
    [
        (SHUFFLED, "index"),
        (SHUFFLED.assign(z_idx=ORDER), "index"),
        (SHUFFLED.assign(z_idx=ORDER).set_index("z_idx"), "index"),
        (SHUFFLED.rename_axis("patch"), "index"),
        (FRAME.iloc[::-1], "index"),
        (SHUFFLED.set_index(pd.Index(np.array(ORDER, np.float64))), "index"),
        (SHUFFLED.assign(z_idx=np.array(ORDER, np.float64)).set_index(pd.Index(list("abcdef"))), "z_idx"),
        (pa.table({"empty": [False] * N, "region": AS_WRITTEN, "z_idx": ORDER}), "z_idx"),
        (pa.table({"empty": [False] * N, "region": AS_WRITTEN, "__index_level_0__": ORDER}), "index"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_rows_follow_a_numbering_of_patches(frame: "pd.DataFrame | pa.Table", by: str) -> None:
    table, found = read(frame)
    assert regions(table) == IN_ORDER
    assert table.order is not None
    assert table.ordered_by == by
    assert Severity.ERROR not in dict(found)


def test_without_an_index_z_idx_counts() -> None:
    table, found = read(SHUFFLED.assign(z_idx=ORDER), index=False)
    assert (regions(table), table.ordered_by, found) == (IN_ORDER, "z_idx", [])


@pytest.mark.parametrize(
    "frame",
    [
        FRAME,
        FRAME.assign(z_idx=range(N)),
        FRAME.rename_axis("id"),
        pa.table({"empty": [False] * N, "region": IN_ORDER}),
    ],
    ids=["index", "both", "named", "no-pandas"],
)
def test_a_default_index_changes_nothing(frame: "pd.DataFrame | pa.Table") -> None:
    table, found = read(frame)
    assert (regions(table), table.order, found) == (IN_ORDER, None, [])


def test_rows_that_another_tool_took_out_have_no_index() -> None:
    kept = pa.Table.from_pandas(FRAME).slice(0, 4)
    table, found = read(kept)
    assert (regions(table), table.order, found) == (IN_ORDER[:4], None, [])


@pytest.mark.parametrize(
    "index",
    [
        pd.Index([f"s{i}" for i in range(N)], name="sample"),
        pd.Index([100, 103, 104, 190, 191, 200], name="tile"),
        pd.Index(np.arange(N) / 2),
        pd.date_range("2024-01-01", periods=N),
        pd.MultiIndex.from_product([["a", "b"], [0, 1, 2]]),
    ],
    ids=["text", "numbers-with-a-name", "fractions", "times", "levels"],
)
def test_an_index_of_something_else_is_told_and_passed_over(index: pd.Index) -> None:
    table, found = read(SHUFFLED.set_index(index))
    assert (regions(table), table.order) == (AS_WRITTEN, None)
    assert [severity for severity, _ in found] == [Severity.WARNING]
    assert "row i is taken for patch i" in found[0][1]


@pytest.mark.parametrize(
    ("frame", "numbers"),
    [
        (FRAME.set_index(pd.Index([0, 1, 1, 3, 4, 9])), ["0 to 5", "1 value outside of that (9)", "1 value more than once (1)"]),
        (FRAME.set_index(pd.RangeIndex(1, N + 1)), ["1 value outside of that (6)"]),
        (FRAME.set_index(pd.Index([0, 1, 1, 3, 4, 9], name="z_idx")), ["index z_idx", "(9)"]),
        (FRAME.assign(z_idx=range(1, N + 1)), ["column z_idx", "(6)"]),
        (FRAME.assign(z_idx=[0, 1, 2, 3, 4, None]), ["column z_idx", "1 missing"]),
        (FRAME.assign(z_idx=list("abcdef")), ["column z_idx", "string"]),
        (FRAME.assign(z_idx=[0, 2, 1, 3, 4, 5]), ["different patches in 2 of 6 rows", "1 and 2 in row 1"]),
        (SHUFFLED.assign(z_idx=range(N)), ["different patches in 6 of 6 rows"]),
    ],
)  # fmt: skip
def test_what_contradicts_is_refused(frame: pd.DataFrame, numbers: list[str]) -> None:
    _, found = read(frame)
    assert [severity for severity, _ in found] == [Severity.ERROR]
    assert all(number in found[0][1] for number in numbers), found


def test_everything_moves_with_its_row() -> None:
    frame = pd.DataFrame(
        {
            "empty": [i % 2 == 0 for i in range(N)],
            "region": IN_ORDER,
            "sample_id": [f"s{i}" for i in range(N)],
            "geometry": [bytes([i]) for i in range(N)],
        }
    )
    table, _ = read(frame.iloc[ORDER])
    plain, _ = read(frame)
    assert table.metadata is not None
    assert plain.metadata is not None
    for name in ("empty", "region", "sample_id", "outlines"):
        assert list(getattr(table.metadata, name)) == list(getattr(plain.metadata, name))


@pytest.mark.parametrize("values", [[0, 1, 0, 1, 0, 5], [-1, 0, 0, 0, 0, 0]])
def test_empty_of_other_numbers_is_refused(values: list[int]) -> None:
    table, found = read(FRAME.assign(empty=values))
    assert table.metadata is None
    assert found[0][0] is Severity.ERROR
    assert str(max(values, key=abs)) in found[0][1]


def test_missing_names_are_counted() -> None:
    _, found = read(FRAME.assign(region=["a", None, "b", "", "c", "d"]))
    assert found == [(Severity.WARNING, found[0][1])]
    assert "region is missing in 2 of 6 rows (rows 1, 3)" in found[0][1]
