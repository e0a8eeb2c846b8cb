"""Finding a network in a file: prefixes, nested mappings, averages, heads elsewhere, and what is left out."""

import warnings

import numpy as np
import pytest
from test_load import assert_same, network, refused, state_of, variables_of

from flax_resnets import BottleneckBlock
from flax_resnets.weights import FreshHeadWarning, WeightsNote, load_weights

MODEL, BODY = network(), network(num_classes=0)
STATE = state_of(MODEL)
VARIABLES = variables_of(MODEL)
OTHER = {name: value + 1 for name, value in STATE.items()}
PROJECTOR = {"projector.0.weight": np.zeros((4, 16), np.float32), "projector.2.weight": np.zeros((4, 4), np.float32)}


def below(prefix: str, state: dict = STATE) -> dict[str, np.ndarray]:
    return {prefix + name: value for name, value in state.items()}


def headless(state: dict = STATE) -> dict[str, np.ndarray]:
    return {name: value for name, value in state.items() if not name.startswith("fc.")}


def head(name: str) -> dict[str, np.ndarray]:
    return {f"{name}.weight": STATE["fc.weight"], f"{name}.bias": STATE["fc.bias"]}


def noted(model, source, **kwargs) -> tuple[dict, str]:
    """The variables, and the only note."""
    with pytest.warns(WeightsNote) as caught:
        loaded = load_weights(model, source, **kwargs)
    assert len(caught) == 1
    assert len(str(caught[0].message)) <= 600
    return loaded, str(caught[0].message)


SILENT = {
    "none": STATE,
    "module": below("module."),
    "compiled": below("_orig_mod."),
    "compiled, then parallel": below("module._orig_mod."),
    "parallel, then compiled": below("_orig_mod.module."),
    "state_dict": {
        "state_dict": below("module."),
        "epoch": 3,
        "arch": "resnet18",
        "optimizer": {"state": {0: {"exp_avg": STATE["fc.weight"]}}},
    },
    "model": {"model": STATE, "args": {"lr": 0.1}},
    "model_state_dict": {"model_state_dict": STATE, "optimizer_state_dict": {}},
    "net": {"net": STATE, "acc": 0.9},
    "params": {"params": STATE},
    "any name": {"everything": {"here": STATE}},
}


@pytest.mark.parametrize("source", SILENT.values(), ids=SILENT)
def test_what_says_nothing_about_a_network_is_seen_through_in_silence(source):
    assert_same(load_weights(MODEL, source), VARIABLES)


PREFIXES = ["model.", "net.", "backbone.", "encoder.", "module.encoder.", "_orig_mod.model.", "trunk._feature_blocks."]


@pytest.mark.parametrize("prefix", PREFIXES)
def test_any_other_prefix_is_said(prefix):
    loaded, note = noted(MODEL, {"state_dict": below(prefix)})
    assert_same(loaded, VARIABLES)
    assert note == f"source: the network is what is below 'state_dict/{prefix}'"


@pytest.mark.parametrize("place", ["fc", "head.fc", "classifier", "linear"])
def test_a_head_may_be_outside_of_the_body(place):
    loaded, _ = noted(MODEL, {"state_dict": below("module.backbone.", headless()) | head(f"module.{place}")})
    assert_same(loaded, VARIABLES)


def test_what_else_there_is_is_named_once():
    loaded, note = noted(MODEL, below("backbone.") | PROJECTOR | {"step": np.zeros(())})
    assert_same(loaded, VARIABLES)
    assert note == "source: the network is what is below 'backbone.'; 3 more tensors are left out: projector, step"


def test_a_network_without_a_head_leaves_out_what_is_in_its_place():
    for prefix, said in (("", ""), ("module.", "the network is what is below 'module.'; ")):
        loaded, note = noted(BODY, below(prefix, headless() | PROJECTOR))
        assert_same(loaded, load_weights(BODY, STATE))
        assert note == f"source: {said}2 more tensors are left out: {prefix}projector"


def test_a_network_with_a_head_is_never_loaded_without_one():
    message = refused(MODEL, below("backbone.", headless()) | PROJECTOR)
    assert message == (
        "source: does not fit the model: 2 missing: 'backbone.fc.bias', 'backbone.fc.weight'; "
        "it has no head: num_classes=0 loads the rest"
    )
    assert "2 missing: 'fc.bias', 'fc.weight'; 2 extra: 'projector.0.weight', " in refused(
        MODEL, headless() | PROJECTOR
    )


@pytest.mark.parametrize("model", [MODEL, BODY], ids=["with a head", "without"])
@pytest.mark.parametrize("prefix", ["", "module.", "backbone."])
def test_more_of_the_body_than_the_network_has_is_refused(model, prefix):
    deeper = state_of(network(stage_sizes=(3, 1)))
    assert f" extra: '{prefix}layer1.2.bn1.bias', " in refused(model, below(prefix, deeper))
    assert " extra: " in refused(model, below(prefix, STATE | {"layer3.0.conv1.weight": np.zeros(1, np.float32)}))


def test_a_part_of_the_network_is_refused():
    message = refused(MODEL, below("encoder.", {name: STATE[name] for name in [*STATE][:-8]}))
    assert "does not fit the model: 8 missing: 'encoder." in message


@pytest.mark.parametrize(
    ("raw", "averaged"),
    [
        ("state_dict/", "state_dict_ema/"),
        ("model/", "model_ema/"),
        ("student/module.backbone.", "teacher/backbone."),
        ("model.", "ema_model.module."),
    ],
)
def test_of_two_the_average_is_taken_unless_the_other_is_asked_for(raw, averaged):
    flat = below(raw) | below(averaged, OTHER)
    loaded, note = noted(MODEL, flat)
    assert_same(loaded, load_weights(MODEL, OTHER))
    assert f"the network is what is below '{averaged}'" in note
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", WeightsNote)
        assert_same(load_weights(MODEL, flat, average=False), VARIABLES)
        assert_same(load_weights(MODEL, below(averaged, OTHER), average=False), load_weights(MODEL, OTHER))


def test_the_note_of_an_average_says_how_to_get_the_other():
    _, note = noted(MODEL, {"state_dict": STATE, "state_dict_ema": OTHER, "epoch": 3})
    assert note == (
        "source: the network is what is below 'state_dict_ema/'; "
        "not what is below 'state_dict/'; average=False takes that"
    )


def test_mocos_slow_encoder_and_queue_are_left_out():
    mlp = {"fc.0.weight": np.zeros((16, 16), np.float32), "fc.2.weight": np.zeros((4, 16), np.float32)}
    queries, keys = (headless(state) | mlp for state in (STATE, OTHER))
    file = {"module.queue": np.zeros((4, 8), np.float32), "module.queue_ptr": np.zeros(1, np.int64)}
    source = {"state_dict": file | below("module.encoder_k.", keys) | below("module.encoder_q.", queries)}
    for average in (True, False):
        loaded, note = noted(BODY, source, average=average)
        assert_same(loaded, load_weights(BODY, STATE))
    assert note == (
        "source: the network is what is below 'state_dict/module.encoder_q.'; "
        f"{len(keys) + 4} more tensors are left out: module.queue, module.queue_ptr, module.encoder_k and 1 more"
    )
    assert "2 missing: 'state_dict/module.encoder_q.fc.bias'" in refused(MODEL, source)


def test_a_head_for_other_classes_is_replaced_wherever_it_is():
    source = below("backbone.", headless()) | {"head.fc.weight": np.ones((7, 16)), "head.fc.bias": np.ones(7)}
    with pytest.warns(WeightsNote), pytest.warns(FreshHeadWarning, match="source has 7 classes, the model 5"):
        loaded = load_weights(MODEL, source)
    assert_same({**loaded["params"], "head": None}, {**VARIABLES["params"], "head": None})


def test_two_networks_of_which_none_is_an_average_are_refused():
    message = refused(MODEL, below("left.") | below("right."))
    assert message == "source: has the network twice, below 'left.' and 'right.'; give a mapping of one of them"


def test_a_misfit_below_a_prefix_is_told_by_the_names_of_the_file():
    message = refused(MODEL, {"state_dict": below("net.", state_of(network(block=BottleneckBlock)))})
    assert "20 extra: 'state_dict/net.layer1.0.bn3.bias', " in message


def test_variables_and_their_trees_are_loaded_too():
    assert_same(load_weights(MODEL, VARIABLES), VARIABLES)
    flat = {"/".join(("state", *path)): value for path, value in _leaves(VARIABLES)}
    assert_same(load_weights(MODEL, flat), VARIABLES)


def _leaves(tree, path=()):
    for name, value in tree.items():
        yield from _leaves(value, (*path, name)) if isinstance(value, dict) else [((*path, name), value)]
