"""Is a data set right? All that is wrong with it at once, its pixels included, and what it holds. No torch in here.

Shapes: N patches, k bands, H x W pixels.
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from crossfold_trainer.contract.data import DataSpec, NonFinite
from crossfold_trainer.data import read_ranges, reader_of, stored_as
from crossfold_trainer.documents import ARRAYS, METADATA
from crossfold_trainer.errors import ConfigError
from crossfold_trainer.facts import check_bands, check_empty, check_labels
from crossfold_trainer.findings import Finding, count, error, errors, some, warning
from crossfold_trainer.labels import BINARY, Labels
from crossfold_trainer.layout import Raw, Scaling
from crossfold_trainer.reader import Reader
from crossfold_trainer.splits import Metadata
from crossfold_trainer.store import Store, open_store
from crossfold_trainer.summary import Summary, band_of, classes_of, folds_of, regions_of
from crossfold_trainer.survey import Survey, survey
from crossfold_trainer.values import (
    BandValues,
    Range,
    look,
    non_finite,
    non_finite_remedy,
    outside,
    outside_remedy,
)

X = f"{ARRAYS}/x"
BLOCK_BYTES = 32 * 2**20
"""So much is read into one buffer."""
BLOCKS = 3
"""Buffers that are being filled at the same time."""
LITTLE = 0.01
"""Values that reach less of their range than this were meant otherwise, as a rule."""
UNREADABLE = 20
"""After so many patches that cannot be read no further ones are tried."""
Progress = Callable[[int, int], None]
"""Called with the patches that were read and all patches."""


@dataclass(frozen=True)
class Checked:
    """What came of a check."""

    findings: tuple[Finding, ...]
    summary: Summary | None
    """None: the parts do not fit each other well enough to be counted."""
    pixels_read: int
    """Patches whose pixels were looked at."""

    @property
    def good(self) -> bool:
        """Whether a run may train on it."""
        return not errors(self.findings)


def check_dataset(
    spec: DataSpec,
    bands: Sequence[str] | None = None,
    *,
    folds: int = 5,
    seed: int = 42,
    pixels: bool = True,
    progress: Progress | None = None,
) -> Checked:
    """Check a data set, and count what it holds.

    Args:
        spec: where it is, and what its values mean.
        bands: names of the bands to check; None: all.
        folds: into how many folds each method cuts it.
        seed: of the methods that shuffle.
        pixels: read all patches; otherwise documents and listing alone are checked.
        progress: is told how many patches were read.

    Raises:
        ConfigError: there is nothing to check: it may not be read, or the place does not exist.
        StoreError: the storage does not answer as it should.
    """
    store = open_store(spec, "data")
    seen = survey(store)
    found = list(seen.findings)
    known = _band_names(seen)
    found += check_bands(known, bands or ())
    chosen = tuple(band for band in (known if bands is None else bands) if band in known)
    ranges, wrong = read_ranges(spec, seen, known, chosen)
    found += wrong
    labels = seen.config.labels or BINARY
    tally = _Tally(seen.x.shape[0] if seen.x and seen.x.shape else 0, len(chosen), stored_as(seen)[1], ranges, labels)
    if pixels and chosen and _readable(seen):
        found += _read(store, seen, [known.index(band) for band in chosen], tally, progress)
        found += _label_findings(seen, tally, labels)
        found += _value_findings(spec, tally, chosen, ranges, labels)
    metadata = seen.table.metadata if seen.table else None
    if metadata is not None and metadata.empty.all() and len(metadata.empty):
        text = f"none of the {len(metadata.empty)} patches has a positive pixel (empty is true in all rows)"
        found.append(error(METADATA, text, "add patches with labels, or correct empty"))
    summary = None
    if metadata is not None and _readable(seen) and len({len(metadata.empty), *_lengths(seen)}) == 1:
        summary = _summary(seen, metadata, tally, chosen, (folds, seed))
    return Checked(tuple(found), summary, int(tally.looked.sum()))


def _band_names(seen: Survey) -> tuple[str, ...]:
    """Names of the bands of x, numbers where config.toml does not name as many."""
    named = seen.config.bands
    if not (seen.x and seen.x.sound):
        return named or ()
    return named if named and len(named) == seen.x.shape[1] else tuple(map(str, range(seen.x.shape[1])))


def _lengths(seen: Survey) -> list[int]:
    return [array.shape[0] for array in (seen.x, seen.y) if array]


def _readable(seen: Survey) -> bool:
    """Whether patches of x and of y can be read together."""
    x, y = seen.x, seen.y
    return bool(x and y and x.sound and y.sound and x.shape[0] == y.shape[0] and x.shape[2:] == y.shape[1:])


class _Tally:
    """What was seen of pixels: a `PatchCheck` that refuses nothing. Called in the threads that decode."""

    def __init__(self, n: int, k: int, scaling: Scaling | None, ranges: Sequence[Range], labels: Labels) -> None:
        self._scaling, self._ranges = scaling, ranges
        self._positive = labels.positive(np.arange(256, dtype=np.uint8))
        self._lock = threading.Lock()
        self.bands = (BandValues(0, 0, 0),) * k
        self.labels = np.zeros(256, np.int64)
        """Pixels by their label."""
        self.looked, self.positive = np.zeros(n, np.bool_), np.zeros(n, np.bool_)
        self.non_finite, self.outside = np.zeros(n, np.bool_), np.zeros(n, np.bool_)
        """Patches with such values."""
        self.labelled: dict[int, list[int]] = {}
        """Patches by each label that occurs and is none."""
        self._known = labels.known()

    def __call__(self, row: int, x: Raw, y: NDArray[np.uint8]) -> None:
        values = look(x, self._scaling, self._ranges)
        counts = np.bincount(y.reshape(-1), minlength=256)
        with self._lock:
            if self.looked[row]:
                return
            self.looked[row] = True
            self.positive[row] = counts[self._positive].any()
            self.non_finite[row] = any(band.non_finite for band in values)
            self.outside[row] = any(band.outside for band in values)
            self.labels += counts
            self.bands = tuple(map(BandValues.merged, self.bands, values))
            for label in np.flatnonzero((counts > 0) & ~self._known).tolist():
                self.labelled.setdefault(label, []).append(row)


def _read(
    store: Store, seen: Survey, columns: Sequence[int], tally: _Tally, progress: Progress | None
) -> list[Finding]:
    """Read all patches, some blocks at the same time. Those of a block that cannot be read are tried one by one."""
    if seen.x is None:
        return []
    n, _, height, width = seen.x.shape
    try:
        reader = reader_of(store, seen, columns, tally)
    except ConfigError as wrong:
        return [error(X, wrong.problem)]
    step = max(1, BLOCK_BYTES // (height * width * (reader.dtype.itemsize * len(columns) + 1)))
    rows = [np.arange(first, min(n, first + step)) for first in range(0, n, step)]
    waiting: deque[tuple[NDArray[np.int64], Future[None]]] = deque()
    unreadable: dict[int, str] = {}
    done = 0
    while rows or waiting:
        while rows and len(waiting) < BLOCKS:
            block = rows.pop(0)
            waiting.append((block, _submit(reader, block, len(columns), (height, width))))
        block, future = waiting.popleft()
        try:
            future.result()
        except ConfigError as wrong:
            if wrong.field != "data.uri":
                raise
            for row in block.tolist():
                if len(unreadable) < UNREADABLE and (why := _why(reader, row, len(columns), (height, width))):
                    unreadable[row] = why
        done += len(block)
        if progress is not None:
            progress(done, n)
    if not unreadable:
        return []
    first = next(iter(unreadable.values()))
    told = ("at least " if len(unreadable) >= UNREADABLE else "") + count(len(unreadable), "patch", "patches")
    text = f"{told} cannot be read ({some(sorted(unreadable))}), the first because {first}"
    return [error(ARRAYS, text)]


def _submit(reader: Reader, rows: NDArray[np.int64], k: int, pixels: tuple[int, int]) -> "Future[None]":
    return reader.submit(
        rows, np.empty((len(rows), k, *pixels), reader.dtype), np.empty((len(rows), *pixels), np.uint8)
    )


def _why(reader: Reader, row: int, k: int, pixels: tuple[int, int]) -> str:
    """Why a patch cannot be read; empty: it can."""
    try:
        _submit(reader, np.array([row]), k, pixels).result()
    except ConfigError as wrong:
        return wrong.problem
    return ""


def _label_findings(seen: Survey, tally: _Tally, labels: Labels) -> list[Finding]:
    """What is wrong with the labels that were read. What is no chunk of y was told from the listing."""
    if seen.config.labels is None:
        return []
    found = check_labels(labels, {label: sorted(rows) for label, rows in tally.labelled.items()})
    metadata = seen.table.metadata if seen.table else None
    if metadata is not None and len(metadata.empty) == len(tally.looked):
        looked = tally.looked.copy()
        if "y" in seen.presence:
            looked[seen.presence["y"].absent()] = False
        rows = np.flatnonzero(looked)
        found += check_empty(labels, metadata.empty, rows, tally.positive[rows])
    return found


def _value_findings(
    spec: DataSpec, tally: _Tally, bands: Sequence[str], ranges: Sequence[Range], labels: Labels
) -> list[Finding]:
    """What is wrong with the values that were read."""
    found = []
    patches = f"of {len(tally.looked)} patches"
    if text := non_finite("x", bands, tally.bands):
        wrong = np.flatnonzero(tally.non_finite).tolist()
        text += f"; in {len(wrong)} {patches} ({some(wrong)})"
        if spec.non_finite is NonFinite.ERROR:
            found.append(error(X, text, non_finite_remedy(labels.ignore)))
        else:
            found.append(warning(X, f"{text}; data.nonFinite ignores these pixels", "see whether that is too many"))
    if text := outside("x", bands, tally.bands, ranges):
        wrong = np.flatnonzero(tally.outside).tolist()
        text += f"; in {len(wrong)} {patches} ({some(wrong)})"
        found.append(error(X, text, outside_remedy(tally.bands, ranges, labels.ignore), "data.scale"))
    elif (share := _filled(tally.bands, ranges)) is not None and share < LITTLE:
        text = f"the values reach no further than {share:.2%} of the range that they are scaled by"
        found.append(warning(X, text, "see whether data.scale is right, and whether x is scaled already"))
    return found


def _filled(bands: Sequence[BandValues], ranges: Sequence[Range]) -> float | None:
    """How much of its range the band with the greatest values reaches, in [0, 1]; None without any value."""
    pairs = zip(bands, ranges, strict=True)
    shares = [(band.greatest - low) / (high - low) for band, (low, high) in pairs if band.greatest > band.least]
    return max(shares, default=None)


def _summary(
    seen: Survey, metadata: Metadata, tally: _Tally, bands: Sequence[str], cut: tuple[int, int]
) -> Summary | None:
    if seen.x is None or seen.table is None:
        return None
    labels = seen.config.labels or BINARY
    return Summary(
        patches=len(metadata.empty),
        height=seen.x.shape[2],
        width=seen.x.shape[3],
        positive=int((~metadata.empty).sum()),
        ordered_by=seen.table.ordered_by,
        bytes=sum(entry.size for entry in seen.entries),
        digest=seen.digest,
        bands=tuple(map(band_of, bands, tally.bands)),
        classes=classes_of(labels, tally.labels) if tally.looked.any() else (),
        regions=regions_of(metadata),
        folds=folds_of(metadata, *cut),
    )
