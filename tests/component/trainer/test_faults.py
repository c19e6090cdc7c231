"""Object storage that fails, loses, stalls and lies: what a run makes of it, and how often it asks again."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import obstore
import pytest

from crossfold_trainer import loader
from crossfold_trainer.__main__ import run_to_exit
from crossfold_trainer.contract.config import (
    CACHE_VARIABLE,
    CONFIG_VARIABLE,
    CREDENTIALS_VARIABLE,
    TERMINATION_VARIABLE,
    with_digest,
)
from crossfold_trainer.contract.data import DataSpec
from crossfold_trainer.contract.exits import Exit
from crossfold_trainer.contract.result import RunFailure, RunResult, parse_message
from crossfold_trainer.data import Patches, open_dataset
from crossfold_trainer.errors import ConfigError, StoreError
from crossfold_trainer.interrupt import Interrupt
from crossfold_trainer.store import FETCH_ROUNDS
from crossfold_trainer.tracking import LogText
from tests.conftest import ROUND
from tests.s3proxy import Fault, Faults, faulty
from tests.s3server import s3_server
from tests.trainer_data import run_config, write_dataset

ROWS = np.arange(24)
PASSING = (Fault.ERROR, Fault.SLOW_DOWN, Fault.RESET, Fault.TRUNCATED, Fault.STALL)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    folder = tmp_path_factory.mktemp("s3")
    write_dataset(folder / "bucket" / "tiny")
    write_dataset(folder / "bucket" / "shards", x_chunks=(4, 3, 32, 32))
    with s3_server(folder, "KEY", "secret", "us-east-1") as endpoint:
        yield endpoint, folder / "bucket"


@pytest.fixture(autouse=True)
def _impatient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What fails is tried again soon, and not for long. Stalls are told by time alone: see `noticing_stalls`."""
    monkeypatch.setenv(CREDENTIALS_VARIABLE, str(tmp_path / "credentials"))
    (tmp_path / "credentials" / "data").mkdir(parents=True)
    (tmp_path / "credentials" / "data" / "AWS_ACCESS_KEY_ID").write_text("KEY")
    (tmp_path / "credentials" / "data" / "AWS_SECRET_ACCESS_KEY").write_text("secret")
    monkeypatch.setattr("crossfold_trainer.store.RETRY_TIMEOUT", timedelta(seconds=5))
    monkeypatch.setattr("crossfold_trainer.store.FIRST_PAUSE", timedelta(milliseconds=10))
    monkeypatch.setattr("crossfold_trainer.store.MAX_RETRIES", 3)
    monkeypatch.setattr("crossfold_trainer.store.FETCH_PAUSE_S", 0.01)


def noticing_stalls(monkeypatch: pytest.MonkeyPatch, kinds: tuple[Fault, ...]) -> None:
    """Where answers stall, notice it after seconds; elsewhere nothing may look like a stall, however slow the machine."""
    if Fault.STALL in kinds:
        monkeypatch.setattr("crossfold_trainer.store.STALL_TIMEOUT", timedelta(seconds=4))


def spec(endpoint: str, **more: Any) -> DataSpec:
    return DataSpec.model_validate(
        {"uri": "s3://bucket/tiny", "endpoint": endpoint, "secretRef": {"name": "s"}, **more}
    )


def read(endpoint: str, rows: Any = ROWS, **more: Any) -> Patches:
    return open_dataset(spec(endpoint, **more), None).read(rows)


@pytest.fixture(scope="module")
def truth(server: tuple[str, Path]) -> Patches:
    return open_dataset(DataSpec(uri=str(server[1] / "tiny")), None).read(ROWS)


@pytest.mark.parametrize("kind", PASSING)
def test_what_passes_costs_nothing_but_time(
    server: tuple[str, Path], truth: Patches, monkeypatch: pytest.MonkeyPatch, kind: Fault
) -> None:
    noticing_stalls(monkeypatch, (kind,))
    with faulty(server[0], Faults((kind,), share=0.3, times=1, seed=ROUND)) as proxy:
        got = read(proxy.endpoint)
        assert proxy.faults.done[kind] > 5
    assert np.array_equal(got.x, truth.x)
    assert np.array_equal(got.y, truth.y)


@pytest.mark.parametrize("seed", range(3 * ROUND, 3 * ROUND + 3))
def test_all_of_it_at_once(
    server: tuple[str, Path], truth: Patches, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    noticing_stalls(monkeypatch, PASSING)
    with faulty(server[0], Faults(PASSING, share=0.2, in_a_row=FETCH_ROUNDS - 1, seed=seed)) as proxy:
        got = read(proxy.endpoint)
        assert len(proxy.faults.done) >= 4
    assert np.array_equal(got.x, truth.x)
    assert np.array_equal(got.y, truth.y)


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        (Fault.ERROR, "InternalError: We encountered an internal error"),
        (Fault.SLOW_DOWN, "SlowDown: Please reduce your request rate"),
        (Fault.RESET, r"data.zarr/y/c/3/0/0 at http://127"),
        (Fault.TRUNCATED, r"data.zarr/y/c/3/0/0 at http://127"),
        (Fault.STALL, r"data.zarr/y/c/3/0/0 at http://127"),
    ],
)
def test_what_does_not_pass_ends_in_bounded_time(
    server: tuple[str, Path], monkeypatch: pytest.MonkeyPatch, kind: Fault, says: str
) -> None:
    noticing_stalls(monkeypatch, (kind,))
    with faulty(server[0], Faults((kind,), only="/y/c/3/")) as proxy:
        with pytest.raises(StoreError, match=says):
            read(proxy.endpoint, np.arange(8))
        asked = proxy.faults.chunks_asked
    assert 1 < max(asked.values()) <= 3 * (3 + 1)
    others = [n for path, n in asked.items() if "/y/c/3/" not in path]
    assert others == [1] * (8 * 4 - 1)


def test_a_vanished_object_is_no_gap(server: tuple[str, Path]) -> None:
    with faulty(server[0], Faults((Fault.VANISHED,), only="/x/c/5/1/")) as proxy:
        with pytest.raises(
            ConfigError, match=r"data.uri: s3://bucket/tiny/data.zarr/x/c/5/1/0/0 was there when .* gone"
        ):
            read(proxy.endpoint)
        assert proxy.faults.asked["/bucket/tiny/data.zarr/x/c/5/1/0/0"] == 1


def test_a_replaced_object_is_noticed(server: tuple[str, Path]) -> None:
    store = obstore.store.S3Store(
        "bucket", prefix="tiny", endpoint=server[0], region="us-east-1", access_key_id="KEY", secret_access_key="secret",
        client_options={"allow_http": True}, virtual_hosted_style_request=False,
    )  # fmt: skip
    key, other = "data.zarr/y/c/7/0/0", "data.zarr/y/c/0/0/0"
    content = bytes(obstore.get(store, key).bytes())
    obstore.put(store, key, content)  # through the server, which gives it an ETag
    data = open_dataset(spec(server[0]), None)
    data.read(ROWS)
    obstore.put(store, key, bytes(obstore.get(store, other).bytes()))
    with pytest.raises(ConfigError, match=r"data.zarr/y/c/7/0/0 was replaced while this run read the data set"):
        data.read(ROWS)
    obstore.put(store, key, content)


def test_a_chunk_that_is_damaged_on_its_way_is_asked_for_again(server: tuple[str, Path], truth: Patches) -> None:
    with faulty(server[0], Faults((Fault.CORRUPT,), share=0.3, times=1, seed=ROUND)) as proxy:
        assert np.array_equal(read(proxy.endpoint).x, truth.x)
        assert proxy.faults.done[Fault.CORRUPT] > 5


def test_a_chunk_that_is_damaged_where_it_lies_is_named(server: tuple[str, Path]) -> None:
    with (
        faulty(server[0], Faults((Fault.CORRUPT,), only="/x/c/5/1/")) as proxy,
        pytest.raises(ConfigError, match=r"data.uri: .*/data.zarr/x/c/5/1/0/0 cannot be decoded .* write the data set"),
    ):
        read(proxy.endpoint)


@pytest.mark.parametrize("name", ["tiny", "shards"])
def test_only_what_is_read_is_cached_and_only_once(
    server: tuple[str, Path], truth: Patches, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    more = {"uri": f"s3://bucket/{name}", "cache": {}}
    fold = np.array([0, 1, 2, 3, 8, 9, 10, 11])
    for expected in ("some", "none"):
        with faulty(server[0], Faults()) as proxy:
            got = read(proxy.endpoint, fold, **more)
            asked = proxy.faults.chunks_asked
        assert np.array_equal(got.x, truth.x[fold])
        assert np.array_equal(got.y, truth.y[fold])
        rows = {int(path.split("/c/")[1].split("/")[0]) for path in asked if "/y/" in path}
        assert rows == (set(fold.tolist()) if expected == "some" else set())
        assert all(n == 1 for n in asked.values())
        assert len(asked) == (0 if expected == "none" else 8 * 4 if name == "tiny" else 8 + 2)
    digest = open_dataset(spec(server[0], **more), None).digest
    files = sorted((tmp_path / "cache" / digest).glob("data.zarr*"))
    files[0].write_bytes(files[0].read_bytes()[:-7])
    with faulty(server[0], Faults()) as proxy:
        assert np.array_equal(read(proxy.endpoint, fold, **more).x, truth.x[fold])
        assert sum(proxy.faults.chunks_asked.values()) == 1
    assert [path.name for path in (tmp_path / "cache").iterdir() if not path.name.startswith(".")] == [digest]


@pytest.mark.parametrize("x_chunks", [None, (4, 3, 32, 32)], ids=["chunks", "zarr"])
def test_values_out_of_the_cache_are_looked_at_too(
    server: tuple[str, Path],
    truth: Patches,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    x_chunks: tuple[int, ...] | None,
) -> None:
    """The cache keeps what is stored: a run that ignores NaN does not hide it from one that does not."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    name, x, y = tmp_path.name, truth.x.copy(), truth.y.copy()
    x[7, 1, 9, 9:12] = np.nan
    write_dataset(server[1] / name, x=x, y=y, x_chunks=x_chunks)
    x[7, 1, 9, 9:12], y[7, 9, 9:12] = 0, 2
    more = {"uri": f"s3://bucket/{name}", "cache": {}}
    for _ in range(2):
        got = read(server[0], nonFinite="Ignore", **more)
        assert np.array_equal(got.x, x)
        assert np.array_equal(got.y, y)
    with (
        faulty(server[0], Faults()) as proxy,
        pytest.raises(ConfigError, match="patch 7 has NaN or infinite values: 3 of 1024 pixels in band green"),
    ):
        read(proxy.endpoint, np.array([7]), **more)
    assert not proxy.faults.chunks_asked


def test_what_cannot_be_decoded_is_never_cached(
    server: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    with faulty(server[0], Faults((Fault.CORRUPT,), only="/x/")) as proxy, pytest.raises(ConfigError):
        read(proxy.endpoint, cache={})
    assert not list((tmp_path / "cache").glob("*/data.zarr.x*"))


@pytest.mark.parametrize(
    ("faults", "exit_code", "says"),
    [
        ({"kinds": PASSING, "share": 0.1, "in_a_row": FETCH_ROUNDS - 1, "seed": 7 + ROUND}, Exit.OK, None),
        (
            {"kinds": (Fault.VANISHED,), "only": "/x/c/13/"},
            Exit.CONFIG,
            "was there when the data set was opened and is",
        ),
        ({"kinds": (Fault.CORRUPT,), "only": "/x/c/13/"}, Exit.CONFIG, "cannot be decoded"),
        ({"kinds": (Fault.SLOW_DOWN,), "only": "/x/c/13/"}, 1, None),
    ],
    ids=["passing", "vanished", "corrupt", "slow down for good"],
)
def test_a_run_ends_right(
    server: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, faults: Any, exit_code: int, says: Any
) -> None:
    """With passing faults the score is what it is without them; with others there is no score."""
    monkeypatch.setattr(loader, "memory_limit", lambda: 1)
    noticing_stalls(monkeypatch, faults["kinds"])

    def run(endpoint: str, name: str) -> Any:
        data = spec(endpoint).model_dump(mode="json", by_alias=True, exclude_defaults=True)
        config = with_digest(run_config("", tmp_path / name, data=data, trainer={"maxEpochs": 2}), "a")
        monkeypatch.setenv(CONFIG_VARIABLE, config.model_dump_json())
        monkeypatch.setenv(TERMINATION_VARIABLE, str(tmp_path / "said"))
        (tmp_path / "said").unlink(missing_ok=True)
        code = run_to_exit(Interrupt(), LogText())
        said = (tmp_path / "said").read_text() if (tmp_path / "said").exists() else ""
        return code, parse_message(said)

    with faulty(server[0], Faults(**faults)) as proxy:
        code, message = run(proxy.endpoint, "disturbed")
        assert sum(proxy.faults.done.values()) > 0
    assert code == exit_code
    results = list((tmp_path / "disturbed").rglob("result.json"))
    if code == Exit.OK:
        assert isinstance(message, RunResult)
        _, calm = run(server[0], "calm")
        assert message.score == calm.score
        assert message.values == calm.values
    else:
        assert not results
        assert isinstance(message, RunFailure) == (code == Exit.CONFIG)
        assert says is None or (isinstance(message, RunFailure) and says in message.message)
