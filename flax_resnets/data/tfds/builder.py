"""Makes TFDS's builder of a dataset from the dataset's name."""

import difflib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from flax_resnets.data.tfds.features import features_with_tensorflow, image_and_label
from flax_resnets.data.tfds.patches import no_network_for_metadata, only_features_of_tfds, quiet_tfds
from flax_resnets.errors import UserError

if TYPE_CHECKING:
    from tensorflow_datasets.core import DatasetBuilder

SAMPLE = "fashion_mnist_sample"
"""Name of the dataset that comes with the package and needs no `data_dir`."""

SAMPLE_DIR = Path(__file__).parents[1] / "sample"
_NAME = re.compile(r"[A-Za-z]\w*(/[\w.-]+)?(:\d+\.\d+\.\d+)?")  # TFDS's name[/config][:version]


def where_it_lies(dataset: str, data_dir: str | os.PathLike[str] | None) -> Path | None:
    """The directory in which TFDS finds a dataset; None for TFDS's own default."""
    if dataset.partition(":")[0] == SAMPLE:
        return SAMPLE_DIR
    return None if data_dir is None else Path(os.path.expanduser(data_dir))


def make_builder(dataset: str, data_dir: Path | None) -> "DatasetBuilder":
    """TFDS's builder of a set of labelled images.

    Raises:
        UserError: TFDS has no such dataset or version, its files are damaged, or it is not a set of labelled images.
    """
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.registered import DatasetNotFoundError

    if not _NAME.fullmatch(dataset):
        raise UserError(f"dataset={dataset!r}: must be a TFDS name such as 'fashion_mnist' or 'imagenette/160px-v2'")
    try:
        with quiet_tfds(), no_network_for_metadata(), only_features_of_tfds():
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
                f"dataset={dataset!r}: must have the features 'image', an Image, and 'label', a ClassLabel, and no "
                f"feature that TFDS reads only with TensorFlow; {features_with_tensorflow(name, data_dir)}"
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
