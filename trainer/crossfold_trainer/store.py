"""One object store per side of a run (data, artifacts): a bucket prefix or a folder, behind one small class.

obstore talks to S3, GCS, Azure and folders; zarr reads through the same client. Each side has its own
endpoint, region and credentials, and credentials come from files, so two sides never mix.
"""

import os
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar
from urllib.parse import unquote, urlsplit

import obstore
from obstore import exceptions as obs
from obstore.store import LocalStore, S3Store, from_url

from crossfold_trainer.contract.config import (
    CREDENTIAL_KEYS,
    CREDENTIALS_DIR,
    CREDENTIALS_VARIABLE,
    DataSpec,
    StoreSpec,
)
from crossfold_trainer.errors import ConfigError, StoreError

if TYPE_CHECKING:
    from obstore.store import ObjectStore
    from zarr.abc.store import Store as ZarrStore

Side = Literal["data", "artifacts"]
T = TypeVar("T")

SCHEMES = ("s3", "gs", "az", "file")
DEFAULT_REGION = "us-east-1"
"""Signed for when a custom endpoint names no region: what S3-compatible servers expect."""
CONNECT_TIMEOUT = timedelta(seconds=5)
REQUEST_TIMEOUT = timedelta(seconds=60)
MAX_RETRIES = 6
RETRY_TIMEOUT = timedelta(seconds=30)
"""How long obstore repeats one request after connection errors, time-outs and 5xx answers."""
CREDENTIALS_LIFETIME = timedelta(minutes=10)
"""After this long the credential files are read again: a Secret may have been rotated."""

_WRONG_KEY = (
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "AccessDenied",
    "ExpiredToken",
    "InvalidToken",
    "403 Forbidden",
    "401 Unauthorized",
)
_UNREACHABLE = ("dns error", "Connection refused", "error trying to connect", "ConnectError", "tcp connect")


class Entry(NamedTuple):
    """An object in a listing: path below the store's root, bytes, and what identifies its content."""

    path: str
    size: int
    tag: str


class Store:
    """A prefix of a bucket, or a folder. Paths are relative to it, with ``/``.

    Failures: a wrong address or wrong credentials raise ConfigError that names the field; a server that
    fails in spite of bounded retries raises StoreError. A missing object is None where the method says so.
    """

    def __init__(self, client: "ObjectStore", spec: StoreSpec, side: Side) -> None:
        """Wrap a client; `open_store` makes one from a spec."""
        self._client = client
        self._spec = spec
        self._reached = False
        self.side = side
        self.uri = spec.uri.rstrip("/") or "/"

    def read(self, path: str) -> bytes | None:
        """An object's bytes; None when there is none."""
        try:
            return self.attempt(lambda: bytes(obstore.get(self._client, path).bytes()), path)
        except FileNotFoundError:
            return None

    def write(self, path: str, content: "bytes | Path") -> None:
        """Put an object; readers see the old one or the new one, never a part."""
        self.attempt(lambda: obstore.put(self._client, path, content), path)

    def copy(self, source: str, target: str) -> bool:
        """Copy an object inside the store; False when there is none."""
        try:
            self.attempt(lambda: obstore.copy(self._client, source, target), source)
        except FileNotFoundError:
            return False
        return True

    def list(self, prefix: str = "") -> Iterator[Entry]:
        """Every object below a prefix, in the server's order."""
        local = isinstance(self._client, LocalStore)

        def entries() -> "list[Entry]":
            found = []
            for batch in obstore.list(self._client, prefix or None, chunk_size=1000):
                for meta in batch:
                    # A folder's e_tag holds the inode, which differs from node to node.
                    tag = None if local else meta["e_tag"]
                    found.append(Entry(meta["path"], meta["size"], tag or meta["last_modified"].isoformat()))
            return found

        yield from self.attempt(entries, prefix)

    def zarr(self) -> "ZarrStore":
        """A read-only zarr store over the same client and root."""
        from zarr.storage import ObjectStore as ZarrObjectStore  # noqa: PLC0415 - artifacts need no zarr

        return ZarrObjectStore(self._client, read_only=True)

    def attempt(self, action: Callable[[], T], path: str) -> T:
        """Run something that uses the client; its errors come out as `explain` says."""
        try:
            value = action()
        except (obs.BaseError, OSError) as error:
            raise self.explain(error, path) from None
        self._reached = True
        return value

    def explain(self, error: BaseException, path: str) -> Exception:
        """What a client's error means for the run: ConfigError, StoreError or FileNotFoundError."""
        text = _short(error)
        where = f"{self.uri}/{path}".rstrip("/") if path else self.uri
        at = f" at {self._spec.endpoint}" if self._spec.endpoint else ""
        if "NoSuchBucket" in text:
            return ConfigError(
                f"{self.side}.uri", f"the bucket of {self.uri} does not exist{at}: create it or correct the URI"
            )
        if isinstance(error, FileNotFoundError | obs.NotFoundError):
            return FileNotFoundError(where)
        if isinstance(error, PermissionError) or (isinstance(error, obs.BaseError) and self.uri.startswith("/")):
            return ConfigError(f"{self.side}.uri", f"{where} cannot be used: {text}")
        denied = isinstance(error, obs.PermissionDeniedError | obs.UnauthenticatedError)
        if denied or any(code in text for code in _WRONG_KEY):
            return ConfigError(
                f"{self.side}.secretRef",
                f"{self._credentials()} may not use {where}{at} ({_server_word(text)}):"
                " correct the Secret or its rights",
            )
        if any(word in text for word in _UNREACHABLE) and not self._reached:
            field = "endpoint" if self._spec.endpoint else "uri"
            return ConfigError(
                f"{self.side}.{field}",
                f"cannot reach {self._spec.endpoint or self.uri} ({_cause(text)}): correct it, or see"
                " whether the server runs",
            )
        return StoreError(f"{self.side}: {where}{at}: {text}")

    def _credentials(self) -> str:
        if isinstance(self._spec, DataSpec) and self._spec.anonymous:
            return "an anonymous reader"
        if (key := _read_credential(self.side, CREDENTIAL_KEYS[0])) is not None:
            return f"the key {key[:4]}... of the Secret"
        return "the pod's own identity (no Secret is given)"


def open_store(spec: StoreSpec, side: Side) -> Store:
    """Open one side's store. Nothing is requested yet.

    Raises:
        ConfigError: the URI or the endpoint cannot be used.
    """
    scheme, root = _split(spec.uri)
    field = f"{side}.uri"
    if scheme == "file":
        folder = Path(root).expanduser().absolute()
        if side == "data" and not folder.is_dir():
            raise ConfigError(field, f"the folder {folder} does not exist: correct the path or mount the volume")
        try:
            return Store(LocalStore(folder, mkdir=side == "artifacts"), spec, side)
        except (obs.BaseError, OSError) as error:
            raise ConfigError(field, f"the folder {folder} cannot be used: {_short(error)}") from None
    if scheme not in SCHEMES:
        raise ConfigError(
            field, f"the scheme '{scheme}://' is unknown: use one of {', '.join(SCHEMES)}, or a plain path"
        )
    retry: Any = {
        "max_retries": MAX_RETRIES,
        "retry_timeout": RETRY_TIMEOUT,
        "backoff": {"init_backoff": timedelta(milliseconds=200), "max_backoff": timedelta(seconds=5), "base": 2},
    }
    client_options: Any = {
        "connect_timeout": CONNECT_TIMEOUT,
        "timeout": REQUEST_TIMEOUT,
        "allow_http": spec.endpoint.startswith("http://"),
    }
    try:
        if scheme == "s3":
            return Store(_s3(spec, side, root, retry, client_options), spec, side)
        return Store(from_url(spec.uri, client_options=client_options, retry_config=retry), spec, side)
    except (obs.BaseError, ValueError) as error:
        raise ConfigError(field, f"{spec.uri} cannot be opened: {_short(error)}") from None


def _s3(spec: StoreSpec, side: Side, root: str, retry: Any, client_options: Any) -> S3Store:
    bucket, _, prefix = root.partition("/")
    if not bucket:
        raise ConfigError(f"{side}.uri", f"{spec.uri} names no bucket: write s3://bucket/prefix")
    options: dict[str, Any] = {"virtual_hosted_style_request": False}
    if spec.endpoint:
        options["endpoint"] = spec.endpoint.rstrip("/")
    if spec.region or spec.endpoint:
        options["region"] = spec.region or DEFAULT_REGION
    if isinstance(spec, DataSpec) and spec.anonymous:
        options["skip_signature"] = True
    elif _read_credential(side, CREDENTIAL_KEYS[0]) is not None:
        options["credential_provider"] = _FileCredentials(side)
    elif spec.secret_ref is not None:
        raise ConfigError(
            f"{side}.secretRef",
            f"the Secret {spec.secret_ref.name} has no key {CREDENTIAL_KEYS[0]}: it must hold {CREDENTIAL_KEYS[0]}"
            f" and {CREDENTIAL_KEYS[1]}",
        )
    return S3Store(bucket, prefix=prefix or None, client_options=client_options, retry_config=retry, **options)


class _FileCredentials:
    """Reads a side's key from its files, again now and then, so that a rotated Secret is followed."""

    def __init__(self, side: Side) -> None:
        self._side = side

    def __call__(self) -> Any:
        key, secret, token = (_read_credential(self._side, name) for name in CREDENTIAL_KEYS)
        if not key or not secret:
            missing = CREDENTIAL_KEYS[0] if not key else CREDENTIAL_KEYS[1]
            raise ConfigError(f"{self._side}.secretRef", f"the Secret has no key {missing}")
        return {
            "access_key_id": key,
            "secret_access_key": secret,
            "token": token,
            "expires_at": datetime.now(UTC) + CREDENTIALS_LIFETIME,
        }


def _read_credential(side: Side, name: str) -> str | None:
    folder = Path(os.environ.get(CREDENTIALS_VARIABLE) or CREDENTIALS_DIR)
    try:
        return (folder / side / name).read_text().strip()
    except OSError:
        return None


def _split(uri: str) -> tuple[str, str]:
    """Scheme and the rest of a URI; a plain path is a file."""
    if "://" not in uri:
        return "file", uri
    parts = urlsplit(uri)
    if parts.scheme == "file":
        return "file", unquote(parts.path)
    return parts.scheme, f"{parts.netloc}{parts.path}".strip("/")


def _short(error: BaseException) -> str:
    """One line of a client's error, without its debug source."""
    text = str(error).partition("Debug source")[0]
    return re.sub(r"\s+", " ", text).strip()[:600] or type(error).__name__


def _server_word(text: str) -> str:
    """The code in an S3 server's answer, else what there is."""
    found = re.search(r"<Code>(\w+)</Code>", text) or re.search(r"\b(\d{3} [A-Z]\w+)", text)
    return found.group(1) if found else text[:200]


def _cause(text: str) -> str:
    """The innermost reason of a failed connection."""
    for word in ("Connection refused", "dns error", "timed out"):
        if word in text:
            return "the name cannot be resolved" if word == "dns error" else word
    return text[-200:]
