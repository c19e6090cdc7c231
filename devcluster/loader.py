"""From the builder's storage to the node's containerd in seconds, without packing gigabytes and unpacking them again.

Both keep an image's layer as the folder that overlayfs will mount. So each layer becomes a snapshot of hard links to
the builder's files, prepared and committed through containerd under the name that it looks layers up by (the chain
ID); what is imported then is only the manifest and the configuration. Layers of the same name are never written to
by either side. Where cache and state folder are on different file systems the files are copied.
"""

import hashlib
import json
import secrets
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devcluster import oci
from devcluster.console import DevclusterError
from devcluster.node import Node
from devcluster.paths import State
from devcluster.runtime import ctr
from devcluster.shell import run

_GC_ROOT = "containerd.io/gc.root"


@dataclass(frozen=True)
class Layer:
    """A layer in the builder's storage."""

    digest: str
    """Of its uncompressed archive."""
    size: int
    folder: Path
    """What overlayfs mounts."""


def layers_of(storage: Path, image_id: str) -> list[Layer]:
    """An image's layers, the lowest first.

    Args:
        storage: The root of a containers-storage, overlay driver.
        image_id: The image.
    """
    images = json.loads((storage / "overlay-images/images.json").read_text())
    records = {record["id"]: record for record in json.loads((storage / "overlay-layers/layers.json").read_text())}
    found: list[Layer] = []
    layer_id: str | None = next(image["layer"] for image in images if image["id"] == image_id)
    while layer_id:
        record = records[layer_id]
        found.append(Layer(record["diff-digest"], record["diff-size"], storage / "overlay" / layer_id / "diff"))
        layer_id = record.get("parent")
    return found[::-1]


def chain_ids(digests: list[str]) -> list[str]:
    """The names of a stack of layers, as the OCI image specification defines them."""
    chain: list[str] = []
    for digest in digests:
        chain.append(digest if not chain else "sha256:" + hashlib.sha256(f"{chain[-1]} {digest}".encode()).hexdigest())
    return chain


def load(state: State, reference: str, config: bytes, layers: list[Layer]) -> str:
    """Makes an image known to the node.

    Args:
        state: The cluster's state folder.
        reference: The image's name with its tag.
        config: Its configuration, byte for byte.
        layers: Its layers, the lowest first.

    Returns:
        The manifest's digest.
    """
    digests = [layer.digest for layer in layers]
    if json.loads(config)["rootfs"]["diff_ids"] != digests:
        raise DevclusterError(f"{reference}: the builder's layers are not those of its configuration; build it again")
    node = Node(state)
    chain = chain_ids(digests)
    known = set(node.run([*ctr(), "snapshots", "list"]).split())
    parent = ""
    for layer, name in zip(layers, chain, strict=True):
        if name not in known:
            _add_snapshot(state, node, layer, name, parent)
        parent = name
    archive, digest = oci.reference_archive(reference, config, [(layer.digest, layer.size) for layer in layers])
    with tempfile.NamedTemporaryFile(suffix=".tar") as file:
        Path(file.name).write_bytes(archive)
        node.run([*ctr(), "images", "import", file.name])
    # Pods name the image by tag or by digest.
    by_digest = f"{reference.rpartition(':')[0]}@{digest}"
    node.run([*ctr(), "images", "tag", "--force", reference, by_digest])
    # From here on the image keeps its snapshots; without it they may go.
    for name in set(chain) - known:
        node.run([*ctr(), "snapshots", "label", name, f"{_GC_ROOT}="])
    return digest


def _add_snapshot(state: State, node: Node, layer: Layer, name: str, parent: str) -> None:
    # A name of its own: what an interrupted load left behind is in nobody's way.
    working = f"load-{secrets.token_hex(4)}-{name}"
    mounts = json.loads(node.run([*ctr(), "snapshots", "prepare", "--mounts", working, *([parent] if parent else [])]))
    # /var/lib in the node is a folder of the state folder; hard links are made between the host's names.
    folder = state.lib / _upper_folder(mounts).relative_to("/var/lib")
    linked = _copy(layer.folder, folder, "--link")
    if not linked:
        _copy(layer.folder, folder, "--reflink=auto")
    node.run([*ctr(), "snapshots", "commit", name, working])


def _upper_folder(mounts: list[dict[str, Any]]) -> Path:
    """Where a snapshot under preparation keeps its files."""
    (mount,) = mounts
    for option in mount["Options"]:
        if option.startswith("upperdir="):
            return Path(option.removeprefix("upperdir="))
    return Path(mount["Source"])


def _copy(source: Path, target: Path, how: str) -> bool:
    command = ["cp", "--archive", how, f"{source}/.", str(target)]
    if how == "--link":
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    run(command)
    return True
