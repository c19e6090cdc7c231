"""Figures, read back pixel by pixel: curves, the confusion matrix, the map of the parts, panels."""

import io
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from crossfold_trainer import figures, plots
from crossfold_trainer.contract.data import DataSpec
from crossfold_trainer.data import open_dataset
from crossfold_trainer.drawing import PartFigures
from crossfold_trainer.labels import BINARY, Labels
from crossfold_trainer.metrics import BINS
from crossfold_trainer.outlines import centres
from tests.trainer_data import write_dataset

CLASSES = Labels(("ground", "water", "ice"), ignore=255, binary=False)


def pixels(png: bytes | None) -> np.ndarray:
    assert png is not None
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def near(image: np.ndarray, x: float, y: float, colour: tuple[int, ...], reach: int = 3) -> bool:
    """Whether a colour comes up close to a place in the unit square of a plot (y upwards)."""
    column, row = round(plots.MARGIN + x * plots.SIDE), round(plots.MARGIN + (1 - y) * plots.SIDE)
    part = image[row - reach : row + reach + 1, column - reach : column + reach + 1]
    return bool((part == colour).all(-1).any())


def histogram(at: int, n: int) -> list[int]:
    counts = [0] * BINS
    counts[at] = n
    return counts


PERFECT = [histogram(1, 50), histogram(20, 30)]
BLIND = [[5] * BINS, [5] * BINS]


def test_a_perfect_model_goes_through_the_corner_and_a_blind_one_along_the_diagonal() -> None:
    blue = plots.COLOURS[0]
    image = pixels(plots.roc([PERFECT], BINARY))
    assert near(image, 0, 0.5, blue)
    assert near(image, 0.5, 1, blue)
    assert not near(image, 0.5, 0.5, blue)
    image = pixels(plots.roc([BLIND], BINARY))
    assert near(image, 0.5, 0.5, blue)
    assert not near(image, 0.5, 1, blue)
    image = pixels(plots.precision_recall([PERFECT], BINARY))
    assert near(image, 0.5, 1, blue)
    image = pixels(plots.precision_recall([BLIND], BINARY))
    assert near(image, 0.9, 0.5, blue)


def test_every_class_has_a_line() -> None:
    image = pixels(plots.roc([PERFECT, BLIND, BLIND], CLASSES))
    assert near(image, 0, 0.5, plots.COLOURS[0])
    assert near(image, 0.5, 0.5, plots.COLOURS[2])


def test_rows_of_the_confusion_matrix_are_shares_of_a_label() -> None:
    image = pixels(plots.confusion([[30, 10, 0], [0, 7, 0], [0, 0, 0]], CLASSES))
    left = plots.MARGIN + 7 * len("ground")

    def cell(row: int, column: int) -> list[int]:
        return image[plots.MARGIN + row * plots.CELL + 5, left + column * plots.CELL + 5].tolist()

    assert cell(0, 0) == [64, 64, 255]
    assert cell(0, 1) == [191, 191, 255]
    assert cell(1, 1) == [0, 0, 255]
    assert {tuple(cell(2, j)) for j in range(3)} == {(255, 255, 255)}


def test_many_classes_fit() -> None:
    labels = Labels(tuple(f"class {i}" for i in range(255)), ignore=255, binary=False)
    image = pixels(plots.confusion(np.eye(255, dtype=int).tolist(), labels))
    assert image.shape[0] > 255 * plots.LEAST_CELL
    assert pixels(plots.roc([PERFECT] * 255, labels)).shape[0] < 1000


def test_the_map_has_north_up_and_a_colour_for_each_part() -> None:
    places = np.array([[10.0, 50.0], [10.0, 51.0], [11.0, 50.0], [11.0, 51.0], [np.nan, np.nan]])
    image = pixels(plots.splits_map(places, np.array(["train", "val", "test", "unused", "train"])))
    found = {part: np.argwhere((image[40:] == colour).all(-1)) for part, colour in plots.PARTS.items()}
    middle = {part: at.mean(0) for part, at in found.items() if len(at)}
    assert set(middle) >= {"train", "val", "test", "unused"}
    assert middle["val"][0] < middle["train"][0]
    assert middle["test"][1] > middle["train"][1]
    wide, high = middle["test"][1] - middle["train"][1], middle["train"][0] - middle["val"][0]
    assert wide / high == pytest.approx(np.cos(np.radians(50.5)), rel=0.05)


def test_a_map_of_one_place_and_of_none() -> None:
    one = np.array([[10.0, 50.0]])
    assert pixels(plots.splits_map(one, np.array(["train"]))).any()
    assert plots.splits_map(one * np.nan, np.array(["train"])) is None


def polygon(order: str, *corners: tuple[float, ...], kind: int = 3, extra: bytes = b"") -> bytes:
    flat = [v for corner in corners for v in corner]
    head = struct.pack(f"{order}BI", order == "<", kind) + extra
    return head + struct.pack(f"{order}II{len(flat)}d", 1, len(corners), *flat)


def test_middles_of_outlines() -> None:
    square = ((1.0, 10.0), (3.0, 10.0), (3.0, 20.0), (1.0, 20.0), (1.0, 10.0))
    high = tuple((*corner, 7.0) for corner in square)
    several = struct.pack("<BII", 1, 6, 2) + polygon("<", *square) + polygon("<", (8.0, 8.0))
    outlines = [
        polygon("<", *square),
        polygon(">", *square),
        polygon("<", *high, kind=1003),
        polygon("<", *high, kind=3 | 0x80000000),
        polygon("<", *square, kind=3 | 0x20000000, extra=struct.pack("<I", 4326)),
        several,
        struct.pack("<BI2d", 1, 1, 2.0, 15.0),
    ]
    assert centres(outlines).tolist() == [[2.0, 15.0]] * len(outlines)
    unreadable = [None, b"", b"\x01\x03", struct.pack("<BII", 1, 2, 0), polygon("<", *square)[:-4]]
    assert np.isnan(centres(unreadable)).all()


def sample(row: int, side: int = 16) -> figures.Sample:
    label = np.zeros((side, side), np.uint8)
    label[:, 8:] = 1
    label[0] = 2
    answer = np.zeros((side, side), np.int64)
    answer[8:] = 1
    return figures.Sample(
        row, np.random.default_rng(row).random((3, side, side), np.float32), label, answer, answer.astype(np.float32)
    )


def test_panels_show_hits_misses_and_false_alarms() -> None:
    image = pixels(figures.sample_panels([sample(3)], ["red", "green", "nir"], BINARY))
    left = figures.GAP + 4 * (16 + figures.GAP)
    top = 2 * figures.HEADER
    errors = image[top : top + 16, left : left + 16]
    assert errors[12, 12].tolist() == [60, 170, 90]  # yes, and found
    assert errors[4, 12].tolist() == [60, 110, 220]  # missed
    assert errors[12, 4].tolist() == [220, 60, 50]  # false alarm
    assert errors[4, 4].tolist() == [40, 40, 40]
    assert errors[0, 4].tolist() == [110, 120, 150]  # ignored
    assert figures.paint(np.array([[0, 1, 2, 255]]), CLASSES)[0].tolist()[1:3] == [[240, 200, 60], [80, 160, 230]]


def test_the_same_patches_are_shown_every_time_and_not_more_than_30() -> None:
    empty = np.arange(200) % 2 == 0
    chosen = figures.choose_rows(np.arange(100, 200), empty)
    assert chosen == figures.choose_rows(np.arange(100, 200), empty)
    assert (sum(not empty[i] for i in chosen), sum(bool(empty[i]) for i in chosen)) == (20, 10)
    assert min(chosen) >= 100
    assert figures.choose_rows(np.array([1, 2, 3]), empty) == [1, 3, 2]


def test_a_batch_is_shown_before_and_after_augmentation() -> None:
    x = np.random.default_rng(0).random((9, 1, 16, 16), np.float32)
    y = np.zeros((9, 16, 16), np.uint8)
    y[:, :, :8] = 1
    flipped = x[..., ::-1], y[..., ::-1]
    image = pixels(figures.augmented_panels((x, y), flipped, np.arange(9), ["nir"], BINARY))
    top, step = 2 * figures.HEADER, 16 + figures.GAP
    columns = [image[top : top + 16, figures.GAP + j * step :][:, :16] for j in range(4)]
    assert np.array_equal(columns[0][:, ::-1], columns[2])
    assert np.array_equal(columns[1][:, ::-1], columns[3])
    assert columns[1][4, 4].tolist() == [240, 200, 60]
    assert image.shape[0] == figures.HEADER + figures.MAX_AUGMENTED * (16 + figures.HEADER + figures.GAP)


def test_samples_are_drawn_in_the_order_of_their_choice(tmp_path: Path) -> None:
    data = open_dataset(DataSpec(uri=str(write_dataset(tmp_path / "d", n=8))), None)
    drawings = PartFigures(np.arange(4, 8), data)  # 4 is empty, and comes last
    rows = np.arange(3, 8)
    patches = data.read(rows)
    x, y = torch.from_numpy(patches.x), torch.from_numpy(patches.y)
    samples = drawings.samples(rows, x, y, x.mean(1))
    assert [one.row for one in samples] == [4, 5, 6, 7]
    assert np.array_equal(samples[1].answer, x[2].mean(0).numpy() > 0.5)
    item = drawings.panels("best", samples)
    assert item.path == "figures/samples-best.png"
    ordered = [*samples[1:], samples[0]]
    assert item.content == figures.sample_panels(ordered, data.bands, data.labels)
    assert item == drawings.panels("best", samples[::-1])
