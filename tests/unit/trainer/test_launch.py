"""Which processes a node starts, and what their ends say together."""

import pytest

from crossfold_trainer.contract.exits import Exit
from crossfold_trainer.contract.trainer import TrainerSpec
from crossfold_trainer.launch import NODE_VARIABLE, places, verdict

FIRST_NODE = {"MASTER_ADDR": "r-0.r", "MASTER_PORT": "29500"}


def test_the_devices_of_one_node_find_each_other_on_it() -> None:
    found = places(TrainerSpec(devices=3), {})
    assert [(p["RANK"], p["LOCAL_RANK"]) for p in found] == [("0", "0"), ("1", "1"), ("2", "2")]
    assert {(p["WORLD_SIZE"], p["LOCAL_WORLD_SIZE"], p["MASTER_ADDR"]) for p in found} == {("3", "3", "127.0.0.1")}
    assert len({p["MASTER_PORT"] for p in found}) == 1


def test_each_of_several_nodes_has_its_devices_and_looks_for_the_first() -> None:
    found = places(TrainerSpec(devices=2, nodes=3), {**FIRST_NODE, NODE_VARIABLE: "2"})
    assert [(p["RANK"], p["LOCAL_RANK"]) for p in found] == [("4", "0"), ("5", "1")]
    assert {(p["WORLD_SIZE"], p["LOCAL_WORLD_SIZE"]) for p in found} == {("6", "2")}
    assert all(p.keys().isdisjoint(FIRST_NODE) for p in found)


def test_a_machine_that_is_not_told_which_node_it_is_is_all_of_them() -> None:
    found = places(TrainerSpec(devices=2, nodes=2), FIRST_NODE)
    assert [p["RANK"] for p in found] == [p["LOCAL_RANK"] for p in found] == ["0", "1", "2", "3"]
    assert {(p["WORLD_SIZE"], p["LOCAL_WORLD_SIZE"], p["MASTER_ADDR"]) for p in found} == {("4", "4", "127.0.0.1")}


def test_threads_are_shared_out_unless_they_are_given() -> None:
    shared, given = places(TrainerSpec(devices=2), {}), places(TrainerSpec(devices=2), {"OMP_NUM_THREADS": "3"})
    assert len(shared) == len(given) == 2
    assert all(int(p["OMP_NUM_THREADS"]) >= 1 for p in shared)
    assert all("OMP_NUM_THREADS" not in p for p in given)


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ([None, None], None),
        # The first one's word counts, even while others end late or badly.
        ([Exit.OK, None], Exit.OK),
        ([Exit.OK, Exit.PEERS_LOST], Exit.OK),
        ([Exit.INTERRUPTED, 1], Exit.INTERRUPTED),
        # Another may be interrupted long before: the first one saves.
        ([None, Exit.INTERRUPTED], None),
        ([None, Exit.OK], None),
        # What failed by itself, not what lost it.
        ([None, Exit.CONFIG], Exit.CONFIG),
        ([Exit.PEERS_LOST, -9], -9),
        ([Exit.PEERS_LOST, None, Exit.OUT_OF_MEMORY], Exit.OUT_OF_MEMORY),
        ([1, Exit.PEERS_LOST], 1),
        # It is on another node.
        ([Exit.PEERS_LOST, None], Exit.PEERS_LOST),
        ([None, Exit.PEERS_LOST], Exit.PEERS_LOST),
    ],
)
def test_which_exit_code_speaks_for_all(codes: list[int | None], expected: int | None) -> None:
    assert verdict(codes) == expected
