"""What a run is: its configuration, with the fields of everything that it steers."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flax_resnets.augment import AugmentConfig, EvaluationConfig, MixConfig
from flax_resnets.data.config import LONGEST_SIDE, DataConfig
from flax_resnets.errors import UserError
from flax_resnets.fields import MOST, Rule, field_types, shown
from flax_resnets.models.layers import ghost_size
from flax_resnets.training.average import AverageConfig
from flax_resnets.training.loss import LossConfig
from flax_resnets.training.network import NetworkConfig
from flax_resnets.training.optimizers import OptimizerConfig
from flax_resnets.training.schedule import ScheduleConfig


@dataclass(frozen=True, kw_only=True)
class Config(
    NetworkConfig,
    DataConfig,
    AugmentConfig,
    MixConfig,
    EvaluationConfig,
    LossConfig,
    OptimizerConfig,
    ScheduleConfig,
    AverageConfig,
):
    """Everything that decides a run's numbers. Two runs of one Config on one kind of machine end in the same bits.

    Its fields are those of its bases, each of which says what they mean, and these:

    Attributes:
        image_size: side of the square image the network sees, in pixels; evaluation's in every epoch.
        progressive: (until_epoch, size) pairs in order: training sees images of that size up to the end of that epoch,
            and of `image_size` after the last: progressive resizing. A last pair whose epoch is `epochs` leaves
            `image_size` to evaluation alone.
        batch_size: images a step, over all devices and hosts together.
        accumulate: equal parts in which a step's gradient is computed, one after the other, to need less memory; each
            part's norms take that part's statistics.
        eval_batch_size: images of an evaluation step, whose result does not depend on it; None for `batch_size`.
        epochs: passes over the training split; the images that do not fill a last batch wait for another epoch's
            shuffle.
        seed: of the initial weights, the order of the images, and the augmentation.
        weight_shards: devices over which weights, their average and the optimizer's state lie in parts; 1 for a whole
            copy on each. The numbers stay the same. See `flax_resnets.training.placement.weight_sharding`.
        max_skipped_steps: this many steps in a row with a loss or gradient that is not finite end the run; each alone
            is skipped.
        save_every: steps between checkpoints within an epoch; None for the end of each epoch only.
        log_every: steps between TensorBoard points.

    Raises:
        UserError: a field has the wrong type or a value it cannot have.

    Example:
        >>> config = Config(
        ...     model="resnet18", dataset="fashion_mnist_sample", image_size=28, mean=(0.286,), std=(0.353,),
        ...     batch_size=64, epochs=10, learning_rate=5e-3,
        ... )
        >>> config.optimizer, config.schedule
        ('adamw', 'one_cycle')
    """

    image_size: int
    progressive: tuple[tuple[int, int], ...] = ()
    batch_size: int
    accumulate: int = 1
    eval_batch_size: int | None = None
    epochs: int
    seed: int = 0
    weight_shards: int = 1
    max_skipped_steps: int = 20
    save_every: int | None = None
    log_every: int = 50

    RULES = (
        Rule("image_size batch_size accumulate eval_batch_size epochs", lambda v: v >= 1, "at least 1"),
        Rule("save_every log_every max_skipped_steps weight_shards", lambda v: v >= 1, "at least 1"),
        Rule("batch_size accumulate eval_batch_size epochs save_every", lambda v: v <= MOST, f"at most {MOST}"),
        Rule("log_every max_skipped_steps weight_shards", lambda v: v <= MOST, f"at most {MOST}"),
        Rule("image_size", lambda v: v <= LONGEST_SIDE, f"at most {LONGEST_SIDE} pixels"),
        Rule(
            "progressive", lambda v: all(size >= 1 for _, size in v), "pairs of an epoch and a size of at least 1 pixel"
        ),
        Rule(
            "progressive",
            lambda v: all(size <= LONGEST_SIDE for _, size in v),
            f"of sizes up to {LONGEST_SIDE} pixels",
        ),
        Rule("seed", lambda v: 0 <= v < 2**32, "from 0 to 4294967295"),
    )

    def check(self) -> None:
        """What holds between fields of several groups."""
        super().check()
        until = [epoch for epoch, _ in self.progressive]
        if until != sorted(set(until)) or (until and not 1 <= until[0] <= until[-1] <= self.epochs):
            raise UserError(
                f"progressive={shown(self.progressive)}: epochs must rise, from 1 up to epochs={self.epochs}"
            )
        smallest = min([self.image_size, *(size for _, size in self.progressive)])
        if self.translate >= smallest:
            raise UserError(f"translate={self.translate}: must be below the images' {smallest} pixels")
        if self.schedule in ("warmup_cosine", "step") and self.warmup_epochs >= self.epochs:
            raise UserError(f"warmup_epochs={self.warmup_epochs}: must be below epochs={self.epochs}")
        if self.batch_size % self.accumulate:
            raise UserError(f"accumulate={self.accumulate}: batch_size {self.batch_size} is not a multiple of it")
        if self.accumulate > 1 and self.precision == "float16":
            raise UserError(f"accumulate={self.accumulate}: not with float16, whose loss is scaled; bfloat16 is not")
        size = ghost_size(self.batch_norm)
        if size is not None and self.batch_size // self.accumulate % size:
            part = "batch_size" if self.accumulate == 1 else "batch_size / accumulate"
            number = self.batch_size // self.accumulate
            raise UserError(f"batch_norm={self.batch_norm!r}: {part} {number} is not a multiple of {size}")

    def size_in_epoch(self, epoch: int) -> int:
        """Side of the images that training sees in an epoch counted from 0, in pixels."""
        return next((size for until, size in self.progressive if epoch < until), self.image_size)

    def train_sizes(self) -> tuple[int, ...]:
        """All sides of the images that training sees, in pixels, in order."""
        starts = [0, *(until for until, _ in self.progressive if until < self.epochs)]
        return tuple(dict.fromkeys(map(self.size_in_epoch, starts)))

    def to_json(self) -> str:
        """The configuration as indented JSON, for `config.json`."""
        values = dataclasses.asdict(self)
        return json.dumps({name: values[name] for name in FIELD_TYPES}, indent=2) + "\n"


def __getattr__(name: str) -> Any:
    if name == "load_config":  # where it was before version 0.2; recipes that build on others import it
        from flax_resnets.training.recipes import load_config

        return load_config
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


FIELD_TYPES: Mapping[str, Any] = field_types(Config)

# What another start of the same run may change: where data and weights lie, how often something is written, never a
# number.
FREE_FIELDS = ("data_dir", "images", "eval_batch_size", "save_every", "log_every", "weight_shards")

# What stands for a field in a config.json from before there was such a field.
DEFAULTS: Mapping[str, Any] = json.loads(
    json.dumps(
        {item.name: item.default for item in dataclasses.fields(Config) if item.default is not dataclasses.MISSING}
    )
)
