"""Sample panels: what the model makes of a few validation patches, the same ones every time, as one PNG.

Drawn with Pillow: a grid of small pictures needs no plotting library, whose import would slow every run.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from crossfold_trainer.data import IGNORE, Index
from crossfold_trainer.metrics import THRESHOLD

MAX_POSITIVE = 20
MAX_NEGATIVE = 10
SIDE = 128
"""Pixels of a panel's longer side, at most."""
GAP = 4
HEADER = 14
COLUMNS = ("image", "label", "probability", "errors")

_WHITE = (255, 255, 255)
_LABEL = {0: (40, 40, 40), 1: (240, 200, 60), IGNORE: (110, 120, 150)}
_HIT, _FALSE, _MISSED, _QUIET = (60, 170, 90), (220, 60, 50), (60, 110, 220), (40, 40, 40)

Rgb = NDArray[np.uint8]


@dataclass(frozen=True)
class Sample:
    """One validation patch with its answer: image (C, H, W), label (H, W), probability (H, W)."""

    row: int
    image: NDArray[np.float32]
    label: NDArray[np.uint8]
    probability: NDArray[np.float32]


def choose_rows(rows: Index, empty: NDArray[np.bool_]) -> list[int]:
    """Up to 20 positive and 10 negative rows, evenly spaced over the validation part."""
    chosen: list[int] = []
    for part, limit in ((rows[~empty[rows]], MAX_POSITIVE), (rows[empty[rows]], MAX_NEGATIVE)):
        if len(part):
            at = np.unique(np.linspace(0, len(part) - 1, min(limit, len(part))).round().astype(int))
            chosen += [int(part[i]) for i in at]
    return chosen


def sample_panels(samples: Sequence[Sample], bands: Sequence[str]) -> bytes:
    """A PNG with one line a sample: image, label, probability, errors (green hit, red false alarm, blue missed)."""
    lines = [_line(sample, bands) for sample in samples]
    height = max((line[0].shape[0] for line in lines), default=SIDE)
    width = max((line[0].shape[1] for line in lines), default=SIDE)
    sheet = Image.new(
        "RGB",
        (GAP + len(COLUMNS) * (width + GAP), HEADER + len(lines) * (height + HEADER + GAP)),
        _WHITE,
    )
    draw = ImageDraw.Draw(sheet)
    for j, name in enumerate(COLUMNS):
        draw.text((GAP + j * (width + GAP), 1), name, fill=(0, 0, 0))
    for i, (sample, line) in enumerate(zip(samples, lines, strict=True)):
        top = HEADER + i * (height + HEADER + GAP)
        draw.text((GAP, top), f"patch {sample.row}", fill=(90, 90, 90))
        for j, panel in enumerate(line):
            sheet.paste(Image.fromarray(panel), (GAP + j * (width + GAP), top + HEADER))
    png = io.BytesIO()
    sheet.save(png, "PNG")
    return png.getvalue()


def _line(sample: Sample, bands: Sequence[str]) -> list[Rgb]:
    step = max(1, -(-max(sample.label.shape) // SIDE))
    label = sample.label[::step, ::step]
    probability = sample.probability[::step, ::step]
    grey = np.repeat((np.clip(probability, 0, 1) * 255).astype(np.uint8)[..., None], 3, axis=-1)
    return [_image(sample.image[:, ::step, ::step], bands), _paint(label), grey, _errors(label, probability)]


def _image(image: NDArray[np.float32], bands: Sequence[str]) -> Rgb:
    """(C, H, W) -> (H, W, 3): red, green and blue where there are such bands, else the first three; stretched."""
    names = [band.lower() for band in bands]
    wanted = [names.index(c) if c in names else min(i, len(names) - 1) for i, c in enumerate(("red", "green", "blue"))]
    low, high = np.percentile(image[wanted], (2, 98))
    stretched = (np.moveaxis(image[wanted], 0, -1) - low) / max(float(high - low), 1e-6)
    panel: Rgb = (np.clip(stretched, 0, 1) * 255).astype(np.uint8)
    return panel


def _paint(label: NDArray[np.uint8]) -> Rgb:
    panel = np.zeros((*label.shape, 3), np.uint8)
    for value, colour in _LABEL.items():
        panel[label == value] = colour
    return panel


def _errors(label: NDArray[np.uint8], probability: NDArray[np.float32]) -> Rgb:
    predicted = probability > THRESHOLD
    panel = np.full((*label.shape, 3), _QUIET, np.uint8)
    panel[predicted & (label == 1)] = _HIT
    panel[predicted & (label == 0)] = _FALSE
    panel[~predicted & (label == 1)] = _MISSED
    panel[label == IGNORE] = _LABEL[IGNORE]
    return panel
