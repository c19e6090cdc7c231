"""What a data set holds: its patches, bands, classes, regions and folds, as numbers. Pure."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crossfold_trainer.contract.crossvalidation import FoldMethod
from crossfold_trainer.errors import ConfigError
from crossfold_trainer.labels import Labels
from crossfold_trainer.splits import Metadata, cut_folds
from crossfold_trainer.values import BandValues


@dataclass(frozen=True)
class Region:
    """Patches of one region."""

    name: str
    """Empty: the patches without one."""
    patches: int
    positive: int
    """Patches with a positive pixel, by `empty` of metadata.parquet."""


@dataclass(frozen=True)
class Class:
    """Pixels of one class, in the patches that were read."""

    name: str
    label: int
    pixels: int


@dataclass(frozen=True)
class Band:
    """Values of one band in the patches that were read, in the data set's own unit."""

    name: str
    least: float | None
    """Of the finite values; None: there are none."""
    greatest: float | None
    non_finite: int
    """Pixels that are NaN or infinite."""
    outside: int
    """Pixels that are out of the range that `data.scale` says."""
    pixels: int


@dataclass(frozen=True)
class Part:
    """Patches of one part of a fold."""

    patches: int
    positive: int


@dataclass(frozen=True)
class Fold:
    """Sizes of one fold."""

    train: Part
    val: Part


@dataclass(frozen=True)
class Folds:
    """How one method cuts the data set."""

    method: FoldMethod
    folds: tuple[Fold, ...] = ()
    refused: str = ""
    """Why it cannot be cut so; empty: it can."""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Summary:
    """What a data set holds."""

    patches: int
    height: int
    width: int
    positive: int
    """Patches with a positive pixel, by `empty` of metadata.parquet."""
    ordered_by: str
    """What says which patch a row of metadata.parquet describes: index or z_idx; empty: its position."""
    bytes: int
    """Of all objects of the arrays, as they are stored."""
    digest: str
    bands: tuple[Band, ...]
    """Those that were checked; without numbers where no pixel was read."""
    classes: tuple[Class, ...]
    """Ignored pixels last; empty where no pixel was read."""
    regions: tuple[Region, ...]
    folds: tuple[Folds, ...]


def band_of(name: str, values: BandValues) -> Band:
    """What the values of a band are."""
    finite = values.pixels > values.non_finite
    least, greatest = (values.least, values.greatest) if finite else (None, None)
    return Band(name, least, greatest, values.non_finite, values.outside, values.pixels)


def classes_of(labels: Labels, counts: NDArray[np.int64]) -> tuple[Class, ...]:
    """Pixels of each class, and of those that are ignored, from counts of all 256 values of y."""
    known = [*enumerate(labels.names), (labels.ignore, "ignored")]
    return tuple(Class(name, label, int(counts[label])) for label, name in known)


def regions_of(metadata: Metadata) -> tuple[Region, ...]:
    """Patches of each region, by name; empty where there are no regions."""
    if metadata.region is None:
        return ()
    names, of = np.unique(metadata.region, return_inverse=True)
    patches = np.bincount(of, minlength=len(names))
    positive = np.bincount(of[~metadata.empty], minlength=len(names))
    return tuple(map(Region, names.tolist(), patches.tolist(), positive.tolist()))


def folds_of(metadata: Metadata, n: int, seed: int) -> tuple[Folds, ...]:
    """How each method cuts all patches into n folds with a seed, or why it cannot."""
    found = []
    rows = np.arange(len(metadata.empty))

    def part(patches: NDArray[np.int64]) -> Part:
        return Part(len(patches), int((~metadata.empty[patches]).sum()))

    for method in FoldMethod:
        if method is FoldMethod.NONE:
            continue
        try:
            folds, warnings = cut_folds(metadata, rows, method, n, seed)
        except ConfigError as wrong:
            found.append(Folds(method, refused=wrong.problem))
            continue
        sizes = tuple(Fold(part(train), part(val)) for train, val in folds)
        found.append(Folds(method, sizes, warnings=tuple(warnings)))
    return tuple(found)
