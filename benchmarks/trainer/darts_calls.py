"""darts' way to read: group and arrays are opened again for every patch, through fsspec, in worker processes."""

import sys
import time
from functools import cache
from pathlib import Path
from typing import Any

import torch
import zarr
from torch.utils.data import DataLoader, Dataset
from zarr.storage import FsspecStore, LocalStore

from benchmarks.trainer.apart import installed

WORKERS = 2
BATCH = 8


@cache
def s3fs_folder() -> Path | None:
    """The folder with s3fs, installed when it is not there; None when it cannot be."""
    return installed("s3fs", "s3fs>=2025")


class Patches(Dataset[tuple[Any, Any]]):
    """Patches that are read one by one, as x (C, H, W) float32 and y (H, W) uint8; options are s3fs'."""

    def __init__(self, path: str, options: dict[str, Any], n: int) -> None:
        self._path, self._options, self._n = path, options, n

    def __len__(self) -> int:
        return self._n

    def __getitem__(self, i: int) -> tuple[Any, Any]:
        group = zarr.open_group(self._store(), path="data.zarr", mode="r")
        return torch.from_numpy(group["x"][i]), torch.from_numpy(group["y"][i])

    def _store(self) -> Any:
        if not self._options:
            return LocalStore(self._path, read_only=True)
        folder = str(s3fs_folder())
        if folder not in sys.path:
            sys.path.append(folder)
        from s3fs import S3FileSystem  # noqa: PLC0415 - installed for this

        return FsspecStore(S3FileSystem(**self._options, asynchronous=True), read_only=True, path=self._path)


def darts_calls(path: str, n: int, options: dict[str, Any]) -> float:
    """Patches per second of a DataLoader with two workers, from its second batch on.

    Args:
        path: folder of the data set, or bucket and prefix.
        n: patches to read.
        options: of s3fs; empty: a local folder.
    """
    loaded = iter(
        DataLoader(
            Patches(path, options, n), batch_size=BATCH, num_workers=WORKERS, multiprocessing_context="forkserver"
        )
    )
    next(loaded)  # starting the workers does not count
    began = time.perf_counter()
    got = sum(len(x) for x, _ in loaded)
    return got / (time.perf_counter() - began)
