"""What a network says of a call that cannot be meant: while it is traced, and whatever the network."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn
from flax import nnx

from flax_resnets import BasicBlock, ResNet, create_model, list_models
from flax_resnets.models.textbook import FCN

NETWORKS = {"resnet": ResNet((1,), BasicBlock, 3, 8, stem="small"), "textbook": FCN(num_classes=3)}


@pytest.fixture(params=NETWORKS)
def model(request):
    return NETWORKS[request.param]


def images(*shape: int, dtype=jnp.float32) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype)


def init(model: nn.Module, x: jax.ShapeDtypeStruct):
    return jax.eval_shape(lambda x: model.init(jax.random.key(0), x), x)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (images(32, 32, 3), r"images of shape \(32, 32, 3\): must be \(N, H, W, C\); of a single image give x\[None\]"),
        (images(32, 32), r"images of shape \(32, 32\): must be \(N, H, W, C\)"),
        (images(0, 32, 32, 3), r"shape \(0, 32, 32, 3\): must be at least one image"),
    ],
)
def test_images_that_no_network_takes(model, x, message):
    with pytest.raises(ValueError, match=message):
        init(model, x)
    variables = init(model, images(1, 32, 32, 3))
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(lambda variables, x: model.apply(variables, x), variables, x)


@pytest.mark.parametrize("dtype", [jnp.uint8, jnp.int32])
def test_pixels_that_are_not_normalised(model, dtype):
    with pytest.warns(UserWarning, match=r"dtype u?int\d+ are taken as they are; .* such as \(x / 255 - mean\) / std"):
        init(model, images(2, 32, 32, 3, dtype=dtype))


def test_channels_before_height_and_width(model):
    with pytest.warns(UserWarning, match=r"3 pixels high and have 224 channels.* give x.transpose\(0, 2, 3, 1\)"):
        init(model, images(2, 3, 224, 224))


@pytest.mark.parametrize("name", list_models())
def test_every_network_checks_its_call(name):
    with pytest.raises(ValueError, match=r"images of shape \(224, 224, 3\)"):
        init(create_model(name), images(224, 224, 3))


def test_a_training_step_without_train(model):
    """That of Flax's own example, whose network is in training by default."""
    variables = init(model, images(1, 32, 32, 3))

    def step(variables, x):
        def loss(params):
            logits, updates = model.apply({**variables, "params": params}, x, mutable=["batch_stats"])
            return optax.softmax_cross_entropy(logits, nn.one_hot(jnp.zeros(2, int), 3)).mean(), updates

        return jax.grad(loss, has_aux=True)(variables["params"])

    with pytest.warns(UserWarning, match=r"batch_stats is mutable, but train=False.* needs train=True") as warned:
        jax.eval_shape(step, variables, images(2, 32, 32, 3))
    assert len(warned) == 1


class Probe(nn.Module):
    """Trains a layer and a norm of its own on a network at rest."""

    body: nn.Module

    @nn.compact
    def __call__(self, x, train: bool):
        return nn.BatchNorm(use_running_average=not train)(nn.Dense(2)(self.body(x)))


@pytest.mark.filterwarnings("error")
def test_what_is_no_mistake(model):
    x = images(2, 32, 32, 13)  # more channels than a photo has
    variables = init(model, x)

    def traced(**options):
        return jax.eval_shape(lambda variables, x: model.apply(variables, x, **options), variables, x)

    traced(train=False)
    traced(train=True, mutable=["batch_stats"])
    traced(mutable=["intermediates"], capture_intermediates=True)
    traced(mutable=True)
    model.tabulate(jax.random.key(0), jnp.ones((1, 32, 32, 3)), train=False)
    probe = Probe(model)
    variables = jax.eval_shape(lambda x: probe.init(jax.random.key(0), x, train=True), x)
    jax.eval_shape(lambda v, x: probe.apply(v, x, train=True, mutable=["batch_stats"]), variables, x)


@pytest.mark.filterwarnings("error::UserWarning")
def test_in_nnx_it_may_be_at_rest():
    network = NETWORKS["resnet"]
    bridged = nnx.bridge.ToNNX(network, rngs=nnx.Rngs(0)).lazy_init(jnp.ones((1, 8, 8, 3)))
    assert bridged(np.ones((2, 8, 8, 3), np.float32), train=False).shape == (2, 3)


def test_a_warning_comes_once_a_process():
    variables = init(NETWORKS["resnet"], images(1, 32, 32, 3))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(2):
            jax.eval_shape(
                lambda v, x: NETWORKS["resnet"].apply(v, x, mutable=["batch_stats"]), variables, images(2, 32, 32, 3)
            )
    assert len(caught) == 1
