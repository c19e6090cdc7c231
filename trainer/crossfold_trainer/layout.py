"""How an array of the data set lies in its store, for the layouts that are read chunk by chunk without zarr.

Those are the chains {FixedScaleOffset?, bytes LE, blosc or zstd or nothing} with all pixels of one patch, and one or
several of its bands, in a chunk: what darts writes and what `crossfold_trainer.dataset` writes. All others are read
through zarr (reader.py).

Shapes: N patches, C bands, H x W pixels; an array is (N, C, H, W) or (N, H, W), a chunk holds k bands of one patch.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

Raw = NDArray[Any]
Compression = Literal["", "blosc", "zstd"]
Buffer = Any
"""Anything with the buffer protocol."""

STORED = ("<f4", "<u2", "<i2", "|u1", "|i1")
"""Types that a device can take as they are stored and make float32 of."""
EXACT_IN_FLOAT32 = 2**24
_BLOSC_HEADER = struct.Struct("<4BIII")  # version, version of the codec, flags, item size; bytes, block, bytes here
_FIXED_SCALE_OFFSET = ("fixedscaleoffset", "numcodecs.fixedscaleoffset")


@dataclass(frozen=True)
class Scaling:
    """Stored numbers mean ``stored / scale + offset``, computed in float64 and rounded to float32 (numcodecs)."""

    scale: float
    offset: float

    @property
    def plain(self) -> bool:
        """Whether a float32 division alone gives the same float32 (for stored integers of at most 16 bits).

        Rounding a quotient to 53 and then to 24 bits is the same as rounding it to 24 bits at once, since
        53 >= 2 * 24 + 2 (Figueroa, "When is double rounding innocuous?", 1995).
        """
        return self.offset == 0 and float(np.float32(self.scale)) == self.scale

    def decode(self, stored: Raw) -> NDArray[np.float32]:
        """The meaning of stored numbers."""
        meant: NDArray[np.float32] = (stored.astype(np.float64) / self.scale + self.offset).astype(np.float32)
        return meant


@dataclass(frozen=True)
class Layout:
    """Where the chunks of one array are, and what their bytes mean."""

    prefix: str
    """What all keys of chunks start with: ``data.zarr/x/c/``."""
    separator: str
    shape: tuple[int, ...]
    bands: int
    """k, bands in a chunk; 1 for an array without bands."""
    dtype: np.dtype[Any]
    """Stored type, little-endian."""
    scaling: Scaling | None
    compression: Compression
    fill: float
    """Stored value of chunks that are not there."""

    @property
    def pixels(self) -> tuple[int, int]:
        """H, W."""
        return self.shape[-2], self.shape[-1]

    def key(self, row: int, block: int = 0) -> str:
        """The key of a patch's chunk with the bands from ``block * bands`` on."""
        where = (row, block, 0, 0) if len(self.shape) == 4 else (row, 0, 0)
        return self.prefix + self.separator.join(map(str, where))

    def decode(self, content: Buffer | None, out: Raw) -> None:
        """Write a chunk's numbers, as stored, to a contiguous (k, H, W) or (H, W); None: a chunk that is not there.

        Raises:
            ValueError: the content is no such chunk.
        """
        if content is None:
            out.fill(self.fill)
            return
        n = memoryview(content).nbytes
        if self.compression == "blosc":
            from numcodecs import blosc  # noqa: PLC0415 - only what a data set needs

            if n < _BLOSC_HEADER.size:
                raise ValueError(f"it has {n} bytes, fewer than blosc's header")
            *_, unpacked, _, packed = _BLOSC_HEADER.unpack_from(content)
            if (unpacked, packed) != (out.nbytes, n):
                raise ValueError(
                    f"it has {n} bytes that hold {unpacked}, by its header {packed}; {out.nbytes} must come out"
                )
            try:
                blosc.decompress(content, out)
            except RuntimeError as error:
                raise ValueError(str(error)) from error
            return
        if self.compression == "zstd":
            from numcodecs import zstd  # noqa: PLC0415

            try:
                content = zstd.decompress(content)
            except RuntimeError as error:
                raise ValueError(str(error)) from error
            n = len(content)
        if n != out.nbytes:
            raise ValueError(f"it holds {n} bytes instead of {out.nbytes}")
        out.reshape(-1)[:] = np.frombuffer(content, self.dtype)


def parse(array: str, document: Mapping[str, Any]) -> Layout | None:
    """The layout that a zarr array's metadata describes; None where the array must be read through zarr.

    Args:
        array: path of the array in its store, such as ``data.zarr/x``.
        document: zarr.json (version 3) or .zarray (version 2).
    """
    try:
        found = _parse_3(array, document) if document["zarr_format"] == 3 else _parse_2(array, document)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError):
        return None
    return found


@dataclass(frozen=True)
class _Array:
    """What both versions of zarr say of an array."""

    prefix: str
    separator: str
    shape: list[int]
    chunks: list[int]
    dtype: np.dtype[Any]
    filters: list[tuple[str, Mapping[str, Any]]]
    compression: str
    fill: float | str | None

    def layout(self) -> Layout | None:
        """The layout, where it is one that is read without zarr."""
        whole_patches = (
            len(self.shape) in (3, 4) and self.chunks[0] == 1 and list(self.chunks[-2:]) == list(self.shape[-2:])
        )
        compression = next((known for known in get_args(Compression) if known == self.compression), None)
        if not whole_patches or compression is None:
            return None
        stored = self._stored()
        if stored is None or stored[0].str not in STORED:
            return None
        dtype, scaling, fill = stored
        return Layout(
            prefix=self.prefix,
            separator=self.separator,
            shape=tuple(self.shape),
            bands=self.chunks[1] if len(self.shape) == 4 else 1,
            dtype=dtype,
            scaling=scaling,
            compression=compression,
            fill=fill,
        )

    def _stored(self) -> tuple[np.dtype[Any], Scaling | None, float] | None:
        """Stored type, its meaning, and the stored fill value."""
        fill = float(self.fill or 0)
        if not self.filters:
            return self.dtype, None, fill
        name, settings = self.filters[0]
        dtype = np.dtype(settings.get("astype", settings["dtype"]))
        logical = np.dtype(settings["dtype"])
        if name not in _FIXED_SCALE_OFFSET or len(self.filters) > 1 or not logical == self.dtype == np.dtype("<f4"):
            return None
        scaling = Scaling(float(settings["scale"]), float(settings["offset"]))
        stored = round((fill - scaling.offset) * scaling.scale)
        if dtype.kind == "f" or float(scaling.decode(np.array([stored], dtype))[0]) != float(np.float32(fill)):
            return None
        return dtype, scaling, stored


def _parse_3(array: str, document: Mapping[str, Any]) -> Layout | None:
    keys = document["chunk_key_encoding"]
    if document["chunk_grid"]["name"] != "regular" or document.get("storage_transformers"):
        return None
    if keys["name"] not in ("default", "v2"):
        return None
    separator = keys.get("configuration", {}).get("separator", "/" if keys["name"] == "default" else ".")
    chain = [(codec["name"], codec.get("configuration", {})) for codec in document["codecs"]]
    at = [name for name, _ in chain].index("bytes")
    if chain[at][1].get("endian", "little") != "little" or len(chain) > at + 2:
        return None
    return _Array(
        prefix=f"{array}/c{separator}" if keys["name"] == "default" else f"{array}/",
        separator=separator,
        shape=document["shape"],
        chunks=document["chunk_grid"]["configuration"]["chunk_shape"],
        dtype=np.dtype(document["data_type"]).newbyteorder("<"),
        filters=chain[:at],
        compression=chain[at + 1][0] if len(chain) > at + 1 else "",
        fill=document["fill_value"],
    ).layout()


def _parse_2(array: str, document: Mapping[str, Any]) -> Layout | None:
    if document.get("order", "C") != "C":
        return None
    compressor = document.get("compressor")
    return _Array(
        prefix=f"{array}/",
        separator=document.get("dimension_separator", "."),
        shape=document["shape"],
        chunks=document["chunks"],
        dtype=np.dtype(document["dtype"]),
        filters=[(one["id"], one) for one in document.get("filters") or []],
        compression=compressor["id"] if compressor else "",
        fill=document["fill_value"],
    ).layout()
