"""Sample panels: what the model makes of a few validation patches, the same ones every time, as one PNG.

Drawn with Pillow: a grid of small pictures needs no plotting library, whose import would slow every run.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from crossfold_trainer.labels import Labels
from crossfold_trainer.splits import Index

MAX_POSITIVE = 20
MAX_NEGATIVE = 10
SIDE = 128
"""Pixels of a panel's longer side, at most."""
GAP = 4
HEADER = 14
COLUMNS = ("image", "label", "answer", "probability", "errors")

_WHITE = (255, 255, 255)
_IGNORED, _FIRST = (110, 120, 150), (40, 40, 40)
_CLASSES = (
    (240, 200, 60), (80, 160, 230), (110, 190, 90), (220, 90, 160), (240, 140, 60), (150, 110, 220), (90, 200, 190),
    (190, 190, 120), (200, 110, 90),
)  # fmt: skip
"""Colours of class 1 and above, again from the first one where there are more."""
_HIT, _FALSE, _MISSED = (60, 170, 90), (220, 60, 50), (60, 110, 220)

Rgb = NDArray[np.uint8]
Batch = tuple[NDArray[np.float32], NDArray[np.uint8]]
Pixel = TypeVar("Pixel", bound=np.generic)


@dataclass(frozen=True)
class Sample:
    """One patch with its answer: image (C, H, W), the rest (H, W)."""

    row: int
    image: NDArray[np.float32]
    label: NDArray[np.uint8]
    answer: NDArray[np.int64]
    """The class that each pixel is given."""
    probability: NDArray[np.float32]
    """Of yes, or of the class that each pixel is given."""


def choose_rows(rows: Index, empty: NDArray[np.bool_]) -> list[int]:
    """Up to 20 positive and 10 negative rows, evenly spaced over the validation part."""
    chosen: list[int] = []
    for part, limit in ((rows[~empty[rows]], MAX_POSITIVE), (rows[empty[rows]], MAX_NEGATIVE)):
        if len(part):
            at = np.unique(np.linspace(0, len(part) - 1, min(limit, len(part))).round().astype(int))
            chosen += [int(part[i]) for i in at]
    return chosen


MAX_AUGMENTED = 8
"""Patches of a batch that are shown before and after augmentation."""


def augmented_panels(before: Batch, after: Batch, rows: Index, bands: Sequence[str], labels: Labels) -> bytes:
    """A PNG with one line a patch of a batch: image and label as they are, and as training sees them.

    Shapes of a batch: images (B, C, H, W), labels (B, H, W).
    """
    lines = [
        [panel for x, y in (before, after) for panel in (_image(_thin(x[i]), bands), paint(_thin(y[i]), labels))]
        for i in range(min(len(rows), MAX_AUGMENTED))
    ]
    titles = [f"patch {row}" for row in rows[:MAX_AUGMENTED]]
    return _sheet(("image", "label", "augmented", "its label"), titles, lines)


def sample_panels(samples: Sequence[Sample], bands: Sequence[str], labels: Labels) -> bytes:
    """A PNG with one line a sample: image, label, answer, probability, errors.

    Errors are green for a hit, blue for class 0 where it is another one (missed), and red for any other mistake.
    """
    lines = [_line(sample, bands, labels) for sample in samples]
    return _sheet(COLUMNS, [f"patch {sample.row}" for sample in samples], lines)


def _sheet(columns: Sequence[str], titles: Sequence[str], lines: Sequence[Sequence[Rgb]]) -> bytes:
    height = max((line[0].shape[0] for line in lines), default=SIDE)
    width = max((line[0].shape[1] for line in lines), default=SIDE)
    sheet = Image.new(
        "RGB",
        (GAP + len(columns) * (width + GAP), HEADER + len(lines) * (height + HEADER + GAP)),
        _WHITE,
    )
    draw = ImageDraw.Draw(sheet)
    for j, name in enumerate(columns):
        draw.text((GAP + j * (width + GAP), 1), name, fill=(0, 0, 0))
    for i, (title, line) in enumerate(zip(titles, lines, strict=True)):
        top = HEADER + i * (height + HEADER + GAP)
        draw.text((GAP, top), title, fill=(90, 90, 90))
        for j, panel in enumerate(line):
            sheet.paste(Image.fromarray(panel), (GAP + j * (width + GAP), top + HEADER))
    png = io.BytesIO()
    sheet.save(png, "PNG")
    return png.getvalue()


def _line(sample: Sample, bands: Sequence[str], labels: Labels) -> list[Rgb]:
    label, answer, probability = _thin(sample.label), _thin(sample.answer), _thin(sample.probability)
    grey = np.repeat((np.clip(probability, 0, 1) * 255).astype(np.uint8)[..., None], 3, axis=-1)
    image = _image(_thin(sample.image), bands)
    return [image, paint(label, labels), paint(answer, labels), grey, _errors(label, answer, labels)]


def _thin(pixels: NDArray[Pixel]) -> NDArray[Pixel]:
    """(..., H, W): every n-th pixel, so that no side is longer than `SIDE`."""
    step = max(1, -(-max(pixels.shape[-2:]) // SIDE))
    return pixels[..., ::step, ::step]


def _image(image: NDArray[np.float32], bands: Sequence[str]) -> Rgb:
    """(C, H, W) -> (H, W, 3): red, green and blue where there are such bands, else the first three; stretched."""
    names = [band.lower() for band in bands]
    wanted = [names.index(c) if c in names else min(i, len(names) - 1) for i, c in enumerate(("red", "green", "blue"))]
    low, high = np.percentile(image[wanted], (2, 98))
    stretched = (np.moveaxis(image[wanted], 0, -1) - low) / max(float(high - low), 1e-6)
    panel: Rgb = (np.clip(stretched, 0, 1) * 255).astype(np.uint8)
    return panel


def paint(label: NDArray[np.integer], labels: Labels) -> Rgb:
    """(H, W) -> (H, W, 3): a colour for each class; ignored pixels are grey-blue."""
    palette = np.empty((256, 3), np.uint8)
    palette[:] = np.resize(np.array(_CLASSES, np.uint8), (256, 3))
    palette[1:] = palette[:-1].copy()
    palette[0], palette[labels.ignore] = _FIRST, _IGNORED
    panel: Rgb = palette[label]
    return panel


def _errors(label: NDArray[np.uint8], answer: NDArray[np.int64], labels: Labels) -> Rgb:
    panel = np.full((*label.shape, 3), _FIRST, np.uint8)
    panel[(answer == label) & (label > 0)] = _HIT
    panel[answer != label] = _FALSE
    panel[(answer != label) & (answer == 0)] = _MISSED
    panel[label == labels.ignore] = _IGNORED
    return panel
