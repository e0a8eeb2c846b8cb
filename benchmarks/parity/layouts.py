"""Writes weights as other libraries do, loads them here, and writes the table of docs/weights.md.

    python -m benchmarks.parity.layouts                           # all cases, and the table
    python -m benchmarks.parity.layouts transformers fastai       # only cases whose name contains one of these

Run it where torch, torchvision, timm and transformers are installed beside jax; fastai and jax-resnet are used where
they are, and otherwise their lines in the page stay. All weights are random. The other library computes the logits of
two random images, and so do we from the file that it wrote; an error is the largest difference of two logits, divided
by the largest logit. For libraries that are hard to install (detectron2, mmpretrain), torchvision's or timm's weights
are renamed as that library's source names them: "renamed" in the table.
"""

import argparse
import re
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import timm
import timm.utils
import torch
import torchvision
import transformers
from torch import nn

from flax_resnets import create_model, load_weights

PAGE = Path(__file__).resolve().parents[2] / "docs" / "weights.md"
BEGIN, END = "<!-- generated: begin -->\n", "<!-- generated: end -->"
CLASSES, SIDE, LIMIT = 10, 64, 1e-5


class Case(NamedTuple):
    """Weights that another library computes with.

    Attributes:
        made_with: the library, as the table names it.
        file: name of the file that `write` writes.
        network: our name of the network.
        logits: what the library computes.
        write: writes the file, or a folder with it.
        classes: of our network; 0 for pooled features.
        told: what `load_weights` must say; empty if nothing.
    """

    made_with: str
    file: str
    network: str
    logits: np.ndarray
    write: Callable[[Path], Any]
    classes: int = CLASSES
    told: str = ""


def images() -> np.ndarray:
    """Two images `(2, 64, 64, 3)`."""
    return np.random.default_rng(0).normal(size=(2, SIDE, SIDE, 3)).astype(np.float32)


def randomised(module: nn.Module, seed: int = 0) -> Any:
    """The module in evaluation, with norms whose parameters and statistics all differ."""
    generator = torch.Generator().manual_seed(seed)
    for inner in module.modules():
        if isinstance(inner, nn.BatchNorm2d):
            inner.weight.data.uniform_(0.5, 1, generator=generator)
            inner.bias.data.uniform_(-0.2, 0.2, generator=generator)
            inner.running_mean.uniform_(-0.2, 0.2, generator=generator)
            inner.running_var.uniform_(0.5, 1.5, generator=generator)
    return module.eval()


def computed(module: nn.Module) -> np.ndarray:
    """The logits in torch."""
    with torch.no_grad():
        out = module(torch.from_numpy(images()).permute(0, 3, 1, 2))
    out = getattr(out, "logits", getattr(out, "pooler_output", out))
    return out.flatten(1).numpy()


def saved(content: Any) -> Callable[[Path], None]:
    """Writes a file by `torch.save`."""
    return lambda path: torch.save(content, path)


def renamed(state: Mapping[str, Any], *rules: tuple[str, str]) -> dict[str, Any]:
    """Names changed by regular expressions, one after the other."""
    names = {}
    for name, value in state.items():
        new = name
        for pattern, replacement in rules:
            new = re.sub(pattern, replacement, new)
        names[new] = value
    return names


def below(prefix: str, state: Mapping[str, Any]) -> dict[str, Any]:
    """All names with a prefix."""
    return {prefix + name: value for name, value in state.items()}


def of_torchvision(name: str = "resnet18", classes: int = CLASSES, seed: int = 0) -> Any:
    """A network of torchvision."""
    torch.manual_seed(seed)
    return randomised(torchvision.models.get_model(name, num_classes=classes), seed)


def headless(name: str = "resnet18", seed: int = 0) -> Any:
    """A network of torchvision that gives pooled features."""
    network = of_torchvision(name, seed=seed)
    network.fc = nn.Identity()
    return network


def cases() -> Iterator[Case]:
    """All cases, each made when it is asked for."""
    for name in ("resnet18", "resnet50", "resnext50_32x4d"):
        network = of_torchvision(name)
        yield Case("torchvision", f"{name}.pth", name, computed(network), saved(network.state_dict()))
    network = of_torchvision()
    optimizer = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9)
    trained = {"epoch": 3, "arch": "resnet18", "best_acc1": 71.0, "optimizer": optimizer.state_dict()}
    parallel = nn.DataParallel(network).state_dict()
    yield Case(
        "torch's ImageNet example: DataParallel",
        "checkpoint.pth.tar",
        "resnet18",
        computed(network),
        saved(trained | {"state_dict": parallel}),
    )
    compiled = nn.DataParallel(torch.compile(network)).state_dict()
    arguments = {"model": compiled, "args": argparse.Namespace(lr=0.1, data="imagenet")}
    yield Case(
        "torchvision's references: compiled, with its arguments",
        "M.PTH",
        "resnet18",
        computed(network),
        saved(arguments),
    )
    lightning = {"state_dict": below("model.", network.state_dict()), "hyper_parameters": {"lr": 0.1}}
    yield Case(
        "Lightning's form",
        "last.ckpt",
        "resnet18",
        computed(network),
        saved(lightning),
        told="below 'state_dict/model.'",
    )
    for name in ("resnet50d", "resnetv2_50", "seresnet18"):
        torch.manual_seed(0)
        network = randomised(timm.create_model(name, num_classes=CLASSES))
        yield Case("timm", f"{name}.bin", name, computed(network), saved(network.state_dict()))
    average = timm.utils.ModelEmaV3(network)
    torch.manual_seed(1)
    other = randomised(timm.create_model("seresnet18", num_classes=CLASSES), 1)
    content = {"state_dict": other.state_dict(), "state_dict_ema": average.module.state_dict(), "arch": "seresnet18"}
    yield Case(
        "timm's trainer, with an average",
        "e.pth.tar",
        "seresnet18",
        computed(network),
        saved(content),
        told="average=False",
    )
    yield from _of_transformers()
    yield from _self_supervised()
    network = of_torchvision("resnet50")
    children = nn.Sequential(*list(network.children())[:-1])
    yield Case(
        "nn.Sequential(*network.children())", "c.pth", "resnet50", computed(children), saved(children.state_dict()), 0
    )
    yield from _renamed()
    if find_spec("fastai"):
        yield from _of_fastai()
    if find_spec("jax_resnet"):
        yield from _of_jax_resnet()


def _pretrained(network: Any) -> Callable[[Path], None]:
    return lambda path: network.save_pretrained(path.parent)


def _of_transformers() -> Iterator[Case]:
    basic = {"layer_type": "basic", "hidden_sizes": [64, 128, 256, 512]}
    for name, options in (
        ("resnet18", {"depths": [2, 2, 2, 2], **basic}),
        ("resnet34", {"depths": [3, 4, 6, 3], **basic}),
        ("resnet50", {"depths": [3, 4, 6, 3]}),
        ("resnet101", {"depths": [3, 4, 23, 3]}),
    ):
        torch.manual_seed(0)
        config = transformers.ResNetConfig(num_labels=CLASSES, **options)
        network = randomised(transformers.ResNetForImageClassification(config))
        yield Case(
            "transformers",
            f"{name}/model.safetensors",
            name,
            computed(network),
            _pretrained(network),
        )
    body = network.resnet
    yield Case(
        "transformers, without a head",
        "body/model.safetensors",
        "resnet101",
        computed(body),
        _pretrained(body),
        0,
    )


def _self_supervised() -> Iterator[Case]:
    """Wrappers of self-supervised training, with modules of the same names."""

    def module(**parts: nn.Module) -> nn.Module:
        whole = nn.Module()
        for name, part in parts.items():
            whole.add_module(name, part)
        return nn.DataParallel(whole)

    def projector() -> nn.Module:
        return nn.Sequential(nn.Linear(512, 64), nn.ReLU(), nn.Linear(64, 32))

    network, other = headless(), headless(seed=1)
    features = computed(network)
    queries, keys = headless(), headless(seed=1)
    queries.fc, keys.fc = projector(), projector()
    moco = module(encoder_q=queries, encoder_k=keys)
    moco.module.register_buffer("queue", torch.zeros(32, 8))
    simclr = headless()
    simclr.fc = projector()
    swav = headless()
    swav.projection_head, swav.prototypes = projector(), nn.Linear(32, 30, bias=False)
    dino = {
        "student": module(backbone=other, head=projector()).state_dict(),
        "teacher": module(backbone=network, head=projector()).module.state_dict(),
        "args": argparse.Namespace(arch="resnet18"),
        "epoch": 3,
    }
    barlow = {"model": module(backbone=network, projector=projector()).state_dict()}
    for name, content, told in (
        ("MoCo's", {"state_dict": moco.state_dict()}, "module.encoder_k"),
        ("SimCLR's", {"state_dict": module(backbone=simclr).state_dict()}, "fc"),
        ("Barlow Twins' and VICReg's", barlow, "projector"),
        ("SwAV's", nn.DataParallel(swav).state_dict(), "prototypes"),
        ("DINO's", dino, "below 'teacher/backbone.'"),
    ):
        yield Case(f"{name} form", "checkpoint.pth", "resnet18", features, saved(content), 0, told)


def _renamed() -> Iterator[Case]:
    network = of_torchvision("resnet50")
    state = network.state_dict()
    mm = below("backbone.", {name: value for name, value in state.items() if not name.startswith("fc.")})
    mm |= {f"head.{name}": state[name] for name in ("fc.weight", "fc.bias")}
    told = "below 'state_dict/backbone.'"
    yield Case("mmpretrain, renamed", "mm.pth", "resnet50", computed(network), saved({"state_dict": mm}), told=told)
    detectron = renamed(
        state,
        (r"^(conv1|bn1)", r"stem.\1"),
        (r"^layer(\d)", lambda match: f"res{int(match[1]) + 1}"),
        (r"downsample\.0", "shortcut"),
        (r"downsample\.1", "shortcut.norm"),
        (r"\bbn(\d)", r"conv\1.norm"),
        (r"^fc", "linear"),
    )
    yield Case(
        "detectron2, renamed",
        "d2.pth",
        "resnet50",
        computed(network),
        saved({"model": detectron}),
        told="STRIDE_IN_1X1",
    )
    torch.manual_seed(0)
    deep = randomised(timm.create_model("resnet50d", num_classes=CLASSES))
    rules = (
        (r"^conv1\.0", "stem.0.conv"),
        (r"^conv1\.1", "stem.0.bn"),
        (r"^conv1\.3", "stem.1.conv"),
        (r"^conv1\.4", "stem.1.bn"),
        (r"^conv1\.6", "stem.2.conv"),
        (r"^bn1", "stem.2.bn"),
        (r"^layer1\.0\.downsample\.1", "layer1.0.downsample.0"),
        (r"^layer1\.0\.downsample\.2", "layer1.0.downsample.1"),
        (r"^", "backbone."),
        (r"^backbone\.fc", "head.fc"),
    )
    content = {"state_dict": renamed(deep.state_dict(), *rules)}
    yield Case("mmpretrain's ResNetV1d, renamed", "mm.pth", "resnet50d", computed(deep), saved(content), told=told)


def _of_fastai() -> Iterator[Case]:
    from fastai.vision.models import xresnet

    for depth in (18, 50):
        torch.manual_seed(0)
        network = randomised(getattr(xresnet, f"xresnet{depth}")(n_out=CLASSES))
        content = saved({"model": network.state_dict(), "opt": None})
        yield Case("fastai's xresnet", f"x{depth}.pth", f"resnet{depth}d", computed(network), content)


def _of_jax_resnet() -> Iterator[Case]:
    import jax_resnet
    from flax.serialization import to_bytes

    random = np.random.default_rng(0)

    def drawn(path: tuple[Any, ...], leaf: jax.Array) -> Any:
        """What `randomised` does."""
        low, high = (0.5, 1.0) if path[-1].key in ("scale", "var") else (-0.2, 0.2)
        return leaf if leaf.ndim > 1 else random.uniform(low, high, leaf.shape).astype(np.float32)

    for name, theirs in (("resnet18", "ResNet18"), ("resnet50", "ResNet50"), ("resnet50d", "ResNetD50")):
        network = getattr(jax_resnet, theirs)(n_classes=CLASSES)
        variables = jax.tree_util.tree_map_with_path(drawn, jax.jit(network.init)(jax.random.key(0), images()))
        logits = np.asarray(jax.jit(partial(network.apply, mutable=False))(variables, images()))
        content = to_bytes(variables)
        yield Case("jax-resnet", f"{name}.msgpack", name, logits, partial(Path.write_bytes, data=content))


@cache
def ours(network: str, classes: int) -> tuple[Any, Callable[..., jax.Array]]:
    """Our network, and its program, which is compiled once."""
    model = create_model(network, num_classes=classes)
    return model, jax.jit(model.apply)


def error_of(case: Case) -> float:
    """Writes the file, loads it here and compares the logits."""
    model, apply = ours(case.network, case.classes)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        path = Path(folder, case.file)
        path.parent.mkdir(exist_ok=True)
        case.write(path)
        warnings.resetwarnings()
        caught.clear()
        warnings.simplefilter("always")
        variables = load_weights(model, path)
        told = " ".join(str(each.message) for each in caught)
    if case.told not in told or bool(told) > bool(case.told):
        raise SystemExit(f"{case.made_with}: load_weights says {told!r}")
    logits = np.asarray(apply(variables, images()))
    return float(np.abs(logits - case.logits).max() / np.abs(case.logits).max())


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="parts of the names of cases; default all")
    names = parser.parse_args().names
    rows = []
    for case in cases():
        if names and not any(name in case.made_with for name in names):
            continue
        error = error_of(case)
        rows.append(f"| {case.made_with} | `{case.file}` | `{case.network}` | {error:.0e} |")
        print(rows[-1], flush=True)
        if error > LIMIT:
            sys.exit(f"{case.made_with}: is off by more than {LIMIT:.0e}")
    if not names:
        before, _, rest = PAGE.read_text().partition(BEGIN)
        kept, _, after = rest.partition(END)
        made = {row.split(" | ")[0] for row in rows}
        rows += [
            row
            for row in kept.splitlines()
            if re.match(r"\| (fastai|jax-resnet)", row) and row.split(" | ")[0] not in made
        ]
        modules = {"torch": "torch", "torchvision": "torchvision", "timm": "timm", "transformers": "transformers"}
        modules |= {"fastai": "fastai", "jax-resnet": "jax_resnet", "jax": "jax"}
        libraries = ", ".join(f"{name} {version(name)}" for name, module in modules.items() if find_spec(module))
        table = "| made with | file | network | error |\n|---|---|---|---:|\n" + "\n".join(rows)
        PAGE.write_text(f"{before}{BEGIN}\n{table}\n\nMeasured with {libraries}.\n\n{END}{after}")


if __name__ == "__main__":
    main()
