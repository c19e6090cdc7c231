"""Building images with buildah, in storage of our own that clusters come and go by."""

import functools
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from devcluster.console import DevclusterError, Step, step
from devcluster.installer import uv
from devcluster.paths import cache
from devcluster.shell import follow, run

_PACKAGES = "python3,python3-venv,ca-certificates"
# What an image needs none of: package indexes, manuals, translations.
_LEFTOVERS = ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/man", "usr/share/locale", "var/log")

# buildah keeps its storage, run-time files and caches below /var/lib/containers. It runs in mounts of its own, where
# that is a folder of the cache: nothing stays mounted, and other images on this machine are left alone. The working
# directory is that cache folder: at hand by relative names even if it lies below /var/lib.
_ENTER_SCRIPT = """set -e
mount --bind var-lib /var/lib
mount -t tmpfs tmpfs /var/lib/containers/run
exec "$@"
"""

# Set where a proxy inspects TLS, or an index is not the public one: a build needs them as this process does.
_PASSED_ON = ("PIP_CERT", "PIP_INDEX_URL", "UV_DEFAULT_INDEX", "http_proxy", "https_proxy", "no_proxy")
_CERTIFICATES = Path("/etc/ssl/certs")


def home() -> Path:
    """The builder's folder in the cache."""
    return cache() / "images"


def _command(arguments: Sequence[str]) -> list[str]:
    return [
        *("unshare", "--mount", "--propagation", "private", "sh", "-c", _ENTER_SCRIPT, "sh"),
        *("buildah", "--root", "/var/lib/containers/storage", "--runroot", "/var/lib/containers/run"),
        *("--storage-driver", "overlay"),
        *arguments,
    ]


def _environment() -> dict[str, str]:
    for folder in ("storage", "run", "tmp"):
        (home() / "var-lib/containers" / folder).mkdir(parents=True, exist_ok=True)
    return os.environ | {"BUILDAH_ISOLATION": "chroot", "TMPDIR": "/var/lib/containers/tmp"}


def _buildah(*arguments: str) -> str:
    env = _environment()
    return run(_command(arguments), env=env, cwd=home()).strip()


def storage() -> Path:
    """The root of the builder's storage, a containers-storage with the overlay driver."""
    return home() / "var-lib/containers/storage"


def config(name: str) -> bytes:
    """An image's configuration, byte for byte: its digest is the image's identity."""
    return _buildah("inspect", "--type", "image", "--format", "{{.Config}}", name).encode()


def exists(name: str) -> bool:
    """Whether the storage holds an image of this identity or name."""
    index = storage() / "overlay-images/images.json"
    known = json.loads(index.read_text()) if index.exists() else []
    return any(name == image["id"] or name in image.get("names", ()) for image in known)


@functools.cache
def base_image() -> str:
    """The image that the others start from: Debian's smallest with Python, made from this machine's own mirror."""
    site, suite = _mirror()
    name = f"localhost/crossfold-base:{suite}"
    if exists(name):
        return name
    root = home() / "rootfs"
    shutil.rmtree(root, ignore_errors=True)
    with step(f"base image: Debian {suite} with Python") as shown:

        def on_line(line: str) -> None:
            shown.detail = line[:60]

        follow(["debootstrap", "--variant=minbase", f"--include={_PACKAGES}", suite, root, site], on_line)
        for leftover in _LEFTOVERS:
            shutil.rmtree(root / leftover, ignore_errors=True)
            (root / leftover).mkdir()
        shown.detail = "commit"
        container = _buildah("from", "scratch")
        _buildah("add", "--quiet", container, "rootfs", "/")
        _buildah("commit", "--quiet", "--rm", container, name)
        shutil.rmtree(root)
    return name


def _mirror() -> tuple[str, str]:
    """The Debian mirror and suite that this machine installs its own packages from."""
    wanted = ["Created-By: Packages", "Component: main"]
    listed = run(["apt-get", "indextargets", "--format", "$(SITE) $(RELEASE)", *wanted])
    for line in listed.splitlines():
        site, suite = line.split()
        if "-" not in suite and "security" not in site:
            return site, suite
    raise DevclusterError("apt names no Debian mirror: the base image is made from one (see /etc/apt/sources.list)")


def build(context: Path, dockerfile: str, tag: str, arguments: Mapping[str, str], shown: Step) -> str:
    """Builds a Dockerfile; unchanged leading steps come from the storage.

    Returns:
        The image's identity.
    """
    values = dict(arguments) | {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    volumes = []
    bundle = os.environ.get("SSL_CERT_FILE", "")
    if bundle.startswith(str(_CERTIFICATES)):
        values |= {"SSL_CERT_FILE": bundle, "UV_NATIVE_TLS": "1"}
        volumes.append(f"{_CERTIFICATES}:{_CERTIFICATES}:ro")
    wheels = _wheel_cache()
    wheels.mkdir(parents=True, exist_ok=True)
    values["UV_CACHE_DIR"] = "/wheels"
    volumes.append(f"{wheels}:/wheels")
    command = ["build", "--layers", "--network", "host", "--file", str(context / dockerfile), "--tag", tag]
    for name, value in values.items():
        command += ["--build-arg", f"{name}={value}"]
    for volume in volumes:
        command += ["--volume", volume]
    identity = ""

    def on_line(line: str) -> None:
        nonlocal identity
        identity = line
        shown.detail = line[:80]

    log = cache() / "log" / f"image-{context.name}.log"
    follow(_command([*command, str(context)]), on_line, env=_environment(), cwd=home(), log=log)
    return identity.strip()


def _wheel_cache() -> Path:
    """This user's uv cache: what one environment has downloaded, the images need not download again."""
    return Path(run([uv(), "cache", "dir"]).strip())


def prune() -> None:
    """Removes images that nothing names any more, layers that no image needs, and what interrupted builds left."""
    _buildah("rm", "--all")
    _buildah("rmi", "--prune")
