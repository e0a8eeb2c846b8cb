"""Writes the table of docs/images.md: kinds of image files, and how `decode` reads them beside Pillow.

    python -m benchmarks.records.image_kinds
    python -m benchmarks.records.image_kinds --shrunk

All files are made here. Each is decoded by `decode`, with the EXIF orientation applied, and by Pillow with
`ImageOps.exif_transpose` and `convert("RGB")`. Without options the page is written. `--shrunk` prints the second table
of the page, which is copied into it by hand, because its times are those of one machine: photos of 12 megapixels
decoded whole and at a part of their size.
"""

import argparse
import base64
import io
import struct
import sys
import time
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from benchmarks.records.pages import with_generated
from flax_resnets.data.cache import resized
from flax_resnets.data.decode import decode
from flax_resnets.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
_EOI = b"\xff\xd9"
_ORIENTATION = 0x0112
# 48x32 pixels, arithmetic-coded by jpegtran, which no Python package does.
_ARITHMETIC = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAMCAgMCAgMDAwMEAwMEBQgFBQQEBQoHBwYIDAoMDAsKCwsNDhIQDQ4RDgsLEBYQERMUFRUVDA8X"
    "GBYUGBIUFRT/2wBDAQMEBAUEBQkFBQkUDQsNFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBT/yQAR"
    "CAAgADADASIAAhEBAxEB/8wACgAQEAUBEBEF/9oADAMBAAIRAxEAPwD/AOy57HY2qI+g2mDvf2BWD5j7/jpoVY6UVijicS7JfitAt6rl/b4P"
    "uQnf1Xm1PkrcPbOCgw7e7C5B0xeqfvJEHJ5dK3JDwQmQqi/ZYQhckMKiBEvyjyR6OKWEbEW/iQTQkmgYvJKuDGwsNIeQLHMt/QgujA6REEEh"
    "VvAIWsVYag75/9k="
)


class Kind(NamedTuple):
    """A kind of file.

    Attributes:
        name: its name in the table.
        content: the file's bytes.
        most: the largest difference from Pillow that is expected; None if the file is refused.
        reason: why `decode` differs from Pillow, or refuses the file.
    """

    name: str
    content: bytes
    most: int | None = 0
    reason: str = ""


class Row(NamedTuple):
    """A row of the table: the kind's name, the file's bytes, the largest difference or `refused`, and the reason."""

    kind: str
    size: int
    difference: str
    reason: str


def picture() -> Image.Image:
    """A picture of smooth colours, of 104x72 pixels, as in a photograph."""
    noise = np.random.default_rng(0).integers(0, 256, (9, 13, 3), np.uint8)
    return Image.fromarray(noise).resize((104, 72), Image.Resampling.BICUBIC)


def saved(image: Image.Image, image_format: str, **options) -> bytes:
    """The bytes of a file."""
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def kinds() -> Iterator[Kind]:
    """All kinds of files of the table."""
    image = picture()
    jpeg = saved(image, "JPEG")
    yield Kind("JPEG, 4:2:0", jpeg)
    for name in ("4:2:2", "4:4:4"):
        yield Kind(f"JPEG, {name}", saved(image, "JPEG", subsampling=name))
    yield Kind("JPEG, grey", saved(image.convert("L"), "JPEG"))
    progressive = saved(image, "JPEG", progressive=True)
    yield Kind("JPEG, progressive", progressive)
    yield Kind("JPEG, restart markers", saved(image, "JPEG", restart_marker_blocks=5))
    yield Kind("JPEG, arithmetic-coded", _ARITHMETIC)
    yield Kind("JPEG, CMYK, inverted as Adobe's", saved(image.convert("CMYK"), "JPEG"))
    plain = saved(image.convert("CMYK"), "JPEG").replace(b"Adobe", b"adobe")
    yield Kind("JPEG, CMYK, not inverted", plain)
    inverted = saved(image.convert("CMYK"), "JPEG")
    transform = inverted.index(b"Adobe") + 11
    yield Kind("JPEG, YCCK, inverted as Adobe's", inverted[:transform] + b"\x02" + inverted[transform + 1 :])
    yield Kind("JPEG, several images (MPO)", saved(image, "MPO", save_all=True, append_images=[image.rotate(180)]))
    yield Kind("JPEG, 174 bytes before the end marker", jpeg[:-2] + bytes(174) + _EOI)
    yield Kind("JPEG, bytes after the end marker", jpeg + b"trailing" * 20)
    yield Kind("JPEG, padding before segments", jpeg[:2] + b"\xff" * 40 + jpeg[2:])
    whole = "a strict decoder reads on, until the end marker"
    yield Kind("JPEG, no end marker", jpeg[:-2], None, whole)
    yield Kind("JPEG, cut short", jpeg[: len(jpeg) * 3 // 4], None, "Pillow refuses it too")
    filled = "Pillow fills the missing part with grey"
    yield Kind("JPEG, cut short, closed by an end marker", jpeg[: len(jpeg) * 3 // 4] + _EOI, None, filled)
    scan = progressive.rindex(b"\xff\xda")
    yield Kind(
        "JPEG, progressive, cut before its last scan", progressive[:scan] + _EOI, None, "Pillow shows it coarser"
    )
    frame = jpeg.index(b"\xff\xc0") + 4
    yield Kind("JPEG, 12 bits", jpeg[:frame] + b"\x0c" + jpeg[frame + 1 :], None, "Pillow refuses it too")
    exif = Image.Exif()
    exif[_ORIENTATION] = 6
    formats = ("JPEG", "PNG", "WEBP", "TIFF", *_optional())
    yield from (
        Kind(f"{_NAMES.get(each, each)}, EXIF orientation 6", saved(image, each, exif=exif)) for each in formats
    )
    yield Kind("JPEG, damaged EXIF data", saved(image, "JPEG", exif=b"Exif\0\0MM*garbled"))

    for name, mode in (("colour", "RGB"), ("grey", "L"), ("1 bit", "1"), ("palette", "P")):
        yield Kind(f"PNG, {name}", saved(image.convert(mode), "PNG"))
    dropped = "Pillow drops transparency too; `white_background` puts the image on white"
    for name, mode in (("with transparency", "RGBA"), ("grey with transparency", "LA")):
        transparent = image.convert(mode)
        transparent.putalpha(Image.linear_gradient("L").resize(image.size))
        yield Kind(f"PNG, {name}", saved(transparent, "PNG"), reason=dropped)
    yield Kind(
        "PNG, palette with transparency", saved(image.convert("P"), "PNG", transparency=b"\0\x7f"), reason=dropped
    )
    deep = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    clipped = "the upper 8 bits; Pillow clips to 255"
    yield Kind("PNG, grey, 16 bits", saved(deep, "PNG"), 255, clipped)
    yield Kind("PNG, colour, 16 bits", _png_of_16_bits(np.asarray(image).astype(np.uint16) * 257))
    yield Kind("PNG, several images", saved(image, "PNG", save_all=True, append_images=[image.rotate(180)]))
    yield Kind("GIF", saved(image, "GIF"))
    yield Kind("GIF, several images", saved(image, "GIF", save_all=True, append_images=[image.rotate(180)]))
    yield Kind("BMP", saved(image, "BMP"))
    yield Kind("WebP", saved(image, "WEBP"))
    yield Kind("WebP, several images", saved(image, "WEBP", save_all=True, append_images=[image.rotate(180)]))
    for name in (None, "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"):
        yield Kind(f"TIFF, {name.removeprefix('tiff_') if name else 'plain'}", saved(image, "TIFF", compression=name))
    yield Kind("TIFF, several pages", saved(image, "TIFF", save_all=True, append_images=[image.rotate(180)]))
    yield Kind("TIFF, CMYK", saved(image.convert("CMYK"), "TIFF"))
    yield Kind("TIFF, 1 bit, fax", saved(image.convert("1"), "TIFF", compression="group4"))
    yield Kind("TIFF, grey, 16 bits", saved(deep, "TIFF"), 255, clipped)
    share = Image.fromarray(np.asarray(image.convert("L")).astype(np.float32) / 255)
    yield Kind("TIFF, floating point, 0 to 1", saved(share, "TIFF"), 255, "1 is white; Pillow takes 255 for it")
    yield from (Kind(_NAMES.get(each, each), saved(image, each)) for each in _optional())
    yield Kind("EPS", saved(image, "EPS"), None, "its reader starts a program")


def _png_of_16_bits(pixels: np.ndarray) -> bytes:
    """A PNG as Pillow does not write it."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    height, width, _ = pixels.shape
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in pixels)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


_NAMES = {"WEBP": "WebP", "HEIF": "HEIC"}


def _optional() -> list[str]:
    """The formats that not every Pillow writes."""
    try:
        from pillow_heif import register_heif_opener

        register_heif_opener()
    except ImportError:
        pass
    Image.init()
    return [each for each in ("AVIF", "HEIF") if each in Image.SAVE]


def measured(kind: Kind) -> Row:
    """The row of a kind of file.

    Raises:
        ValueError: `decode` does something else than expected.
    """
    try:
        ours = decode(kind.content, 3, exif_orientation=True)
    except ValueError as error:
        if kind.most is not None:
            raise ValueError(f"{kind.name}: refused ({error})") from error
        return Row(kind.name, len(kind.content), "refused", kind.reason)
    if kind.most is None:
        raise ValueError(f"{kind.name}: not refused")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of damaged EXIF data, for example
        theirs = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(kind.content))).convert("RGB"))
    if ours.shape != theirs.shape:
        raise ValueError(f"{kind.name}: has shape {ours.shape}, and with Pillow {theirs.shape}")
    difference = int(np.abs(ours.astype(int) - theirs).max())
    if difference > kind.most:
        raise ValueError(f"{kind.name}: differs by {difference} from Pillow")
    return Row(kind.name, len(kind.content), str(difference), kind.reason)


def table(rows: list[Row]) -> str:
    """The table of the page."""
    head = "| kind of file | bytes | largest difference | why |\n|---|---|---|---|\n"
    return head + "".join(f"| {row.kind} | {row.size:,} | {row.difference} | {row.reason} |\n" for row in rows)


def photo(height: int = 3000, width: int = 4000) -> np.ndarray:
    """A picture with the spectrum of photographs: the amplitude falls with the frequency."""
    rng = np.random.default_rng(0)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None] * height, np.fft.rfftfreq(width)[None] * width)
    frequency[0, 0] = 1
    waves = rng.normal(size=(3, *frequency.shape)) + 1j * rng.normal(size=(3, *frequency.shape))
    grey, *colors = np.fft.irfft2(waves / frequency**1.2, s=(height, width))
    channels = np.stack([grey + 0.3 * colors[0], grey, grey + 0.3 * colors[1]], axis=-1)
    return (128 + 50 * channels / channels.std()).clip(0, 255).astype(np.uint8)


def shrunk_table(pixels: np.ndarray) -> str:
    """A table of times and differences, with CPU time of one core."""
    columns = ("quality", "chroma", "to", "decoded at", "mean", "99.9 %", "max", "whole", "shrunk")
    text = f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|\n"
    for quality in (85, 95):
        for subsampling in ("4:2:0", "4:4:4"):
            jpeg = saved(Image.fromarray(pixels), "JPEG", quality=quality, subsampling=subsampling)
            for size in (160, 256):
                whole, whole_seconds = _timed(jpeg, size, None)
                shrunk, seconds = _timed(jpeg, size, size)
                difference = np.abs(shrunk.astype(int) - whole)
                part = len(pixels) // len(decode(jpeg, 3, shrink_for=size))
                text += (
                    f"| {quality} | {subsampling} | {size} px | 1/{part} | {difference.mean():.2f} | "
                    f"{np.percentile(difference, 99.9):.0f} | {difference.max()} | {1000 * whole_seconds:.0f} ms | "
                    f"{1000 * seconds:.0f} ms |\n"
                )
    return text


def _timed(jpeg: bytes, size: int, shrink_for: int | None) -> tuple[np.ndarray, float]:
    seconds = []
    for _ in range(3):
        start = time.thread_time()
        result = resized(decode(jpeg, 3, shrink_for=shrink_for), size, "squash")
        seconds.append(time.thread_time() - start)
    return result, min(seconds)


def main(arguments: list[str], root: Path = ROOT) -> int:
    """Runs one command line on the tree at `root`; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shrunk", action="store_true", help="print the table of photos at a part of their size")
    if parser.parse_args(arguments).shrunk:
        print(shrunk_table(photo()), end="")
        return 0
    page = root / "docs" / "images.md"
    try:
        page.write_text(with_generated(page, table([measured(kind) for kind in kinds()])))
    except (UserError, ValueError) as error:
        print(f"image_kinds.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
