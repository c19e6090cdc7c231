"""What the values of y mean: binary labels (0 no, 1 yes, 2 ignore), or one of several classes (255 ignore)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MAX_CLASSES = 255


@dataclass(frozen=True)
class Labels:
    """The classes of a data set. Class i is labelled i."""

    names: tuple[str, ...]
    """Names of the classes, as documents and figures show them."""
    ignore: int
    """The label of pixels that count nowhere."""
    binary: bool
    """Whether one logit says it all (a sigmoid); otherwise there is a logit a class (a softmax)."""

    @property
    def outputs(self) -> int:
        """Logits that a model has for each pixel."""
        return 1 if self.binary else len(self.names)

    def positive(self, y: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Which labels say that there is something: 1, or a class above 0."""
        return (y == 1) if self.binary else (y > 0) & (y < len(self.names))

    def known(self) -> NDArray[np.bool_]:
        """Whether each of the 256 values is a label, `ignore` among them."""
        known = np.zeros(256, np.bool_)
        known[: len(self.names)] = known[self.ignore] = True
        return known

    @property
    def listed(self) -> str:
        """The labels in words, `ignore` left out."""
        return "0 (no), 1 (yes)" if self.binary else f"0 to {len(self.names) - 1}"


BINARY = Labels(("no", "yes"), ignore=2, binary=True)
"""Of a data set that names no classes."""
IGNORE_CLASS = 255
"""The label of ignored pixels where there are several classes."""


def labels_from(classes: object) -> Labels:
    """The labels of a data set by what its config.toml says of classes: their number, their names, or nothing (None).

    Raises:
        ValueError: it is neither, or there are fewer than 2 or more than 255 of them.
    """
    if classes is None:
        return BINARY
    names: list[str] = []
    if isinstance(classes, int) and not isinstance(classes, bool) and classes <= MAX_CLASSES:
        names = [f"class {i}" for i in range(classes)]
    elif isinstance(classes, list) and all(isinstance(name, str) and name for name in classes):
        names = classes
    if not 2 <= len(names) <= MAX_CLASSES or len(set(names)) != len(names):
        raise ValueError(
            f"classes must be a number from 2 to {MAX_CLASSES} or a list of as many distinct names, not {classes!r}"
        )
    return Labels(tuple(names), IGNORE_CLASS, binary=False)
