"""A trained network as a file for programs that do not have this library.

Formats, and who reads them:

- `stablehlo`: a program of JAX's, which needs only jax and flatbuffers, on a CPU, a GPU or a TPU;
- `onnx`: onnxruntime, and many others;
- `safetensors`: the weights alone, under timm's names;
- `saved`: a folder, see `Classifier.save`.

Beside the first three lies a small JSON file, named after the file with `.json` added: the input, the output, the names
of the classes, and what has to happen to an image before and what happens in the file.

The two programs take uint8 images. They resize on the device, normalise, and give logits. Norms are folded into
convolutions where that is possible (see `fold_batch_norm`) and the network computes in float32.
"""

import importlib.util
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import jax
import jax.numpy as jnp

from flax_resnets import __version__
from flax_resnets.augment import evaluated
from flax_resnets.errors import UserError
from flax_resnets.inference.folder import CONFIG, WEIGHTS, tensors_of
from flax_resnets.models.folding import fold_batch_norm, why_not_folded
from flax_resnets.paths import expanded
from flax_resnets.training.multilabel import OF_EACH_CLASS
from flax_resnets.weights.safetensors_format import write_safetensors

if TYPE_CHECKING:
    from flax_resnets.inference.classifier import Classifier

PLATFORMS = ("cpu", "cuda", "tpu")
"""Where an exported StableHLO program runs."""

DEFAULT = "stablehlo"
"""The format of a file whose name does not tell."""

# A name such as resnet18-0.5 has none.
_ENDING = re.compile(r"\.[A-Za-z]\w{0,15}")

# Both formats of programs count bytes in 32 bits with a sign.
_MOST_BYTES = 2**31 - 2**24


@dataclass(frozen=True)
class Format:
    """A kind of output.

    Attributes:
        suffix: ends the output's name, if the user gives none.
        write: writes a file that does not exist yet; gets the classifier, the path, and what the JSON file will hold.
            None for the folder that `Classifier.save` writes.
        package: what must be installed, beside this library's own needs.
        program: whether the file holds a program, not weights alone.
    """

    suffix: str
    write: Callable[["Classifier", Path, Mapping[str, Any]], None] | None
    package: str | None = None
    program: bool = True


def export(classifier: "Classifier", path: str | os.PathLike[str], format: str | None, force: bool) -> list[Path]:
    """See `Classifier.export`."""
    format = meant_format(format, path)
    target = check_output(path, format, force)
    kind = FORMATS[format]
    if kind.write is None:
        classifier.save(target, force=force)
        return [target / CONFIG, target / WEIGHTS]
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(classifier.variables))
    if kind.program and size > _MOST_BYTES:
        raise UserError(f"format={format}: a file holds 2 GB at most, the weights are {size / 1e9:.1f} GB; use saved")
    description = describe(classifier, format)
    beside = target.with_name(f"{target.name}.json")
    try:
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name[:50]}.", suffix=".tmp", dir=target.parent))
        try:
            kind.write(classifier, temporary / target.name, description)
            (temporary / beside.name).write_text(f"{json.dumps(description, indent=2)}\n", encoding="utf-8")
            for written in (beside, target):
                _to_disk(temporary / written.name)
                os.replace(temporary / written.name, written)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        raise UserError(f"{target}: {error.strerror or error}; name a file that can be written") from None
    return [target, beside]


def format_of(path: str | os.PathLike[str] | None) -> str | None:
    """The format whose names end as this path does; None if no format's do.

    Example:
        >>> format_of("nets/Sneakers.ONNX"), format_of("sneakers")
        ('onnx', None)
    """
    text = str(os.fspath(path)).lower() if isinstance(path, str | os.PathLike) else ""
    return next((name for name, kind in FORMATS.items() if kind.suffix and text.endswith(kind.suffix)), None)


def meant_format(
    format: str | None, path: str | os.PathLike[str] | None, words: tuple[str, str] = ("path", "format")
) -> str:
    """The format that was asked for, or else that of the path's ending, or else `DEFAULT`.

    Args:
        format: one of `FORMATS`; None to go by the path.
        path: of the output; None if there is none yet. One that ends in a slash is a folder's.
        words: what messages call the path and the format.

    Raises:
        UserError: the path ends as no format's files do, such as `net.tflite`, and the format is not given.

    Example:
        >>> meant_format(None, "net.onnx"), meant_format(None, "net"), meant_format(None, "nets/net/")
        ('onnx', 'stablehlo', 'saved')
    """
    if format is not None or not isinstance(path, str | os.PathLike):
        return DEFAULT if format is None else format
    if os.fspath(path).endswith("/"):
        return "saved"
    if (found := format_of(path)) is None and _ENDING.fullmatch(ending := Path(path).suffix):
        *known, last = (kind.suffix for kind in FORMATS.values())
        right = f"end it in {', '.join(known)} or {last}, or give the {words[1]}"
        raise UserError(f"{words[0]}={path}: {ending} is the ending of no format here; {right}")
    return found or DEFAULT


def check_output(
    path: str | os.PathLike[str],
    format: str,
    force: bool,
    words: tuple[str, str, str] = ("path", "format", "force=True"),
) -> Path:
    """The path, if something of that format can be written there.

    Args:
        path: of the file, or of the folder for `saved`.
        format: one of `FORMATS`.
        force: whether what exists may be replaced.
        words: what messages call the path and the format, and how the caller says that it may be replaced.

    Raises:
        UserError: there is no such format, it needs a package that is missing, or the path cannot be written.
    """
    named, named_format, flag = words
    if not isinstance(format, str) or format not in FORMATS:
        close = get_close_matches(str(format), list(FORMATS), n=1, cutoff=0.4)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise UserError(f"{named_format}={str(format)[:100]}: must be {', '.join(FORMATS)}{hint}")
    kind = FORMATS[format]
    if kind.package and importlib.util.find_spec(kind.package) is None:
        raise UserError(f"{named_format}={format}: needs a package that is not installed: pip install {kind.package}")
    if not isinstance(path, str | os.PathLike) or not os.fspath(path):
        raise UserError(f"{named}={str(path)[:100]!r}: must be the path of a {'file' if kind.write else 'folder'}")
    target = expanded(path, named)
    if (other := format_of(path)) not in (None, format):
        raise UserError(f"{named}={target}: names a file of {other}, but the format is {format}")
    if "\0" in str(target):
        raise UserError(f"{named}={target}: holds a NUL; name a file that can be written")
    if kind.write is None:
        if os.path.lexists(target) and not os.path.isdir(target):
            raise UserError(f"{named}={target}: is a file; name a folder")
        if os.path.isdir(target) and os.listdir(target) and not force:
            raise UserError(f"{named}={target}: exists; name another folder, or replace what it holds with {flag}")
        return target
    for written in (target, target.with_name(f"{target.name}.json") if target.name else target):
        if os.path.isdir(written) or not written.name:
            raise UserError(f"{named}={written}: is a folder; name a file")
        if os.path.lexists(written) and not (os.path.isfile(written) or os.path.islink(written)):  # a device
            raise UserError(f"{named}={written}: is no regular file; name another")
        if os.path.lexists(written) and not force:
            raise UserError(f"{named}={written}: exists; name another file, or replace it with {flag}")
    if not os.access(target.parent, os.W_OK | os.X_OK):  # also if there is no such folder
        raise UserError(f"{named}={target}: {target.parent} is no folder that can be written")
    return target


def describe(classifier: "Classifier", format: str) -> dict[str, Any]:
    """What a reader of the file has to know; it is the content of the JSON file beside it."""
    settings, names = classifier.settings, classifier.class_names
    size, channels = settings.image_size, settings.channels
    stored = classifier.preprocess.stored_size
    outside: dict[str, Any] = {
        "exif_orientation": True,
        "white_background": classifier.preprocess.decoding.get("white_background", False),
        "resize": settings.resize,
        "shorter_side": settings.shorter_side,  # if it is a number, `resize` does not matter
        "size": stored,
        "interpolation": settings.interpolation,
    }
    inside: dict[str, Any] = {
        "crop_pct": settings.crop_pct,
        "resize_to": size,
        "mean": [*settings.mean],
        "std": [*settings.std],
        "eval_flip": settings.eval_flip,
    }
    shape: list[Any]
    if not FORMATS[format].program:
        given, shape, outside, inside = "float32", ["batch", channels, size, size], {**outside, **inside}, {}
    else:
        sides = ["height", "width"] if format == "stablehlo" and settings.crop_pct == 1 else [stored, stored]
        given, shape = "uint8", ["batch", *sides, channels]
    outputs = len(names) or classifier.num_features
    words = {"class_words": [*classifier.words]} if classifier.words != names else {}
    return {
        "format": format,
        "flax_resnets": __version__,
        "architecture": settings.model,
        "input": {"name": "images", "dtype": given, "shape": shape},
        "output": {
            "name": "logits" if names else "features",
            "dtype": "float32",
            "shape": ["batch", outputs],
        },
        "probabilities": ("sigmoid" if settings.loss in OF_EACH_CLASS else "softmax") if names else None,
        "class_names": [*names],
        **words,
        "preprocessing": {"before": outside, "inside": inside},
    }


def program(classifier: "Classifier", in_float32: bool = False) -> Callable[[jax.Array], jax.Array]:
    """What the exported program computes, with the weights in it.

    Args:
        classifier: whose network it is.
        in_float32: whether a network of a half precision computes in float32.

    Returns:
        A function from uint8 `(N, H, W, C)` to float32 `(N, outputs)`.
    """
    model, variables = cast(Any, classifier.model), classifier.variables
    if in_float32:
        model = model.clone(dtype=jnp.float32)
    # In a half precision a folded kernel would be rounded to other numbers.
    if not why_not_folded(model) and model.dtype == jnp.float32:
        model, variables = fold_batch_norm(model, variables)

    def compute(images: jax.Array) -> jax.Array:
        def network(prepared: jax.Array) -> jax.Array:
            return cast(jax.Array, model.apply(variables, prepared, train=False))

        return evaluated(network, images, classifier.settings, classifier.settings.image_size).astype(jnp.float32)

    return compute


def _write_stablehlo(classifier: "Classifier", path: Path, description: Mapping[str, Any]) -> None:
    from jax import export

    symbols = export.symbolic_shape("batch, height, width")
    by_name = dict(zip(("batch", "height", "width"), symbols, strict=True))
    shape = tuple(by_name.get(side, side) for side in description["input"]["shape"])
    exported = export.export(jax.jit(program(classifier)), platforms=PLATFORMS)(jax.ShapeDtypeStruct(shape, jnp.uint8))
    path.write_bytes(exported.serialize())


def _write_onnx(classifier: "Classifier", path: Path, description: Mapping[str, Any]) -> None:
    from flax_resnets.inference.onnx_graph import onnx_model

    path.write_bytes(onnx_model(program(classifier, in_float32=True), description))


def _write_safetensors(classifier: "Classifier", path: Path, description: Mapping[str, Any]) -> None:
    write_safetensors(path, tensors_of(classifier))


def _to_disk(path: Path) -> None:
    """Makes sure that a file is not empty after a power cut."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


FORMATS: Mapping[str, Format] = {
    "stablehlo": Format(".stablehlo", _write_stablehlo, "flatbuffers"),
    "onnx": Format(".onnx", _write_onnx, "onnx"),
    "safetensors": Format(".safetensors", _write_safetensors, program=False),
    "saved": Format("-saved", None, program=False),
}
"""What can be exported. To add a format: its function and its line here."""
