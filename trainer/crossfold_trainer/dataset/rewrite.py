"""Write a data set anew in the layout that is read fastest; any zarr reads it, with the FixedScaleOffset codec.

x becomes what a model gets (``data.scale`` and ``data.nonFinite`` of the source have been followed) and is stored as
uint16, ``round(x * 65535)``: no value in [0, 1] moves by more than 1 / 131070. It stays logically float32. One chunk
holds a whole patch, or one band of it for searches over bands. y is copied. Chunks are blosc (lz4, level 5,
bit-shuffled). That is half the bytes and, with whole patches, two requests for a patch instead of one for each band.
"""

import logging
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from crossfold_trainer.contract.data import ArtifactsSpec, DataSpec
from crossfold_trainer.data import DataSet, Patches, open_dataset
from crossfold_trainer.documents import ARRAYS, CONFIG, LABELS, METADATA
from crossfold_trainer.errors import ConfigError
from crossfold_trainer.store import Store, open_store

log = logging.getLogger(__name__)

SCALE = 65535
BLOCK_BYTES = 64 * 2**20
"""So much is read and written at a time."""


class Written(NamedTuple):
    """What came of it."""

    patches: int
    before: int
    """Bytes of the arrays' objects in the source."""
    after: int
    """The same in the target."""


def rewrite(
    source: DataSpec,
    target: ArtifactsSpec,
    *,
    bands_apart: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Written:
    """Write a data set of the darts layout anew.

    ``config.toml`` is written last: until then the target is no data set, and a rewrite that was cut off is begun anew
    over what it left.

    Args:
        source: any data set that a trainer reads, in the way in which it reads it; credentials of the side ``data``.
        target: where to; credentials of the side ``artifacts``.
        bands_apart: a chunk for each band, so that a run with some of the bands reads only those.
        progress: called with the patches that are done and all patches.

    Raises:
        ConfigError: the source cannot be read, or its values are not what `source` says; or the target is there
            already.
        StoreError: one of the stores does not answer as it should.
    """
    data = open_dataset(source, None)
    for text in data.warnings:
        log.warning("warning: %s", text)
    store = open_store(target, "artifacts")
    if store.read(CONFIG) is not None:
        raise ConfigError("target", f"{target.uri} holds a data set already: remove it, or choose another place")
    x, y = store.attempt(lambda: _create(store, data, bands_apart=bands_apart), ARRAYS)
    n, step = len(data), max(1, BLOCK_BYTES // (4 * data.patch_bytes))
    for first in range(0, n, step):
        rows = np.arange(first, min(n, first + step))
        patches = data.read(rows)
        store.attempt(partial(_write, x, y, slice(first, first + len(rows)), patches), ARRAYS)
        if progress is not None:
            progress(first + len(rows), n)
    origin = open_store(source, "data")
    for name in (LABELS, METADATA, CONFIG):
        content = origin.read(name)
        if content is not None:
            store.write(name, content)
    return Written(n, _bytes(origin), _bytes(store))


def _create(store: Store, data: DataSet, *, bands_apart: bool) -> tuple[Any, Any]:
    import zarr  # noqa: PLC0415 - seconds of import, after all that can be refused
    from zarr.codecs import BloscCodec  # noqa: PLC0415
    from zarr.codecs.numcodecs import FixedScaleOffset  # noqa: PLC0415

    (height, width), n, bands = data.shape, len(data), len(data.bands)
    with warnings.catch_warnings():
        # FixedScaleOffset is an extension of zarr 3, known to zarr-python as numcodecs.fixedscaleoffset.
        warnings.filterwarnings("ignore", message="Numcodecs codecs are not in the Zarr version 3")
        group = zarr.open_group(store.zarr(writable=True), path=ARRAYS, mode="w")
        x = group.create_array(
            "x",
            shape=(n, bands, height, width),
            dtype="float32",
            chunks=(1, 1 if bands_apart else bands, height, width),
            filters=[FixedScaleOffset(offset=0, scale=SCALE, dtype="<f4", astype="<u2")],
            compressors=BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle", typesize=2),
            fill_value=0,
        )
        y = group.create_array(
            "y",
            shape=(n, height, width),
            dtype="uint8",
            chunks=(1, height, width),
            compressors=BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle", typesize=1),
            fill_value=0,
        )
    return x, y


def _write(x: Any, y: Any, at: slice, patches: Patches) -> None:
    x[at] = patches.x.clip(0, 1)  # what rounding has put outside
    y[at] = patches.y


def _bytes(store: Store) -> int:
    return sum(entry.size for entry in store.list(f"{ARRAYS}/"))
