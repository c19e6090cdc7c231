"""What the values of x are, and what they may be: finite, and in the range that ``data.scale`` maps to [0, 1].

Shapes: k read bands, H x W pixels. A patch x is (k, H, W), as it is stored; y is (H, W).
Three kinds of numbers: *stored* ones are decoded by the array's own filter (`Scaling`) to the data set's *values*,
which plain zarr reads too; `Range` maps those to [0, 1], which is what a model gets.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from crossfold_trainer.contract.data import NonFinite, ScaleSpec
from crossfold_trainer.errors import ConfigError
from crossfold_trainer.layout import Raw, Scaling

log = logging.getLogger(__name__)

PatchCheck = Callable[[int, Raw, NDArray[np.uint8]], None]
"""Looks at a patch: its row, x (k, H, W) as stored and y (H, W). May change both, or refuse it by a ConfigError."""

TOLERANCE = 1e-3
"""Share of its range by which a value may lie outside: as much as rounding to 16 bits does, and no more than a model or
an augmentation would notice."""
INTEGERS = ("uint8", "int8", "uint16", "int16")
"""Types of x beside float32; `data.scale` says what such numbers range over."""
LISTED = 4
"""Bands that a message names, at most."""
_USUAL = (255, 1000, 10_000, 65_535)
"""Where the values of imagery often end."""


class Range(NamedTuple):
    """The values of a band that become 0 and 1."""

    low: float
    high: float

    @property
    def allowed(self) -> tuple[float, float]:
        """The least and the greatest value that are no error: the range, with some room for rounding."""
        room = TOLERANCE * (self.high - self.low)
        return self.low - room, self.high + room


UNIT = Range(0.0, 1.0)
"""Of a band whose values are what a model gets."""


class BandValues(NamedTuple):
    """The values of a band in some pixels, in the data set's own unit (before `Range`)."""

    pixels: int
    non_finite: int
    """Values that are NaN or infinite."""
    outside: int
    """Finite values outside `Range.allowed`."""
    least: float = np.inf
    """Of the finite values; inf: there are none."""
    greatest: float = -np.inf
    """Of the finite values; -inf: there are none."""

    def merged(self, other: "BandValues") -> "BandValues":
        """The values of both."""
        return BandValues(
            self.pixels + other.pixels,
            self.non_finite + other.non_finite,
            self.outside + other.outside,
            min(self.least, other.least),
            max(self.greatest, other.greatest),
        )


def ranges_of(
    scale: ScaleSpec | None, dtype: np.dtype[Any], known: Sequence[str], chosen: Sequence[str]
) -> tuple[Range, ...]:
    """The range of each band that is read.

    Args:
        scale: ``data.scale``; None: x is in [0, 1].
        dtype: of x as plain zarr reads it.
        known: the bands of the data set.
        chosen: those that are read.

    Raises:
        ConfigError: x is of integers, and nothing says what they range over; or ``data.scale`` has a range that is
            empty, or names a band that the data set does not have.
    """
    if scale is None and dtype.kind != "f":
        raise ConfigError(
            "data.scale",
            f"x is {dtype.name}: say what its values range over, such as {{min: 0, max: 10000}} for reflectances or"
            " {min: 0, max: 255} for bytes",
        )
    if scale is None:
        return (UNIT,) * len(chosen)
    own = {band.name: band for band in scale.bands}
    unknown = [name for name in own if name not in known]
    if unknown:
        raise ConfigError(
            "data.scale.bands", f"the data set has no band {', '.join(unknown)}; it has {', '.join(known)}"
        )
    # The lower end in float32: a value that is it becomes 0, not nearly so.
    ranges = tuple(Range(float(np.float32(pair.min)), pair.max) for pair in (own.get(band, scale) for band in chosen))
    for band, (low, high) in zip(chosen, ranges, strict=True):
        if low >= high:
            raise ConfigError("data.scale", f"band {band} goes from {low:g} to {high:g}: min must be below max")
    return ranges


def decode(stored: Raw, scaling: Scaling | None, ranges: Sequence[Range]) -> NDArray[np.float32]:
    """What a model gets: (..., k, H, W) as stored -> float32, in [0, 1] where the values keep to their ranges.

    ``(value - low) / (high - low)`` is computed in float64 and rounded to float32. The value is what plain zarr gives.
    """
    values = stored if scaling is None else scaling.decode(stored)
    if is_unit(ranges):
        return values.astype(np.float32, copy=False)
    low, width = ends(ranges)
    scaled: NDArray[np.float32] = ((values.astype(np.float64) - low) / width).astype(np.float32)
    return scaled


def is_unit(ranges: Sequence[Range]) -> bool:
    """Whether values are what a model gets."""
    return all(each == UNIT for each in ranges)


def ends(ranges: Sequence[Range]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lower ends and widths, (k, 1, 1) each."""
    low = np.array([each.low for each in ranges])
    return low.reshape(-1, 1, 1), (np.array([each.high for each in ranges]) - low).reshape(-1, 1, 1)


def plain(ranges: Sequence[Range], *, integers: bool) -> bool:
    """Whether float32 gives the same as `decode` does in float64.

    That is so where the difference is exact and the width is a float32: see `Scaling.plain`.

    Args:
        ranges: of the bands.
        integers: values are integers of at most 16 bits; else float32.
    """
    low, width = (each.ravel() for each in ends(ranges))
    exact = (low == np.rint(low)) & (np.abs(low) <= 2**23) if integers else low == 0
    return bool(np.all(exact & (width.astype(np.float32) == width)))


def look(x: Raw, scaling: Scaling | None, ranges: Sequence[Range]) -> tuple[BandValues, ...]:
    """What the values of a patch are, band by band.

    Args:
        x: (k, H, W), as stored.
        scaling: the array's own filter.
        ranges: of the k bands.
    """
    found = []
    for band, allowed in zip(x, ranges, strict=True):
        values = band if scaling is None else scaling.decode(band)
        finite = values[np.isfinite(values)]
        low, high = allowed.allowed
        within = int(np.count_nonzero((finite >= low) & (finite <= high)))
        some = {"least": float(finite.min()), "greatest": float(finite.max())} if finite.size else {}
        found.append(BandValues(values.size, values.size - finite.size, finite.size - within, **some))
    return tuple(found)


class ValueCheck:
    """Refuses values that are not what the data set says. Called in the threads that decode.

    A patch is looked at when it is read first, in one pass over what is stored; only where something may be wrong is
    it counted what. Afterwards its row is remembered.
    """

    def __init__(
        self,
        patches: int,
        bands: Sequence[str],
        stored: tuple[np.dtype[Any], Scaling | None],
        *,
        ranges: Sequence[Range],
        non_finite: NonFinite,
        ignore: int,
    ) -> None:
        """Nothing is looked at so far.

        Args:
            patches: N, of the data set.
            bands: the k that are read.
            stored: type in which x is read, and the array's own filter.
            ranges: of the k bands.
            non_finite: what is done about NaN and infinite values.
            ignore: the label of pixels that count nowhere.
        """
        self.ignored: dict[int, int] = {}
        """Row -> pixels that are ignored for a value that is NaN or infinite; of the patches that were read."""
        self._fine = np.zeros(patches, np.bool_)
        self._bands = bands
        self._scaling, self._ranges = stored[1], ranges
        self._limits = _Limits(*stored, ranges)
        self._zero = np.array([each.low for each in ranges], np.float32).reshape(-1, 1, 1)
        self._refuse = non_finite is NonFinite.ERROR
        self._ignore = ignore

    def __call__(self, row: int, x: Raw, y: NDArray[np.uint8]) -> None:
        """A `PatchCheck`. Values that are to be ignored become 0 once scaled, their pixels ignored labels.

        Raises:
            ConfigError: a value is none, or outside its range.
        """
        if self._fine[row]:
            return
        if row not in self.ignored:
            if self._limits.hold(x):
                self._fine[row] = True
                return
            self._judge(row, look(x, self._scaling, self._ranges))
        self._fine[row] = not self._mend(row, x, y)

    def _judge(self, row: int, found: Sequence[BandValues]) -> None:
        if self._refuse and (text := non_finite(f"patch {row}", self._bands, found)):
            raise ConfigError("data.uri", f"{text}: {non_finite_remedy(self._ignore)}")
        if text := outside(f"patch {row}", self._bands, found, self._ranges):
            raise ConfigError("data.scale", f"{text}: {outside_remedy(found, self._ranges, self._ignore)}")

    def _mend(self, row: int, x: Raw, y: NDArray[np.uint8]) -> bool:
        """Ignore what is no number; whether there is any."""
        if x.dtype.kind != "f":
            return False
        wrong = ~np.isfinite(x)
        pixels = wrong.any(axis=0)
        n = int(np.count_nonzero(pixels))
        if n == 0:
            return False
        np.copyto(x, self._zero, where=wrong)
        y[pixels] = self._ignore
        if not self.ignored:
            found = [BandValues(pixels.size, int(np.count_nonzero(band)), 0) for band in wrong]
            log.warning("%s; they are ignored (data.nonFinite)", non_finite(f"patch {row}", self._bands, found))
        self.ignored[row] = n
        return True


class _Limits:
    """Between which stored numbers all is well."""

    def __init__(self, dtype: np.dtype[Any], scaling: Scaling | None, ranges: Sequence[Range]) -> None:
        limits = {each: _stored_limits(dtype, scaling, each) for each in set(ranges)}
        self._low, self._high = (
            np.array([limits[each][i] for each in ranges], dtype.newbyteorder("=")) for i in (0, 1)
        )
        # Without a sign bit floats are ordered as their bits are, and integers too; with it all are greater.
        self._bits = np.dtype(f"u{dtype.itemsize}")
        self._highest = self._high.view(self._bits)
        self._from_zero = bool(np.all((self._low <= 0) & (self._high >= 0)))
        whole = np.iinfo(dtype) if dtype.kind != "f" else None
        self._all = whole is not None and bool(np.all((self._low == whole.min) & (self._high == whole.max)))

    def hold(self, x: Raw) -> bool:
        """Whether all of (k, H, W) are within."""
        if self._all:
            return True
        flat = x.reshape(len(x), -1)
        if self._from_zero and np.all(flat.view(self._bits).max(axis=1) <= self._highest):
            return True
        # A NaN is passed on by both, and is neither at least nor at most anything.
        return bool(np.all((flat.min(axis=1) >= self._low) & (flat.max(axis=1) <= self._high)))


def _stored_limits(dtype: np.dtype[Any], scaling: Scaling | None, band: Range) -> tuple[Any, Any]:
    """The least and the greatest stored number that are within; (1, 0) where there is none."""
    low, high = band.allowed
    if dtype.kind == "f":
        return low, high
    whole = np.iinfo(dtype)
    every = np.arange(whole.min, whole.max + 1).astype(dtype)
    values = every if scaling is None else scaling.decode(every)
    within = every[(values >= low) & (values <= high)]
    return (within.min(), within.max()) if within.size else (1, 0)


def non_finite(subject: str, bands: Sequence[str], found: Sequence[BandValues]) -> str:
    """How many values are NaN or infinite, band by band; empty: none.

    Args:
        subject: whose values they are, such as ``patch 3``.
        bands: names of the k bands.
        found: the values of each.
    """
    parts = [
        f"{band.non_finite} of {band.pixels} pixels in band {name}"
        for name, band in zip(bands, found, strict=True)
        if band.non_finite
    ]
    return f"{subject} has NaN or infinite values: {_listed(parts)}" if parts else ""


def non_finite_remedy(ignore: int) -> str:
    """What to do about such values, where `ignore` is the label of pixels that count nowhere."""
    return (
        "correct x, or set data.nonFinite to Ignore, which makes such values 0 and the labels of their pixels"
        f" {ignore} (ignore)"
    )


def outside(subject: str, bands: Sequence[str], found: Sequence[BandValues], ranges: Sequence[Range]) -> str:
    """How many values are out of range, band by band; empty: none.

    Args:
        subject: whose values they are, such as ``patch 3``.
        bands: names of the k bands.
        found: the values of each.
        ranges: of each.
    """
    parts = [
        f"band {name} has {band.least:g} to {band.greatest:g}, {band.outside / band.pixels:.2%} of its pixels outside"
        f" [{each.low:g}, {each.high:g}]"
        for name, band, each in zip(bands, found, ranges, strict=True)
        if band.outside
    ]
    return f"{subject} has values out of range: {_listed(parts)}" if parts else ""


def outside_remedy(found: Sequence[BandValues], ranges: Sequence[Range], ignore: int) -> str:
    """What to do about values that are out of range.

    Args:
        found: the values of the k bands, some of which are outside.
        ranges: of the bands.
        ignore: the label of pixels that count nowhere.
    """
    off = [(band, each) for band, each in zip(found, ranges, strict=True) if band.outside]
    least, greatest = min(band.least for band, _ in off), max(band.greatest for band, _ in off)
    if is_unit(ranges):
        remedy = f"say with data.scale what x ranges over, such as {_suggested(least, greatest)}, or correct x"
    else:
        remedy = "let data.scale hold all values of these bands, or correct x"
    if least < min(each.allowed[0] for _, each in off):
        remedy += f"; where a value stands for no data, write 0 and the label {ignore} (ignore)"
    return remedy


def _suggested(least: float, greatest: float) -> str:
    low = least if -100 < least < 0 else 0  # what is lower stands for something else, as a rule
    high = next((end for end in _USUAL if greatest <= end), greatest) if greatest > 16 else max(greatest, 1)
    return f"{{min: {low:g}, max: {high:g}}}"


def _listed(parts: Sequence[str]) -> str:
    more = [f"{len(parts) - LISTED} bands more"] if len(parts) > LISTED else []
    return ", ".join([*parts[:LISTED], *more])
