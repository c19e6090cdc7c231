"""Which patches train, validate and test: a pure function of the metadata, seeded, the same for ever.

Folds are cut by scikit-learn's splitters, whose memberships the tests pin. They are imported after all that can be
refused is refused: their import takes a second.
"""

import hashlib
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import assert_never

import numpy as np
from numpy.typing import NDArray

from crossfold_trainer.contract.config import RunConfig
from crossfold_trainer.contract.crossvalidation import FoldMethod
from crossfold_trainer.contract.data import DataSpec, SplitMethod, SplitSpec
from crossfold_trainer.errors import ConfigError

Index = NDArray[np.int64]
Fold = tuple[Index, Index]
"""Train and validation rows, ascending."""

SPLIT_SEED = 42
"""Of the subsample and the test split, which all runs of a tree share."""
MAX_REDRAWS = 100
SHUFFLE_SHARE = 0.1
REGION_SHARE = 0.2
"""Share of the groups that GroupShuffleSplit holds out (scikit-learn's default)."""
PARTITIONS = (FoldMethod.K_FOLD, FoldMethod.STRATIFIED, FoldMethod.REGION_STRATIFIED)
"""Methods whose folds share no validation patch: what one fold validates on, the others train on."""


@dataclass(frozen=True)
class Metadata:
    """The columns of metadata.parquet that are used, one value a patch, in the order of the patches.

    Splits depend on all but the outlines. A name is empty where a patch has none.
    """

    empty: NDArray[np.bool_]
    """No pixel of the patch is 1."""
    region: NDArray[np.str_] | None = None
    sample_id: NDArray[np.str_] | None = None
    outlines: tuple[bytes | None, ...] | None = None
    """Where patches lie (column geometry, well-known binary)."""

    def take(self, rows: Index) -> "Metadata":
        """The metadata of these rows, in this order."""
        return Metadata(
            empty=self.empty[rows],
            region=None if self.region is None else self.region[rows],
            sample_id=None if self.sample_id is None else self.sample_id[rows],
            outlines=None if self.outlines is None else tuple(self.outlines[row] for row in rows),
        )


@dataclass(frozen=True)
class Splits:
    """Rows of the data set by part, ascending. What is in none of them is not used."""

    train: Index
    val: Index
    test: Index
    warnings: tuple[str, ...] = ()

    def parts(self, n: int) -> NDArray[np.str_]:
        """The part of each of n rows: train, val, test, both (train and val are the same) or unused."""
        parts = np.full(n, "unused", dtype="<U6")
        parts[self.train] = "train"
        parts[self.val] = np.where(np.isin(self.val, self.train), "both", "val")
        parts[self.test] = "test"
        return parts

    def digest(self, n: int) -> str:
        """SHA-256 of the membership."""
        return hashlib.sha256("\n".join(self.parts(n)).encode()).hexdigest()


def make_splits(metadata: Metadata, config: RunConfig, batch_size: int) -> Splits:
    """The parts of one run: subsample, then test part, then the run's fold of what is left.

    Raises:
        ConfigError: the parts cannot be made, or could not be trained or scored on.
    """
    rows = _subsample(len(metadata.empty), config.data)
    train_part, test = _split_test(metadata, rows, config.data.split)
    folds, doubts = cut_folds(metadata, train_part, config.fold_method, config.folds, config.seed)
    train, val = folds[config.fold]
    if len(train) < batch_size:
        raise ConfigError(
            "hyperparameters.batch_size",
            f"the train part of fold {config.fold} has {len(train)} patches, fewer than one batch of {batch_size}:"
            " lower batch_size or trainer.accumulateGradBatches, or use more data",
        )
    return Splits(train, val, test, tuple(doubts))


def cut_folds(metadata: Metadata, rows: Index, method: FoldMethod, n: int, seed: int) -> tuple[list[Fold], list[str]]:
    """Cut some patches into folds, and say what is doubtful about them.

    Args:
        metadata: of all patches.
        rows: the patches to cut, ascending.
        method: the splitter.
        n: number of folds.
        seed: of the methods that shuffle.

    Raises:
        ConfigError: they cannot be cut so, or could not be trained or scored on.
    """
    positive = ~metadata.empty[rows]
    groups = None
    if method in (FoldMethod.REGION, FoldMethod.REGION_STRATIFIED):
        groups = _column(metadata, "region", f"foldMethod {method}")[rows]
    check_folds(positive, groups, method, n)
    folds = fold_indices(positive, groups, method, n, seed)
    doubts = _check_positives(folds, positive, method)
    return [(rows[train], rows[val]) for train, val in folds], doubts


def check_folds(positive: NDArray[np.bool_], groups: NDArray[np.str_] | None, method: FoldMethod, n: int) -> None:
    """Refuse folds that cannot be cut.

    Raises:
        ConfigError: fewer groups or patches than folds.
    """
    if len(positive) < n or (method is not FoldMethod.NONE and len(positive) < 2):  # one to train on, one to hold out
        remedy = "lower folds" if len(positive) > 1 else "use more data, or foldMethod None with folds 1"
        raise ConfigError(
            "crossValidation.folds", f"the train part has {len(positive)} patches, too few for {n} folds: {remedy}"
        )
    if n < 2 and method in PARTITIONS:
        raise ConfigError(
            "crossValidation.folds", f"{n} folds by {method} leave nothing to train on: set folds to 2 or more"
        )
    least = max(n, 2)  # one to train on, one to hold out
    if groups is not None and (found := len(np.unique(groups))) < least:
        raise ConfigError(
            "crossValidation.folds",
            f"{n} folds by {method} need at least {least} regions; the train part has {found}: lower folds or choose"
            " another foldMethod",
        )
    count = int(positive.sum())
    if count == 0:
        raise ConfigError("data.uri", f"none of the {len(positive)} patches of the train part has a positive pixel")
    needed = {FoldMethod.STRATIFIED: n, FoldMethod.REGION_STRATIFIED: n, FoldMethod.SHUFFLE: 2}.get(method, 1)
    if count < needed:
        raise ConfigError(
            "crossValidation.folds",
            f"{n} folds by {method} need at least {needed} patches with positive pixels; the train part has {count}:"
            " lower folds or choose another foldMethod",
        )


def _check_positives(folds: Sequence[Fold], positive: NDArray[np.bool_], method: FoldMethod) -> list[str]:
    bare = [str(i) for i, (_, val) in enumerate(folds) if not positive[val].any()]
    untaught = [str(i) for i, (train, _) in enumerate(folds) if not positive[train].any()]
    text = "; ".join(
        f"fold {', '.join(which)} has no patch with positive pixels in its {part} part"
        for which, part in ((bare, "validation"), (untaught, "train"))
        if which
    )
    if not text:
        return []
    if method is FoldMethod.K_FOLD and not untaught:
        return [f"{text}: its runs cannot be scored (foldMethod Stratified or RegionStratified avoids that)"]
    raise ConfigError("crossValidation.foldMethod", f"{text}: lower folds or choose Stratified or RegionStratified")


def _subsample(n: int, data: DataSpec) -> Index:
    """All rows, or a seeded sample of them, in metadata order (the rows that pandas' sample draws)."""
    if data.subsample is None or data.subsample >= n:
        return np.arange(n)
    return np.sort(np.random.RandomState(SPLIT_SEED).choice(n, data.subsample, replace=False))


def _split_test(metadata: Metadata, rows: Index, split: SplitSpec) -> Fold:
    match split.method:
        case SplitMethod.NONE:
            return rows, rows[:0]
        case SplitMethod.RANDOM:
            return _random_test(~metadata.empty[rows], rows, split.test_fraction or 0.0)
        case SplitMethod.REGION:
            return _listed_test(_column(metadata, "region", "split method Region"), rows, split.values, "region")
        case SplitMethod.SAMPLE:
            return _listed_test(_column(metadata, "sample_id", "split method Sample"), rows, split.values, "sample")
        case _:
            assert_never(split.method)


def _random_test(positive: NDArray[np.bool_], rows: Index, fraction: float) -> Fold:
    n_test = int(np.ceil(fraction * len(rows)))
    if not 0 < n_test < len(rows):
        raise ConfigError(
            "data.split.testFraction",
            f"{fraction} of {len(rows)} patches leaves {len(rows) - n_test} to train on: "
            + ("choose another fraction" if len(rows) > 1 else "use more data, or split method None"),
        )
    for seed in range(SPLIT_SEED, SPLIT_SEED + MAX_REDRAWS):
        order = np.random.RandomState(seed).permutation(len(rows))
        test, train = np.sort(order[:n_test]), np.sort(order[n_test:])
        if positive[test].any():
            return rows[train], rows[test]
    raise ConfigError(
        "data.split.testFraction",
        f"none of {MAX_REDRAWS} random test parts of {n_test} patches holds one of the {int(positive.sum())} patches"
        " with positive pixels: raise testFraction or split by Region",
    )


def _listed_test(column: NDArray[np.str_], rows: Index, values: Sequence[str], what: str) -> Fold:
    known = sorted(set(column[rows].tolist()))
    unknown = [value for value in values if value not in known]
    if unknown:
        raise ConfigError("data.split.values", f"no patch is of {what} {', '.join(unknown)}; there are {_some(known)}")
    held = np.isin(column[rows], list(values))
    if held.all():
        raise ConfigError("data.split.values", f"every {what} is in the test part: leave one to train on")
    return rows[~held], rows[held]


def _some(names: Sequence[str], limit: int = 20) -> str:
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")


def _column(metadata: Metadata, name: str, user: str) -> NDArray[np.str_]:
    column: NDArray[np.str_] | None = getattr(metadata, name)
    if column is None:
        raise ConfigError("data.uri", f"metadata.parquet has no column {name}, which {user} needs")
    without = np.flatnonzero(column == "")
    if len(without):
        raise ConfigError(
            "data.uri",
            f"{user} needs a {name} of each patch, and metadata.parquet has none for {len(without)} of {len(column)}"
            f" (patches {_some([str(row) for row in without], 5)}): fill the column, or use another method",
        )
    return column


def fold_indices(
    positive: NDArray[np.bool_], groups: NDArray[np.str_] | None, method: FoldMethod, n: int, seed: int
) -> list[Fold]:
    """Cut rows 0 to len(positive)-1 into n folds, of which `check_folds` has nothing to say.

    Args:
        positive: what folds are stratified on.
        groups: what must not be torn apart, for the methods by region.
        method: the splitter.
        n: number of folds.
        seed: of the methods that shuffle.

    Returns:
        Train and validation rows of each fold, ascending.
    """
    match method:
        case FoldMethod.NONE:
            everything = np.arange(len(positive))
            return [(everything, everything)]
        case FoldMethod.SHUFFLE:
            return _stratified_shuffle(positive, n, seed)
        case _:
            return [_sorted_pair(*fold) for fold in _split(positive, groups, method, n, seed)]


def _split(
    positive: NDArray[np.bool_], groups: NDArray[np.str_] | None, method: FoldMethod, n: int, seed: int
) -> Iterator[Fold]:
    from sklearn import model_selection as sk  # noqa: PLC0415 - takes a second, and is not needed to refuse folds

    match method:
        case FoldMethod.K_FOLD:
            splitter = sk.KFold(n)
        case FoldMethod.STRATIFIED:
            splitter = sk.StratifiedKFold(n, shuffle=True, random_state=seed)
        case FoldMethod.REGION:
            splitter = sk.GroupShuffleSplit(n, test_size=REGION_SHARE, random_state=seed)
        case FoldMethod.REGION_STRATIFIED:
            splitter = sk.StratifiedGroupKFold(n, shuffle=True, random_state=seed)
        case _:
            raise ValueError(f"{method} has no splitter")
    with warnings.catch_warnings():
        # Of few patches without a positive pixel: those with one are what must be in every fold.
        warnings.filterwarnings("ignore", "The least populated class in y", UserWarning)
        yield from splitter.split(np.zeros(len(positive)), positive, groups)


def _stratified_shuffle(positive: NDArray[np.bool_], n: int, seed: int) -> list[Fold]:
    """StratifiedShuffleSplit(n, test_size=0.1, random_state=seed): a tenth each time, drawn anew.

    Restated, since scikit-learn's refuses what can be cut: a single patch without a positive pixel, or a validation
    part of one patch (10 patches or fewer). Where it does not refuse, both cut the same folds.
    """
    rng = np.random.RandomState(seed)
    _, label, counts = np.unique(positive, return_inverse=True, return_counts=True)
    members = [np.flatnonzero(label == k) for k in range(len(counts))]
    n_val = int(np.ceil(SHUFFLE_SHARE * len(positive)))
    folds = []
    for _ in range(n):
        n_train = _share(counts, len(positive) - n_val, rng)
        n_held = _share(counts - n_train, n_val, rng)
        train, val = [], []
        for k, rows in enumerate(members):
            drawn = rows[rng.permutation(counts[k])]
            train.append(drawn[: n_train[k]])
            val.append(drawn[n_train[k] : n_train[k] + n_held[k]])
        # scikit-learn permutes both parts, which moves the generator on.
        folds.append(_sorted_pair(rng.permutation(np.concatenate(train)), rng.permutation(np.concatenate(val))))
    return folds


def _sorted_pair(train: Index, val: Index) -> Fold:
    return np.sort(train), np.sort(val)


def _share(counts: Index, n_draws: int, rng: np.random.RandomState) -> Index:
    """How many of n_draws each class gets: in proportion, remainders by size, ties by chance."""
    exact = counts / counts.sum() * n_draws
    drawn = np.floor(exact)
    left = int(n_draws - drawn.sum())
    remainder = exact - drawn
    for value in np.sort(np.unique(remainder))[::-1]:
        if left <= 0:
            break
        (tied,) = np.where(remainder == value)
        take = min(len(tied), left)
        drawn[rng.choice(tied, size=take, replace=False)] += 1
        left -= take
    whole: Index = drawn.astype(np.int64)
    return whole
