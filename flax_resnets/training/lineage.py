"""The lineage of a run: the field that names the weights it begins with, and the record of them in its workdir."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from flax_resnets import storage
from flax_resnets.errors import UserError
from flax_resnets.fields import Fields, Rule
from flax_resnets.training.atomic import write_whole

FILE = "lineage.json"


@dataclass(frozen=True, kw_only=True)
class WeightsConfig(Fields):
    """Which weights a run begins with.

    Attributes:
        weights: where they are: a `.safetensors`, `.npz`, `.msgpack`, `.pth` or `.ckpt` file, see `load_weights`; a
            run's workdir, of which the best checkpoint is taken; a saved folder; one of these in a bucket;
            `hf-hub:owner/name`; or a name of timm's such as `resnet50.a1_in1k`. None for random weights. `mean` and
            `std` come with the weights, if the source knows them and the configuration has none. docs/finetune.md has
            more.
        weights_head: what becomes of the head of the weights. With `auto` it comes along if it is for the same classes,
            in whatever order; otherwise the run begins with a new one. A file names no classes: its head comes along if
            it has as many. `keep` takes it as it is, and `new` never takes it.
    """

    weights: str | None = None
    weights_head: Literal["auto", "keep", "new"] = "auto"

    RULES = (
        Rule(
            "weights",
            lambda v: v.strip() != "",
            "a file, a workdir, a saved folder, hf-hub:owner/name or a name of timm's weights",
        ),
    )


Head = Literal["kept", "reordered", "new"]


@dataclass(frozen=True, kw_only=True)
class Lineage:
    """The weights that a run began with. A run that resumes needs this record, and not their source.

    Attributes:
        weights: the source, as the configuration names it.
        digest: 64 hex digits over the tensors that were loaded, see `flax_resnets.training.state.tree_digest`.
        head: `kept`; `reordered`, to the order of the data's classes; or `new`, with random weights.
        step: of the checkpoint that was loaded, if the source is a run; otherwise None.
        state_digest: of that run's last state, if the run is done; otherwise None.
        mean, std: by which the run normalises because the weights were trained so. None if the configuration says
            otherwise, or the source does not say.
    """

    weights: str
    digest: str
    head: Head
    step: int | None = None
    state_digest: str | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


def read_lineage(workdir: Path) -> Lineage | None:
    """The lineage in a workdir; None if there is none.

    Raises:
        UserError: the file does not hold a lineage.
    """
    path = workdir / FILE
    try:
        if (content := storage.read(path)) is None:
            return None
        record = json.loads(content)
        for name in ("mean", "std"):
            if record.get(name) is not None:
                record[name] = tuple(record[name])
        lineage = Lineage(**record)
        _check_types(lineage)
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path}: is no record of a run's weights ({str(error)[:200]}); restore it") from None
    return lineage


def write_lineage(lineage: Lineage, workdir: Path) -> None:
    """Writes the lineage to `lineage.json`."""
    write_whole(workdir / FILE, (json.dumps(dataclasses.asdict(lineage), indent=2) + "\n").encode())


def _check_types(lineage: Lineage) -> None:
    mean, std = lineage.mean or (), lineage.std or ()
    right = (
        type(lineage.weights) is type(lineage.digest) is str
        and lineage.head in get_args(Head)
        and type(lineage.step) in (int, type(None))
        and type(lineage.state_digest) in (str, type(None))
        and len(mean) == len(std)
        and all(type(number) is float for number in (*mean, *std))
        and all(number > 0 for number in std)
    )
    if not right:
        raise TypeError("a value is of another type")
