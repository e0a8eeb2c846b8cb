"""The configuration of a run: one class with the fields of all groups."""

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flax_resnets.augment import AugmentConfig, EvaluationConfig, MixConfig
from flax_resnets.data.config import LONGEST_SIDE, DataConfig
from flax_resnets.errors import UserError
from flax_resnets.fields import MOST, Rule, field_types, shown
from flax_resnets.models.normalization import ghost_size
from flax_resnets.training.average import AverageConfig
from flax_resnets.training.best import BestConfig
from flax_resnets.training.finetune import FineTuneConfig
from flax_resnets.training.lineage import WeightsConfig
from flax_resnets.training.loss import LossConfig
from flax_resnets.training.network import NetworkConfig
from flax_resnets.training.optimizers import OptimizerConfig
from flax_resnets.training.own_metric import MetricConfig
from flax_resnets.training.schedule import ScheduleConfig


@dataclass(frozen=True, kw_only=True)
class Config(
    NetworkConfig,
    DataConfig,
    AugmentConfig,
    MixConfig,
    EvaluationConfig,
    LossConfig,
    MetricConfig,
    OptimizerConfig,
    ScheduleConfig,
    AverageConfig,
    WeightsConfig,
    FineTuneConfig,
    BestConfig,
):
    """Everything that decides a run's numbers. Two runs with the same Config end in the same bits on the same machine.

    It has the fields of its base classes, which describe them, and these:

    Attributes:
        image_size: side of the square images that the network sees, in pixels. Evaluation uses it in every epoch.
        progressive: progressive resizing: pairs (until_epoch, size) in order. Training uses images of this size up to
            the end of this epoch, and of `image_size` after the last pair. If the last pair's epoch is `epochs`, only
            evaluation uses `image_size`.
        batch_size: images in a training step, over all devices and hosts together.
        accumulate: number of equal parts of a batch whose gradients are computed one after the other, to need less
            memory. BatchNorm takes the statistics of each part by itself. Not with float16.
        eval_batch_size: images in an evaluation step; the result does not depend on it. None for `batch_size`.
        epochs: passes over the training split. Images that do not fill the last batch of an epoch are left out of this
            epoch; the next epoch shuffles all images again.
        patience: number of epochs without a better score after which the run ends before its last epoch; None to train
            all `epochs`. The score is that of `best_by`, of the weights themselves; that of their average (EMA) does
            not count. The schedule does not know of it: with `one_cycle`, `flat_cosine` and `warmup_cosine` the run
            ends before the rate has fallen, and most of the accuracy comes while it falls. See
            `flax_resnets.training.early_stopping.EarlyStopping`.
        weight_shards: number of devices that share one copy of the weights, their average and the optimizer's state,
            with a part on each; 1 for a whole copy on each device. The numbers stay the same. See
            `flax_resnets.training.placement.weight_sharding`.
        max_skipped_steps: a step is skipped if its loss or gradient is not finite. This many skipped steps in a row end
            the run.
        save_every: steps between checkpoints within an epoch; None to save only at the end of each epoch.
        keep_every: epochs between checkpoints that are kept for good; None to keep the latest two and the best alone.
        log_every: steps between TensorBoard points.
        wandb: project in Weights & Biases to which the run is sent; None for none. See
            `flax_resnets.training.weights_and_biases.WandB`.

    Raises:
        UserError: a field has the wrong type or a value that is not allowed.

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
    patience: int | None = None
    weight_shards: int = 1
    max_skipped_steps: int = 20
    save_every: int | None = None
    keep_every: int | None = None
    log_every: int = 50
    wandb: str | None = None

    RULES = (
        Rule("image_size batch_size accumulate eval_batch_size epochs patience", lambda v: v >= 1, "at least 1"),
        Rule("save_every keep_every log_every max_skipped_steps weight_shards", lambda v: v >= 1, "at least 1"),
        Rule(
            "batch_size accumulate eval_batch_size epochs patience save_every", lambda v: v <= MOST, f"at most {MOST}"
        ),
        Rule("keep_every log_every max_skipped_steps weight_shards", lambda v: v <= MOST, f"at most {MOST}"),
        Rule("image_size", lambda v: v <= LONGEST_SIDE, f"at most {LONGEST_SIDE} pixels"),
        Rule(
            "wandb",
            lambda v: re.fullmatch(r"[\w.-]{1,128}", v, re.ASCII) is not None,
            "a project's name of up to 128 letters, digits, hyphens, underscores and dots",
        ),
        Rule(
            "progressive", lambda v: all(size >= 1 for _, size in v), "pairs of an epoch and a size of at least 1 pixel"
        ),
        Rule(
            "progressive",
            lambda v: all(size <= LONGEST_SIDE for _, size in v),
            f"of sizes up to {LONGEST_SIDE} pixels",
        ),
    )

    def check(self) -> None:
        """Checks the fields of several groups against each other; see `Fields.check`."""
        super().check()
        until = [epoch for epoch, _ in self.progressive]
        if until != sorted(set(until)) or (until and not 1 <= until[0] <= until[-1] <= self.epochs):
            raise UserError(
                f"progressive={shown(self.progressive)}: epochs must rise, from 1 up to epochs={self.epochs}"
            )
        smallest = min([self.image_size, *(size for _, size in self.progressive)])
        if self.translate >= smallest:
            raise UserError(f"translate={self.translate}: must be below the images' {smallest} pixels")
        if self.freeze_epochs >= self.epochs:
            raise UserError(f"freeze_epochs={self.freeze_epochs}: must be below epochs={self.epochs}")
        scheduled = self.epochs - self.freeze_epochs
        if self.schedule in ("warmup_cosine", "step") and self.warmup_epochs >= scheduled:
            right = f"epochs={self.epochs}" + (
                f" minus freeze_epochs={self.freeze_epochs}" if self.freeze_epochs else ""
            )
            raise UserError(f"warmup_epochs={self.warmup_epochs}: must be below {right}")
        if self.best_by == "metric" and self.metric is None:
            raise UserError("best_by=metric: needs metric=FUNCTION of the recipe; without one, accuracy or loss")
        if self.sampler == "balanced" and self.class_weights == "balanced":
            raise UserError(
                "class_weights=balanced: sampler=balanced evens out the classes already; give one of the two"
            )
        if self.batch_size % self.accumulate:
            raise UserError(f"accumulate={self.accumulate}: batch_size {self.batch_size} is not a multiple of it")
        if self.accumulate > 1 and self.precision == "float16":
            raise UserError(f"accumulate={self.accumulate}: not with float16, whose loss is scaled; use bfloat16")
        size = ghost_size(self.batch_norm)
        if size is not None and self.batch_size // self.accumulate % size:
            part = "batch_size" if self.accumulate == 1 else "batch_size / accumulate"
            number = self.batch_size // self.accumulate
            raise UserError(f"batch_norm={self.batch_norm!r}: {part} {number} is not a multiple of {size}")

    def size_in_epoch(self, epoch: int) -> int:
        """Side of the images that training sees in an epoch, in pixels. Epochs are counted from 0."""
        return next((size for until, size in self.progressive if epoch < until), self.image_size)

    def train_sizes(self) -> tuple[int, ...]:
        """The sides of the images that training sees, in pixels, each once, in order of their epochs."""
        starts = [0, *(until for until, _ in self.progressive if until < self.epochs)]
        return tuple(dict.fromkeys(map(self.size_in_epoch, starts)))

    def __hash__(self) -> int:  # `model_options` is a dict
        return hash(self.to_json())

    def to_json(self) -> str:
        """The configuration as indented JSON, for `config.json`."""
        values = dataclasses.asdict(self)
        return json.dumps({name: values[name] for name in FIELD_TYPES}, indent=2) + "\n"


def __getattr__(name: str) -> Any:
    if name == "load_config":  # it was here before version 0.2, and recipes that build on others import it from here
        from flax_resnets.training.recipes import load_config

        return load_config
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


FIELD_TYPES: Mapping[str, Any] = field_types(Config)

# The fields that may differ when a run resumes: where data and weights are, how often files are written and where they
# are sent. None of them changes the run's numbers.
FREE_FIELDS = (
    *("data_dir", "images", "eval_batch_size", "save_every", "keep_every", "log_every", "weight_shards"),
    "wandb",
)

# Those, and one that decides only after which epoch the run ends.
FREE_ON_RESUME = (*FREE_FIELDS, "patience")

# The values of fields that are missing in a config.json of an earlier version.
DEFAULTS: Mapping[str, Any] = json.loads(
    json.dumps(
        {item.name: item.default for item in dataclasses.fields(Config) if item.default is not dataclasses.MISSING}
    )
)
