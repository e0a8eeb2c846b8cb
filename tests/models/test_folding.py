"""A folded network gives the same logits as the network from which it was made, and cannot be trained."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flax_resnets import create_model, fold_batch_norm


def trained(name: str, **options):
    """A network; its variables, all of them random numbers, as after training; and images."""
    model = create_model(name, num_classes=7, **{"width": 8, **options})
    x = jax.random.normal(jax.random.key(0), (2, 40, 36, 3))
    shapes = jax.eval_shape(model.init, jax.random.key(0), x)
    leaves, structure = jax.tree.flatten(shapes)
    random = np.random.default_rng(0)
    # Positive, as variances must be; small, so that the many layers keep their sums in range.
    return model, jax.tree.unflatten(structure, [random.uniform(0.05, 0.15, leaf.shape) for leaf in leaves]), x


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("resnet18", {}),
        ("resnet18d", {"squeeze_excite": True, "blur_pool": True}),
        ("resnet50", {"stem": "small", "width_per_group": 16, "groups": 2}),
        ("resnetrs50", {"squeeze_excite": "eca", "stride_on": "1x1", "epsilon": 1e-2, "global_pool": "catavgmax"}),
    ],
)
def test_the_logits_are_the_same(name, options):
    model, variables, x = trained(name, **options)
    folded, folded_variables = fold_batch_norm(model, variables)
    assert set(folded_variables) == {"params"}
    expected = jax.jit(model.apply)(variables, x)
    got = jax.jit(folded.apply)(folded_variables, x)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4 * float(jnp.abs(expected).max()))
    assert jax.tree.structure(jax.eval_shape(folded.init, jax.random.key(0), x)) == jax.tree.structure(folded_variables)


def test_it_cannot_be_trained():
    model, variables, x = trained("resnet18")
    folded, folded_variables = fold_batch_norm(model, variables)
    with pytest.raises(ValueError, match="train the network it came from"):
        jax.eval_shape(lambda: folded.apply(folded_variables, x, train=True, mutable=["batch_stats"]))


def test_what_cannot_be_folded_is_refused():
    with pytest.raises(ValueError, match="PreActBasicBlock"):
        fold_batch_norm(*trained("resnetv2_18")[:2])
    with pytest.raises(ValueError, match="norm='group': has no running statistics"):
        fold_batch_norm(*trained("resnet18", norm="group", width=32)[:2])
    with pytest.raises(ValueError, match="standardize_weights=True: would undo"):
        fold_batch_norm(*trained("resnet18", standardize_weights=True)[:2])
    with pytest.raises(ValueError, match="folded already"):
        fold_batch_norm(*fold_batch_norm(*trained("resnet18")[:2]))


def test_another_network_and_half_of_the_variables():
    with pytest.raises(ValueError, match="model=FCN: only a ResNet's norms can be folded"):
        fold_batch_norm(create_model("fcn"), {"params": {}, "batch_stats": {}})  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="variables: have no batch_stats; must be as"):
        fold_batch_norm(create_model("resnet18"), {"params": {}})  # pyright: ignore[reportArgumentType]
