"""Numbers of a whole split, against numpy's."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from flax_resnets.data import statistics
from flax_resnets.data.cache import CachedImages, cached_images
from flax_resnets.data.labels import class_counts
from flax_resnets.data.source import open_source
from flax_resnets.data.statistics import (
    balanced_weights,
    evenly_spaced,
    images_of_both,
    of_pixels,
    pixel_statistics,
)
from flax_resnets.data.stream import StreamedImages
from flax_resnets.errors import UserError

SHAPES = st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 5), st.sampled_from([1, 3]))


@given(images=arrays.arrays(np.uint8, SHAPES), cut=st.integers(0, 4))
def test_mean_and_std_are_those_of_all_pixels(images, cut):
    pixels = images.astype(np.float64) / 255
    found = of_pixels(block for block in (images[:cut], images[cut:]) if len(block))
    np.testing.assert_allclose(found.mean, pixels.mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(found.std, pixels.std((0, 1, 2)), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("most", [10_000, 300])
def test_cached_and_streamed_are_the_same_to_the_bit(monkeypatch, most):
    """With the images of a sample, and with all of them."""
    monkeypatch.setattr(statistics, "MOST_IMAGES", most)
    source = open_source("fashion_mnist_sample", "validation")
    cached, told = cached_images(source, 20), []
    found = pixel_statistics(cached, told.append)
    assert found == pixel_statistics(StreamedImages(source, 20))
    pixels = cached.images[evenly_spaced(1000, most)].astype(np.float64) / 255
    np.testing.assert_allclose(found, [[pixels.mean()], [pixels.std()]], rtol=1e-12)
    assert told[-1] == min(most, 1000)


def test_a_sample_spans_the_whole_split():
    indices = evenly_spaced(1001, most=10)
    assert indices.tolist() == [0, 100, 200, 300, 400, 500, 600, 700, 800, 900]
    assert evenly_spaced(0, most=10).tolist() == []


def test_images_of_one_colour_have_no_deviation_to_divide_by():
    images = np.full((3, 4, 4, 3), 7, np.uint8)
    images[0, 0, 0, :2] = 9
    with pytest.raises(UserError, match="std=none: all pixels of the training images are equal in channel 2"):
        pixel_statistics(CachedImages(images, np.zeros(3, np.int32)))


@given(labels=st.lists(st.integers(0, 5), min_size=1, max_size=50))
def test_balanced_weights_make_the_classes_equally_important(labels):
    counts = class_counts(np.array(labels, np.int32), 6)
    weights = np.array(balanced_weights(counts))
    shares = weights * counts
    assert np.ptp(shares[np.array(counts) > 0]) < 1e-9
    assert (weights[np.array(counts) == 0] == 0).all()
    assert weights[labels].mean() == pytest.approx(1)


def test_images_of_both_splits_are_counted_pixel_by_pixel():
    random = np.random.default_rng(0)
    train = random.integers(0, 256, (50, 8, 8, 3), np.uint8)
    validation = random.integers(0, 256, (20, 8, 8, 3), np.uint8)
    assert images_of_both(train, validation) == 0
    validation[[3, 4, 9]] = train[[7, 7, 40]]  # two copies of one image, and one of another
    validation[10] = train[11]
    validation[10, 0, 0, 0] ^= 1  # the same middle row, but another image
    assert images_of_both(train, validation) == 3
