"""The settings of a classifier at another size of images."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from flax_resnets.errors import UserError
from flax_resnets.inference.images import each_image
from flax_resnets.inference.preprocess import Preprocess, Settings

OURS = Settings(
    model="resnet18", dataset="", store_size=160, image_size=128, channels=3, mean=(0.5,), std=(0.25,), crop_pct=1.0
)
# As timm's resnet50.a1_in1k: the shorter side is resized to 235 pixels, and the centre of 224 is cropped.
TIMMS = dataclasses.replace(OURS, store_size=224, image_size=224, shorter_side=235, resize="crop")


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (400, 600, 3), np.uint8)


def test_the_same_size_changes_nothing():
    for settings in (OURS, TIMMS):
        assert settings.at_size() is settings
        assert settings.at_size(settings.image_size) is settings
        assert settings.at_size(settings.image_size, settings.share_seen) is settings


@pytest.mark.parametrize(
    ("image_size", "crop_pct", "stored"),
    [
        (64, None, 160),  # what is kept suffices, and is resized on the device
        (160, None, 160),
        (192, None, 192),
        (None, 0.8, 160),
        (None, 0.75, 171),  # of which three quarters are 128
        (160, 0.8, 200),
    ],
)
def test_images_are_kept_so_large_that_a_crop_is_not_enlarged(image_size, crop_pct, stored):
    changed = OURS.at_size(image_size, crop_pct)
    assert changed.store_size == stored
    assert round(changed.crop_pct * stored) >= changed.image_size
    assert changed.share_seen == (crop_pct or 1.0)
    expected = dataclasses.replace(
        OURS, image_size=image_size or 128, crop_pct=crop_pct or 1.0, store_size=changed.store_size
    )
    assert changed == expected


@pytest.mark.parametrize(
    ("image_size", "crop_pct", "shorter_side"),
    [(288, 1.0, 288), (288, 0.95, 303), (None, 0.875, 256), (288, None, 302)],
)
def test_a_network_of_timms_sees_what_timm_shows_it(image_size, crop_pct, shorter_side, photo):
    """The shorter side is resized to size / crop_pct, rounded down, and the centre of whole pixels is cropped."""
    changed = TIMMS.at_size(image_size, crop_pct)
    size = changed.image_size
    assert (changed.store_size, changed.shorter_side, changed.crop_pct) == (size, shorter_side, 1.0)
    whole = Image.fromarray(photo).resize((int(shorter_side * 1.5), shorter_side), Image.Resampling.LANCZOS)
    left, top = (round((side - size) / 2) for side in whole.size)
    expected = np.asarray(whole.crop((left, top, left + size, top + size)))
    (item,) = each_image(photo)
    np.testing.assert_array_equal(Preprocess(changed).stored(item), expected)
    network_sees = Preprocess(changed)(photo)[0]
    np.testing.assert_allclose(network_sees, (expected / 255 - 0.5) / 0.25, atol=1e-5)


@pytest.mark.parametrize(
    ("image_size", "crop_pct", "message"),
    [
        (0, None, "image_size=0: must be at least 1"),
        (9000, None, "image_size=9000: must be at most 8192 pixels"),
        ("large", None, "image_size=large: must be"),
        (None, 0.0, "crop_pct=0.0: must be above 0 and up to 1"),
        (None, 1.5, "crop_pct=1.5: must be above 0 and up to 1"),
        (None, float("nan"), "crop_pct=nan"),
        (None, "0.9", "crop_pct=0.9: must be a number"),
        (4096, 0.1, "image_size=4096: with crop_pct=0.1 it is cropped from 40960 pixels; at most 8192 are possible"),
        (None, 1e-300, "image_size=.*: with crop_pct=1e-300 "),
    ],
)
@pytest.mark.parametrize("settings", [OURS, TIMMS], ids=["ours", "timms"])
def test_values_that_are_not_allowed(settings, image_size, crop_pct, message):
    with pytest.raises(UserError, match=message) as error:
        settings.at_size(image_size, crop_pct)
    assert len(str(error.value)) < 600
