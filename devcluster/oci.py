"""OCI image archives, written without any image builder."""

import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


_LAYER = "application/vnd.oci.image.layer.v1.tar"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"


def archive(name: str, programs: Mapping[str, Path], entrypoint: str) -> bytes:
    """Builds an image.

    Args:
        name: The image's name, as containerd will know it.
        programs: Path in the image -> file on this machine.
        entrypoint: What it runs.

    Returns:
        The archive, for `ctr images import`; the same for the same input.
    """
    layer = _tar({path.lstrip("/"): file.read_bytes() for path, file in programs.items()}, mode=0o755)
    config = {
        "architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()),
        "os": "linux",
        "config": {"Entrypoint": [entrypoint], "User": "65532:65532"},
        "rootfs": {"type": "layers", "diff_ids": [_digest(layer)]},
    }
    return _archive(name, _json(config), [(_digest(layer), len(layer))], [layer])[0]


def reference_archive(name: str, config: bytes, layers: Sequence[tuple[str, int]]) -> tuple[bytes, str]:
    """An image without its layers, for a containerd that has them unpacked already.

    Args:
        name: The image's name.
        config: Its configuration, byte for byte.
        layers: Digest and size of each layer's uncompressed archive, the lowest first.

    Returns:
        The archive and the digest of the manifest.
    """
    return _archive(name, config, layers, [])


def _archive(
    name: str, config: bytes, layers: Sequence[tuple[str, int]], contents: Sequence[bytes]
) -> tuple[bytes, str]:
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": _descriptor(_CONFIG, _digest(config), len(config)),
            "layers": [_descriptor(_LAYER, digest, size) for digest, size in layers],
        }
    )
    entry = _descriptor(_MANIFEST, _digest(manifest), len(manifest))
    entry["annotations"] = {"io.containerd.image.name": name}
    index = {"schemaVersion": 2, "manifests": [entry]}
    files = {"oci-layout": b'{"imageLayoutVersion": "1.0.0"}', "index.json": _json(index)}
    files |= {f"blobs/sha256/{_digest(blob).removeprefix('sha256:')}": blob for blob in (config, manifest, *contents)}
    return _tar(files, mode=0o644), _digest(manifest)


def _descriptor(media_type: str, digest: str, size: int) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": digest, "size": size}


def _digest(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True).encode()


def _tar(files: Mapping[str, bytes], mode: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path, content in files.items():
            info = tarfile.TarInfo(path)
            info.size, info.mode = len(content), mode
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()
