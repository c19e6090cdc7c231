"""Two S3 servers, one for data and one for artifacts, as different as those of two providers."""

import json
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path

from devcluster.console import DevclusterError
from devcluster.files import PRIVATE, write_json
from devcluster.paths import State


@dataclass(frozen=True)
class S3Server:
    """Where an S3 server is, and what opens it."""

    endpoint: str
    region: str
    bucket: str
    access_key: str
    secret_key: str


# Name -> port, region, bucket. Regions differ so that a client that signs for the wrong one is found out.
_SERVERS = {
    "data": (9000, "eu-north-1", "crossfold-data"),
    "artifacts": (9001, "us-west-2", "crossfold-artifacts"),
}

NAMES = tuple(_SERVERS)


def component(name: str) -> str:
    """The name of a server's process."""
    return f"s3-{name}"


def create(state: State, host: str) -> None:
    """Makes the servers' keys, unless they are made, and their buckets: to this server, folders in its root.

    Args:
        state: The cluster's state folder, where they are kept.
        host: The address that pods and this machine reach the servers at.
    """
    if not _file(state).exists():
        made = {
            name: S3Server(
                endpoint=f"http://{host}:{port}",
                region=region,
                bucket=bucket,
                access_key=f"{name.upper()}{secrets.token_hex(6).upper()}",
                secret_key=secrets.token_urlsafe(30),
            )
            for name, (port, region, bucket) in _SERVERS.items()
        }
        write_json(_file(state), {name: asdict(server) for name, server in made.items()}, PRIVATE)
    for name, server in servers(state).items():
        (state.s3 / name / server.bucket).mkdir(parents=True, exist_ok=True)


def servers(state: State) -> dict[str, S3Server]:
    """The servers by name."""
    if not _file(state).exists():
        raise DevclusterError("there is no cluster here: python3 -m devcluster up")
    return {name: S3Server(**fields) for name, fields in json.loads(_file(state).read_text()).items()}


def endpoints(state: State) -> list[str]:
    """The servers' URLs."""
    return [server.endpoint for server in servers(state).values()]


def _file(state: State) -> Path:
    return state.config / "s3.json"


def arguments(folder: Path, server: S3Server) -> tuple[str, ...]:
    """The server's command line. Its keys are in its environment: a command line can be read by everyone."""
    return ("--port", server.endpoint.removeprefix("http://"), "--region", server.region, str(folder))


def environment(server: S3Server) -> dict[str, str]:
    """The server's environment."""
    return {"ROOT_ACCESS_KEY": server.access_key, "ROOT_SECRET_KEY": server.secret_key, "GOMEMLIMIT": "512MiB"}
