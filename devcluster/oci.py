"""An image of static programs, written as an OCI archive without any image builder."""

import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


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
    blobs: dict[str, bytes] = {}

    def blob(media_type: str, content: bytes) -> dict[str, Any]:
        digest = hashlib.sha256(content).hexdigest()
        blobs[f"blobs/sha256/{digest}"] = content
        return {"mediaType": f"application/vnd.oci.image.{media_type}", "digest": f"sha256:{digest}", "size": len(content)}

    layer_descriptor = blob("layer.v1.tar", layer)
    config = {
        "architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()),
        "os": "linux",
        "config": {"Entrypoint": [entrypoint], "User": "65532:65532"},
        "rootfs": {"type": "layers", "diff_ids": [layer_descriptor["digest"]]},
    }
    manifest = {"schemaVersion": 2, "config": blob("config.v1+json", _json(config)), "layers": [layer_descriptor]}
    entry = blob("manifest.v1+json", _json(manifest)) | {"annotations": {"io.containerd.image.name": name}}
    index = {"schemaVersion": 2, "manifests": [entry]}
    return _tar({"oci-layout": b'{"imageLayoutVersion": "1.0.0"}', "index.json": _json(index)} | blobs, mode=0o644)


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
