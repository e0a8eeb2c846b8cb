"""Classes and channels of datasets that are not prepared."""

import pytest

from flax_resnets.data.source import dataset_metadata
from flax_resnets.errors import UserError


@pytest.mark.parametrize(
    ("dataset", "classes", "channels"),
    [
        ("imagenet2012", 1000, 3),
        ("imagenette/320px-v2", 10, 3),
        ("fashion_mnist", 10, 1),
        ("fashion_mnist_sample", 10, 1),
    ],
)
def test_what_tfds_declares(dataset, classes, channels, tmp_path):
    assert dataset_metadata(dataset, tmp_path / "not there") == (classes, channels, False)
    assert list(tmp_path.iterdir()) == []


def test_a_dataset_there_is_not(tmp_path):
    with pytest.raises(UserError, match="TFDS has no such dataset; did you mean 'imagenet2012'"):
        dataset_metadata("imagenet2021", tmp_path)
    with pytest.raises(UserError, match="must have the features 'image' and 'label'"):
        dataset_metadata("imdb_reviews", tmp_path)
