"""The project's images: built from images/*.Dockerfile and loaded into the cluster."""

import hashlib
import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from devcluster import builder, kind, loader, requirements, runtime
from devcluster.console import DevclusterError, say, step
from devcluster.files import write
from devcluster.locks import exclusive
from devcluster.paths import REPOSITORY, State, cache
from devcluster.shell import run

TAG = "dev"
# Every file has this time in the image: a fresh clone gives the same layers as the last one.
_EPOCH = 946684800


@dataclass(frozen=True)
class Image:
    """An image of the project."""

    name: str
    sources: tuple[str, ...]
    """What its Dockerfile copies, relative to the repository."""

    @property
    def dockerfile(self) -> str:
        """Its Dockerfile, relative to the repository."""
        return f"images/{self.name}.Dockerfile"

    @property
    def repository(self) -> str:
        """Its name without a tag, as pods use it."""
        return f"{runtime.IMAGE_HOST}/{self.name}"

    @property
    def reference(self) -> str:
        """Its name with the tag."""
        return f"{self.repository}:{TAG}"


_UV = "locks/uv.txt"
IMAGES = (
    Image("operator", (_UV, "locks/operator.txt", "operator/crossfold_operator", "trainer/crossfold_trainer")),
    Image("trainer", (_UV, "locks/trainer.txt", "locks/trackers.txt", "trainer/crossfold_trainer")),
)


def images(state: State) -> dict[str, dict[str, str]]:
    """Builds and loads all images; does only what changed.

    Returns:
        By name: the tagged reference, the digest (empty by kind, which knows none), and the reference to run, whose
        name differs wherever the content does.
    """
    loaded = _by_kind(state) if kind.chosen(state) else _in_node(state)
    write(state.images, json.dumps(loaded, indent=2) + "\n")
    return loaded


def _in_node(state: State) -> dict[str, dict[str, str]]:
    requirements.check_images(cached=(builder.home() / "built").exists())
    loaded = {}
    with exclusive(cache() / "locks" / "images"):
        built = {image: _build(image) for image in IMAGES}
        # A cluster that is just coming up is waited for; building did not need one.
        with exclusive(state.lock):
            for image, identity in built.items():
                digest = _load(state, image, identity)
                reference = f"{image.repository}@{digest}"
                loaded[image.name] = {"image": image.reference, "digest": digest, "reference": reference}
    return loaded


def _by_kind(state: State) -> dict[str, dict[str, str]]:
    loaded = {}
    for image in IMAGES:
        context = builder.home() / "context" / image.name
        with exclusive(cache() / "locks" / "images"), exclusive(state.lock):
            # kind's node knows no digest for an image that was loaded: the tag tells one content from another.
            reference = f"{image.repository}:{stage(image, context)[:12]}"
            arguments = {"VERSION": project_version(), "REVISION": _revision()}
            kind.load_image(state, context, image.dockerfile, reference, arguments)
        loaded[image.name] = {"image": reference, "digest": "", "reference": reference}
    return loaded


def stage(image: Image, target: Path) -> str:
    """Copies what an image is made of to a folder, stripped of what differs between checkouts.

    Returns:
        A key of the content: equal keys give equal images.
    """
    shutil.rmtree(target, ignore_errors=True)
    digest = hashlib.sha256()
    for file in source_files(REPOSITORY, (image.dockerfile, *image.sources)):
        relative = file.relative_to(REPOSITORY)
        copy = target / relative
        copy.parent.mkdir(parents=True, exist_ok=True)
        content = file.read_bytes()
        copy.write_bytes(content)
        copy.chmod(0o644)
        digest.update(f"{relative} {len(content)} ".encode() + content)
    for path in [target, *target.rglob("*")]:
        if path.is_dir():
            path.chmod(0o755)
        os.utime(path, (_EPOCH, _EPOCH))
    return digest.hexdigest()


def source_files(root: Path, sources: tuple[str, ...]) -> list[Path]:
    """The files below some sources, bytecode left out, in a fixed order."""
    found: list[Path] = []
    for source in sources:
        path = root / source
        found += [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sorted(file for file in found if "__pycache__" not in file.parts and file.suffix != ".pyc")


def _build(image: Image) -> str:
    """Builds an image if its content is new; returns the builder's identity of it."""
    base = builder.base_image()
    context = builder.home() / "context" / image.name
    key = hashlib.sha256(f"{stage(image, context)} {base}".encode()).hexdigest()
    record = builder.home() / "built" / f"{image.name}.json"
    known = json.loads(record.read_text()) if record.exists() else {}
    if known.get("key") == key and builder.exists(known["id"]):
        say(f"  ✓ image {image.name}: unchanged")
        return str(known["id"])
    with step(f"image {image.name}: build") as shown:
        arguments = {"BASE": base, "VERSION": project_version(), "REVISION": _revision()}
        identity = builder.build(context, image.dockerfile, image.reference, arguments, shown)
    write(record, json.dumps({"key": key, "id": identity}))
    builder.prune()
    return identity


def _load(state: State, image: Image, identity: str) -> str:
    """Brings an image to the cluster's containerd; returns its digest."""
    record = state.config / "images" / f"{image.name}.json"
    known = json.loads(record.read_text()) if record.exists() else {}
    if known.get("id") == identity:
        return str(known["digest"])
    with step(f"image {image.name}: load into the node"):
        layers = loader.layers_of(builder.storage(), identity)
        digest = loader.load(state, image.reference, builder.config(identity), layers)
    write(record, json.dumps({"id": identity, "digest": digest}))
    return digest


def project_version() -> str:
    """The version in pyproject.toml, read without a TOML parser's help: the line is ours."""
    match = re.search(r'^version = "(.+)"$', (REPOSITORY / "pyproject.toml").read_text(), re.MULTILINE)
    return match[1] if match else "0.0.0"


def _revision() -> str:
    try:
        return run(["git", "rev-parse", "HEAD"], cwd=REPOSITORY).strip()
    except (DevclusterError, OSError):
        return "unknown"  # no clone, or no git here
