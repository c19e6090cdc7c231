"""Object storage: data and artifacts on two real S3 servers, each with its own key, region and bucket."""

import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pytest
import yaml
from obstore.exceptions import GenericError
from typer.testing import CliRunner

from crossfold_cli.main import app
from crossfold_trainer import gather, inventory
from crossfold_trainer.__main__ import run_to_exit
from crossfold_trainer.artifacts import CONFIG, open_run_folder, read_result
from crossfold_trainer.checkpoints import CheckpointLog
from crossfold_trainer.contract.config import (
    CONFIG_VARIABLE,
    CREDENTIALS_VARIABLE,
    TERMINATION_VARIABLE,
    RunConfig,
    with_digest,
)
from crossfold_trainer.contract.exits import Exit
from crossfold_trainer.contract.result import RunResult, parse_message
from crossfold_trainer.data import open_dataset
from crossfold_trainer.errors import ConfigError, Fenced, StoreError
from crossfold_trainer.interrupt import Interrupt
from crossfold_trainer.inventory import list_objects
from crossfold_trainer.store import open_store
from crossfold_trainer.tracking import LogText
from tests.finished import finish, run_of
from tests.ports import silent_port
from tests.s3server import s3_server
from tests.trainer_data import run_config, write_dataset

KEYS = {"data": ("DATAKEY", "data-secret"), "artifacts": ("ARTIFACTSKEY", "artifacts-secret")}
SECRET = {"secretRef": {"name": "s3"}}


class Servers(NamedTuple):
    """The two servers."""

    folder: Path
    data: str
    artifacts: str


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    folder = tmp_path_factory.mktemp("s3")
    write_dataset(folder / "data" / "bucket-d" / "tiny")
    (folder / "artifacts" / "bucket-a").mkdir(parents=True)
    with (
        s3_server(folder / "data", *KEYS["data"], "eu-north-1") as data,
        s3_server(folder / "artifacts", *KEYS["artifacts"], "us-west-2") as artifacts,
    ):
        yield Servers(folder, data, artifacts)


@pytest.fixture
def credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Both sides' mounted Secrets."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.setenv(name, "of-neither-side")
    monkeypatch.setenv(CREDENTIALS_VARIABLE, str(tmp_path / "credentials"))
    for side, (key, secret) in KEYS.items():
        write_key(tmp_path / "credentials" / side, key, secret)
    return tmp_path / "credentials"


def write_key(folder: Path, key: str, secret: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "AWS_ACCESS_KEY_ID").write_text(key)
    (folder / "AWS_SECRET_ACCESS_KEY").write_text(f"{secret}\n")


def config_on(servers: Servers, **replace: Any) -> RunConfig:
    data = {"uri": "s3://bucket-d/tiny", "endpoint": servers.data, "region": "eu-north-1", **SECRET}
    artifacts = {"uri": "s3://bucket-a/runs", "endpoint": servers.artifacts, "region": "us-west-2", **SECRET}
    merged = {"data": data | replace.pop("data", {}), "artifacts": artifacts | replace.pop("artifacts", {})}
    return with_digest(run_config("", "", **merged, **replace), "default/tiny/tiny-cv0")


def test_a_run_on_two_servers(
    servers: Servers, credentials: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_on(servers, tracking={"tensorboard": True}, trainer={"maxEpochs": 2})
    monkeypatch.setenv(CONFIG_VARIABLE, config.model_dump_json())
    monkeypatch.setenv(TERMINATION_VARIABLE, str(tmp_path / "termination-log"))
    assert run_to_exit(Interrupt(), LogText()) == Exit.OK
    message = parse_message((tmp_path / "termination-log").read_text())
    assert isinstance(message, RunResult)
    folder = servers.folder / "artifacts" / "bucket-a" / "runs" / config.artifact_path
    assert (folder / "result.json").is_file()
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt", "log"}
    assert list(folder.glob("events.out.tfevents.*"))
    assert message.checkpoint_uri == f"s3://bucket-a/runs/{config.artifact_path}/checkpoints/best.ckpt"
    assert read_result(open_run_folder(config), config.digest) is not None


def test_of_two_who_claim_a_run_the_first_is_fenced(servers: Servers, credentials: Path) -> None:
    """A server's conditional put decides; nothing else is between the two."""
    config = config_on(servers, run="fenced")
    first, second = (CheckpointLog(open_run_folder(config)) for _ in range(2))
    first.claim()
    first.commit(b"one", b"best")
    second.claim()
    with pytest.raises(Fenced, match="another attempt has claimed this run"):
        first.commit(b"two", None)
    second.commit(b"three", None)
    folder = servers.folder / "artifacts" / "bucket-a" / "runs" / config.artifact_path / "checkpoints"
    contents = {path.read_bytes() for path in folder.glob("*.ckpt")}
    assert {b"one", b"three", b"best"} <= contents
    store = open_run_folder(config)
    assert store.create("x", b"1")
    assert not store.create("x", b"2")
    assert store.read("x") == b"1"


def test_runs_that_end_at_the_same_time_lose_no_row(servers: Servers, credentials: Path) -> None:
    """Two at a time, each with a client of its own, on a server that promises what S3 does."""
    spec = config_on(servers).artifacts

    def ends(seed: int) -> None:
        store = open_store(spec.model_copy(update={"uri": f"{spec.uri}/default/t"}), "artifacts")
        for trial in range(2):
            for fold in range(3):
                config = run_of(spec.uri, trial, fold, seed, runs=6)
                finish(store, config, 0.5 + trial / 100)
                gather.update(store, config)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(ends, (1, 2)))
    folder = servers.folder / "artifacts" / "bucket-a" / "runs" / "default" / "t"
    assert len(pd.read_parquet(folder / gather.TUNE)) == 12
    assert [len(pd.read_parquet(folder / f"t-cv{trial}" / gather.RUN_INFOS)) for trial in range(2)] == [6, 6]
    assert yaml.safe_load((folder / gather.BEST).read_text())["trial"] == 1


def wrong_key(credentials: Path, side: str) -> None:
    write_key(credentials / side, "NOBODY", "x")


def wrong_secret(credentials: Path, side: str) -> None:
    write_key(credentials / side, KEYS[side][0], "wrong")


def no_secret(credentials: Path, side: str) -> None:
    shutil.rmtree(credentials / side)


def half_a_secret(credentials: Path, side: str) -> None:
    (credentials / side / "AWS_SECRET_ACCESS_KEY").unlink()


@pytest.mark.parametrize("side", ["data", "artifacts"])
@pytest.mark.parametrize(
    ("damage", "word"),
    [
        (wrong_key, r"the key NOBO\.\.\. of the Secret may not use s3://.* \(XAdminUserNotFound\): correct the Secret"),
        (
            wrong_secret,
            r"of the Secret may not use s3://.* \(SignatureDoesNotMatch\): correct the Secret or its rights",
        ),
        (no_secret, "the Secret has no key AWS_ACCESS_KEY_ID"),
        (half_a_secret, "the Secret has no key AWS_SECRET_ACCESS_KEY"),
    ],
)
def test_wrong_credentials_are_refused(
    servers: Servers, credentials: Path, side: str, damage: Callable[[Path, str], None], word: str
) -> None:
    damage(credentials, side)
    with pytest.raises(ConfigError, match=word) as caught:
        use(config_on(servers), side)
    assert caught.value.field == f"{side}.secretRef"


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crossfold_trainer.store.PROBE_PAUSE_S", 0.1)


@pytest.mark.usefixtures("credentials", "impatient")
@pytest.mark.parametrize("side", ["data", "artifacts"])
@pytest.mark.parametrize(
    ("change", "field", "word"),
    [
        ({"uri": "s3://nowhere/x"}, "uri", "the bucket of s3://nowhere/x.* does not exist"),
        ({"uri": "s3://"}, "uri", "names no bucket"),
        ({"region": "mars-1"}, "region", 'the region "mars-1" is wrong; expecting'),
        (
            {"endpoint": "http://127.0.0.1:{port}"},
            "endpoint",
            r"cannot reach http://127.0.0.1:\d+ \(Connection refused\)",
        ),
    ],
)
def test_a_wrong_address_is_refused(servers: Servers, side: str, change: dict[str, str], field: str, word: str) -> None:
    with silent_port() as port:
        config = config_on(
            servers, **{side: {key: value.replace("{port}", str(port)) for key, value in change.items()}}
        )
        with pytest.raises(ConfigError, match=word) as caught:
            use(config, side)
    assert caught.value.field == f"{side}.{field}"


def test_a_missing_data_set_is_refused(servers: Servers, credentials: Path) -> None:
    with pytest.raises(ConfigError, match=r"data.uri: s3://bucket-d/nothing/config.toml does not exist"):
        use(config_on(servers, data={"uri": "s3://bucket-d/nothing"}), "data")


def test_a_listing_in_parts_is_the_listing(
    servers: Servers, credentials: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """24 patches, 4 chunks each and two documents; pages of 5, so that many parts are asked for."""
    store = open_store(config_on(servers).data, "data")
    whole = list_objects(store, "data.zarr/")
    assert len(whole) == len({entry.path for entry in whole}) == 24 * 4 + 3
    monkeypatch.setattr(inventory, "PAGE", 5)
    cuts = inventory.marks([("data.zarr/x/c/", 24, 72), ("data.zarr/y/c/", 24, 24)])
    assert len(cuts) == inventory.LISTINGS
    assert list_objects(store, "data.zarr/", cuts) == whole
    digest = open_dataset(config_on(servers).data, None).digest
    monkeypatch.setattr(inventory, "PAGE", 1000)
    assert open_dataset(config_on(servers).data, None).digest == digest


def test_a_data_set_is_checked_from_a_workstation(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials come from the environment there."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEYS["data"][0])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", KEYS["data"][1])
    monkeypatch.delenv("AWS_SESSION_TOKEN", raising=False)
    command = ["data", "check", "s3://bucket-d/tiny", "--endpoint", servers.data, "--region", "eu-north-1"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert "pixels of 24 patches read" in done.output
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 2
    assert "SignatureDoesNotMatch" in done.stderr


def test_no_credentials_at_all(servers: Servers) -> None:
    """What the client says then is where it looked last: the metadata service that only machines of a cloud have."""
    store = open_store(config_on(servers, data={"secretRef": None}).data, "data")
    said = "Generic S3 error: Error performing PUT http://169.254.169.254/latest/api/token in 1.6s: connection refused"
    meant = store.explain(GenericError(said), "config.toml")
    assert isinstance(meant, StoreError), "a pod's identity may come a moment later"
    for part in ("no credentials were found", "data.secretRef", "AWS_ACCESS_KEY_ID", "anonymous"):
        assert part in str(meant)


def test_anonymous_sends_no_key(servers: Servers, credentials: Path) -> None:
    config = config_on(servers, data={"secretRef": None, "anonymous": True})
    with pytest.raises(ConfigError, match=r"data.anonymous: .* may not be read without credentials \(AccessDenied\)"):
        use(config, "data")


def use(config: RunConfig, side: str) -> None:
    """What a run does first with each side."""
    if side == "data":
        open_dataset(config.data, None)
    else:
        open_run_folder(config).write(CONFIG, b"{}")
