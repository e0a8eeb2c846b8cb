"""Finds a network in the tensors of a file: in which library's layout, and below which prefix, the names fit."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from flax_resnets.errors import UserError
from flax_resnets.models.resnet import ResNet
from flax_resnets.weights.layouts import HEADS, LAYOUTS, Layout
from flax_resnets.weights.mismatch import listed, shown_name
from flax_resnets.weights.names import Path, torch_order, torch_shape
from flax_resnets.weights.stored import Stored

# Parts of a prefix that say that these weights are an average of others, as in timm, DINO and torch.optim.swa_utils.
_AVERAGES = {"ema", "teacher", "swa", "average", "averaged", "polyak", "shadow"}
# Parts of the prefix of a slow copy that only training needs, as in MoCo and BYOL.
_COPIES = {"k", "key", "momentum", "target"}
# Prefixes that torch adds to any network, which therefore say nothing; and the keys of nested mappings.
_SILENT = re.compile(r"(.*/)?((module|_orig_mod)\.)*")

_LONGEST_NAME = 500  # no library's names are as long; a file may have any

_HEAD = (("params", "head", "kernel"), ("params", "head", "bias"))


class Fit(NamedTuple):
    """Where the tensors of a network are in a file.

    Attributes:
        layout: whose names they have.
        prefix: what precedes these names in the file.
        names: the name in the file of each tensor, by its path in the network. Some may not be in the file.
        head: the names of the head's weight and bias, also if the network has no head.
        tensors: those of the network and of the head, and those that should not be there; with torch's axes.
        left_out: the other names of the same mapping.
        others: other prefixes that fit.
    """

    layout: Layout
    prefix: str
    names: dict[Path, str]
    head: tuple[str, str]
    tensors: dict[str, Stored]
    left_out: list[str]
    others: list[str]

    def notes(self, model: ResNet) -> list[str]:
        """What the user should know of the choice, a sentence each."""
        parts = []
        elsewhere = [prefix for prefix in self.others if _mapping(prefix) != _mapping(self.prefix)]
        usual = _SILENT.fullmatch(self.prefix.removesuffix(self.layout.prefix))
        if self.prefix and (self.left_out or elsewhere or not usual):
            parts.append(f"the network is what is below {shown_name(self.prefix)}")
        if elsewhere:
            hint = "; average=False takes that" if _is_average(self.prefix) else ""
            parts.append(f"not what is below {shown_name(elsewhere[0])}{hint}")
        if self.left_out:
            groups = list(dict.fromkeys(_group(name, self.prefix) for name in self.left_out))
            count = len(self.left_out)
            parts.append(f"{count} more tensor{'s are' if count > 1 else ' is'} left out: {listed(groups)}")
        return [*(["; ".join(parts)] if parts else []), *filter(None, [self.layout.differs(model)])]


def find_fit(model: ResNet, paths: Iterable[Path], tensors: Mapping[str, Stored], average: bool = True) -> Fit:
    """Finds a network in the tensors of a file.

    A layout and a prefix fit if each tensor of the body is there. If none fits, the one that has most of them is taken,
    so that the differences can be told. The shapes are not looked at.

    - Of several prefixes that fit, that of an average (`state_dict_ema/`, `teacher/`) is taken, or, with
      `average=False`, another. A slow copy that only training needs (`encoder_k.`) comes last.
    - The head may be beside the body, or further out: `backbone.conv1.weight` and `head.fc.weight`.
    - What is not below the prefix is left out. What is below it and not the network's should not be there. But a
      network without a head (`num_classes=0`) leaves out whole modules in the place of its head: `projector.0.weight`.

    Args:
        model: the network.
        paths: of its tensors.
        tensors: of the file; a `/` in a name separates the keys of nested mappings.
        average: see above.

    Raises:
        UserError: several prefixes fit, and nothing tells which is meant.

    Example:
        >>> from flax_resnets import ResNet
        >>> from flax_resnets.weights.load import expected_shapes
        >>> model = ResNet(stage_sizes=(1,), num_classes=0)
        >>> paths = expected_shapes(model, (32, 32, 3))
        >>> names = [f"net.{LAYOUTS[0].name(model, path)}" for path in paths]
        >>> find_fit(model, paths, dict.fromkeys(names, Stored((), "float32", lambda: ...))).prefix
        'net.'
    """
    paths = list(paths)
    found = []
    for layout in LAYOUTS:
        try:
            names = {path: layout.name(model, path) for path in paths if path[1] != "head"}
        except KeyError:
            continue
        counts = _prefixes(names.values(), tensors)
        most = max(counts.values(), default=0)
        found.append((most, layout, names, [prefix for prefix, count in counts.items() if count == most]))
        if most == len(names):
            break
    most, layout, names, prefixes = max(found, key=lambda each: each[0])  # of several the first
    others: list[str] = []
    if most == len(names):
        prefix, *others = _ranked(prefixes, average)
    elif most > len(names) / 4:
        prefix = min(prefixes, key=len)
    else:  # another network
        (_, layout, names, _), prefix = found[0], _largest_mapping(tensors)
    head = _head_names(layout, model, prefix, tensors)
    names = {path: prefix + name for path, name in names.items()}
    names |= {path: name for path, name in zip(_HEAD, head, strict=True) if path in paths}
    body = {name for path, name in names.items() if path not in _HEAD}
    below = [name for name in tensors if name.startswith(prefix) and name not in {*body, *head}]
    if not layout.linen:  # there, what is nested deeper is something else, such as the state of an optimizer
        below = [name for name in below if _mapping(name) == _mapping(prefix)]
    modules = {_module(name, prefix) for name in body}
    stray = [name for name in below if model.num_classes or _module(name, prefix) in modules]
    chosen = {name: tensors[name] for name in (*names.values(), *head, *stray) if name in tensors}
    left_out = [name for name in tensors if _mapping(name) == _mapping(prefix) and name not in chosen]
    if layout.linen:
        chosen = {name: _in_torchs_order(stored) for name, stored in chosen.items()}
    return Fit(layout, prefix, names, head, chosen, left_out, others)


def _prefixes(names: Iterable[str], tensors: Mapping[str, Stored]) -> Counter[str]:
    """How many of the names there are below each prefix."""
    wanted, found = set(names), Counter[str]()
    for name in tensors:
        if len(name) <= _LONGEST_NAME:
            starts = [0, *(match.end() for match in re.finditer(r"[./]", name))]
            found.update(name[:start] for start in starts if name[start:] in wanted)
    return found


def _ranked(prefixes: list[str], average: bool) -> list[str]:
    """The prefixes that fit, the one that is meant first."""

    def rank(prefix: str) -> tuple[bool, bool]:
        return bool(_parts(prefix) & _COPIES), _is_average(prefix) != average

    ranked = sorted(prefixes, key=rank)
    if len(ranked) > 1 and rank(ranked[0]) == rank(ranked[1]):
        both = " and ".join(map(shown_name, ranked[:2]))
        raise UserError(f"has the network twice, below {both}; give a mapping of one of them")
    return ranked


def _is_average(prefix: str) -> bool:
    return bool(_parts(prefix) & _AVERAGES)


def _parts(prefix: str) -> set[str]:
    return set(re.split(r"[._/]", prefix.lower()))


def _head_names(layout: Layout, model: ResNet, prefix: str, tensors: Mapping[str, Stored]) -> tuple[str, str]:
    """The names of the head's weight and bias: beside the body, or in the nearest module around it, or as expected."""
    weight, bias = (prefix + layout.name(model, path) for path in _HEAD)
    if layout.linen or weight in tensors or bias in tensors:
        return weight, bias
    around = [prefix[: match.end()] for match in re.finditer(r"\.", prefix)][::-1]
    for scope in (*around, _mapping(prefix)):
        for name in (layout.head(model), *HEADS):
            if f"{scope}{name}.weight" in tensors and f"{scope}{name}.bias" in tensors:
                return f"{scope}{name}.weight", f"{scope}{name}.bias"
    return weight, bias


def _mapping(name: str) -> str:
    """The keys of the nested mapping in which a tensor is, or the tensors below a prefix are."""
    return name[: name.rfind("/") + 1]


def _largest_mapping(tensors: Mapping[str, Stored]) -> str:
    sizes = Counter(map(_mapping, tensors))
    return max(sizes, key=lambda mapping: sizes[mapping], default="")


def _module(name: str, prefix: str) -> str:
    """The first part of a name after the prefix, without its number: `layer` for each of `layer1` to `layer4`."""
    return re.split(r"[./]", name.removeprefix(prefix), maxsplit=1)[0].rstrip("0123456789")


def _group(name: str, prefix: str) -> str:
    """A name up to the part in which it differs from the prefix: `projector` for `projector.0.weight`."""
    parts, theirs = (text.removeprefix(_mapping(prefix)).split(".") for text in (name, prefix))
    same = 0
    while same < min(len(parts), len(theirs)) - 1 and parts[same] == theirs[same]:
        same += 1
    return ".".join(parts[: same + 1])[:40]


def _in_torchs_order(stored: Stored) -> Stored:
    return Stored(torch_shape(stored.shape), stored.dtype, lambda: torch_order(stored.read()))
