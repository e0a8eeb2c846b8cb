"""What a run is: its configuration, read from a file, changed from the command line, and checked as it is made."""

import ast
import contextlib
import dataclasses
import difflib
import json
import traceback
import types
import typing
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from flax_resnets.errors import UserError
from flax_resnets.models.layers import ghost_size

Precision = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True, kw_only=True)
class Config:
    """Everything that decides a run's numbers. Two runs of one Config on one kind of machine end in the same bits.

    Attributes:
        model: a name of `flax_resnets.list_models()`.
        model_options: keywords for `flax_resnets.create_model`, such as `{"stem": "small"}`.
        dataset: a TFDS name such as `imagenette/160px-v2`, or `fashion_mnist_sample`, which ships with the package.
        data_dir: TFDS's data_dir; None for TFDS's own default.
        image_size: side of the square image the network sees, in pixels; evaluation's in every epoch.
        progressive: (until_epoch, size) pairs in order: training sees images of that size up to the end of that epoch,
            and of `image_size` after the last: progressive resizing. A last pair whose epoch is `epochs` leaves
            `image_size` to evaluation alone.
        store_size: side at which images are decoded and kept, in pixels, to be cropped from or resized on the device;
            None for `image_size`.
        resize: how an image comes to be square: `squash` to it, or `crop` its centre.
        images: `cached`: decoded once, before the run begins, and kept; or `streamed`: decoded each time they are seen,
            ahead of the steps, on all cores, for sets too large to keep. The numbers are the same.
        broken_images: what an image that cannot be decoded does: `stop` the run, named, before it begins (or, if
            streamed, when its turn comes), or `skip`, not if streamed: it is left out of training and evaluation,
            counted, named, and listed in the workdir's `broken_images.txt`.
        mean, std: of the pixels, per channel on the scale 0 to 1; normalisation subtracts one and divides by the
            other.
        crop_scale: share of the image's area that a random-resized crop takes, from and to; (1, 1) for no crop.
        crop_ratio: aspect ratio of that crop, from and to.
        crop_pct: share of a side that evaluation's centre crop keeps; 1 for the whole image.
        flip: mirror half of the training images left to right.
        translate: pixels by which a training image moves at most, each way, what is missing mirrored.
        rotate: degrees by which it turns at most, either way.
        shear: degrees by which it slants at most, either way.
        color_jitter: how far brightness, contrast, saturation and hue move at most: torchvision's `ColorJitter`.
        auto_augment: `randaugment` or `trivialaugment`: operations drawn from a list; None for none.
        randaugment: operations an image, and their magnitude from 0 to 10.
        random_erasing: share of the training images in which a rectangle is erased.
        mixup: α of mixup's Beta distribution; 0 for none.
        cutmix: α of CutMix's; with mixup as well, each batch takes one of the two by a coin's throw.
        mix_off_epoch: neither of the two from this epoch on, counted from 0; None for all epochs.
        batch_size: images a step, over all devices and hosts together.
        accumulate: equal parts in which a step's gradient is computed, one after the other, to need less memory; each
            part's norms take that part's statistics.
        eval_batch_size: images of an evaluation step, whose result does not depend on it; None for `batch_size`.
        eval_flip: evaluate by the mean of an image's logits and its mirror image's: a test-time augmentation, to be
            named wherever the result is.
        epochs: passes over the training split; the images that do not fill a last batch wait for another epoch's
            shuffle.
        loss: `cross_entropy`, or `bce`: a binary cross-entropy for each class, averaged over them.
        optimizer: `sgd` (Nesterov), `adamw`, `lamb`, `ranger` or `muon`, see `make_optimizer`.
        schedule: `one_cycle`, `flat_cosine`, `warmup_cosine`, `step`, or `constant` at learning_rate and the first
            momentum; see `make_schedules`.
        learning_rate: the peak of the schedule.
        pct_start, div_factor, final_div_factor: the shape of the one-cycle schedule, see `one_cycle`; `flat_cosine` is
            flat for `pct_start` of the run.
        warmup_epochs: over which `warmup_cosine` and `step` rise to the peak.
        decay_epochs: after each of these, `step` multiplies the learning rate by `decay_rate`.
        decay_rate: see `decay_epochs`.
        momentum: (at the ends, at the peak) of the one-cycle schedule, and the first of them in the other schedules;
            for `adamw`, `lamb` and `ranger` it stands for b1.
        beta2: b2 of `adamw`, `lamb`, `ranger`, and of what `muon` leaves to AdamW.
        epsilon: of the same.
        weight_decay: decoupled for all but `sgd`, where it is added to the gradient; spares biases and norms.
        decay_all: weight decay does not spare biases and norms.
        label_smoothing: share of the target spread evenly over the classes.
        clip_norm: largest global norm of a gradient; None for no clipping.
        ema_decay: share of the old kept when the weights are averaged over steps, to be evaluated beside the weights
            themselves; None for no average.
        ema_batch_norm: which running statistics the averaged weights get: `average`, the statistics' own average, or
            `recalibrate`, taken anew over the epoch's last `recalibrate_steps` batches, as they were but unmixed.
        recalibrate_steps: see `ema_batch_norm`.
        seed: of the initial weights, the order of the images, and the augmentation.
        precision: of the network's computation; parameters stay float32. `float16` scales the loss.
        batch_norm: `global`, `device` or `ghost:K`, see `flax_resnets.models.layers.BatchNorm`.
        weight_shards: devices over which weights, their average and the optimizer's state lie in parts; 1 for a whole
            copy on each. The numbers stay the same. See `flax_resnets.training.placement.weight_sharding`.
        max_skipped_steps: this many steps in a row with a loss or gradient that is not finite end the run; each alone
            is skipped.
        save_every: steps between checkpoints within an epoch; None for the end of each epoch only.
        log_every: steps between TensorBoard points.

    Raises:
        UserError: a field has the wrong type or a value it cannot have.
    """

    model: str
    model_options: dict[str, Any] = field(default_factory=dict)
    dataset: str
    data_dir: str | None = None
    image_size: int
    progressive: tuple[tuple[int, int], ...] = ()
    store_size: int | None = None
    resize: Literal["squash", "crop"] = "squash"
    images: Literal["cached", "streamed"] = "cached"
    broken_images: Literal["stop", "skip"] = "stop"
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop_scale: tuple[float, float] = (1.0, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    crop_pct: float = 1.0
    flip: bool = True
    translate: int = 0
    rotate: float = 0.0
    shear: float = 0.0
    color_jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    auto_augment: Literal["randaugment", "trivialaugment"] | None = None
    randaugment: tuple[int, float] = (2, 9.0)
    random_erasing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    mix_off_epoch: int | None = None
    batch_size: int
    accumulate: int = 1
    eval_batch_size: int | None = None
    eval_flip: bool = False
    epochs: int
    loss: Literal["cross_entropy", "bce"] = "cross_entropy"
    optimizer: Literal["sgd", "adamw", "lamb", "ranger", "muon"] = "adamw"
    schedule: Literal["one_cycle", "flat_cosine", "warmup_cosine", "step", "constant"] = "one_cycle"
    learning_rate: float
    pct_start: float = 0.25
    div_factor: float = 25.0
    final_div_factor: float = 1e5
    warmup_epochs: float = 0.0
    decay_epochs: tuple[float, ...] = ()
    decay_rate: float = 0.1
    momentum: tuple[float, float] = (0.95, 0.85)
    beta2: float = 0.99
    epsilon: float = 1e-5
    weight_decay: float = 0.01
    decay_all: bool = False
    label_smoothing: float = 0.0
    clip_norm: float | None = None
    ema_decay: float | None = None
    ema_batch_norm: Literal["average", "recalibrate"] = "average"
    recalibrate_steps: int = 20
    seed: int = 0
    precision: Precision = "float32"
    batch_norm: str = "global"
    weight_shards: int = 1
    max_skipped_steps: int = 20
    save_every: int | None = None
    log_every: int = 50

    def __post_init__(self):
        for name, annotation in FIELD_TYPES.items():
            value = _checked(name, getattr(self, name), annotation)
            object.__setattr__(self, name, value)
        for names, holds, right in _RULES:
            for name in names.split():
                value = getattr(self, name)
                if value is not None and not holds(value):
                    raise UserError(f"{name}={_shown(value)}: must be {right}")
        try:
            json.dumps(self.model_options, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise UserError(f"model_options: must be what config.json can hold: {error}") from None
        if len(self.mean) != len(self.std):
            raise UserError(f"std={_shown(self.std)}: must have a value for each of mean's {len(self.mean)}")
        until = [epoch for epoch, _ in self.progressive]
        if until != sorted(set(until)) or (until and not 1 <= until[0] <= until[-1] <= self.epochs):
            raise UserError(
                f"progressive={_shown(self.progressive)}: epochs must rise, from 1 up to epochs={self.epochs}"
            )
        smallest = min([self.image_size, *(size for _, size in self.progressive)])
        if self.translate >= smallest:
            raise UserError(f"translate={self.translate}: must be below the images' {smallest} pixels")
        if self.images == "streamed" and self.broken_images == "skip":
            raise UserError("broken_images=skip: not with images=streamed, which does not know them beforehand")
        if self.schedule in ("warmup_cosine", "step") and self.warmup_epochs >= self.epochs:
            raise UserError(f"warmup_epochs={self.warmup_epochs}: must be below epochs={self.epochs}")
        if self.batch_size % self.accumulate:
            raise UserError(f"accumulate={self.accumulate}: batch_size {self.batch_size} is not a multiple of it")
        if self.accumulate > 1 and self.precision == "float16":
            raise UserError(f"accumulate={self.accumulate}: not with float16, whose loss is scaled; bfloat16 is not")
        try:
            size = ghost_size(self.batch_norm)
        except ValueError as error:
            raise UserError(str(error)) from None
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
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"


FIELD_TYPES: Mapping[str, Any] = typing.get_type_hints(Config)

# What another start of the same run may change: where data and weights lie, how often something is written, never a
# number.
FREE_FIELDS = ("data_dir", "images", "eval_batch_size", "save_every", "log_every", "weight_shards")

# What stands for a field in a config.json from before there was such a field.
DEFAULTS: Mapping[str, Any] = json.loads(
    json.dumps(
        {item.name: item.default for item in dataclasses.fields(Config) if item.default is not dataclasses.MISSING}
    )
)

# Steps and what is counted beside them are int32 on the devices.
_MOST = 2**31 - 1
_LARGEST_FLOAT32 = (2 - 2**-23) * 2.0**127
# Decoding refuses images of more than 89 million pixels, too.
_LONGEST_SIDE = 8192

# Fields, the condition each must meet (None always does), and that condition in words.
_RULES: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
    ("image_size batch_size accumulate eval_batch_size epochs store_size", lambda v: v >= 1, "at least 1"),
    ("save_every log_every max_skipped_steps recalibrate_steps weight_shards", lambda v: v >= 1, "at least 1"),
    ("batch_size accumulate eval_batch_size epochs save_every log_every", lambda v: v <= _MOST, f"at most {_MOST}"),
    ("max_skipped_steps recalibrate_steps weight_shards mix_off_epoch", lambda v: v <= _MOST, f"at most {_MOST}"),
    ("image_size store_size", lambda v: v <= _LONGEST_SIDE, f"at most {_LONGEST_SIDE} pixels"),
    ("progressive", lambda v: all(size >= 1 for _, size in v), "pairs of an epoch and a size of at least 1 pixel"),
    ("progressive", lambda v: all(size <= _LONGEST_SIDE for _, size in v), f"of sizes up to {_LONGEST_SIDE} pixels"),
    ("data_dir", lambda v: v != "", "a directory, or none for TFDS's own"),
    ("seed", lambda v: 0 <= v < 2**32, "from 0 to 4294967295"),
    ("learning_rate div_factor final_div_factor clip_norm epsilon", lambda v: v > 0, "above 0"),
    ("weight_decay mixup cutmix translate mix_off_epoch warmup_epochs", lambda v: v >= 0, "at least 0"),
    ("pct_start ema_decay", lambda v: 0 < v < 1, "between 0 and 1"),
    ("label_smoothing beta2", lambda v: 0 <= v < 1, "at least 0 and below 1"),
    ("crop_pct decay_rate", lambda v: 0 < v <= 1, "above 0 and up to 1"),
    ("random_erasing", lambda v: 0 <= v <= 1, "from 0 to 1"),
    ("rotate", lambda v: 0 <= v <= 180, "from 0 to 180 degrees"),
    ("shear", lambda v: 0 <= v < 90, "at least 0 and below 90 degrees"),
    ("color_jitter", lambda v: all(j >= 0 for j in v) and v[3] <= 0.5, "four numbers from 0 up, hue's up to 0.5"),
    ("randaugment", lambda v: v[0] >= 1 and 0 <= v[1] <= 10, "operations, at least 1, and a magnitude from 0 to 10"),
    ("randaugment", lambda v: v[0] <= 100, "at most 100 operations"),
    ("decay_epochs", lambda v: all(a < b for a, b in zip((0, *v), v, strict=False)), "rising, and above 0"),
    ("momentum", lambda v: all(0 <= m < 1 for m in v), "two numbers, each at least 0 and below 1"),
    ("crop_scale", lambda v: 0 < v[0] <= v[1] <= 1, "two shares above 0 and up to 1, the smaller first"),
    ("crop_ratio", lambda v: 0 < v[0] <= v[1], "two numbers above 0, the smaller first"),
    ("batch_norm", lambda v: v != "folded", "global, device or ghost:K: a folded network cannot be trained"),
    ("mean", lambda v: len(v) >= 1, "a number for each channel, or one for all"),
    ("std", lambda v: all(s > 1e-6 for s in v), "above 0.000001 in each channel"),
)


def load_config(path: str | Path, overrides: Mapping[str, str] | None = None) -> Config:
    """Runs a recipe's `get_config()` and applies what the command line changes.

    Args:
        path: a Python file that defines `get_config() -> Config`.
        overrides: field to the text after `--config.FIELD=`; `model_options.NAME` sets one option.

    Raises:
        UserError: no such file, it does not run, it yields no Config, or a field or value is wrong.

    Example:
        >>> load_config("configs/quickstart.py", {"epochs": "1"}).epochs
        1
    """
    config = _run(Path(path))
    changes: dict[str, Any] = {}
    for name, text in (overrides or {}).items():
        head, _, option = name.partition(".")
        if head not in FIELD_TYPES or (option and head != "model_options"):
            raise UserError(f"--config.{name}: {unknown_field(name)}")
        if head == "model_options":
            if not option:
                raise UserError(
                    f"--config.model_options={text}: set one option at a time, --config.model_options.NAME=…"
                )
            options = changes.get("model_options", config.model_options)
            changes["model_options"] = {**options, option: _literal(text)}
        else:
            changes[name] = _parsed(name, text, FIELD_TYPES[name])
    return dataclasses.replace(config, **changes)


def unknown_field(name: str) -> str:
    """What to say of a field there is not."""
    close = difflib.get_close_matches(name, FIELD_TYPES, n=1)
    close += [field for field in FIELD_TYPES if name == _initials(field)]  # lr, wd and bs, as elsewhere
    return f"no such field; did you mean {close[0]}?" if close else f"no such field; there are {', '.join(FIELD_TYPES)}"


def _initials(field: str) -> str:
    return "".join(word[0] for word in field.split("_"))


_LONGEST_RECIPE = 1_000_000  # characters


def _run(path: Path) -> Config:
    try:
        with path.open(encoding="utf-8") as file:
            source = file.read(_LONGEST_RECIPE + 1)  # of a device, all would never end
        if len(source) > _LONGEST_RECIPE:
            raise ValueError
    except (OSError, ValueError) as error:  # the latter for a path with a NUL as well
        reason = error.strerror if isinstance(error, OSError) else "not a text file of a recipe's length"
        raise UserError(f"--config={path}: {reason}; `python train.py` lists the configs there are") from None
    namespace: dict[str, Any] = {"__name__": path.stem, "__file__": str(path)}
    try:
        exec(compile(source, str(path), "exec"), namespace)
        if "get_config" not in namespace:
            raise UserError(f"--config={path}: defines no get_config()")
        config = namespace["get_config"]()
    except UserError as error:
        raise UserError(f"{path}: {error}" if str(path) not in str(error) else str(error)) from None
    except SyntaxError as error:
        raise UserError(f"{path}:{error.lineno}: {error.msg}") from None
    except (Exception, SystemExit, GeneratorExit) as error:  # whatever the recipe's lines raise is its mistake
        raise UserError(f"{path}:{_line_in(path, error)}: {_explained(error)}") from None
    if not isinstance(config, Config):
        raise UserError(f"--config={path}: get_config() returned {type(config).__name__}, not a Config")
    return config


def _line_in(path: Path, error: BaseException) -> int:
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return lines[-1] or 0 if lines else 0


def _explained(error: BaseException) -> str:
    """A recipe's error in a line; a keyword that Config lacks gets the nearest that it has."""
    try:
        message = f"{type(error).__name__}: {error}"
    except Exception:  # its own class, whose __str__ fails as well
        message = type(error).__name__
    if isinstance(error, TypeError) and "unexpected keyword argument" in str(error):
        name = str(error).partition("'")[2].partition("'")[0]
        message = f"{name}: {unknown_field(name)}"
    return message


def _parsed(name: str, text: str, annotation: Any) -> Any:
    """The value that `--config.name=text` means, as far as the text alone can tell; Config checks the rest."""
    options = _alternatives(annotation)
    if type(None) in options and text.lower() == "none":
        return None
    if bool in options and text.lower() in ("true", "false"):
        return text.lower() == "true"
    if str in options or typing.get_origin(options[0]) is Literal:
        return text
    if typing.get_origin(options[0]) is tuple:
        whole = _literal(text)
        if isinstance(whole, tuple | list):
            return whole
        return tuple(_literal(part) for part in text.split(",") if part.strip())
    return _literal(text)


def _literal(text: str) -> Any:
    """A Python literal, or else the text itself."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what is odd Python, and text here
            return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text


def _checked(name: str, value: Any, annotation: Any) -> Any:
    """The value as its annotation has it (a list as a tuple, a whole number as a float), or a UserError."""
    for option in _alternatives(annotation):
        if option is type(None) and value is None:
            return None
        if option is float and type(value) is not bool and isinstance(value, int | float) and _fits_float32(value):
            return float(value)
        if option in (int, bool, str) and type(value) is option:
            return value
        origin = typing.get_origin(option)
        if origin is Literal and type(value) is str and value in typing.get_args(option):
            return value
        if origin is dict and isinstance(value, dict) and all(isinstance(key, str) for key in value):
            return dict(value)
        if origin is tuple and isinstance(value, tuple | list):
            kinds = typing.get_args(option)
            if kinds[-1] is Ellipsis:
                kinds = (kinds[0],) * len(value)
            if len(value) == len(kinds):
                with contextlib.suppress(UserError):  # of an item; what is said below is of the whole
                    return tuple(_checked(name, item, kind) for item, kind in zip(value, kinds, strict=True))
    raise UserError(f"{name}={_shown(value)}: must be {_in_words(annotation)}{_close_choice(value, annotation)}")


def _fits_float32(number: float) -> bool:
    return abs(number) <= _LARGEST_FLOAT32  # NaN is not


def _alternatives(annotation: Any) -> tuple[Any, ...]:
    union = typing.get_origin(annotation) in (types.UnionType, typing.Union)  # `Literal[...] | None` is the latter
    return typing.get_args(annotation) if union else (annotation,)


def _in_words(annotation: Any) -> str:
    words = {
        int: "a whole number",
        float: "a number that float32 holds",
        bool: "true or false",
        str: "text",
        type(None): "none",
    }
    parts = []
    for option in _alternatives(annotation):
        origin, args = typing.get_origin(option), typing.get_args(option)
        if origin is Literal:
            parts.append("one of " + ", ".join(args))
        elif origin is tuple:
            if args[-1] is not Ellipsis:
                parts.append(f"{len(args)} numbers with a comma between")
            elif typing.get_origin(args[0]) is tuple:
                parts.append("pairs of numbers, each with a comma behind, such as (2,64),(4,96),")
            else:
                parts.append("numbers with commas between")
        elif origin is dict:
            parts.append("a dict from option names to values")
        else:
            parts.append(words[option])
    return " or ".join(parts)


def _close_choice(value: Any, annotation: Any) -> str:
    choices = [
        c
        for option in _alternatives(annotation)
        if typing.get_origin(option) is Literal
        for c in typing.get_args(option)
    ]
    close = difflib.get_close_matches(str(value), choices, n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _shown(value: Any) -> str:
    try:
        return ",".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
    except (ValueError, RecursionError) as error:  # Python writes out no number of thousands of digits
        return f"({error})"
