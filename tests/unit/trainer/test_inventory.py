"""Listings in parts, and what is remembered of them."""

from itertools import pairwise

import pytest

from crossfold_trainer.inventory import PAGE, Inventory, digest_of, marks
from crossfold_trainer.store import Entry


def keys(rows: int, bands: int) -> list[str]:
    return sorted(
        [f"d/x/c/{i}/{j}/0/0" for i in range(rows) for j in range(bands)] + [f"d/y/c/{i}/0/0" for i in range(rows)]
    )


@pytest.mark.parametrize(("rows", "bands", "parts"), [(10, 3, 1), (333, 2, 1), (1000, 3, 4), (5000, 6, 16)])
def test_marks_cut_a_listing_into_even_parts(rows: int, bands: int, parts: int) -> None:
    paths = keys(rows, bands)
    bounds = ["", *sorted(marks([("d/x/c/", rows, rows * bands), ("d/y/c/", rows, rows)])), "~"]
    sizes = [sum(after < path <= before for path in paths) for after, before in pairwise(bounds)]
    assert sum(sizes) == len(paths)
    assert parts - 1 <= sum(size > 0 for size in sizes) <= parts + 1
    assert max(sizes) <= 1.6 * max(PAGE, len(paths) / parts)


def test_an_inventory_knows_sizes_and_tags() -> None:
    listed = [Entry("b", 2, "t2"), Entry("a", 1, "t1"), Entry("c", 0, "t3")]
    inventory = Inventory(listed)
    assert len(inventory) == 3
    assert [inventory.size(path) for path in ("a", "b", "c", "d")] == [1, 2, 0, None]
    assert inventory.same("a", "t1")
    assert not inventory.same("a", "t2")
    assert not inventory.same("d", "t1")
    assert Inventory([]).size("a") is None


def test_a_digest_follows_every_part() -> None:
    base = digest_of([b"config", b"metadata"], [Entry("a", 1, "t")])
    assert base == digest_of([b"config", b"metadata"], [Entry("a", 1, "t")])
    others = [
        digest_of([b"config", b"meta"], [Entry("a", 1, "t")]),
        digest_of([b"config", b"metadata"], [Entry("a", 2, "t")]),
        digest_of([b"config", b"metadata"], [Entry("a", 1, "u")]),
        digest_of([b"config", b"metadata"], [Entry("b", 1, "t")]),
        digest_of([b"config", b"metadata"], []),
    ]
    assert len({base, *others}) == 6
