"""One object store per side of a run (data, artifacts): a bucket prefix or a folder, behind one small class.

obstore talks to S3, GCS, Azure and folders; zarr reads through the same client. Each side has its own
endpoint, region and credentials, and credentials come from files, so two sides never mix.
"""

import asyncio
import contextlib
import html
import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar
from urllib.parse import unquote, urlsplit

import obstore
from obstore import exceptions as obs
from obstore.store import LocalStore, S3Store, from_url

from crossfold_trainer.contract.config import CREDENTIAL_KEYS, CREDENTIALS_DIR, CREDENTIALS_VARIABLE
from crossfold_trainer.contract.data import SCHEMES, DataSpec, StoreSpec
from crossfold_trainer.errors import ConfigError, StoreError

if TYPE_CHECKING:
    from obstore.store import ObjectStore
    from zarr.abc.store import Store as ZarrStore

Side = Literal["data", "artifacts"]
T = TypeVar("T")

_METADATA_SERVICE = "169.254."
"""Where machines of a cloud learn who they are. It is asked last: nothing else was found then."""
DEFAULT_REGION = "us-east-1"
"""Signed for when a custom endpoint names no region: what S3-compatible servers expect."""
CONNECT_TIMEOUT = timedelta(seconds=5)
REQUEST_TIMEOUT = timedelta(seconds=120)
DATA_TIMEOUT = timedelta(minutes=10)
STALL_TIMEOUT = timedelta(seconds=15)
"""A data object whose next bytes take longer is asked for again."""
MAX_RETRIES = 10
FIRST_PAUSE = timedelta(milliseconds=200)
RETRY_TIMEOUT = timedelta(seconds=30)
"""How long obstore repeats one request after connection errors, time-outs and 5xx answers."""
FETCH_ROUNDS = 3
FETCH_PAUSE_S = 1.0
"""A chunk is fetched so often, each time with the retries above, and with such a pause (doubled) in between."""
CREDENTIALS_LIFETIME = timedelta(minutes=10)
"""After this long the credential files are read again: a Secret may have been rotated."""

PROBE_TRIES = 4
PROBE_PAUSE_S = 2.0
"""An endpoint is tried this often, so far apart, before it is called unreachable."""

_WRONG_KEY = frozenset(
    (
        "InvalidAccessKeyId",
        "SignatureDoesNotMatch",
        "AccessDenied",
        "ExpiredToken",
        "InvalidToken",
        "AccountProblem",
        "XAdminUserNotFound",  # versitygw's word for an unknown key, with status 404
    )
)
_WRONG_REGION = frozenset(("AuthorizationHeaderMalformed", "PermanentRedirect", "IllegalLocationConstraintException"))


class Entry(NamedTuple):
    """An object in a listing: path below the store's root, bytes, and what identifies its content."""

    path: str
    size: int
    tag: str


class Fetched(NamedTuple):
    """An object's bytes (anything with the buffer protocol), and its ETag; empty: the server names none."""

    content: Any
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
        self.side = side
        self.uri = spec.uri.rstrip("/") or "/"
        self.folder: Path | None = Path(client.prefix or "/") if isinstance(client, LocalStore) else None
        """The folder on this machine, where the store is one."""

    async def fetch(self, path: str) -> Fetched | None:
        """An object's bytes without holding up others; None when there is none.

        The client repeats requests by itself; answers that break off or stall are asked for again here.
        """
        for round_ in range(FETCH_ROUNDS):
            try:
                answer = await obstore.get_async(self._client, path)
                return Fetched(await answer.bytes_async(), answer.meta["e_tag"] or "")
            except (obs.BaseError, OSError) as error:
                meant = self.explain(error, path)
                if isinstance(meant, FileNotFoundError):
                    return None
                if not isinstance(meant, StoreError) or round_ + 1 == FETCH_ROUNDS:
                    raise meant from None
            await asyncio.sleep(FETCH_PAUSE_S * 2**round_)
        raise AssertionError("the last round returns or raises")

    def read(self, path: str) -> bytes | None:
        """An object's bytes; None when there is none."""
        try:
            return self.attempt(lambda: bytes(obstore.get(self._client, path).bytes()), path)
        except FileNotFoundError:
            return None

    def write(self, path: str, content: "bytes | Path") -> None:
        """Put an object; readers see the old one or the new one, never a part."""
        self.attempt(lambda: obstore.put(self._client, path, content), path)

    def create(self, path: str, content: bytes) -> bool:
        """Put a small object where there is none; False when there is one. Of two who try, one succeeds.

        A server that cannot do this in one request (it says so) is asked first and written to then: that leaves a
        gap in which two may succeed.
        """

        def put() -> bool:
            try:
                obstore.put(self._client, path, content, mode="create", use_multipart=False)
            except (obs.AlreadyExistsError, obs.PreconditionError):
                return False
            except obs.BaseError as error:
                if _code(str(error)) == "NotImplemented":
                    raise NotImplementedError from None
                raise
            return True

        try:
            return self.attempt(put, path)
        except NotImplementedError:
            if self.read(path) is not None:
                return False
            self.write(path, content)
            return True

    def delete(self, path: str) -> None:
        """Delete an object, if it is there."""
        with contextlib.suppress(FileNotFoundError):
            self.attempt(lambda: obstore.delete(self._client, path), path)

    def copy(self, source: str, target: str) -> bool:
        """Copy an object inside the store; False when there is none."""
        try:
            self.attempt(lambda: obstore.copy(self._client, source, target), source)
        except FileNotFoundError:
            return False
        return True

    def list(self, prefix: str = "", after: str = "", before: str = "") -> Iterator[Entry]:
        """Every object below a prefix in the server's order.

        Args:
            prefix: a folder.
            after: leave out what does not come after this path; empty: nothing.
            before: stop after this path; empty: at the end. With both, listings of neighbouring parts make the whole.
        """

        def entries() -> "list[Entry]":
            found: list[Entry] = []
            for batch in obstore.list(self._client, prefix or None, offset=after or None, chunk_size=1000):
                for meta in batch:
                    if before and meta["path"] > before:
                        return found
                    found.append(Entry(meta["path"], meta["size"], self._tag(meta)))
            return found

        yield from self.attempt(entries, prefix)

    def folders(self, prefix: str = "") -> tuple[str, ...]:
        """The paths of the folders right below a prefix, in the server's order; what is inside them is not listed."""
        return self.attempt(
            lambda: tuple(obstore.list_with_delimiter(self._client, prefix or None)["common_prefixes"]), prefix
        )

    def _tag(self, meta: Any) -> str:
        # A folder's e_tag holds the inode, which differs from node to node.
        tag = None if self.folder is not None else meta["e_tag"]
        return str(tag or meta["last_modified"].isoformat())

    def zarr(self, *, writable: bool = False) -> "ZarrStore":
        """A zarr store over the same client and root."""
        from zarr.storage import ObjectStore as ZarrObjectStore  # noqa: PLC0415 - artifacts need no zarr

        return ZarrObjectStore(self._client, read_only=not writable)

    def attempt(self, action: Callable[[], T], path: str) -> T:
        """Run something that uses the client; its errors come out as `explain` says."""
        try:
            return action()
        except (obs.BaseError, OSError) as error:
            raise self.explain(error, path) from None

    def explain(self, error: BaseException, path: str) -> Exception:
        """What a client's error means for the run: ConfigError, StoreError or FileNotFoundError."""
        text = _short(error)
        code = _code(text)
        where = f"{self.uri}/{path}".rstrip("/") if path else self.uri
        at = f" at {self._spec.endpoint}" if self._spec.endpoint else ""
        if code == "NoSuchBucket":
            return ConfigError(
                f"{self.side}.uri", f"the bucket of {self.uri} does not exist{at}: create it or correct the URI"
            )
        if code in _WRONG_REGION:
            return ConfigError(
                f"{self.side}.region", f"requests{at} are signed for another region than the bucket's: {_message(text)}"
            )
        denied = isinstance(error, obs.PermissionDeniedError | obs.UnauthenticatedError | PermissionError)
        if code in _WRONG_KEY or (denied and code != "NoSuchKey"):
            return self._denied(where, at, code or text)
        if isinstance(error, FileNotFoundError | obs.NotFoundError):
            return FileNotFoundError(where)
        if _METADATA_SERVICE in text:
            return StoreError(
                f"{where}{at}: no credentials were found: neither {CREDENTIAL_KEYS[0]} and {CREDENTIAL_KEYS[1]} nor an"
                f" identity of this machine; give {self.side}.secretRef, set both variables where a command reads the"
                f" data, or read it with anonymous ({text})"
            )
        return StoreError(f"{where}{at}: {f'{code}: {_message(text)}' if code else text}")

    def _denied(self, where: str, at: str, reason: str) -> ConfigError:
        if "://" not in self.uri or self.uri.startswith("file:"):
            return ConfigError(f"{self.side}.uri", f"{where} may not be used: {reason}")
        if isinstance(self._spec, DataSpec) and self._spec.anonymous:
            return ConfigError(
                f"{self.side}.anonymous",
                f"{where}{at} may not be read without credentials ({reason}): give a secretRef",
            )
        return ConfigError(
            f"{self.side}.secretRef",
            f"{self._credentials()} may not use {where}{at} ({reason}): correct the Secret or its rights",
        )

    def _credentials(self) -> str:
        if (key := _read_credential(self.side, CREDENTIAL_KEYS[0])) is not None:
            return f"the key {key[:4]}... of the Secret"
        return "the pod's own identity (no Secret is given)"


def open_store(spec: StoreSpec, side: Side) -> Store:
    """Open one side's store. Of the server, nothing but that it listens is tried yet.

    Raises:
        ConfigError: the URI, the endpoint or the credentials cannot be used.
    """
    scheme, root = check_uri(spec, side)
    field = f"{side}.uri"
    if scheme == "file":
        folder = Path(root).expanduser().absolute()
        if side == "data" and not folder.is_dir():
            raise ConfigError(field, f"the folder {folder} does not exist: correct the path or mount the volume")
        try:
            return Store(LocalStore(folder, mkdir=side == "artifacts"), spec, side)
        except (obs.BaseError, OSError) as error:
            raise ConfigError(field, f"the folder {folder} cannot be used: {_short(error)}") from None
    retry: Any = {
        "max_retries": MAX_RETRIES,
        "retry_timeout": RETRY_TIMEOUT,
        "backoff": {"init_backoff": FIRST_PAUSE, "max_backoff": timedelta(seconds=5), "base": 2},
    }
    client_options: Any = {
        "connect_timeout": CONNECT_TIMEOUT,
        "allow_http": spec.endpoint.startswith("http://"),
        "timeout": REQUEST_TIMEOUT,
    }
    if side == "data":  # an upload is silent until its end: only of what is read can one say that it stalls
        client_options |= {"timeout": DATA_TIMEOUT, "read_timeout": STALL_TIMEOUT}
    try:
        if scheme == "s3":
            return Store(_s3(spec, side, root, retry, client_options), spec, side)
        return Store(from_url(spec.uri, client_options=client_options, retry_config=retry), spec, side)
    except (obs.BaseError, ValueError) as error:
        raise ConfigError(field, f"{spec.uri} cannot be opened: {_short(error)}") from None


def check_uri(spec: StoreSpec, side: Side) -> tuple[str, str]:
    """Scheme of a URI, and its bucket and prefix or its path.

    Raises:
        ConfigError: the scheme is unknown, or there is no bucket.
    """
    scheme, root = _split(spec.uri)
    if scheme not in SCHEMES:
        raise ConfigError(
            f"{side}.uri", f"the scheme '{scheme}://' is unknown: use one of {', '.join(SCHEMES)}, or a plain path"
        )
    if not root.strip("/") and scheme != "file":
        raise ConfigError(f"{side}.uri", f"{spec.uri} names no bucket: write {scheme}://bucket/prefix")
    return scheme, root


def _s3(spec: StoreSpec, side: Side, root: str, retry: Any, client_options: Any) -> S3Store:
    bucket, _, prefix = root.partition("/")
    options: dict[str, Any] = {"virtual_hosted_style_request": False}
    if spec.endpoint:
        options["endpoint"] = spec.endpoint.rstrip("/")
    if spec.region or spec.endpoint:
        options["region"] = spec.region or DEFAULT_REGION
    if isinstance(spec, DataSpec) and spec.anonymous:
        options["skip_signature"] = True
    elif spec.secret_ref is not None or _read_credential(side, CREDENTIAL_KEYS[0]) is not None:
        options["credential_provider"] = provider = _FileCredentials(side)
        provider()
    if spec.endpoint:
        _probe(spec.endpoint, side)
    return S3Store(bucket, prefix=prefix or None, client_options=client_options, retry_config=retry, **options)


def _probe(endpoint: str, side: Side) -> None:
    """Refuse an endpoint where nothing listens, sooner and more plainly than a failing request would."""
    if any(os.environ.get(name) for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy", "ALL_PROXY")):
        return
    parts = urlsplit(endpoint)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    for tried in range(PROBE_TRIES):
        try:
            socket.create_connection((parts.hostname or "", port), CONNECT_TIMEOUT.total_seconds()).close()
        except OSError as error:
            if tried + 1 == PROBE_TRIES:
                raise ConfigError(
                    f"{side}.endpoint",
                    f"cannot reach {endpoint} ({error.strerror or error}): correct it, or see whether the server runs",
                ) from None
            time.sleep(PROBE_PAUSE_S)
        else:
            return


class _FileCredentials:
    """Reads a side's key from its files, again now and then, so that a rotated Secret is followed."""

    def __init__(self, side: Side) -> None:
        self._side = side

    def __call__(self) -> Any:
        key, secret, token = (_read_credential(self._side, name) for name in CREDENTIAL_KEYS)
        if not key or not secret:
            missing = CREDENTIAL_KEYS[0] if not key else CREDENTIAL_KEYS[1]
            raise ConfigError(
                f"{self._side}.secretRef",
                f"the Secret has no key {missing}: it must hold {CREDENTIAL_KEYS[0]} and {CREDENTIAL_KEYS[1]}",
            )
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


def _code(text: str) -> str:
    """The code in an S3 server's answer; empty when there is none."""
    found = re.search(r"<Code>(\w+)</Code>", text)
    return found.group(1) if found else ""


def _message(text: str) -> str:
    """The sentence in an S3 server's answer."""
    found = re.search(r"<Message>(.*?)</Message>", text)
    return html.unescape(found.group(1)) if found else text
