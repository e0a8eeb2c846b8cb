"""Makes TFDS's builder of a dataset from the dataset's name."""

import difflib
import os
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from flax_resnets.copies import copied_directory
from flax_resnets.data.found import found_in
from flax_resnets.data.tfds.features import features_with_tensorflow
from flax_resnets.data.tfds.patches import no_network_for_metadata, only_features_of_tfds, quiet_tfds
from flax_resnets.errors import UserError
from flax_resnets.paths import expanded
from flax_resnets.storage import is_bucket, is_url

if TYPE_CHECKING:
    from tensorflow_datasets.core import DatasetBuilder

SAMPLE = "fashion_mnist_sample"
"""Name of the dataset that comes with the package and needs no `data_dir`."""

SAMPLE_DIR = Path(__file__).parents[1] / "sample"
_NAME = re.compile(r"[A-Za-z]\w*(/[\w.-]+)?(:\d+\.\d+\.\d+)?")  # TFDS's name[/config][:version]
_RECORDS = re.compile(r"-\d{5}-of-\d{5}$")


def where_it_lies(dataset: str, data_dir: str | os.PathLike[str] | None) -> Path | None:
    """The directory in which TFDS finds a dataset; None for TFDS's own default.

    Of a `data_dir` in a bucket this is a local copy, without the records; `copy_records` adds those of a split.
    """
    if dataset.partition(":")[0] == SAMPLE:
        return SAMPLE_DIR
    if data_dir is not None and is_url(data_dir):
        if not _NAME.fullmatch(dataset):  # before its name becomes a part of a path
            raise _misnamed(dataset)
        return _without_records(os.fspath(data_dir), re.split("[:/]", dataset)[0])
    return None if data_dir is None else Path(os.path.expanduser(data_dir))


@cache
def _without_records(data_dir: str, name: str) -> Path:
    directory = expanded(data_dir, "data_dir", buckets=True) / name
    return copied_directory(directory, "data_dir", lambda name: not _RECORDS.search(name)).parent


def copy_records(data_dir: str | None, builder: "DatasetBuilder", files: Sequence[Path]) -> None:
    """Copies files with records, named by their paths here, from a `data_dir` in a bucket; from no other."""
    if data_dir is None or not is_bucket(data_dir) or builder.name == SAMPLE:
        return
    version = Path(builder.data_dir).relative_to(where_it_lies(builder.name, data_dir) or "")
    directory = expanded(data_dir, "data_dir", buckets=True) / version
    copied_directory(directory, "data_dir", {path.name for path in files}.__contains__)


def make_builder(dataset: str, data_dir: Path | None) -> "DatasetBuilder":
    """TFDS's builder of a dataset.

    Raises:
        UserError: TFDS has no such dataset or version, or its files are damaged.
    """
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.registered import DatasetNotFoundError

    name, _, config = dataset.split(":")[0].partition("/")
    # TFDS would take `Imagenette` for `imagenette`; but a run's name for its data is one.
    if not _NAME.fullmatch(dataset) or (name != name.lower() and name.lower() in _known()):
        raise _misnamed(dataset)
    try:
        with quiet_tfds(), no_network_for_metadata(), only_features_of_tfds():
            builder = tfds.builder(dataset, data_dir=data_dir and str(data_dir))
            _ = builder.info.features  # raises an error if they need TensorFlow
            return builder
    except UserError:
        raise
    except Exception as error:
        known = _known()
        if config and name in tfds.list_builders(with_community_datasets=False):
            known = [f"{name}/{each}" for each in tfds.builder_cls(name).builder_configs]
        if isinstance(error, ModuleNotFoundError) and error.name == "tensorflow":
            raise UserError(
                f"dataset={dataset!r}: must have the features 'image', an Image, and 'label', a ClassLabel, and no "
                f"feature that TFDS reads only with TensorFlow; {features_with_tensorflow(name, data_dir)}"
            ) from error
        there = sorted(path.parent for path in (data_dir / name).glob("**/dataset_info.json")) if data_dir else []
        is_damaged = there and not isinstance(error, DatasetNotFoundError)
        if dataset.split(":")[0] not in known and not is_damaged:
            suggestion = _of_own_data(dataset) or _meant(dataset, known)
            if there:
                suggestion = f"; data_dir={str(data_dir)!r} holds its {', '.join(path.name for path in there[:3])}"
            raise UserError(f"dataset={dataset!r}: TFDS has no such dataset{suggestion}") from error
        raise UserError(f"dataset={dataset!r} in data_dir={str(data_dir)!r}: {str(error)[:400]}") from error


def _misnamed(dataset: str) -> UserError:
    name = re.split("[:/]", dataset)[0]
    return UserError(
        f"dataset={dataset!r}: must be a TFDS name such as 'fashion_mnist' or 'imagenette/160px-v2'"
        f"{_of_own_data(dataset) or _meant(name, _known())}"
    )


def _known() -> list[str]:
    import tensorflow_datasets as tfds

    from flax_resnets.data.source import KINDS  # which imports this package

    # A builder that has been imported may be listed twice.
    return [*dict.fromkeys([SAMPLE, *KINDS, *tfds.list_builders(with_community_datasets=False)])]


def _of_own_data(dataset: str) -> str:
    """A hint for whoever gave the path of data of their own as the dataset's name."""
    is_file = os.path.isfile(dataset)
    directory = os.path.dirname(dataset) or "." if is_file else dataset
    found = found_in(Path(directory)) if os.path.isdir(directory) else None
    if found is None and (is_file or not os.path.isdir(directory)):
        return ""
    kind, what = (found.dataset, found.what) if found else ("folder", "pictures")
    return f"; for the {what} in it write dataset={kind}, data_dir={directory}"


def _meant(name: str, known: list[str]) -> str:
    """A hint at the names that are spelt otherwise, have the same words or more words, or nearly the same letters."""
    letters, words = _letters(name), _words(name) if "/" not in name else set()
    close = [each for each in known if letters and _letters(each) == letters]
    close = close or [each for each in known if words and _words(each) == words]
    close = close or sorted((each for each in known if words and _words(each) > words), key=len)
    close = close or difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(map(repr, close[:3]))}?" if close else ""


def _letters(name: str) -> str:
    return re.sub(r"[\W_]", "", name).lower()


def _words(name: str) -> set[str]:
    return set(re.findall("[a-z]+", name.lower()))


def how_to_prepare_again(builder: "DatasetBuilder") -> str:
    """Tells how to write a dataset as array_record files if it is prepared in another format."""
    import tensorflow_datasets as tfds

    if builder.name not in tfds.list_builders(with_community_datasets=False):
        return (
            "TFDS has no code for it; if you have its builder class, "
            "flax_resnets.data.tfds.prepare.prepare(Builder(data_dir=ANOTHER)) writes it as array_record"
        )
    manual = ", from archives that you put into downloads/manual there" if builder.MANUAL_DOWNLOAD_INSTRUCTIONS else ""
    return f"with data_dir=ANOTHER, an existing directory, it is prepared there as array_record{manual}"
