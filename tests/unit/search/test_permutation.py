import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossfold_operator.search.permutation import permuted, place_of


@given(st.integers(1, 400), st.integers(0, 2**31 - 1))
def test_every_index_has_one_image(size: int, seed: int) -> None:
    assert sorted(permuted(i, size, seed) for i in range(size)) == list(range(size))


@given(st.one_of(st.integers(1, 10**30), st.integers(2**1000, 2**3500)), st.integers(0, 2**31 - 1), st.data())
def test_huge_sizes_cost_nothing(size: int, seed: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    assert 0 <= permuted(index, size, seed) < size
    assert place_of(permuted(index, size, seed), size, seed) == index


def test_the_order_is_mixed_and_depends_on_the_seed() -> None:
    orders = {tuple(permuted(i, 24, seed) for i in range(24)) for seed in range(50)}
    assert len(orders) == 50
    assert tuple(range(24)) not in orders


@pytest.mark.parametrize("index", [-1, 3])
def test_outside_the_range(index: int) -> None:
    with pytest.raises(ValueError, match="outside"):
        permuted(index, 3, 1)
