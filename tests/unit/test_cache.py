"""The cache: newest version wins, the dead stay dead, children by controller."""

from hypothesis import given
from hypothesis import strategies as st

from crossfold_operator.cluster.base import Key
from crossfold_operator.cluster.cache import Cache
from crossfold_operator.names import Kind


def run(name="a", *, uid="u", version=1, owner=None, controller=True):
    owners = [{"uid": owner, "controller": controller}] if owner else []
    return {
        "kind": "TrainRun",
        "metadata": {
            "name": name,
            "namespace": "ns",
            "uid": uid,
            "resourceVersion": str(version),
            "ownerReferences": owners,
        },
    }


KEY = Key(Kind.TRAIN_RUN, "ns", "a")


def test_an_older_or_equal_version_changes_nothing():
    cache = Cache()
    assert cache.put(run(version=9))
    assert not cache.put(run(version=9))
    assert not cache.put(run(version=8))
    assert cache.get(KEY)["metadata"]["resourceVersion"] == "9"


def test_versions_are_numbers():
    cache = Cache()
    cache.put(run(version=9))
    assert cache.put(run(version=10))


def test_a_new_object_of_the_name_replaces_the_old_one():
    cache = Cache()
    cache.put(run(uid="old", version=5, owner="p"))
    assert cache.put(run(uid="new", version=6, owner="q"))
    assert cache.children(Kind.TRAIN_RUN, "p") == []
    assert [c["metadata"]["uid"] for c in cache.children(Kind.TRAIN_RUN, "q")] == ["new"]


def test_a_deleted_object_does_not_come_back_with_a_late_answer():
    cache = Cache()
    cache.put(run(version=1))
    cache.remove(KEY, "u")
    assert not cache.put(run(version=2))
    assert cache.get(KEY) is None
    assert cache.put(run(uid="next", version=3))


def test_a_deletion_that_is_known_before_the_object_counts():
    cache = Cache()
    assert cache.remove(KEY, "u") is None
    assert not cache.put(run())


def test_remove_leaves_another_object_of_the_name():
    cache = Cache()
    cache.put(run(uid="new"))
    assert cache.remove(KEY, "old") is None
    assert cache.get(KEY) is not None


def test_children_are_sorted_and_follow_the_controller_only():
    cache = Cache()
    for name in ("c", "a", "b"):
        cache.put(run(name, uid=name, owner="p"))
    cache.put(run("d", uid="d", owner="p", controller=False))
    assert [c["metadata"]["name"] for c in cache.children(Kind.TRAIN_RUN, "p")] == ["a", "b", "c"]
    assert cache.children(Kind.JOB, "p") == []


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["put", "remove"]),
            st.sampled_from("ab"),
            st.sampled_from(["u1", "u2"]),
            st.integers(1, 9),
            st.sampled_from([None, "p", "q"]),
        )
    )
)
def test_the_index_of_children_says_what_the_objects_say(steps):
    cache = Cache()
    for action, name, suffix, version, owner in steps:
        uid = name + suffix
        if action == "put":
            cache.put(run(name, uid=uid, version=version, owner=owner))
        else:
            cache.remove(Key(Kind.TRAIN_RUN, "ns", name), uid)
    objects = [cache.get(key) for key in cache.keys(Kind.TRAIN_RUN)]
    for owner in ("p", "q"):
        expected = [o for o in objects if any(r["uid"] == owner for r in o["metadata"]["ownerReferences"])]
        expected.sort(key=lambda o: o["metadata"]["name"])
        assert cache.children(Kind.TRAIN_RUN, owner) == expected
