"""Trained weights by timm's names: which there are, and what a wrong name is told."""

import pytest

from flax_resnets import create_model, list_models
from flax_resnets.errors import UserError
from flax_resnets.models.pretrained import find_pretrained, pretrained_weights


def test_each_is_of_a_network_here():
    names = list_models(pretrained=True)
    assert len(names) > 130
    assert {name.partition(".")[0] for name in names} <= set(list_models())
    assert {"resnet18.tv_in1k", "resnet50.a1_in1k", "seresnet50.ra2_in1k", "resnetv2_101.a1h_in1k"} <= set(names)


def test_each_says_where_it_is_and_under_which_licence():
    for weights in pretrained_weights().values():
        assert weights.repository == f"timm/{weights.name}"
        assert weights.licence in {"apache-2.0", "bsd-3-clause", "cc-by-nc-4.0"}
        assert 128 <= weights.size <= weights.test_size <= 480
        assert 0.875 <= weights.test_crop_pct <= 1
        assert weights.num_classes == {"in21k": 21843, "in12k": 11821}.get(weights.name.rpartition("_")[2], 1000)


def test_published_accuracies():
    table = pretrained_weights()
    assert (table["resnet50.a1_in1k"].test_size, table["resnet50.a1_in1k"].test_crop_pct) == (288, 1.0)
    assert (table["resnet50.tv2_in1k"].test_size, table["resnet50.tv2_in1k"].test_crop_pct) == (224, 0.965)
    assert (table["resnet50.a1_in1k"].top1, table["resnet50.a1_in1k"].top5) == (81.214, 95.102)
    # torchvision's own weights are the same in timm: its page has these figures for IMAGENET1K_V1.
    published = {"resnet18": 69.758, "resnet34": 73.314, "resnet50": 76.130, "resnet101": 77.374, "resnet152": 78.312}
    assert {name: table[f"{name}.tv_in1k"].top1 for name in published} == pytest.approx(published, abs=0.02)
    for weights in table.values():
        assert (weights.top1 is None) == (weights.top5 is None)
        if weights.top1 is None:
            assert weights.num_classes > 1000 or ".ra4_e3600_" in weights.name
        else:
            assert 68 < weights.top1 < 85
            assert weights.top1 + 10 < weights.top5 < weights.top1 + 21


def test_patterns_match_the_whole_name():
    assert list_models("resnet26*", pretrained=True) == [
        f"resnet26{rest}" for rest in (".bt_in1k", "d.bt_in1k", "t.ra2_in1k")
    ]
    assert list_models("resnet26") == ["resnet26"]


def test_the_network_of_trained_weights():
    assert create_model("resnet50d.ra2_in1k", pretrained=True) == create_model("resnet50d")
    assert create_model("resnet18.a1_in1k", num_classes=3, pretrained=True) == create_model("resnet18", 3)


@pytest.mark.parametrize(
    ("name", "pretrained", "message"),
    [
        ("resnet50d.a9_in1k", True, "resnet50d.a9_in1k: no such weights; did you mean resnet50d.a3_in1k, "),
        ("resnet26", True, "resnet26: no such weights; did you mean resnet26.bt_in1k?"),
        ("lenet", True, "lenet: has no trained weights by name; list_models(pretrained=True) lists what has"),
        ("resnt18", True, "model='resnt18': no such model; did you mean resnet18"),
        ("vit_base.augreg_in1k", True, "vit_base.augreg_in1k: no such weights; list_models(pretrained=True) lists"),
        ("resnet18.a1_in1k", False, "model='resnet18.a1_in1k': names trained weights, which a linen module does not"),
    ],
)
def test_a_wrong_name_is_told_the_right_ones(name, pretrained, message):
    with pytest.raises(UserError) as raised:
        create_model(name, pretrained=pretrained)
    assert str(raised.value).startswith(message)
    assert len(str(raised.value)) < 600


def test_a_name_is_a_string():
    with pytest.raises(UserError, match=r"name=None: must be a string, such as 'resnet50\.a1_in1k'"):
        find_pretrained(None)  # type: ignore[arg-type]
