"""Networks by name."""

import jax
import jax.numpy as jnp
import pytest

from flax_resnets import ResNet, create_model, list_models
from flax_resnets.errors import UserError
from flax_resnets.models.registry import MODELS


@pytest.mark.parametrize("name", MODELS)
def test_parameter_count_is_exact(name):
    x = jnp.zeros((1, 224, 224, 3))
    shapes = jax.eval_shape(create_model(name).init, jax.random.key(0), x)
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes["params"])) == MODELS[name].parameters


def test_list_models_takes_a_pattern():
    assert list_models("resnet5*") == ["resnet50", "resnet50d"]
    assert list_models() == list(MODELS)
    assert list_models("nothing") == []


def test_options_reach_the_module():
    model = create_model("resnet50", num_classes=7, stem="small", width=32)
    assert isinstance(model, ResNet)
    assert (model.num_classes, model.stem, model.width) == (7, "small", 32)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet19", {}, "model='resnet19': no such model; did you mean resnet1"),
        ("transformer", {}, "there are resnet18, "),
        ("resnet18", {"steem": "deep"}, "steem='deep': resnet18 has no such option; did you mean stem?"),
        ("resnet18", {"stage_sizes": (1,)}, "has no such option"),
        ("resnet18", {"stem": "wide"}, "resnet18: stem='wide': must be one of imagenet, deep, small"),
        ("resnet18", {"num_classes": -1}, "num_classes=-1: must be a whole number"),
        ("resnet18", {"num_classes": True}, "num_classes=True: must be a whole number"),
    ],
)
def test_mistakes_are_one_line(name, options, message):
    with pytest.raises(UserError) as caught:
        create_model(name, **options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
