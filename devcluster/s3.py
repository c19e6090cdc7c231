"""Two S3 servers, one for data and one for artifacts, as different as those of two providers."""

import json
import secrets
from dataclasses import asdict, dataclass

from devcluster.files import PRIVATE, write_json
from devcluster.network import Network
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


def servers(state: State, network: Network) -> dict[str, S3Server]:
    """The servers by name; their keys are made at the first call and kept in the state folder."""
    file = state.config / "s3.json"
    if not file.exists():
        made = {
            name: S3Server(
                endpoint=f"http://{network.gateway}:{port}",
                region=region,
                bucket=bucket,
                access_key=f"{name.upper()}{secrets.token_hex(6).upper()}",
                secret_key=secrets.token_urlsafe(30),
            )
            for name, (port, region, bucket) in _SERVERS.items()
        }
        write_json(file, {name: asdict(server) for name, server in made.items()}, PRIVATE)
    return {name: S3Server(**fields) for name, fields in json.loads(file.read_text()).items()}


def create_buckets(state: State, network: Network) -> None:
    """Makes each server's bucket: to this server, a folder in its root is a bucket."""
    for name, server in servers(state, network).items():
        (state.s3 / name / server.bucket).mkdir(parents=True, exist_ok=True)


def arguments(state: State, name: str, server: S3Server) -> tuple[str, ...]:
    """The server's command line. Its keys are in its environment: a command line can be read by everyone."""
    address = server.endpoint.removeprefix("http://")
    folder = state.seen_by_node(state.s3 / name)
    general = ("--port", address, "--region", server.region, "--keep-alive", "--quiet")
    return (*general, "posix", "--io-buffer-size", "65536", str(folder))


def environment(server: S3Server) -> dict[str, str]:
    """The server's environment."""
    return {"ROOT_ACCESS_KEY": server.access_key, "ROOT_SECRET_KEY": server.secret_key, "GOMEMLIMIT": "512MiB"}
