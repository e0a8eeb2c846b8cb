"""Why weights do not fit a network, as far as their names and shapes tell."""

import math
import re
from collections.abc import Mapping
from functools import cache

from flax_resnets.models.registry import MODELS
from flax_resnets.models.resnet import ResNet
from flax_resnets.weights.mismatch import Mismatch, shown_name
from flax_resnets.weights.names import Path, features_of
from flax_resnets.weights.stored import Stored

_CAFFE = re.compile(r"res\d\w*_branch\d")
_STATISTICS = re.compile(r"(^|[./])(running_(mean|var)|batch_stats[./].*)$")


def cause_of(
    model: ResNet,
    shapes: Mapping[Path, tuple[int, ...]],
    head: tuple[str, ...],
    tensors: Mapping[str, Stored],
    mismatch: Mismatch,
) -> tuple[str, str] | None:
    """What is probably wrong, and what would be right; None if nothing can be said.

    Args:
        model: the network.
        shapes: the shape of each of its tensors.
        head: what the tensors of the head would be called in the file.
        tensors: those of the file, or the part of it that is most like the network.
        mismatch: what does not fit.
    """
    if any(_CAFFE.search(name) for name in tensors):
        return "its names are Caffe's", "rename them to torchvision's and load them into a network with stride_on='1x1'"
    if mismatch.missing and set(mismatch.missing) <= set(head) and not (mismatch.extra or mismatch.misshaped):
        return "it has no head", "num_classes=0 loads the rest"
    count = _parameters(tensors, head)
    own = sum(math.prod(shape) for path, shape in shapes.items() if path[0] == "params" and path[1] != "head")
    alike = [name for name, (parameters, _) in _bodies().items() if count == parameters]
    has_statistics = any(_STATISTICS.search(name) for name in tensors)
    known = [name for name in alike if _bodies()[name][1] == has_statistics] or alike
    if count == own:
        statistics = [name for name in (*mismatch.missing, *mismatch.extra) if _STATISTICS.search(name)]
        if known and statistics and len(statistics) == len(mismatch.missing) + len(mismatch.extra):
            if not has_statistics:
                return "it has no running statistics, as if for group norm", f"create_model({known[0]!r})"
            if not any(path[0] == "batch_stats" for path in shapes):
                return "it has running statistics, as BatchNorm has", f"create_model({known[0]!r})"
        known = []
        if len(mismatch.missing) > len(shapes) / 2:
            return "it has as many parameters as the network, but names that are not known here", ""
    if known:
        return f"it has as many parameters as {' and '.join(known)}", f"create_model({known[0]!r})"
    firsts = {re.split(r"(?<=[./])", name)[0] for name in tensors}
    if mismatch.missing and len(tensors) > 1 and len(firsts) == 1 and not firsts & set(tensors):
        return f"all its names begin with {shown_name(firsts.pop())}", ""
    return None


def _parameters(tensors: Mapping[str, Stored], head: tuple[str, ...]) -> int:
    """The number of parameters without running statistics and without fully connected layers, such as heads."""
    connected = {name.rpartition(".")[0] for name, stored in tensors.items() if len(stored.shape) == 2}
    connected |= {name.rpartition(".")[0] for name in head}
    return sum(
        math.prod(stored.shape)
        for name, stored in tensors.items()
        if not _STATISTICS.search(name) and name.rpartition(".")[0] not in connected
    )


@cache
def _bodies() -> dict[str, tuple[int, bool]]:
    """Of each network of the registry whose weights can be loaded: parameters before the head, and if it has BatchNorm.

    BatchNorm has running statistics, which group norm has not.
    """
    bodies = {}
    for name, entry in MODELS.items():
        model = entry.constructor()
        if isinstance(model, ResNet):
            parameters = entry.parameters - (features_of(model) + 1) * entry.num_classes
            bodies[name] = parameters, model.norm == "batch"
    return bodies
