"""The one door to a dataset's split: a random-access `Source` of encoded images and labels."""

import contextlib
import difflib
import hashlib
import json
import os
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from unittest import mock

import numpy as np

from flax_resnets.data.decode import decode
from flax_resnets.data.prepare import prepare, quiet_tfds
from flax_resnets.errors import UserError

if TYPE_CHECKING:
    from tensorflow_datasets.core import DatasetBuilder

SAMPLE = "fashion_mnist_sample"
"""Name of the dataset that comes with the package and needs no `data_dir`."""

SAMPLE_DIR = Path(__file__).parent / "sample"
_WHOLE = 2**30  # bytes of a split that are hashed at each start
_BLOCKS, _BLOCK = 8, 2**16  # of each file of a larger one; array_record keeps a file's index in its last 64 KiB
_NAME = re.compile(r"[A-Za-z]\w*(/[\w.-]+)?(:\d+\.\d+\.\d+)?")  # TFDS's name[/config][:version]


class Source:
    """One split of an image-classification dataset, by index.

    Made by `open_source`. Every method may be called from several threads at once.

    Attributes:
        dataset: the name it was opened by.
        split: the split's own name: `test` where a dataset has no `validation`.
        class_names: the classes, in the order of their labels.
        image_shape: `(height, width, channels)`; None where images differ.
        version: the dataset's, such as `1.0.0`.
        directory: where its files lie.
        fingerprint: 64 hex digits that stand for what the files hold, wherever they lie; see `_fingerprint`.
        cache_key: the same for what is decoded from them: where `fingerprint` takes samples, the files' times as well.
    """

    def __init__(self, dataset: str, split: str, builder: "DatasetBuilder"):
        import tensorflow_datasets as tfds

        self.dataset = dataset
        self.split = split
        image, label = image_and_label(dataset, builder.info.features)
        self.class_names: tuple[str, ...] = tuple(label.names)
        self.image_shape: tuple[int | None, int | None, int] = tuple(image.shape)
        self.version = str(builder.version)
        self.directory = Path(builder.data_dir).resolve()
        file_format = builder.info.file_format
        if file_format != tfds.core.FileFormat.ARRAY_RECORD:
            raise UserError(
                f"dataset={dataset!r} in {self.directory}: prepared as {file_format and file_format.value}, which "
                f"cannot be read by index; {_how_to_prepare_again(builder)}"
            )
        if not builder.info.splits[split].num_examples:
            raise UserError(f"dataset={dataset!r} in {self.directory}: its split {split!r} has no images")
        instructions = builder.info.splits[split].file_instructions
        self._files = [Path(instruction.filename).resolve() for instruction in instructions]
        self._records = [instruction.examples_in_shard for instruction in instructions]
        for path, records in zip(self._files, self._records, strict=True):
            _check_record_file(path, records)
        self.fingerprint = _fingerprint(self._files, self.directory)
        self.cache_key = self.fingerprint
        if _sampled(self._files):
            times = [path.stat().st_mtime_ns for path in self._files]
            self.cache_key = hashlib.sha256(f"{self.fingerprint} {times}".encode()).hexdigest()
        # The type checker cannot see the parameters behind TFDS's decorators.
        as_data_source: Any = builder.as_data_source
        self._examples = as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})
        self._name_key = _name_key(builder.info.features)

    @property
    def num_classes(self) -> int:
        """How many classes the labels tell apart."""
        return len(self.class_names)

    @property
    def channels(self) -> int:
        """1 for grey images, 3 for colour."""
        return self.image_shape[2]

    def __len__(self) -> int:
        return len(self._examples)

    def __repr__(self) -> str:
        return f"Source({self.dataset!r}, {self.split!r}, {len(self)} images of {self.num_classes} classes)"

    def encoded(self, index: int) -> bytes:
        """The image as it is stored: the bytes of a JPEG or PNG file."""
        return self._example(index)[0]

    def label(self, index: int) -> int:
        """The image's class, in `range(num_classes)`."""
        return self._example(index)[1]

    def image(self, index: int) -> np.ndarray:
        """The decoded image, uint8, `(height, width, channels)`."""
        return self[index][0]

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        """The decoded image and its class.

        Raises:
            IndexError: `index` is not in `range(len(self))`.
            UserError: the record or the image in it is damaged; the message names both.
        """
        encoded, label = self._example(index)
        try:
            image = decode(encoded, self.channels)
        except ValueError as error:
            raise UserError(f"{self._where(index)} (class {self.class_names[label]!r}): {error}") from error
        if any(want not in (None, have) for want, have in zip(self.image_shape, image.shape, strict=True)):
            raise UserError(
                f"{self._where(index)} (class {self.class_names[label]!r}): its shape is {image.shape}, the dataset's "
                f"is {self.image_shape}"
            )
        return image, label

    def _example(self, index: int) -> tuple[bytes, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"index {index} is not in range({len(self)})")
        try:
            example = self._examples[index]
            encoded, label = bytes(example["image"]), int(example["label"])
        except Exception as error:  # RuntimeError of the record reader, DecodeError of protobuf, KeyError of TFDS
            raise UserError(f"{self._where(index)}: the record is damaged ({error})") from error
        if not 0 <= label < self.num_classes:
            raise UserError(f"{self._where(index)}: label {label} is not in range({self.num_classes})")
        return encoded, label

    def _where(self, index: int) -> str:
        """Names an image so that it can be found: its place in the record files, and its name where it has one.

        TFDS shuffles as it writes: of the order before, an index says nothing.
        """
        record, shard = index, 0
        while record >= self._records[shard]:
            record, shard = record - self._records[shard], shard + 1
        where = (
            f"dataset {self.dataset!r}, split {self.split!r}, image {index} in {self._files[shard]}, record {record}"
        )
        if self._name_key is None:
            return where
        try:
            name = self._examples[index][self._name_key]
        except Exception:  # it is why the image is looked for
            return where
        text = name.decode(errors="replace") if isinstance(name, bytes) else str(name)
        return f"{where}, {self._name_key} {text[:200]!r}"


def open_source(
    dataset: str, split: Literal["train", "validation"], data_dir: str | os.PathLike[str] | None = None
) -> Source:
    """Opens one split of a TFDS dataset, or of the sample that comes with the package.

    A dataset that is not prepared under `data_dir` yet is downloaded and prepared there first. TensorFlow is not
    needed for any of it.

    Args:
        dataset: TFDS's name, such as `imagenette/160px-v2`, `fashion_mnist` or `cifar10:3.0.2`; or
            `fashion_mnist_sample`. It must have the features `image` and `label`.
        split: `validation` means the split of that name, or `test` where there is none.
        data_dir: where TFDS keeps datasets; None is TFDS's own default, `~/tensorflow_datasets`.

    Returns:
        The split, its record files checked for length but not read through.

    Raises:
        UserError: no such dataset or directory, not a set of labelled images, a damaged file, or no way to get it.

    Example:
        >>> source = open_source("fashion_mnist_sample", "train")
        >>> source.image(0).shape, source.class_names[:2]
        ((28, 28, 1), ('T-shirt/top', 'Trouser'))
    """
    if split not in ("train", "validation"):
        raise UserError(f"split={split!r}: must be 'train' or 'validation'")
    check_data_dir(data_dir)
    directory = where_it_lies(dataset, data_dir)
    builder = make_builder(dataset, directory)
    with quiet_tfds():
        prepared = builder.is_prepared()
    if not prepared:
        prepare(builder)
        builder = make_builder(dataset, directory)
    with quiet_tfds():
        return Source(dataset, _real_split(dataset, split, list(builder.info.splits)), builder)


def check_data_dir(data_dir: str | os.PathLike[str] | None) -> None:
    """Raises UserError where a directory is named and is none."""
    if data_dir is not None:
        directory = os.path.expanduser(data_dir)  # pathlib's raises for a user there is not
        if not os.path.isdir(directory):  # and here for a name too long
            raise UserError(f"data_dir={directory!r}: no such directory; name an existing one")


def where_it_lies(dataset: str, data_dir: str | os.PathLike[str] | None) -> Path | None:
    """The directory in which TFDS finds a dataset; None for TFDS's own default."""
    if dataset.partition(":")[0] == SAMPLE:
        return SAMPLE_DIR
    return None if data_dir is None else Path(os.path.expanduser(data_dir))


def make_builder(dataset: str, data_dir: Path | None) -> "DatasetBuilder":
    """TFDS's builder of a set of labelled images, or a UserError that says what is wrong with the name."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.registered import DatasetNotFoundError

    if not _NAME.fullmatch(dataset):
        raise UserError(f"dataset={dataset!r}: must be a TFDS name such as 'fashion_mnist' or 'imagenette/160px-v2'")
    try:
        # It would ask Google's storage for what the builder knows, and leave an empty temporary directory each time.
        with (
            quiet_tfds(),
            mock.patch.object(tfds.core.DatasetInfo, "initialize_from_bucket"),
            mock.patch.object(tfds.features.FeatureConnector, "cls_from_name", _feature_of_tfds),
        ):
            builder = tfds.builder(dataset, data_dir=data_dir and str(data_dir))
            image_and_label(dataset, builder.info.features)
            return builder
    except UserError:
        raise
    except Exception as error:
        name, _, config = dataset.split(":")[0].partition("/")
        known = [SAMPLE, *tfds.list_builders(with_community_datasets=False)]
        if name in known[1:] and config:
            known = [f"{name}/{each}" for each in tfds.builder_cls(name).builder_configs]
        if isinstance(error, ModuleNotFoundError) and error.name == "tensorflow":
            raise UserError(
                f"dataset={dataset!r}: must have the features 'image', an Image, and 'label', a ClassLabel, and none "
                f"that TFDS reads with TensorFlow alone; {_features_with_tensorflow(name, data_dir)}"
            ) from error
        there = sorted(path.parent for path in (data_dir / name).glob("**/dataset_info.json")) if data_dir else []
        is_damaged = there and not isinstance(error, DatasetNotFoundError)
        if dataset.split(":")[0] not in known and not is_damaged:
            close = difflib.get_close_matches(dataset, known, n=3, cutoff=0.5)
            suggestion = f"; did you mean {' or '.join(map(repr, close))}?" if close else ""
            if there:
                suggestion = f"; data_dir={str(data_dir)!r} holds its {', '.join(path.name for path in there[:3])}"
            raise UserError(f"dataset={dataset!r}: TFDS has no such dataset{suggestion}") from error
        raise UserError(f"dataset={dataset!r} in data_dir={str(data_dir)!r}: {str(error)[:400]}") from error


def _features_with_tensorflow(name: str, data_dir: Path | None) -> str:
    """Of a prepared set, the features that TFDS cannot describe without it, as far as its files tell."""
    found = []
    for path in sorted(data_dir.glob(f"{name}/**/features.json")) if data_dir else []:
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError, AttributeError):
            content = json.loads(path.read_text())
            features = (content.get("featuresDict") or content["content"])["features"]
            for key, feature in features.items():
                kind = str(feature.get("pythonClassName") or feature.get("type")).rpartition(".")[2]
                if kind in ("Audio", "Video"):
                    found.append(f"{key!r} is {kind}")
    return ", ".join(dict.fromkeys(found)) or "a feature is Video or Audio"


def _how_to_prepare_again(builder: "DatasetBuilder") -> str:
    """What makes array_record files of a set that lies there in another format."""
    import tensorflow_datasets as tfds

    if builder.name not in tfds.list_builders(with_community_datasets=False):
        return (
            "TFDS has no code for it, but with its own builder "
            "flax_resnets.data.prepare.prepare(Builder(data_dir=ANOTHER)) writes it as array_record"
        )
    manual = ", from archives that you put into downloads/manual there" if builder.MANUAL_DOWNLOAD_INSTRUCTIONS else ""
    return f"with data_dir=ANOTHER, an existing directory, it is prepared there as array_record{manual}"


def _name_key(features: Any) -> str | None:
    """The feature, if any, by which people know an image: its file's name, or an id."""
    import tensorflow_datasets as tfds

    scalars = [key for key, each in features.items() if isinstance(each, tfds.features.Tensor) and each.shape == ()]
    for pattern in (r"(.*[/_])?file_?(name|path)", r"(image[/_])?(name|path)", r"((image|file|example|sample)[/_])?id"):
        for key in scalars:
            if re.fullmatch(pattern, key):
                return key
    return None


def _feature_of_tfds(name: str) -> type:
    """The class of a feature that features.json names; TFDS alone would import any module that it names."""
    from tensorflow_datasets.core.features.feature import FeatureConnector

    known = FeatureConnector._registered_features
    if name not in known:
        raise UserError(f"features.json names {name!r}, which is no feature of TFDS; prepare the dataset again")
    return known[name]


def image_and_label(dataset: str, features: Any) -> tuple[Any, Any]:
    """TFDS's features of those names, or a UserError that says which is not an image or its class, and what it is."""
    kinds = _kinds()
    named: dict[str, Any] = dict(features.items()) if isinstance(features, kinds.FeaturesDict) else {}
    wanted = (
        ("image", kinds.Image, _is_image, "an Image of uint8 with 1 or 3 channels"),
        ("label", kinds.ClassLabel, _is_label, "a ClassLabel with at least 2 classes"),
    )
    problems = []
    for name, kind, is_right, right in wanted:
        if name not in named:
            there = sorted(key for key, each in _flat(named) if isinstance(each, kind)) or sorted(named)
            others = ", ".join(map(repr, there[:5])) + (", ..." if there[5:] else "") or _kind(features)
            problems.append(f"{name!r} is missing, must be {right} (there is {others[:150]})")
        elif not is_right(named[name]):
            problems.append(f"{name!r} is {_kind(named[name])}, must be {right}")
    if problems:
        raise UserError(f"dataset={dataset!r}: must have the features 'image' and 'label'; {'; '.join(problems)}")
    return named["image"], named["label"]


def _is_image(feature: Any) -> bool:
    kinds = _kinds()
    # TFDS's Video and Sequence are none, though they hold images.
    return isinstance(feature, kinds.Image) and np.dtype(feature.np_dtype) == np.uint8 and feature.shape[2] in (1, 3)


def _is_label(feature: Any) -> bool:
    return isinstance(feature, _kinds().ClassLabel) and (feature.num_classes or 0) >= 2


def _kind(feature: Any) -> str:
    """What a feature is, in TFDS's words."""
    kinds = _kinds()
    kind = type(feature).__name__
    if isinstance(feature, kinds.ClassLabel):
        return f"{kind} with {feature.num_classes or 'no'} class{'' if feature.num_classes == 1 else 'es'}"
    if isinstance(feature, kinds.Image):
        channels = f"{feature.shape[2] or 'any number of'} channel{'' if feature.shape[2] == 1 else 's'}"
        return f"{kind} of {np.dtype(feature.np_dtype).name} with {channels}"
    if isinstance(feature, kinds.FeaturesDict):
        return f"{kind} of {', '.join(map(repr, list(feature)[:5]))}"
    if isinstance(feature, kinds.Sequence):
        return f"{kind} of {_kind(feature.feature)}"
    if isinstance(feature, kinds.Text) or not isinstance(feature, kinds.Tensor):
        return kind
    return f"{kind} of {np.dtype(feature.np_dtype).name}" + (f", shape {feature.shape}" if feature.shape else "")


def _flat(features: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Features by name, those inside others as `outer/inner`."""
    for name, feature in features.items():
        yield name, feature
        inner = getattr(feature, "feature", feature)  # of a Sequence
        if hasattr(inner, "items"):
            yield from ((f"{name}/{key}", each) for key, each in _flat(dict(inner.items())))


def _kinds() -> Any:
    """TFDS's classes of features; of no type, for the type checker cannot follow their decorators."""
    import tensorflow_datasets as tfds

    return tfds.features


def _real_split(dataset: str, split: str, splits: list[str]) -> str:
    for name in ("validation", "test") if split == "validation" else (split,):
        if name in splits:
            return name
    known = "'train'" if split == "train" else "'validation' or 'test'"
    raise UserError(f"dataset={dataset!r}: has no {split} split, only {', '.join(splits) or 'none'}; needs {known}")


def _check_record_file(path: Path, examples: int) -> None:
    """Raises UserError unless the file's index is whole and counts as many records as the dataset's metadata does."""
    from array_record.python import array_record_module  # pyright: ignore[reportAttributeAccessIssue]  # compiled

    try:
        open(path, "rb").close()
        reader = array_record_module.ArrayRecordReader(str(path))
        found, problem = reader.num_records(), ""
        reader.close()  # here it raises what was wrong with the index at the file's end
    except OSError as error:
        raise UserError(f"record file {path}: {error.strerror}") from error
    except RuntimeError as error:
        found, problem = 0, f" ({error})"
    if found != examples:
        raise UserError(
            f"record file {path}: damaged or cut short, {found} of its {examples} records can be found{problem}; "
            "delete its directory to have the dataset prepared again"
        )


def _sampled(files: list[Path]) -> bool:
    return sum(path.stat().st_size for path in files) > _WHOLE


def _fingerprint(files: list[Path], directory: Path) -> str:
    """64 hex digits for what a split's record files hold, and for `features.json`; paths and times are not in it.

    Up to 1 GiB a split is hashed whole: about a second. Of a larger one, such as ImageNet's 150 GB, each file's size
    and eight blocks of 64 KiB are, evenly spread, the first and the last among them. There a change is noticed if it
    changes a file's size or where its records lie, as other images do, or touches one of the blocks.
    """
    sampled = _sampled(files)

    def hashed(path: Path) -> str:
        with path.open("rb") as file:
            if not sampled:
                return hashlib.file_digest(file, "sha256").hexdigest()
            digest, last = hashlib.sha256(), max(path.stat().st_size - _BLOCK, 0)
            for number in range(_BLOCKS):
                file.seek(last * number // (_BLOCKS - 1))
                digest.update(file.read(_BLOCK))
            return digest.hexdigest()

    try:
        features = (directory / "features.json").read_bytes()
        with ThreadPoolExecutor(16) as pool:  # of a thousand files on a network's disk
            hashes = list(pool.map(hashed, files))
    except OSError as error:
        raise UserError(
            f"{error.filename}: {error.strerror}; delete its directory to have the dataset prepared again"
        ) from error
    sizes = [path.stat().st_size for path in files]
    return hashlib.sha256(features + repr((sizes, hashes)).encode()).hexdigest()
