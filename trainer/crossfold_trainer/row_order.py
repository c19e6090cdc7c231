"""Which patch a row of metadata.parquet describes: its index or its column z_idx says so, else its position. Pure.

darts chooses patches by the pandas index of the metadata ("the index must refer to the index of the sample in the zarr
data") and writes the same number as the column z_idx.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crossfold_trainer.findings import Finding, count, error, errors, some, warning

METADATA = "metadata.parquet"
Z_IDX = "z_idx"
Index = NDArray[np.int64]


@dataclass(frozen=True)
class Numbers:
    """A numbering of the rows: the stored pandas index, or the column z_idx."""

    name: str | None
    """What it is called; None: an index without a name."""
    values: Index | None
    """A number for each row; None: they are no whole numbers, or not all rows have one."""
    type: str = "int64"
    """What the values are, for messages."""

    @property
    def means_patches(self) -> bool:
        """Whether its name leaves no other meaning."""
        return self.name in (None, Z_IDX)


@dataclass(frozen=True)
class RowOrder:
    """Which row describes each patch."""

    rows: Index | None
    """Row of each patch; None: row i describes patch i."""
    by: str = ""
    """What says so; empty: nothing does."""
    findings: tuple[Finding, ...] = ()


def row_order(index: Numbers | None, z_idx: Numbers | None, n: int) -> RowOrder:
    """Find out which row describes each patch.

    An index that may hold something else (text, times, numbers under a name of their own) is only an index of patches
    where it numbers all of them.

    Args:
        index: the stored pandas index; None: there is none.
        z_idx: the column z_idx; None: there is none.
        n: number of rows.

    Returns:
        The order with what is wrong with it: errors where a numbering is no permutation of 0 to n - 1, or where the
        two contradict each other.
    """
    found: list[Finding] = []
    numbering, column = _index(index, n, found), _column(z_idx, n, found)
    if numbering is not None and column is not None and not np.array_equal(numbering, column):
        differing = np.flatnonzero(numbering != column)
        first = differing[0]
        found.append(
            error(
                METADATA,
                f"the index and the column z_idx of metadata.parquet name different patches in {len(differing)} of {n}"
                f" rows, such as {numbering[first]} and {column[first]} in row {first}",
                "make the right one the index (set_index) and drop the other column",
            )
        )
    chosen, by = (column, Z_IDX) if numbering is None else (numbering, "index")
    if chosen is None:
        return RowOrder(None, "", tuple(found))
    rows = None if errors(found) or np.array_equal(chosen, np.arange(n)) else np.argsort(chosen)
    return RowOrder(rows, by, tuple(found))


def _index(index: Numbers | None, n: int, found: list[Finding]) -> Index | None:
    """The index as a numbering of patches; None: it says nothing of them."""
    if index is None:
        return None
    values, called = index.values, f"index {index.name}" if index.name else "index"
    wrong = "" if values is None else not_all_patches(values, n)
    if values is not None and not wrong:
        return values
    if values is not None and index.means_patches:
        found.append(
            error(
                METADATA,
                f"the {called} of metadata.parquet must hold 0 to {n - 1}, the patch of each row, and has {wrong}",
                "correct it, or write the metadata with reset_index(drop=True) if row i describes patch i",
            )
        )
    else:
        kind = f"it is {index.type}" if values is None else f"it has {wrong}"
        found.append(
            warning(
                METADATA,
                f"the {called} of metadata.parquet does not number the patches ({kind}): row i is taken for patch i",
                "if that is wrong, make the number of the patch the index",
            )
        )
    return None


def _column(z_idx: Numbers | None, n: int, found: list[Finding]) -> Index | None:
    if z_idx is None:
        return None
    wrong = f"values of type {z_idx.type}" if z_idx.values is None else not_all_patches(z_idx.values, n)
    if not wrong:
        return z_idx.values
    found.append(
        error(
            METADATA,
            f"column z_idx of metadata.parquet must hold 0 to {n - 1}, the patch of each row, and has {wrong}",
            "correct it, or drop the column if row i describes patch i",
        )
    )
    return None


def not_all_patches(values: Index, n: int) -> str:
    """Why these are no permutation of 0 to n - 1; empty: they are one."""
    outside = values[(values < 0) | (values >= n)]
    inside, counts = np.unique(values[(values >= 0) & (values < n)], return_counts=True)
    twice = inside[counts > 1]
    parts = [f"{count(len(outside), 'value')} outside of that ({some(outside.tolist())})" if len(outside) else ""]
    parts.append(f"{count(len(twice), 'value')} more than once ({some(twice.tolist())})" if len(twice) else "")
    return " and ".join(part for part in parts if part)
