"""Which checkpoints count and who may add one: interleavings of processes on one folder."""

import json
from pathlib import Path

import pytest

from crossfold_trainer.checkpoints import CheckpointLog
from crossfold_trainer.contract.data import ArtifactsSpec
from crossfold_trainer.errors import Fenced, StoreError
from crossfold_trainer.store import Store, open_store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(ArtifactsSpec(uri=str(tmp_path)), "artifacts")


def claimed(store: Store, owner: str = "uid", attempt: int = 1) -> CheckpointLog:
    log = CheckpointLog(store, owner, attempt)
    log.claim()
    return log


def contents(store: Store, log: CheckpointLog) -> list[tuple[bytes | None, bytes | None]]:
    return [(store.read(s.state.path), store.read(s.best.path) if s.best else None) for s in log.snapshots]


def ckpts(folder: Path) -> set[bytes]:
    return {path.read_bytes() for path in (folder / "checkpoints").glob("*.ckpt")}


def test_the_newest_two_states_are_kept_each_with_its_best(store: Store, tmp_path: Path) -> None:
    log = claimed(store)
    for state, best in ((b"s1", b"b1"), (b"s2", None), (b"s3", b"b3"), (b"s4", None)):
        log.commit(state, best)
    assert contents(store, claimed(store)) == [(b"s4", b"b3"), (b"s3", b"b3")]
    assert ckpts(tmp_path) == {b"s4", b"s3", b"b3"}
    assert len(list((tmp_path / "checkpoints" / "log").iterdir())) == 2


def test_whoever_claimed_before_adds_nothing(store: Store, tmp_path: Path) -> None:
    old = claimed(store)
    old.commit(b"s1", b"b1")
    new = claimed(store)
    with pytest.raises(Fenced):
        old.commit(b"s2", b"b2")
    assert ckpts(tmp_path) == {b"s1", b"b1"}, "what it had uploaded is gone"
    old.publish()
    with pytest.raises(Fenced):
        old.settle()
    assert ckpts(tmp_path) == {b"s1", b"b1"}, "under names of their own and under the plain ones"
    assert (tmp_path / "checkpoints" / "last.ckpt").exists()
    new.commit(b"n1", None)
    assert contents(store, claimed(store)) == [(b"n1", b"b1"), (b"s1", b"b1")]


def test_numbers_that_are_free_again_are_not_taken(store: Store, tmp_path: Path) -> None:
    """Old entries are deleted; who slept through all of them is fenced all the same, and deletes nothing."""
    old = claimed(store)
    old.commit(b"s1", b"b1")
    old.commit(b"s2", None)
    for _ in range(4):
        newest = claimed(store)
    before = ckpts(tmp_path)
    with pytest.raises(Fenced):
        old.commit(b"late", None)
    assert contents(store, newest) == [(b"s2", b"b1"), (b"s1", b"b1")]
    assert before <= ckpts(tmp_path)
    assert contents(store, claimed(store)) == [(b"s2", b"b1"), (b"s1", b"b1")]


def test_an_earlier_attempt_of_the_same_run_does_not_claim(store: Store) -> None:
    claimed(store, attempt=4)
    with pytest.raises(Fenced, match="attempt 4 of this run has begun: this one is 3"):
        claimed(store, attempt=3)
    claimed(store, attempt=4)
    claimed(store, owner="another", attempt=1)


def test_an_answer_that_was_lost_is_not_taken_for_another_attempt(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crossfold_trainer.artifacts.ROUND_PAUSE_S", 0.0)
    log = claimed(store)
    create, lost = Store.create, [True]

    def losing(self: Store, path: str, content: bytes) -> bool:
        done = create(self, path, content)
        if lost and lost.pop():
            raise StoreError("connection reset")
        return done

    monkeypatch.setattr(Store, "create", losing)
    log.commit(b"s1", None)
    log.commit(b"s2", None)
    assert contents(store, claimed(store)) == [(b"s2", None), (b"s1", None)]


def test_what_was_uploaded_and_never_named_is_cleared_by_the_next(store: Store, tmp_path: Path) -> None:
    log = claimed(store)
    log.commit(b"s1", None)
    store.write("checkpoints/state-000003-dead.ckpt", b"orphan")
    store.write("checkpoints/state-000009-later.ckpt", b"of a later attempt that is uploading it now")
    claimed(store)
    assert ckpts(tmp_path) == {b"s1", b"of a later attempt that is uploading it now"}


def test_what_a_former_process_uploads_late_is_cleared_at_the_end(store: Store, tmp_path: Path) -> None:
    old = claimed(store)
    log = claimed(store)
    old._upload("state", b"late")  # its connection outlives it
    log.commit(b"s1", b"b1")
    log.publish()
    log.settle()
    assert ckpts(tmp_path) == {b"s1", b"b1"}


def test_a_torn_entry_is_passed_over(store: Store, tmp_path: Path) -> None:
    log = claimed(store)
    log.commit(b"s1", None)
    log.commit(b"s2", None)
    newest = max((tmp_path / "checkpoints" / "log").iterdir())
    newest.write_bytes(newest.read_bytes()[:-5])
    again = claimed(store)
    assert contents(store, again) == [(b"s1", None)]
    again.commit(b"s3", None)
    assert contents(store, claimed(store))[0] == (b"s3", None)


def test_a_finished_run_has_its_plain_names_only(store: Store, tmp_path: Path) -> None:
    log = claimed(store)
    log.commit(b"s1", b"b1")
    log.publish()
    assert ckpts(tmp_path) == {b"s1", b"b1"}
    log.settle()
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"last.ckpt", "best.ckpt", "log"}
    assert contents(store, claimed(store)) == [(b"s1", b"b1")]
    entry = json.loads(max((tmp_path / "checkpoints" / "log").iterdir()).read_text())
    assert entry["snapshots"][0]["state"]["path"] == "checkpoints/last.ckpt"


def test_a_server_without_conditional_writes_is_asked_first(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    import obstore

    put = obstore.put

    def plain(*args: object, mode: object = None, **kwargs: object) -> object:
        if mode == "create":
            raise NotImplementedError
        return put(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(obstore, "put", plain)
    log = claimed(store)
    log.commit(b"s1", None)
    claimed(store)
    with pytest.raises(Fenced):
        log.commit(b"s2", None)
