"""The picture of a step's images shows exactly the images of the training step."""

import dataclasses
import io

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from PIL import Image

from flax_resnets.errors import UserError
from flax_resnets.training.optimizers import OptimizerConfig, make_optimizer
from flax_resnets.training.placement import make_mesh, to_devices
from flax_resnets.training.show_batch import ShownBatch, draw, in_words, sheet, show_batch
from flax_resnets.training.state import create_state
from flax_resnets.training.step import make_train_step


class Witness(nn.Module):
    """A network that stores its last input images as its statistics."""

    num_classes: int

    @nn.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        shown = self.variable("batch_stats", "shown", jnp.zeros, (32, *x.shape[1:]))
        if train:
            shown.value = x
        return nn.Dense(self.num_classes)(x.mean((1, 2)))


@pytest.fixture
def augmented(config):
    return dataclasses.replace(
        config, crop_scale=(0.35, 1.0), rotate=20.0, random_erasing=0.5, mixup=0.4, cutmix=1.0, mix_off_epoch=2
    )


@pytest.mark.parametrize("step", [0, 7])
def test_it_is_what_the_training_step_shows_the_network(augmented, data, step):
    optimizer = make_optimizer(
        OptimizerConfig(optimizer="sgd"), optax.constant_schedule(0.1), optax.constant_schedule(0.0)
    )
    model, mesh = Witness(4), make_mesh()
    state = create_state(model, optimizer, (12, 12, 1), augmented.seed).replace(step=jnp.int32(step))
    (batch,) = data.train_batches(augmented.batch_size, augmented.seed, range(step, step + 1))
    state, _ = make_train_step(model, optimizer, augmented, mesh)(state, to_devices(batch, mesh))

    shown = show_batch(augmented, data, num_classes=4, step=step)
    np.testing.assert_allclose(shown.images, state.batch_stats["shown"], atol=1e-5)
    np.testing.assert_array_equal(shown.stored, batch.images)
    np.testing.assert_array_equal(shown.labels, batch.labels)
    assert (shown.step, shown.steps, shown.epoch) == (step, 18, 1 + step // 6)


def test_targets_are_mixed_until_mixing_rests(augmented, data):
    before, after = (show_batch(augmented, data, 4, step).targets for step in (11, 12))
    np.testing.assert_allclose(before.sum(1), 1, rtol=1e-6)
    assert ((before > 0) & (before < 1)).any()
    assert set(np.unique(after)) == {0, 1}


def test_a_step_has_its_epochs_image_size(config, data):
    growing = dataclasses.replace(config, progressive=((1, 8), (2, 10)))
    sizes = [show_batch(growing, data, 4, step).images.shape[1] for step in (0, 5, 6, 12, 17)]
    assert sizes == [8, 8, 10, 12, 12]


def test_a_sheet_has_the_images_side_by_side(config, data):
    config = dataclasses.replace(config, flip=False)
    shown = show_batch(config, data, 4)
    picture = sheet(shown, config, images=11)
    assert (picture.shape, picture.dtype) == ((2 * 64, 8 * 64, 1), np.uint8)
    cells = picture.reshape(2, 64, 8, 64).swapaxes(1, 2).reshape(16, 64, 64)
    np.testing.assert_array_equal(cells[:11, 2:-2:5, 2:-2:5], shown.stored[:11, ..., 0])
    assert (cells[11:] == 255).all()
    assert (cells[:, :2] == 255).all()
    assert sheet(shown, config, images=3).shape == (64, 3 * 64, 1)


def test_half_precision_is_shown_too(config, data):
    half = show_batch(dataclasses.replace(config, precision="bfloat16"), data, 4)
    assert half.images.dtype == np.float32
    np.testing.assert_allclose(half.images, show_batch(config, data, 4).images, atol=0.02)


def test_a_batch_that_memory_does_not_hold_is_named(config, data, monkeypatch):
    def exhausted(_: object) -> None:
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory.")

    monkeypatch.setattr(jax, "block_until_ready", exhausted)
    with pytest.raises(UserError, match="batch_size=32: out of the device's memory"):
        show_batch(config, data, 4)


def test_a_step_after_the_run_is_named(config, data):
    with pytest.raises(UserError, match="--step=18: must be below the run's 18 steps"):
        show_batch(config, data, 4, step=18)


def batch(images: int, channels: int = 3) -> ShownBatch:
    """Stored images are red; of the augmented ones, the first half is blue and the rest brighter than white."""
    stored = np.zeros((images, 8, 8, channels), np.uint8)
    stored[..., 0] = 255
    shown = np.full((images, 6, 6, channels), -1, np.float32)  # black: (0 - 0.5) / 0.5
    shown[..., -1] = 1
    shown[images // 2 :] = 40
    labels = np.arange(images, dtype=np.int32) % 2
    return ShownBatch(3, 18, 1, stored, labels, shown, np.eye(2, dtype=np.float32)[labels])


def drawn(config, shown: ShownBatch, images: int) -> np.ndarray:
    picture = draw(shown, config, ["cat", "dog"], "small", images)
    return np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"))


def test_each_image_stands_above_what_became_of_it(config):
    picture = drawn(dataclasses.replace(config, mean=(0.5,), std=(0.5,)), batch(16), images=16)
    red, blue = ((picture == color).all(2) for color in ((255, 0, 0), (0, 0, 255)))
    rows = np.flatnonzero(red.any(1))
    below = np.flatnonzero(blue.any(1))
    # Two bands of eight images: in the first band the augmented images are blue, in the second white.
    assert rows.min() < below.min() < below.max() < rows.max()
    assert picture.shape[1] == 1360
    tiles = np.diff(red[rows[0] + 5].astype(int), prepend=0) == 1
    assert tiles.sum() == 8


def test_grey_images_and_few_of_them(config):
    picture = drawn(config, batch(4, channels=1), images=3)
    assert (picture.max(2) == picture.min(2)).all()
    assert picture.shape[1] == 680
    assert draw(batch(2), config, ["cat", "dog"], "small", images=99)[:4] == b"\x89PNG"


def test_a_target_in_words():
    assert in_words(np.float32([0.2, 0, 0.8]), "cdo") == ".80 o\n.20 c"
    assert in_words(np.float32([0.002, 0, 0.998]), "cdo") == "o"
    assert in_words(np.float32([1.0]), "c") == "c"


def test_names_of_classes_are_plain_text(config):
    """Not formulas, which dollars would make them; and letters that the font lacks, or that are none, are no error."""
    assert draw(batch(2), config, ["$1 & $2_{", "犬\udcff"], "small")[:4] == b"\x89PNG"
