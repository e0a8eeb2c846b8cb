"""Weights of the images' losses."""

import jax.numpy as jnp
import numpy as np

from flax_resnets.training.loss import image_weights


def test_an_image_has_its_classes_weight_and_a_mixed_one_the_mean_by_its_shares():
    targets = jnp.array([[0, 1, 0], [0.25, 0, 0.75], [0, 0, 1]], jnp.float32)
    np.testing.assert_array_equal(image_weights(targets, (0.5, 2.0, 4.0)), [2.0, 0.125 + 3.0, 4.0])


def test_a_class_of_weight_0_counts_for_nothing():
    np.testing.assert_array_equal(image_weights(jnp.eye(2), (0.0, 1.0)), [0.0, 1.0])
