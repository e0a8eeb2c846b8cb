"""ONNX graphs of each option of a ResNet, and of operations that no network has."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flax_resnets import BasicBlock, BottleneckBlock, ResNet
from flax_resnets.errors import UserError
from flax_resnets.models.resnet import PreActBasicBlock

pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

SIDE = 17
OPTIONS = {
    "imagenet": {"stem": "imagenet"},
    "deep, avg_pool, mish": {"stem": "deep", "shortcut": "avg_pool", "activation": "mish"},
    "squeeze_excite, silu, pad": {"squeeze_excite": True, "activation": "silu", "shortcut": "pad"},
    "blur_pool, gelu, remat": {"blur_pool": True, "activation": "gelu", "remat": "block"},
    "groups, dilated": {"block": BottleneckBlock, "groups": 2, "width_per_group": 32, "output_stride": 8},
    "pre-activated": {"block": PreActBasicBlock},
}


def description(outputs: int) -> dict:
    return {
        "architecture": "small",
        "input": {"name": "images", "shape": ["batch", SIDE, SIDE, 3]},
        "output": {"name": "logits", "shape": ["batch", outputs]},
    }


def compared(program, outputs: int) -> tuple[np.ndarray, np.ndarray]:
    """What onnxruntime computes for three images, and what JAX does."""
    from flax_resnets.inference.onnx_graph import onnx_model

    images = np.random.default_rng(0).integers(0, 256, (3, SIDE, SIDE, 3)).astype(np.uint8)
    session = onnxruntime.InferenceSession(onnx_model(program, description(outputs)))
    return session.run(None, {"images": images})[0], np.asarray(jax.jit(program)(images))


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_each_option_gives_the_same(options):
    settings = {"stage_sizes": (1, 1), "block": BasicBlock, "stem": "small", "width": 4, "num_classes": 5, **options}
    model = ResNet(**settings)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, SIDE, SIDE, 3)))
    random = np.random.default_rng(0)
    variables = jax.tree.map(lambda leaf: random.uniform(0.1, 1.0, leaf.shape).astype(np.float32) - 0.3, shapes)
    variables["batch_stats"] = jax.tree.map(lambda leaf: leaf + 1, variables["batch_stats"])
    got, expected = compared(lambda x: model.apply(variables, x.astype(jnp.float32) / 128 - 1), 5)
    assert np.ptp(expected, axis=0).max() > 1e-3 * np.abs(expected).max()
    np.testing.assert_allclose(got, expected, atol=1e-5 * np.abs(expected).max(), rtol=0)


PROGRAMS = {
    "a constant repeated": lambda x: (
        jax.lax.slice_in_dim(jnp.concatenate([x, jnp.flip(x, 1)], 3), 1, 6, 2, 3) + jnp.arange(3.0)
    ),
    "a tensor repeated": lambda x: jnp.concatenate(
        [x, jnp.broadcast_to(jax.lax.slice_in_dim(x, 1, 2, axis=1), x.shape)], 1
    ).transpose(0, 3, 2, 1),
    "products": lambda x: jnp.einsum("nhwc,nhvc->nwv", x, x)[..., None],
    "padded pools": lambda x: jax.lax.reduce_window(
        x, 0.0, jax.lax.add, (1, 3, 2, 1), (1, 2, 1, 1), ((0, 0), (0, 1), (1, 0), (0, 0))
    ),
}


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_operations_in_any_order_of_axes(program):
    def flat(images):
        x = jax.lax.conv_general_dilated(
            images.astype(jnp.float32) / 255,
            jnp.ones((1, 1, 3, 3)),
            (1, 1),
            "VALID",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        y = program(x)
        return y.reshape(y.shape[0], -1)

    got, expected = compared(flat, int(jax.eval_shape(flat, jnp.zeros((1, SIDE, SIDE, 3))).shape[1]))
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


def test_an_unknown_operation_is_named():
    with pytest.raises(UserError, match="format=onnx: the network has an operation that is not known here: sort"):
        compared(lambda x: jnp.sort(x.reshape(x.shape[0], -1).astype(jnp.float32)), SIDE * SIDE * 3)
