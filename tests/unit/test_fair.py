"""The queue that serves its groups in turn."""

import asyncio

import pytest

from crossfold_operator.fair import FairQueue


def filled(*items: tuple[str, str, int]) -> FairQueue[tuple[str, str, int]]:
    queue: FairQueue[tuple[str, str, int]] = FairQueue()
    for item in items:
        queue.put(item[:2], item)
    return queue


def order(queue: FairQueue[tuple[str, str, int]]) -> list[str]:
    return [f"{a}{b}{n}" for a, b, n in (queue.take() for _ in range(len(queue)))]


def test_one_owner_is_served_in_order() -> None:
    assert order(filled(*(("n", "a", i) for i in range(3)))) == ["na0", "na1", "na2"]


def test_owners_of_a_namespace_take_turns() -> None:
    many = [("n", "a", i) for i in range(4)]
    assert order(filled(*many, ("n", "b", 0), ("n", "c", 0))) == ["na0", "nb0", "nc0", "na1", "na2", "na3"]


def test_namespaces_take_turns_however_many_owners_they_have() -> None:
    many = [("m", owner, 0) for owner in "abcd"]
    assert order(filled(*many, ("n", "x", 0), ("n", "x", 1))) == ["ma0", "nx0", "mb0", "nx1", "mc0", "md0"]


def test_who_comes_back_waits_for_its_turn() -> None:
    queue = filled(("n", "a", 0), ("n", "b", 0))
    first = queue.take()
    queue.put(("n", "a"), first)
    assert order(queue) == ["nb0", "na0"]


def test_an_empty_queue() -> None:
    queue = filled()
    with pytest.raises(IndexError):
        queue.take()

    async def later() -> object:
        waiting = asyncio.create_task(queue.get())
        await asyncio.sleep(0)
        queue.put(("n", "a"), ("n", "a", 1))
        return await waiting

    assert asyncio.run(later()) == ("n", "a", 1)
    assert len(queue) == 0
