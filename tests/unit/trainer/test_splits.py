"""Splits: golden memberships, where they differ from scikit-learn's, and what is refused."""

import hashlib
import subprocess
import sys
import warnings
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedShuffleSplit

from crossfold_trainer.contract.crossvalidation import FoldMethod, seed_sequence
from crossfold_trainer.errors import ConfigError
from crossfold_trainer.splits import Metadata, fold_indices, make_splits
from tests.trainer_data import run_config


@settings(max_examples=40)
@given(
    positive=st.lists(st.booleans(), min_size=20, max_size=80),
    n=st.integers(2, 5),
    seed=st.integers(0, 9999),
)
def test_shuffled_folds_are_those_of_scikit_learn(positive: list[bool], n: int, seed: int) -> None:
    """The one splitter that is not scikit-learn's own."""
    flags = np.array(positive)
    assume(2 <= flags.sum() <= len(flags) - 2)
    expected = list(StratifiedShuffleSplit(n, test_size=0.1, random_state=seed).split(flags, flags))
    for (train, val), (sk_train, sk_val) in zip(
        fold_indices(flags, None, FoldMethod.SHUFFLE, n, seed), expected, strict=True
    ):
        assert train.tolist() == sorted(sk_train)
        assert val.tolist() == sorted(sk_val)


def test_shuffled_folds_are_cut_where_scikit_learn_refuses() -> None:
    single = np.arange(30) != 4  # one patch is empty
    for flags in (single, np.arange(8) % 3 == 0):
        with pytest.raises(ValueError, match="class"):
            list(StratifiedShuffleSplit(2, test_size=0.1, random_state=42).split(flags, flags))
        for train, val in fold_indices(flags, None, FoldMethod.SHUFFLE, 2, 42):
            assert sorted([*train, *val]) == list(range(len(flags)))
            assert len(val) == np.ceil(len(flags) / 10)


@pytest.mark.parametrize(
    ("method", "digest"),
    [
        (FoldMethod.K_FOLD, "7c5ac8651b3025ce"),
        (FoldMethod.SHUFFLE, "14750d075f0d5751"),
        (FoldMethod.STRATIFIED, "47890700b5085b31"),
        (FoldMethod.REGION, "0aaf408a4b1f8ca0"),
        (FoldMethod.REGION_STRATIFIED, "4e12d1af20a3de70"),
    ],
)
def test_no_version_of_a_library_changes_a_fold(method: FoldMethod, digest: str) -> None:
    """80 folds of 500 patches in uneven regions."""
    rng = np.random.RandomState(7)
    positive = rng.random_sample(500) < 0.3
    regions = np.array([f"r{i}" for i in rng.geometric(0.08, 500)])
    groups = regions if method in (FoldMethod.REGION, FoldMethod.REGION_STRATIFIED) else None
    text = "".join(
        f"{train.tolist()}{val.tolist()}\n"
        for n, seed in product((2, 3, 5, 10), (42, 21, 69, 1824))
        for train, val in fold_indices(positive, groups, method, n, seed)
    )
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == digest


@pytest.mark.parametrize("method", [FoldMethod.K_FOLD, FoldMethod.STRATIFIED, FoldMethod.REGION_STRATIFIED])
def test_one_fold_leaves_nothing_to_train_on(method: FoldMethod) -> None:
    with pytest.raises(ConfigError, match=r"crossValidation.folds: 1 folds by .* set folds to 2 or more"):
        make_splits(table(), run_config("d", "a", foldMethod=method, folds=1), batch_size=2)


def test_one_region_cannot_be_held_out() -> None:
    metadata = Metadata(table().empty, np.full(24, "r0"))
    with pytest.raises(ConfigError, match="1 folds by Region need at least 2 regions; the train part has 1"):
        make_splits(metadata, run_config("d", "a", foldMethod="Region", folds=1), batch_size=2)


def test_few_empty_patches_do_not_warn() -> None:
    metadata = Metadata(np.arange(24) == 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        splits = make_splits(metadata, run_config("d", "a", foldMethod="Stratified"), batch_size=2)
    assert not splits.warnings


def table(n: int = 24) -> Metadata:
    """Six regions in turn, four samples one after the other, every fifth patch empty."""
    return Metadata(
        empty=np.arange(n) % 5 == 0,
        region=np.array([f"r{i % 6}" for i in range(n)]),
        sample_id=np.array([f"s{i // 6}" for i in range(n)]),
    )


@pytest.mark.parametrize(
    ("method", "fold", "seed", "val"),
    [
        ("KFold", 0, 42, [0, 1, 2, 3, 4, 5, 6, 7]),
        ("KFold", 2, 42, [16, 17, 18, 19, 20, 21, 22, 23]),
        ("Stratified", 0, 42, [0, 3, 8, 11, 12, 15, 16, 17]),
        ("Stratified", 1, 21, [4, 5, 7, 12, 13, 14, 15, 16]),
        ("Shuffle", 0, 42, [8, 9, 15]),
        ("Shuffle", 2, 69, [0, 3, 9]),
        ("Region", 0, 42, [0, 1, 6, 7, 12, 13, 18, 19]),
        ("Region", 1, 1824, [1, 4, 7, 10, 13, 16, 19, 22]),
        ("RegionStratified", 0, 42, [1, 2, 7, 8, 13, 14, 19, 20]),
        ("RegionStratified", 2, 42, [3, 5, 9, 11, 15, 17, 21, 23]),
        ("RegionStratified", 0, 21, [1, 3, 7, 9, 13, 15, 19, 21]),
        ("None", 0, 42, list(range(24))),
    ],
)
def test_golden_memberships(method: str, fold: int, seed: int, val: list[int]) -> None:
    folds = 1 if method == "None" else 3
    config = run_config("d", "a", foldMethod=method, folds=folds, fold=fold, seed=seed)
    splits = make_splits(table(), config, batch_size=4)
    assert splits.val.tolist() == val
    assert splits.test.tolist() == []
    if method == "None":
        assert splits.train.tolist() == val
        assert set(splits.parts(24)) == {"both"}
    else:
        assert sorted([*splits.train, *splits.val]) == list(range(24))


def test_golden_seeds() -> None:
    expected = (42, 21, 69, 1824, 409, 4506, 4012, 3657, 2286, 1679, 8935, 1424, 9674, 6912, 520)
    assert seed_sequence(15) == expected


@pytest.mark.parametrize(
    ("data", "test", "val"),
    [
        (
            {"split": {"method": "Random", "testFraction": 0.25}},
            [0, 8, 9, 11, 16, 18],
            [1, 4, 7, 10, 13, 19, 22],
        ),
        (
            {"split": {"method": "Region", "values": ["r1", "r4"]}},
            [1, 4, 7, 10, 13, 16, 19, 22],
            [2, 3, 8, 9, 14, 15, 20, 21],
        ),
    ],
)
def test_golden_test_parts(data: dict[str, Any], test: list[int], val: list[int]) -> None:
    splits = make_splits(table(), run_config("d", "a", data=data), batch_size=2)
    assert splits.test.tolist() == test
    assert splits.val.tolist() == val
    assert not set(splits.test) & set(splits.train)


GOLDEN_RUN = ([2, 3, 5, 8, 12, 13, 15, 17, 22, 23], [4, 7, 11, 16, 20], [0, 1, 9, 18, 21])
GOLDEN_DIGEST = "fbced6f6eea0857778423c04e91af9fccce4b6818b8166f210484bf4e02f12ab"
"""Checkpoints carry it: a change of it makes them unreadable."""


def test_a_sample_split_sets_whole_samples_aside() -> None:
    config = run_config("d", "a", data={"split": {"method": "Sample", "values": ["s1", "s3"]}})
    splits = make_splits(table(), config, batch_size=2)
    assert splits.test.tolist() == [*range(6, 12), *range(18, 24)]
    assert sorted([*splits.train, *splits.val]) == [*range(6), *range(12, 18)]


def test_subsample_comes_first_then_the_test_part_then_folds() -> None:
    """Golden: the rows of one run through all three."""
    data = {"subsample": 20, "split": {"method": "Random", "testFraction": 0.25}}
    splits = make_splits(table(), run_config("d", "a", data=data, foldMethod="Stratified", seed=21), batch_size=2)
    assert (splits.train.tolist(), splits.val.tolist(), splits.test.tolist()) == GOLDEN_RUN
    assert splits.digest(24) == GOLDEN_DIGEST
    assert list(splits.parts(24)).count("unused") == 4


def test_subsample_draws_what_pandas_draws() -> None:
    splits = make_splits(table(), run_config("d", "a", data={"subsample": 12}), batch_size=2)
    drawn = pd.DataFrame({"row": range(24)}).sample(12, random_state=42).index
    assert sorted([*splits.train, *splits.val]) == sorted(drawn)


def test_random_test_part_is_redrawn_until_it_holds_a_positive() -> None:
    first = np.random.RandomState(42).permutation(40)[:4]
    assert not {7, 23} & set(first)  # so that the first draw has to be refused
    metadata = Metadata(empty=~np.isin(np.arange(40), (7, 23)))
    config = run_config("d", "a", foldMethod="None", folds=1, data={"split": {"method": "Random", "testFraction": 0.1}})
    splits = make_splits(metadata, config, batch_size=2)
    assert len(splits.test) == 4
    assert {7, 23} & set(splits.test.tolist())


def test_a_random_test_part_that_never_holds_a_positive_is_refused() -> None:
    metadata = Metadata(empty=np.arange(3000) != 1234)
    config = run_config(
        "d", "a", foldMethod="None", folds=1, data={"split": {"method": "Random", "testFraction": 0.0003}}
    )
    with pytest.raises(ConfigError, match=r"none of 100 random test parts of 1 patches holds one of the 1 patches"):
        make_splits(metadata, config, batch_size=2)


def test_a_contiguous_fold_without_a_positive_to_train_on_is_refused() -> None:
    config = run_config("d", "a", foldMethod="KFold", fold=0, folds=2)
    with pytest.raises(ConfigError, match="fold 0 has no patch with positive pixels in its train part"):
        make_splits(Metadata(np.arange(24) > 3), config, batch_size=2)


def test_scikit_learn_is_imported_only_to_cut_folds() -> None:
    """Its import takes a second, which a run that is refused need not wait for."""
    code = "import sys, crossfold_trainer.splits; sys.exit('sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_digest_follows_membership() -> None:
    one, again, other = (
        make_splits(table(), run_config("d", "a", seed=seed), batch_size=2).digest(24) for seed in (42, 42, 21)
    )
    assert one == again != other


REGIONS = "data.split.values: no patch is of region r9; there are r0, r1, r2, r3, r4, r5"


@pytest.mark.parametrize(
    ("metadata", "replace", "message"),
    [
        (table(), {"data": {"split": {"method": "Region", "values": ["r9"]}}}, REGIONS),
        (
            table(),
            {"data": {"split": {"method": "Sample", "values": ["x"]}}},
            "no patch is of sample x; there are s0, s1",
        ),
        (
            table(),
            {"data": {"split": {"method": "Sample", "values": ["s0", "s1", "s2", "s3"]}}},
            "every sample is in the test part",
        ),
        (table(), {"folds": 7}, "7 folds by RegionStratified need at least 7 regions; the train part has 6"),
        (table(), {"folds": 30, "foldMethod": "Stratified"}, "the train part has 24 patches, too few for 30 folds"),
        (
            Metadata(np.arange(24) > 1, table().region),
            {},
            "3 folds by RegionStratified need at least 3 patches with positive pixels; the train part has 2",
        ),
        (
            Metadata(np.arange(24) % 6 != 0, table().region),
            {},
            "crossValidation.foldMethod: fold [0-9], [0-9] has no patch with positive pixels in its validation part",
        ),
        (
            Metadata(np.ones(24, bool), table().region),
            {},
            "none of the 24 patches of the train part has a positive pixel",
        ),
        (Metadata(table().empty), {}, "metadata.parquet has no column region, which foldMethod RegionStratified needs"),
        (
            Metadata(table().empty, table().region),
            {"data": {"split": {"method": "Sample", "values": ["s0"]}}},
            "no column sample_id",
        ),
        (
            table(),
            {"data": {"split": {"method": "Random", "testFraction": 0.99}}},
            "data.split.testFraction: 0.99 of 24 patches leaves 0 to train on",
        ),
    ],
)
def test_refused(metadata: Metadata, replace: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_splits(metadata, run_config("d", "a", **replace), batch_size=2)


def test_a_train_part_smaller_than_a_batch_is_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"batch_size: the train part of fold 0 has 16 patches, fewer than one batch of 17"
    ):
        make_splits(table(), run_config("d", "a"), batch_size=17)


def test_contiguous_folds_without_a_positive_only_warn() -> None:
    metadata = Metadata(np.arange(24) > 3)
    splits = make_splits(metadata, run_config("d", "a", foldMethod="KFold", fold=0, folds=12), batch_size=2)
    assert splits.warnings
    assert "cannot be scored" in splits.warnings[0]


# Little data ----------------------------------------------------------------------------------------------------------

SPLITS: list[dict[str, Any]] = [
    {"method": "None"},
    {"method": "Random", "testFraction": 0.3},
    {"method": "Region", "values": ["a"]},
]
CUT = [method for method in FoldMethod if method is not FoldMethod.NONE]


def one_left(*, empty: bool) -> tuple[Metadata, dict[str, Any]]:
    """Three patches, of which the test part takes two."""
    metadata = Metadata(np.array([False, empty, False]), np.array(["a", "b", "a"]))
    return metadata, {"data": {"split": {"method": "Region", "values": ["a"]}}}


def test_a_train_part_of_one_patch_is_trained_and_validated_on_without_folds() -> None:
    metadata, replace = one_left(empty=False)
    config = run_config("d", "a", foldMethod="None", folds=1, **replace)
    splits = make_splits(metadata, config, batch_size=1)
    assert (splits.train.tolist(), splits.val.tolist(), splits.test.tolist()) == ([1], [1], [0, 2])
    assert splits.parts(3).tolist() == ["test", "both", "test"]
    with pytest.raises(ConfigError, match="the train part of fold 0 has 1 patches, fewer than one batch of 2"):
        make_splits(metadata, config, batch_size=2)
    bare, replace = one_left(empty=True)
    with pytest.raises(ConfigError, match=r"data.uri: none of the 1 patches of the train part has a positive pixel"):
        make_splits(bare, config, batch_size=1)


@pytest.mark.parametrize("method", CUT)
@pytest.mark.parametrize("folds", [1, 2])
@pytest.mark.parametrize("empty", [True, False])
def test_a_train_part_of_one_patch_cannot_be_cut(method: FoldMethod, folds: int, empty: bool) -> None:
    metadata, replace = one_left(empty=empty)
    says = (
        f"crossValidation.folds: the train part has 1 patches, too few for {folds} folds: use more data, or foldMethod"
    )
    with pytest.raises(ConfigError, match=says):
        make_splits(metadata, run_config("d", "a", foldMethod=method, folds=folds, **replace), batch_size=1)


def test_one_patch_has_no_test_part() -> None:
    config = run_config("d", "a", foldMethod="None", folds=1, data={"split": SPLITS[1]})
    with pytest.raises(ConfigError, match=r"data.split.testFraction: .* use more data, or split method None"):
        make_splits(Metadata(np.array([False]), np.array(["a"])), config, batch_size=1)


@pytest.mark.parametrize("method", FoldMethod)
@pytest.mark.parametrize("split", SPLITS, ids=[split["method"] for split in SPLITS])
def test_of_little_data_there_are_parts_to_train_and_validate_on_or_it_is_refused(
    method: FoldMethod, split: dict[str, Any]
) -> None:
    made = 0
    folds = 1 if method is FoldMethod.NONE else 2
    for n in (1, 2, 3):
        config = run_config("d", "a", foldMethod=method, folds=folds, fold=folds - 1, data={"split": split})
        for empty, regions in product(product([True, False], repeat=n), product("abc", repeat=n)):
            metadata = Metadata(np.array(empty), np.array(regions))
            try:
                splits = make_splits(metadata, config, batch_size=1)
            except ConfigError:
                continue
            made += 1
            train, val, test = (set(part.tolist()) for part in (splits.train, splits.val, splits.test))
            assert train
            assert val
            assert val == train if method is FoldMethod.NONE else not train & val
            assert not test & (train | val)
            assert not metadata.empty[splits.train].all()
            assert splits.warnings or not metadata.empty[splits.val].all()
    assert made > 0
