"""A share of each class becomes the validation split, and a seed says which images."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flax_resnets.data.config import DataConfig
from flax_resnets.data.shares import choose_splits, share_of
from flax_resnets.errors import UserError


@given(
    labels=st.lists(st.integers(0, 4), min_size=1, max_size=60),
    share=st.floats(0.01, 0.99),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_parts_are_the_whole_and_each_class_gives_its_share(labels, share, seed):
    labels = np.array(labels, np.int32)
    counts = np.bincount(labels)
    expected = np.where(counts > 0, np.minimum(np.floor(counts * share + 0.5), counts - 1), 0)
    if not expected.any():
        with pytest.raises(UserError, match="no class has enough to give one to validation"):
            share_of(labels, share, seed, "train", "all")
        return
    train, name = share_of(labels, share, seed, "train", "all")
    valid, other_name = share_of(labels, share, seed, "validation", "all")
    assert sorted([*train, *valid]) == list(range(len(labels)))
    assert list(train) == sorted(train)
    assert list(valid) == sorted(valid)
    assert np.bincount(labels[valid], minlength=len(counts)).tolist() == expected.tolist()
    assert name != other_name


def test_the_choice_of_a_class_depends_on_nothing_but_the_seed_and_itself():
    few = share_of(np.array([0] * 10 + [1] * 10), 0.3, 7, "validation", "all")[0]
    more = share_of(np.array([0] * 10 + [1] * 99), 0.3, 7, "validation", "all")[0]
    assert [row for row in few if row < 10] == [row for row in more if row < 10]
    assert few.tolist() == [3, 6, 9, 11, 12, 19]


@pytest.mark.parametrize(
    ("there", "fields", "expected"),
    [
        (["test", "train"], {}, ("train", "test")),
        (["test", "train", "val", "valid"], {}, ("train", "val")),
        (["train", "extra"], {}, ("train", "")),
        (["train"], {"validation_share": 0.1}, ("train", "")),
        (["train", "test"], {"validation_share": 0.1, "train_split": "train"}, ("train", "")),
        (["a", "b"], {"train_split": "a", "validation_split": "b"}, ("a", "b")),
    ],
)
def test_splits_are_found_by_their_names(there, fields, expected):
    assert choose_splits(there, DataConfig(dataset="folder", **fields), "photos") == expected


@pytest.mark.parametrize(
    ("there", "fields", "line"),
    [
        (["a"], {}, "train_split='train': photos has no such split; there is 'a'"),
        ([], {}, "train_split='train': photos has no such split; there is none"),
        (["a"], {"validation_split": "val"}, "validation_split='val': photos has no such split; there is 'a'"),
        (["train"], {"validation_split": "x"}, "validation_split='x': photos has no such split; there is 'train'"),
        (["train", "val"], {"validation_share": 0.1}, "validation_share=0.1: photos has a validation split, 'val'"),
        (["train", "val"], {"validation_share": 0.1, "validation_split": "val"}, "validation_share=0.1, validation_sp"),
        (["train"], {"validation_split": "train"}, "train_split and validation_split: both are 'train'"),
    ],
)
def test_other_splits_are_refused(there, fields, line):
    with pytest.raises(UserError) as caught:
        choose_splits(there, DataConfig(dataset="folder", **fields), "photos")
    assert str(caught.value).startswith(line)
