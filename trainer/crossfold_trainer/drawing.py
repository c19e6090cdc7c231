"""Which figures a run leaves, and under which names; figures.py and plots.py draw them."""

from collections.abc import Sequence

from torch import Tensor

from crossfold_trainer import figures, plots
from crossfold_trainer.artifacts import Item
from crossfold_trainer.data import DataSet
from crossfold_trainer.figures import Sample
from crossfold_trainer.metrics import PixelMetrics, answers
from crossfold_trainer.outlines import centres
from crossfold_trainer.splits import Index, Splits


def splits_map(data: DataSet, splits: Splits) -> list[Item]:
    """Where the parts lie; nothing where the data set does not say it."""
    outlines = data.metadata.outlines
    png = None if outlines is None else plots.splits_map(centres(outlines), splits.parts(len(data)))
    return [] if png is None else [Item("figures/splits.png", png)]


def augmented(rows: Index, before: tuple[Tensor, Tensor], after: tuple[Tensor, Tensor], data: DataSet) -> Item:
    """A batch, x (B, C, H, W) and y (B, H, W), as it is and as training sees it.

    Args:
        rows: of the data set, which the batch shows.
        before: as they are.
        after: augmentation made this of them.
        data: which they are of.
    """
    (x, y), (new_x, new_y) = ([part.cpu().numpy() for part in batch] for batch in (before, after))
    png = figures.augmented_panels((x, y), (new_x, new_y), rows, data.bands, data.labels)
    return Item("figures/augmented.png", png)


class PartFigures:
    """Draws evaluations of one part of the data set, with the same few patches of it every time."""

    def __init__(self, part: Index, data: DataSet) -> None:
        """Choose the patches among the rows of the part."""
        self._data = data
        self._shown = figures.choose_rows(part, data.metadata.empty)

    def samples(self, rows: Index, x: Tensor, y: Tensor, probability: Tensor) -> list[Sample]:
        """Those of a batch that are drawn; waits for the device where there are any.

        Args:
            rows: of the batch's patches.
            x: (B, C, H, W).
            y: (B, H, W).
            probability: (B, H, W), or (B, K, H, W) with several classes.
        """
        chosen = [i for i, row in enumerate(rows) if int(row) in self._shown]
        if not chosen:
            return []
        labels = self._data.labels
        probability = probability[chosen].nan_to_num()
        answer = answers(probability, labels)
        certainty = probability if labels.binary else probability.amax(1)
        parts = [part.cpu().numpy() for part in (x[chosen], y[chosen], answer, certainty)]
        return [Sample(int(rows[at]), *(part[i] for part in parts)) for i, at in enumerate(chosen)]

    def panels(self, name: str, samples: Sequence[Sample]) -> Item:
        """The samples of a whole evaluation, in any order."""
        in_order = sorted(samples, key=lambda sample: self._shown.index(sample.row))
        png = figures.sample_panels(in_order, self._data.bands, self._data.labels)
        return Item(f"figures/samples-{name}.png", png)

    def all(self, name: str, metrics: PixelMetrics, samples: Sequence[Sample]) -> list[Item]:
        """The panels of an evaluation, and the curves and the confusion of its metrics (counted with curves)."""
        labels = self._data.labels
        return [
            self.panels(name, samples),
            Item(f"figures/roc-{name}.png", plots.roc(metrics.histograms, labels)),
            Item(f"figures/precision-recall-{name}.png", plots.precision_recall(metrics.histograms, labels)),
            Item(f"figures/confusion-{name}.png", plots.confusion(metrics.confusion, labels)),
        ]
