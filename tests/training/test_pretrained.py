"""Weights that a run begins with: which head it keeps, what comes with them, and what is refused."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from flax_resnets import BasicBlock, ResNet, create_model, export_state_dict
from flax_resnets.data.identity import Identity
from flax_resnets.errors import UserError
from flax_resnets.inference.classifier import Classifier
from flax_resnets.inference.preprocess import Settings
from flax_resnets.training.lineage import Lineage, read_lineage, write_lineage
from flax_resnets.training.optimizers import make_optimizer
from flax_resnets.training.pretrained import OpenWeights, fitted, open_weights, seen_before, start_of
from flax_resnets.training.state import create_state, tree_digest
from flax_resnets.weights.safetensors_format import write_safetensors

NAMES = ("cat", "dog", "owl")


def network(classes: int = 3, **options) -> ResNet:
    options = {"stage_sizes": (1, 1), "block": BasicBlock, "width": 8, "stem": "small"} | options
    return ResNet(**options, num_classes=classes)


def variables_of(model, channels: int = 1) -> dict:
    """Variables in which all numbers differ."""
    shapes = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 28, 28, channels), np.float32))
    rng = np.random.default_rng(7)
    return jax.tree.map(lambda leaf: rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32), shapes)


def source(model=None, names=NAMES, channels: int = 1, **fields) -> OpenWeights:
    """A classifier of the network with these class names."""
    model = model or network(len(names))
    fields = {"mean": (0.3,) * channels, "std": (0.2,) * channels} | fields
    settings = Settings(model="made", dataset="", image_size=28, channels=channels, **fields)
    variables = variables_of(model, channels)
    classifier = Classifier(model, variables, settings, names, step=7)
    return OpenWeights("runs/first", export_state_dict(model, variables), classifier)


def bare(pretrained: OpenWeights) -> OpenWeights:
    """Its weights alone, as in a file."""
    return pretrained._replace(classifier=None)


@pytest.fixture
def begun(config):
    """A configuration that leaves mean and std to the weights or the data."""
    return dataclasses.replace(config, weights="runs/first", mean=None, std=None)


def assert_same(ours, theirs):
    jax.tree.map(np.testing.assert_array_equal, ours, jax.tree.map(np.asarray, theirs))


def test_everything_comes_if_the_classes_are_the_same(begun):
    pretrained = source()
    start = fitted(pretrained, network(), begun, 1, NAMES)
    assert_same(start.variables(), pretrained.classifier.variables)
    assert start.lineage == Lineage(
        weights="runs/first",
        digest=tree_digest(pretrained.classifier.variables),
        head="kept",
        step=7,
        mean=(0.3,),
        std=(0.2,),
    )
    assert start.statistics == ((0.3,), (0.2,))
    tensors = len(jax.tree.leaves(start.variables()))
    assert start.notes == (
        f"weights=runs/first: {tensors} tensors of step 7; with their head, which is for these classes",
        "mean=0.300 and std=0.200 come with the weights",
    )


def test_a_head_for_the_same_classes_in_another_order_is_reordered(begun):
    pretrained = source()
    start = fitted(pretrained, network(), begun, 1, ("owl", "cat", "dog"))
    assert start.lineage.head == "reordered"
    assert "brought into the order" in start.notes[0]
    theirs, ours = pretrained.classifier.variables["params"], start.variables()["params"]
    np.testing.assert_array_equal(ours["head"]["kernel"], theirs["head"]["kernel"][:, [2, 0, 1]])
    np.testing.assert_array_equal(ours["head"]["bias"], theirs["head"]["bias"][np.array([2, 0, 1])])
    assert_same(ours["stage1_block1"], theirs["stage1_block1"])


@pytest.mark.parametrize(
    ("pretrained", "names", "said"),
    [
        (source(), ("a", "b"), "a new head for 2 classes, instead of theirs for 3"),
        (source(), ("cat", "dog", "cow"), "a new head: theirs is for other classes, such as 'owl'"),
        (bare(source()), ("a", "b"), "a new head for 2 classes, instead of theirs for 3"),
        (
            source(names=("crane", "owl", "crane")),
            ("owl", "crane", "crane"),
            "several of its classes have the same name",
        ),
        (source(names=("owl", "owl", "crane")), ("owl", "crane", "cat"), "several of its classes have the same name"),
    ],
    ids=["another number", "other names", "a file's", "names twice", "a name twice, and another one"],
)
def test_a_head_for_other_classes_is_left_out(begun, pretrained, names, said):
    start = fitted(pretrained, network(len(names)), begun, 1, names)
    assert start.lineage.head == "new"
    assert said in start.notes[0]
    assert "head" not in start.variables()["params"]


def test_weights_without_a_head_are_enough(begun):
    tensors = export_state_dict(model := network(0), variables_of(model))
    start = fitted(OpenWeights("body.npz", tensors), network(), begun, 1, NAMES)
    assert start.lineage.head == "new"
    assert "they have no head: a new one for 3 classes" in start.notes[0]
    assert start.statistics is None


def test_a_file_of_another_library_is_found_below_its_prefix_and_what_is_left_out_is_said(begun):
    tensors = export_state_dict(model := network(), variables := variables_of(model))
    tensors = {f"head.{name}" if name.startswith("fc.") else f"net.{name}": value for name, value in tensors.items()}
    start = fitted(OpenWeights("w.npz", tensors | {"neck.bias": np.zeros(2)}), network(), begun, 1, NAMES)
    assert_same(start.variables(), variables)
    assert start.lineage.head == "kept"
    assert start.notes[1] == "weights=w.npz: the network is what is below 'net.'; 1 more tensor is left out: neck"
    headless = {name: value for name, value in tensors.items() if name.startswith("net.")}
    assert fitted(OpenWeights("w.npz", headless), network(), begun, 1, NAMES).lineage.head == "new"


NUMBERS = ("0", "1", "2")


@pytest.mark.parametrize(
    ("pretrained", "names", "said"),
    [(bare(source()), NAMES, "they do not name theirs"), (source(names=NUMBERS), NUMBERS, "both are only numbers")],
    ids=["a file", "numbers"],
)
def test_a_head_whose_classes_are_not_named_is_kept_and_asked_about(begun, pretrained, names, said):
    start = fitted(pretrained, network(), begun, 1, names)
    assert start.lineage.head == "kept"
    assert f"{said}; are they the same, in order? If not, give --config.weights_head=new" in start.notes[0]
    assert "head" in start.variables()["params"]
    other = fitted(pretrained, network(), dataclasses.replace(begun, weights_head="new"), 1, names)
    assert other.lineage.head == "new"
    assert "head" not in other.variables()["params"]


@pytest.mark.parametrize(("theirs", "ours"), [(NUMBERS, NAMES), (NAMES, NUMBERS)])
def test_classes_with_names_are_others_than_numbers_unless_the_head_is_to_be_kept(begun, theirs, ours):
    start = fitted(source(names=theirs), network(), begun, 1, ours)
    assert start.lineage.head == "new"
    assert "--config.weights_head=keep takes theirs" in start.notes[0]
    kept = fitted(source(names=theirs), network(), dataclasses.replace(begun, weights_head="keep"), 1, ours)
    assert kept.lineage.head == "kept"
    assert_same(kept.variables()["params"]["head"], source(names=theirs).classifier.variables["params"]["head"])


def test_a_head_of_another_size_cannot_be_kept(begun):
    with pytest.raises(UserError, match="weights_head=keep: the weights have a head for 3 classes, the data 2 classes"):
        fitted(source(), network(2), dataclasses.replace(begun, weights_head="keep"), 1, ("a", "b"))


def test_a_head_that_is_kept_all_the_same_says_what_its_classes_are(begun):
    keep = dataclasses.replace(begun, weights_head="keep")
    for classes, said in ((NAMES[::-1], "in another order than the data's"), ("xyz", "others than the data's")):
        start = fitted(source(), network(), keep, 1, tuple(classes))
        assert start.notes[0].endswith(f"with their head (weights_head=keep), whose classes are {said}")


def test_images_that_the_weights_were_trained_on_are_told(tmp_path):
    def data(seed: int, total: int = 100) -> Identity:
        splits = {"train": f"all without 0.2 of all by seed {seed}", "validation": f"0.2 of all by seed {seed}"}
        counts = {"train": total - 20, "validation": 20}
        what = {"dataset": "folder", "version": "", "fingerprint": "0" * 64, "channels": 3, "class_names": ("a", "b")}
        return Identity(**what, counts=counts, splits=splits)

    (tmp_path / "data.json").write_text(data(0).to_json())
    (line,) = seen_before(str(tmp_path), data(1))
    assert "about 80% of the validation images were training images there" in line
    assert line.endswith("--config.seed=0 keeps its split")
    assert seen_before(str(tmp_path), data(0)) == seen_before(str(tmp_path), data(1, total=90)) == []
    assert seen_before(None, data(1)) == seen_before(str(tmp_path / "no_run"), data(1)) == []


@pytest.mark.parametrize("head", ["keep", "new"])
def test_without_weights_there_is_no_head_to_decide_about(config, tmp_path, head):
    with pytest.raises(UserError, match=f"^weights_head={head}: needs weights"):
        start_of(dataclasses.replace(config, weights_head=head), tmp_path / "run")


def test_a_stem_for_colour_fits_grey_images_and_gives_them_its_mean(begun):
    pretrained = source(channels=3, mean=(0.2, 0.3, 0.7), std=(0.1, 0.2, 0.3))
    start = fitted(pretrained, network(), begun, 1, NAMES)
    theirs = pretrained.classifier.variables["params"]["stem_conv"]["kernel"]
    np.testing.assert_allclose(start.variables()["params"]["stem_conv"]["kernel"], theirs.sum(2, keepdims=True), 1e-6)
    np.testing.assert_allclose(start.statistics, [[0.4], [0.2]])


def test_the_configurations_mean_and_std_come_first(config):
    start = fitted(source(), network(), dataclasses.replace(config, weights="runs/first"), 1, NAMES)
    assert start.statistics is None
    assert len(start.notes) == 1


def test_what_was_different_when_they_were_trained_is_said(begun):
    pretrained = source(resize="crop", interpolation="bicubic", model_options={"activation": "mish", "dropout": 0.5})
    *_, note = fitted(pretrained, network(), begun, 1, NAMES).notes
    assert note == (
        "the weights were trained with resize=crop (here squash), interpolation=bicubic (here lanczos), "
        "activation=mish (here its default)"
    )


@pytest.mark.parametrize("name", ["lenet", "nin", "densenet"])
def test_networks_that_timm_does_not_have_are_matched_by_our_names(begun, name):
    from flax_resnets.inference.folder import tensors_of

    size = {"lenet": 28, "nin": 224, "densenet": 96}[name]
    begun = dataclasses.replace(begun, image_size=size)
    model = create_model(name, 3)
    shapes = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, size, size, 1), np.float32))
    variables = jax.tree.map(lambda leaf: np.full(leaf.shape, 0.5, np.float32), shapes)
    settings = Settings(model=name, dataset="", image_size=size, channels=1, mean=(0.3,), std=(0.2,))
    classifier = Classifier(model, variables, settings, NAMES)
    pretrained = OpenWeights("saved", tensors_of(classifier), classifier)
    assert fitted(pretrained, model, begun, 1, NAMES).lineage.head == "kept"
    start = fitted(pretrained, create_model(name, 2), begun, 1, ("a", "b"))
    left_out = set(variables["params"]) - set(start.variables()["params"])
    assert left_out == {"nin": {"head_conv1", "head_conv2", "head_conv3"}}.get(name, {"head"})


def refused(pretrained, model, config, channels=1) -> str:
    with pytest.raises(UserError) as caught:
        fitted(pretrained, model, config, channels, NAMES)
    assert len(str(caught.value)) < 600
    return str(caught.value)


def test_weights_of_another_network_are_refused_with_the_first_differences(begun):
    error = refused(source(network(stage_sizes=(3, 3, 3))), network(), begun)
    assert error.startswith(
        "weights=runs/first: does not fit model=two stages, see make_trainer on grey images: "
        "75 extra: 'layer1.1.bn1.bias', 'layer1.1.bn1.running_mean', 'layer1.1.bn1.running_var' and 72 more; "
        "1 misshaped: 'fc.weight' is"
    )


def test_the_flags_for_the_network_of_a_run_are_named(begun):
    """If its configuration has the name of the network; otherwise only the differences are known."""
    pretrained = source(create_model("resnet18", 3, width=8, stem="small"))
    settings = dataclasses.replace(
        pretrained.classifier.settings, model="resnet18", model_options={"stem": "small", "width": 8}
    )
    pretrained.classifier.settings = settings
    right = "--config.model=resnet18 --config.model_options.stem=small --config.model_options.width=8"
    theirs = f"; theirs is another network: {right}"
    assert refused(pretrained, network(), begun).endswith(theirs)
    config = dataclasses.replace(begun, model="resnet18", model_options={"activation": "mish"})
    back = right.replace("18 ", "18 --config.model_options=none ", 1)
    assert refused(pretrained, network(), config).endswith(f"; theirs is another network: {back}")


def test_a_network_that_does_not_take_the_images_is_named_before_the_weights_are(begun):
    config = dataclasses.replace(begun, model="alexnet", image_size=28)
    with pytest.raises(UserError, match=r"^model='alexnet' on images of \(28, 28, 1\): .*too small"):
        fitted(source(), create_model("alexnet", num_classes=3), config, 1, NAMES)


def test_weights_for_grey_images_do_not_fit_colour(begun):
    error = refused(source(), network(), begun, channels=3)
    assert error == (
        "weights=runs/first: does not fit model=two stages, see make_trainer on colour images: 1 misshaped: "
        "'conv1.weight' is (8, 1, 3, 3), not (8, 3, 3, 3); it is for images of 1 channel"
    )


@pytest.mark.parametrize("name", ["nothing", "nothing.npz", "nothing.safetensors", "hf-hub:", "~nobody-of-that-name/x"])
def test_a_source_that_is_not_there_is_named(tmp_path, name, config):
    path = name if name[0] in "h~" else f"{tmp_path / name}"
    with pytest.raises(UserError, match=r"^weights=") as caught:
        start_of(dataclasses.replace(config, weights=path), tmp_path / "run")
    assert path[:20] in str(caught.value)
    assert len(str(caught.value)) < 600
    assert not (tmp_path / "run").exists()


def test_a_file_is_opened(tmp_path):
    tensors = source().tensors
    write_safetensors(tmp_path / "w.safetensors", tensors)
    opened = open_weights(str(tmp_path / "w.safetensors"))
    assert opened.classifier is None
    assert opened.tensors.keys() == tensors.keys()


def test_the_state_begins_with_them_and_so_does_its_average(begun):
    start = fitted(source(), model := network(2), begun, 1, ("a", "b"))
    optimizer = make_optimizer(dataclasses.replace(begun, optimizer="ranger"), lambda _: 0.1, lambda _: 0.9)

    @jax.jit
    def create(pretrained, draw=5):
        return create_state(model, optimizer, (12, 12, 1), 3, ema=True, pretrained=pretrained, draw=draw)

    state, fresh = create(start.variables()), create(None)
    assert_same({**state.params, "head": None}, {**start.variables()["params"], "head": None})
    head = state.params["head"]["kernel"]
    others = create(start.variables(), 6), fresh  # the weights' own head may have begun as that of a fresh state
    assert all(not np.array_equal(head, other.params["head"]["kernel"]) for other in others)
    assert_same(state.params["head"], create(start.variables()).params["head"])
    assert_same(state.batch_stats, start.variables()["batch_stats"])
    assert_same(state.ema.params, state.params)
    assert_same(state.opt_state.inner_state.slow, state.params)


def test_the_record_is_read_as_it_was_written(tmp_path):
    assert read_lineage(tmp_path) is None
    lineage = Lineage(weights="a", digest="b", head="new", step=3, state_digest="c", mean=(0.5,), std=(0.25,))
    write_lineage(lineage, tmp_path)
    assert read_lineage(tmp_path) == lineage


RECORD = {"weights": "a", "digest": "b", "head": "new"}
WRONG = [
    *({"head": "old"}, {"step": "3"}, {"mean": [1.0]}, {"mean": ["x"], "std": [1.0]}),
    *({"mean": [0.5], "std": [0.0]}, {"other": 1}, {"weights": 1}),
]


@pytest.mark.parametrize("content", ["", "[]", "{}", *(json.dumps(RECORD | wrong) for wrong in WRONG)])
def test_a_record_that_is_none_is_refused(tmp_path, content):
    (tmp_path / "lineage.json").write_text(content)
    with pytest.raises(UserError, match=r"lineage.json: is no record of a run's weights"):
        read_lineage(tmp_path)
