"""A split of a prepared TFDS dataset."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from flax_resnets.data.fingerprint import fingerprints
from flax_resnets.data.source import Source
from flax_resnets.data.tfds.builder import how_to_prepare_again
from flax_resnets.data.tfds.features import image_and_label, name_key
from flax_resnets.errors import UserError

if TYPE_CHECKING:
    from tensorflow_datasets.core import DatasetBuilder


class TfdsSource(Source):
    """A split that TFDS has prepared as array_record files.

    Args:
        dataset: the name by which the dataset was opened.
        split: TFDS's name of the split.
        builder: builder of the dataset, which must be prepared.

    Raises:
        UserError: the files have another format, are damaged, or hold no images.
    """

    def __init__(self, dataset: str, split: str, builder: "DatasetBuilder"):
        import tensorflow_datasets as tfds

        self.dataset = dataset
        self.split = split
        image, label = image_and_label(dataset, builder.info.features)
        self.class_names = tuple(label.names)
        self.image_shape = tuple(image.shape)
        self.channels = image.shape[2]
        self.version = str(builder.version)
        self.directory = Path(builder.data_dir).resolve()
        file_format = builder.info.file_format
        if file_format != tfds.core.FileFormat.ARRAY_RECORD:
            raise UserError(
                f"dataset={dataset!r} in {self.directory}: prepared as {file_format and file_format.value}, which "
                f"cannot be read by index; {how_to_prepare_again(builder)}"
            )
        if not builder.info.splits[split].num_examples:
            raise UserError(f"dataset={dataset!r} in {self.directory}: its split {split!r} has no images")
        instructions = builder.info.splits[split].file_instructions
        self._files = [Path(instruction.filename).resolve() for instruction in instructions]
        self._records = [instruction.examples_in_shard for instruction in instructions]
        for path, records in zip(self._files, self._records, strict=True):
            _check_record_file(path, records)
        self.fingerprint, self.cache_key = _fingerprints(self._files, self.directory)
        # The type checker cannot see the parameters behind TFDS's decorators.
        as_data_source: Any = builder.as_data_source
        self._examples = as_data_source(split, decoders={"image": tfds.decode.SkipDecoding()})
        self._name_key = name_key(builder.info.features)

    def __len__(self) -> int:
        return len(self._examples)

    def read(self, index: int) -> tuple[bytes, int]:
        """See `Source`; raises errors of array_record, protobuf and TFDS."""
        example = self._examples[index]
        return bytes(example["image"]), int(example["label"])

    def image_name(self, index: int) -> str:
        """See `Source`. TFDS shuffled the examples when it wrote them, so the index says nothing about the original."""
        record, shard = index, 0
        while record >= self._records[shard]:
            record, shard = record - self._records[shard], shard + 1
        where = f"{self._files[shard]}, record {record}"
        if self._name_key is None:
            return where
        try:
            name = self._examples[index][self._name_key]
        except Exception:  # the record is damaged, which may be why the name is asked for
            return where
        text = name.decode(errors="replace") if isinstance(name, bytes) else str(name)
        return f"{where}, {self._name_key} {text[:200]!r}"


def _check_record_file(path: Path, examples: int) -> None:
    """Raises UserError unless the file's index is complete and has as many records as the metadata says."""
    from array_record.python import array_record_module  # pyright: ignore[reportAttributeAccessIssue]  # compiled

    try:
        open(path, "rb").close()
        reader = array_record_module.ArrayRecordReader(str(path))
        found, problem = reader.num_records(), ""
        reader.close()  # raises an error if the index at the file's end is damaged
    except OSError as error:
        raise UserError(f"record file {path}: {error.strerror}") from error
    except RuntimeError as error:
        found, problem = 0, f" ({error})"
    if found != examples:
        raise UserError(
            f"record file {path}: damaged or cut short, {found} of its {examples} records can be found{problem}; "
            "delete its directory to have the dataset prepared again"
        )


def _fingerprints(files: list[Path], directory: Path) -> tuple[str, str]:
    try:
        return fingerprints(files, (directory / "features.json").read_bytes())
    except OSError as error:
        raise UserError(
            f"{error.filename}: {error.strerror}; delete its directory to have the dataset prepared again"
        ) from error
