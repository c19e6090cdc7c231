"""Plots as PNGs: curves, the confusion matrix, the map of the parts. Drawn with Pillow, as the sample panels are."""

import io
import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from crossfold_trainer.labels import Labels
from crossfold_trainer.metrics import Confusion, Counts, curve_metrics, curve_points

Colour = tuple[int, int, int]
Line = Sequence[tuple[float, float]]

SIDE = 400
"""Pixels of a plot's drawing area."""
MARGIN = 60
LEGEND_LINES = 24
MAX_POINTS = 20_000
"""Patches on a map; every n-th one where there are more."""
CELL = 64
LEAST_CELL = 8
TEXT_CELL = 36
"""From this size on a cell shows its number."""
WHITE, BLACK, GREY = (255, 255, 255), (0, 0, 0), (200, 200, 200)
COLOURS: tuple[Colour, ...] = (
    (31, 95, 180), (220, 110, 20), (40, 150, 70), (200, 45, 45), (130, 90, 180), (120, 80, 70), (215, 110, 180),
    (110, 110, 110), (170, 170, 30), (25, 170, 190),
)  # fmt: skip
PARTS: Mapping[str, Colour] = {
    "unused": (205, 205, 205),
    "train": (90, 130, 190),
    "both": (130, 90, 180),
    "val": (240, 150, 30),
    "test": (30, 150, 80),
}
"""Drawn in this order, what is rarer above."""


def roc(histograms: Sequence[Sequence[Counts]], labels: Labels) -> bytes:
    """Recall over the false-positive rate, a line for each class; the diagonal is chance."""
    lines = {
        f"{name} AUROC {curve_metrics([counts])['AUROC']:.3f}": [(p.fpr, p.recall) for p in curve_points(*counts)]
        for name, counts in _classes(histograms, labels)
    }
    return _plot(lines, "false-positive rate", "recall", diagonal=True)


def precision_recall(histograms: Sequence[Sequence[Counts]], labels: Labels) -> bytes:
    """Precision over recall, a line for each class."""
    lines = {
        f"{name} AP {curve_metrics([counts])['AveragePrecision']:.3f}": [
            (p.recall, p.precision) for p in curve_points(*counts)
        ]
        for name, counts in _classes(histograms, labels)
    }
    return _plot(lines, "recall", "precision", diagonal=False)


def _classes(histograms: Sequence[Sequence[Counts]], labels: Labels) -> list[tuple[str, Sequence[Counts]]]:
    names = ("yes",) if labels.binary else labels.names
    return list(zip(names, histograms, strict=True))


def _plot(lines: Mapping[str, Line], x_label: str, y_label: str, *, diagonal: bool) -> bytes:
    """Lines in the unit square, with a legend below."""
    shown = list(lines)[:LEGEND_LINES]
    sheet = Image.new("RGB", (SIDE + 2 * MARGIN, SIDE + 2 * MARGIN + 14 * len(shown)), WHITE)
    draw = ImageDraw.Draw(sheet)

    def at(x: float, y: float) -> tuple[float, float]:
        return MARGIN + x * SIDE, MARGIN + (1 - y) * SIDE

    for tick in (0, 0.25, 0.5, 0.75, 1):
        draw.line([at(tick, 0), at(tick, 1)], GREY)
        draw.line([at(0, tick), at(1, tick)], GREY)
        draw.text((at(tick, 0)[0] - 8, at(0, 0)[1] + 6), f"{tick:g}", BLACK)
        draw.text((MARGIN - 30, at(0, tick)[1] - 6), f"{tick:g}", BLACK)
    draw.text((MARGIN + SIDE / 2 - 3 * len(x_label), at(0, 0)[1] + 22), x_label, BLACK)
    draw.text((8, MARGIN - 24), y_label, BLACK)
    if diagonal:
        draw.line([at(0, 0), at(1, 1)], GREY, 2)
    for i, (name, points) in enumerate(lines.items()):
        colour = COLOURS[i % len(COLOURS)]
        draw.line([at(x, y) for x, y in points], colour, 2)
        if i < len(shown):
            draw.text((MARGIN, SIDE + 2 * MARGIN - 12 + 14 * i), name, colour)
    return _png(sheet)


def confusion(matrix: Confusion, labels: Labels) -> bytes:
    """Of each label's pixels (a row) the share that got each answer (a column); a row without pixels is blank."""
    counts = np.array(matrix, np.float64)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    n = len(counts)
    cell = max(LEAST_CELL, min(CELL, 600 // n))
    left = MARGIN + 7 * max(map(len, labels.names))
    sheet = Image.new("RGB", (left + n * cell + MARGIN, MARGIN + n * cell + 40), WHITE)
    draw = ImageDraw.Draw(sheet)
    draw.text((8, MARGIN - 40), "label (row), answer (column); share of the label", BLACK)
    for i, j in np.ndindex(n, n):
        share = float(shares[i, j])
        x, y = left + j * cell, MARGIN + i * cell
        shade = round(255 * (1 - share))
        draw.rectangle([x, y, x + cell - 1, y + cell - 1], (shade, shade, 255), GREY)
        if cell >= TEXT_CELL and counts[i].sum():
            draw.text((x + cell / 2 - 13, y + cell / 2 - 6), f"{share:.3f}", BLACK if share < 0.5 else WHITE)
    if cell >= 12:
        for i, name in enumerate(labels.names):
            draw.text((8, MARGIN + i * cell + cell / 2 - 6), name, BLACK)
            shown = name[: cell // 6]
            draw.text((left + i * cell + cell / 2 - 3 * len(shown), MARGIN - 16), shown, BLACK)
    return _png(sheet)


def splits_map(centres: NDArray[np.float64], parts: NDArray[np.str_]) -> bytes | None:
    """The patches where they lie, north up, coloured by part; None where no place is known.

    Args:
        centres: (N, 2), longitude and latitude in degrees; NaN where unknown.
        parts: (N,), as `Splits.parts` names them.
    """
    known = np.flatnonzero(np.isfinite(centres).all(1))
    known = known[:: max(1, math.ceil(len(known) / MAX_POINTS))]
    if not len(known):
        return None
    degrees = centres[known]
    narrowing = max(math.cos(math.radians(float(degrees[:, 1].mean()))), 0.05)  # of a degree of longitude
    places = degrees * (narrowing, 1.0)
    low = places.min(0)
    extent = places.max(0) - low
    scale = SIDE / max(float(extent.max()), 1e-9)
    width, height = np.maximum(extent * scale, 1).round().astype(int).tolist()
    sheet = Image.new("RGB", (max(width + 2 * MARGIN, 300), height + 2 * MARGIN + 20), WHITE)
    draw = ImageDraw.Draw(sheet)
    x, y = MARGIN + (places[:, 0] - low[0]) * scale, MARGIN + height - (places[:, 1] - low[1]) * scale
    right = MARGIN
    for part, colour in PARTS.items():
        of_part = parts[known] == part
        for left, top in zip(x[of_part].tolist(), y[of_part].tolist(), strict=True):
            draw.rectangle([left - 2, top - 2, left + 2, top + 2], colour)
        if n := int((parts == part).sum()):
            text = f"{part} {n}"
            draw.text((right, 16), text, colour)
            right += 8 * len(text) + 12
    (west, south), (east, north) = degrees.min(0), degrees.max(0)
    draw.text((MARGIN, height + MARGIN + 30), f"{west:.3f} to {east:.3f} E, {south:.3f} to {north:.3f} N", BLACK)
    return _png(sheet)


def _png(sheet: Image.Image) -> bytes:
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue()
