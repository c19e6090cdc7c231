"""The cache of chunks: what is kept and what is fetched again, how much of it, and who has to go."""

import os
import threading
import time
from pathlib import Path

import pytest

from crossfold_trainer import cache as cache_module
from crossfold_trainer.cache import DiskCache
from crossfold_trainer.contract.data import CacheSpec
from crossfold_trainer.errors import ConfigError

KEY = "data.zarr/x/c/3/0/0/0"
CHUNK = bytes(range(256)) * 4


def stored(folder: Path, digest: str = "d1") -> Path:
    return folder / digest / KEY.replace("/", ".")


def room_for(chunks: int) -> int:
    """A limit that so many chunks fit under."""
    return chunks * (len(CHUNK) + 4) * 100 // 95 + 2


def age(folder: Path, digest: str, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(folder / digest / ".used", (then, then))


def test_what_was_written_is_there_for_the_next_run(tmp_path: Path) -> None:
    first = DiskCache(tmp_path, "d1", 10**6)
    assert first.read(KEY, len(CHUNK)) is None
    first.write(KEY, memoryview(CHUNK))
    second = DiskCache(tmp_path, "d1", 10**6)
    assert bytes(second.read(KEY, len(CHUNK)) or b"") == CHUNK
    assert (first.hits, first.misses, second.hits, second.misses) == (0, 1, 1, 0)
    assert DiskCache(tmp_path, "d2", 10**6).read(KEY, len(CHUNK)) is None
    assert not list((tmp_path / ".parts").iterdir())


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"\xff" + path.read_bytes()[1:]),
        lambda path: path.write_bytes(path.read_bytes()[:-4] + b"\0\0\0\0"),
    ],
)
def test_what_is_damaged_is_fetched_again(tmp_path: Path, damage: object) -> None:
    cache = DiskCache(tmp_path, "d1", 10**6)
    cache.write(KEY, CHUNK)
    damage(stored(tmp_path))  # type: ignore[operator]
    assert cache.read(KEY, len(CHUNK)) is None
    assert not stored(tmp_path).exists()
    cache.write(KEY, CHUNK)
    assert bytes(cache.read(KEY, len(CHUNK)) or b"") == CHUNK


def test_a_chunk_of_another_size_is_not_it(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, "d1", 10**6)
    cache.write(KEY, CHUNK)
    assert cache.read(KEY, len(CHUNK) - 1) is None


def test_the_limit_holds_for_all_data_sets_together(tmp_path: Path) -> None:
    limit = room_for(10)
    for digest in ("d1", "d2"):
        cache = DiskCache(tmp_path, digest, limit)
        for i in range(9):
            cache.write(f"{KEY}/{i}", CHUNK)
    files = [path for path in tmp_path.rglob("data.zarr*") if path.is_file()]
    assert len([path for path in files if path.parent.name == "d1"]) == 9
    assert len(files) in (9, 10)


def test_what_was_not_used_for_longest_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = room_for(10)
    for digest, seconds in (("old", 5000), ("older", 9000), ("in-use", 10)):
        cache = DiskCache(tmp_path, digest, 10**6)
        for i in range(3):
            cache.write(f"{KEY}/{i}", CHUNK)
        age(tmp_path, digest, seconds)
    new = DiskCache(tmp_path, "new", limit)
    new.write(f"{KEY}/0", CHUNK)
    assert {path.name for path in tmp_path.iterdir()} == {"old", "older", "in-use", "new", ".parts"}
    monkeypatch.setattr(cache_module, "COUNT_S", 0.0)
    for i in range(1, 3):
        new.write(f"{KEY}/{i}", CHUNK)
    assert {path.name for path in tmp_path.iterdir()} == {"old", "in-use", "new", ".parts"}
    for i in range(3, 9):
        new.write(f"{KEY}/{i}", CHUNK)
    assert {path.name for path in tmp_path.iterdir()} == {"in-use", "new", ".parts"}
    assert len(list((tmp_path / "new").glob("data*"))) == 7  # what is in use by others stays
    assert new.read(f"{KEY}/8", len(CHUNK)) is None


def test_a_data_set_that_another_run_dropped_is_begun_anew(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, "d1", 10**6)
    cache.write(KEY, CHUNK)
    (tmp_path / "d1").rename(tmp_path / ".dropped-1")
    assert cache.read(KEY, len(CHUNK)) is None
    cache.write(KEY, CHUNK)
    assert bytes(cache.read(KEY, len(CHUNK)) or b"") == CHUNK


def test_a_disk_that_fails_costs_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = DiskCache(tmp_path, "d1", 10**6)
    monkeypatch.setattr(Path, "rename", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    for i in range(3):
        cache.write(f"{KEY}/{i}", CHUNK)
    assert not list((tmp_path / ".parts").iterdir())
    assert cache.read(KEY, len(CHUNK)) is None


def test_a_folder_that_cannot_be_written_to_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(
        ConfigError, match=r"data.cache: .*/file/cache cannot be written to \(Not a directory\) by user"
    ):
        DiskCache(tmp_path / "file" / "cache", "d1", 10**6)


def test_what_killed_runs_left_goes(tmp_path: Path) -> None:
    DiskCache(tmp_path, "d1", 10**6)
    for name, seconds in (("left", 7200), ("under-way", 5)):
        (tmp_path / ".parts" / name).write_bytes(b"x")
        os.utime(tmp_path / ".parts" / name, (time.time() - seconds,) * 2)
    (tmp_path / ".dropped-1").mkdir()
    DiskCache(tmp_path, "d1", 10**6).write(KEY, CHUNK)
    assert [path.name for path in (tmp_path / ".parts").iterdir()] == ["under-way"]
    assert not (tmp_path / ".dropped-1").exists()


def test_many_runs_write_the_same(tmp_path: Path) -> None:
    caches = [DiskCache(tmp_path, "d1", 10**7) for _ in range(6)]
    wrong: list[str] = []

    def work(cache: DiskCache) -> None:
        for i in range(60):
            key = f"{KEY}/{i % 20}"
            got = cache.read(key, len(CHUNK))
            if got is None:
                cache.write(key, CHUNK)
            elif bytes(got) != CHUNK:
                wrong.append(key)

    workers = [threading.Thread(target=work, args=(cache,)) for cache in caches]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong
    assert len(list((tmp_path / "d1").glob("data*"))) == 20
    assert not list((tmp_path / ".parts").iterdir())


@pytest.mark.parametrize(
    ("text", "size"), [("500Mi", 500 * 2**20), ("50Gi", 50 * 2**30), ("2Ti", 2**41), ("3M", 3_000_000), ("1T", 10**12)]
)
def test_size_limits(text: str, size: int) -> None:
    assert CacheSpec(size_limit=text).limit_bytes == size
