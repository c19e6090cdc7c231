"""Where patches lie: the middle of an outline in well-known binary (WKB), as GeoParquet holds it."""

import struct
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_Z, _M, _SRID = 0x80000000, 0x40000000, 0x20000000
"""Flags of the kind in EWKB; ISO WKB adds 1000 for Z, 2000 for M, 3000 for both."""


def centres(outlines: Sequence[bytes | None]) -> NDArray[np.float64]:
    """(N, 2): x and y (longitude and latitude) of the middle of each outline's box; NaN where it cannot be read."""
    return np.array([_centre(outline) for outline in outlines], np.float64).reshape(-1, 2)


def _centre(wkb: bytes | None) -> tuple[float, float]:
    if wkb is None:
        return np.nan, np.nan
    try:
        points = _first_points(wkb, 0)
    except struct.error:
        points = None
    if points is None or not len(points):
        return np.nan, np.nan
    x, y = (points[:2] if points.ndim == 1 else (points.min(0) + points.max(0))[:2] / 2).tolist()
    return x, y


def _first_points(wkb: bytes, at: int) -> NDArray[np.float64] | None:
    """The point, or the corners (n, dimensions) of the (first) polygon's outer ring; None: something else."""
    order = "<" if wkb[at : at + 1] == b"\x01" else ">"
    (kind,) = struct.unpack_from(f"{order}I", wkb, at + 1)
    at += 5 + (4 if kind & _SRID else 0)
    plain = kind & 0xFFFF
    dimensions = 2 + bool(kind & _Z) + bool(kind & _M) + {0: 0, 1: 1, 2: 1, 3: 2}.get(plain // 1000, 0)
    match plain % 1000:
        case 1:  # point
            return np.array(struct.unpack_from(f"{order}{dimensions}d", wkb, at))
        case 3:  # polygon
            rings, n = struct.unpack_from(f"{order}II", wkb, at)
            if not rings:
                return None
            return np.array(struct.unpack_from(f"{order}{n * dimensions}d", wkb, at + 8)).reshape(n, dimensions)
        case 6:  # several polygons
            (polygons,) = struct.unpack_from(f"{order}I", wkb, at)
            return _first_points(wkb, at + 4) if polygons else None
        case _:
            return None
