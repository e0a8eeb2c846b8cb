"""Decodes the bytes of an image file to pixels."""

import importlib
import io
import re
import warnings
from collections.abc import Iterator

import numpy as np
import simplejpeg
from PIL import ExifTags, Image, TiffTags, UnidentifiedImageError

from flax_resnets.data.jpeg import exif_of, lacks_scans, without_extras, without_padding

# Pillow tries these and no others: some of its plugins start programs, such as Ghostscript for EPS.
_PIL_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP")
_KNOWN = "a JPEG, PNG, GIF, BMP, WebP, TIFF, AVIF or HEIC image"
_AVIF_BRANDS = {b"avif", b"avis"}
_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"}
_PIL_MODES = {1: "L", 3: "RGB"}
# Above this number Pillow warns of an attack on memory. Here the limit is for JPEG too.
_MAX_PIXELS = Image.MAX_IMAGE_PIXELS or 2**27
# libjpeg's warnings that may not concern any pixel. libjpeg reports only the first warning of a file.
_MAY_BE_HARMLESS = re.compile(
    "extraneous bytes|unknown JFIF revision|Unknown Adobe color transform|Invalid SOS parameters|bad ICC marker"
)
_SPARE = 4.5  # with less, the difference from a whole decoding grows beyond a rounding
_PILLOW = r"PIL\."
_FILTER = ("ignore", None, Warning, re.compile(_PILLOW), 0)  # as `warnings` keeps it
_BITS_PER_SAMPLE, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339  # tags of TIFF 6.0, section 8 and 19


def decode(
    encoded: bytes,
    channels: int,
    *,
    exif_orientation: bool = False,
    white_background: bool = False,
    shrink_for: int | None = None,
) -> np.ndarray:
    """Decodes a whole image; an image that is cut short or damaged is an error.

    libjpeg only warns of a JPEG that is cut short or damaged, and fills the missing part with grey. In a training set
    nobody would notice it, so here it is an error. Some of libjpeg's warnings are about bytes that no pixel depends on,
    such as a camera's own bytes before the end marker. Such a JPEG is decoded, see `without_extras`.

    Of 16 bits, or of TIFF's 12, the upper eight are used. Whole numbers of 32 bits have no agreed white: it is the
    lowest of 255, 65535 and 2³²−1 that no pixel exceeds. For floating point it may also be 1. Negative numbers and NaN
    are black. Colour profiles are ignored. docs/images.md has a table of the kinds of files.

    Args:
        encoded: the file's bytes: JPEG, PNG, GIF, BMP, WebP, TIFF, AVIF, or HEIC, which needs the extra `heif`. Of
            several images in a file, the first is decoded.
        channels: 3 for RGB, 1 for grey. The image is converted if need be.
        exif_orientation: whether to turn and mirror the image as its EXIF data says. If they are damaged, it is left
            as it is. HEIC images are always turned, because there the orientation is not only in the EXIF data.
        white_background: whether to put a transparent image on white. Otherwise transparency is dropped, and
            transparent pixels have the colour that is stored for them, which nobody sees.
        shrink_for: the size in pixels to which `resized` will bring the image. A large JPEG is then decoded at 1/2, 1/4
            or 1/8 of its size, if this divides its height and width and both stay at least 4.5 times as large as
            `shrink_for`. This is faster, and changes the resized image by about a rounding: by 0.1 to 0.3 levels of
            255 on average, and by at most 3 in 999 of 1000 values; docs/images.md has the measurements.

    Returns:
        The pixels, uint8, `(height, width, channels)`.

    Raises:
        ValueError: the bytes are not a whole image of a known format, the image has more than 89 million pixels, or
            it is a HEIC image and the extra `heif` is not installed.

    Example:
        >>> white = simplejpeg.encode_jpeg(np.full((4, 6, 3), 255, np.uint8))
        >>> decode(white, channels=1).shape
        (4, 6, 1)
    """
    if channels not in _PIL_MODES:
        raise ValueError(f"channels={channels}: must be 1 or 3")
    if encoded[:2] == b"\xff\xd8":
        pixels = _decode_jpeg(encoded, channels, shrink_for)
        orientation = _orientation(exif_of(encoded)) if exif_orientation else 1
    else:
        pixels, orientation = _decode_with_pillow(encoded, channels, white_background, exif_orientation)
    return _turned(pixels, orientation) if exif_orientation else pixels


def _decode_jpeg(encoded: bytes, channels: int, shrink_for: int | None) -> np.ndarray:
    try:
        return _decode_clean_jpeg(encoded, channels, shrink_for)
    except ValueError as error:
        refusal = error
    # Each try removes more bytes than the one before. The strict decoder checks what is left.
    for rest in _without_extras(encoded, str(refusal)):
        try:
            return _decode_clean_jpeg(rest, channels, shrink_for)
        except ValueError as error:
            refusal = error
            if not _MAY_BE_HARMLESS.search(str(refusal)):
                break
    raise refusal


def _without_extras(encoded: bytes, refusal: str) -> Iterator[bytes]:
    """Yields the JPEG without bytes that no pixel depends on, first without few of them."""
    if not _MAY_BE_HARMLESS.search(refusal):
        return
    if "before marker 0xd9" not in refusal:  # in that case they are after the last scan
        rest = without_extras(encoded, read_scans=False)
        if rest is None:
            return
        yield rest
    if (rest := without_padding(encoded, _is_clean)) is not None:
        yield rest
    if (rest := without_extras(encoded, read_scans=True)) is not None:
        yield rest


def _is_clean(encoded: bytes) -> bool:
    try:
        simplejpeg.decode_jpeg(encoded, "GRAY", min_height=1, min_width=1, strict=True)
    except ValueError:
        return False
    return True


def _decode_clean_jpeg(encoded: bytes, channels: int, shrink_for: int | None) -> np.ndarray:
    try:
        rows, columns, colorspace, _ = simplejpeg.decode_jpeg_header(encoded)
        height, width = int(rows), int(columns)
    except ValueError as error:
        if _MAY_BE_HARMLESS.search(str(error)):
            raise
        # turbojpeg reads six kinds of chroma subsampling. JPEG allows more, which Pillow reads. But Pillow fills up a
        # picture that is cut short.
        if "subsampling" in str(error) and without_extras(encoded, read_scans=True) is None:
            raise ValueError("the picture is cut short or damaged: its scans do not end where they should") from None
        return _decode_with_pillow(encoded, channels)[0]
    _check_pixels(width, height)
    if lacks_scans(encoded):
        raise ValueError("the end marker comes before all scans: the picture is cut short")
    if colorspace in ("CMYK", "YCCK"):
        simplejpeg.decode_jpeg(encoded, "CMYK", strict=True)  # raises an error if it is cut short; Pillow does not
        # Adobe inverts the colours of these. Pillow looks for Adobe's marker, turbojpeg does not.
        return _decode_with_pillow(encoded, channels)[0]
    part = _part(height, width, shrink_for)
    return simplejpeg.decode_jpeg(
        encoded, "GRAY" if channels == 1 else "RGB", min_height=height // part, min_width=width // part, strict=True
    )


def _part(height: int, width: int, shrink_for: int | None) -> int:
    """By how much the size of a JPEG is divided while it is decoded."""
    if shrink_for is None:
        return 1
    # If a part does not divide the size, the last pixels would stand for less of the picture than the others.
    fits = (part for part in (8, 4, 2) if height % part == width % part == 0)
    return next((part for part in fits if min(height, width) >= part * _SPARE * shrink_for), 1)


def _decode_with_pillow(
    encoded: bytes, channels: int, white_background: bool = False, turns: bool = False
) -> tuple[np.ndarray, int]:
    """The pixels, and the EXIF orientation that is still to be applied to them.

    Pillow itself turns a TIFF if `turns` is true, and pillow-heif any HEIC image. They set the orientation to 1 then.
    """
    _silence_pillow()
    formats = _formats(encoded)
    try:
        with Image.open(io.BytesIO(encoded), formats=formats) as image:
            _check_pixels(image.width, image.height)
            if image.format == "TIFF":
                # After the pixels Pillow reads the directories that these tags name, and fails if they are damaged.
                unwanted = [*TiffTags.TAGS_V2_GROUPS, *([] if turns else [ExifTags.Base.Orientation])]
                for tag in unwanted:
                    image.getexif().pop(tag, None)
            image.load()
            orientation = 1 if image.format == "TIFF" else _orientation(image.info.get("exif"))
            pixels = np.array(_opaque(_in_eight_bits(image), white_background).convert(_PIL_MODES[channels]))
    except UnidentifiedImageError as error:
        raise ValueError(f"not {_KNOWN}") from error
    except Exception as error:  # Pillow's plugins raise OSError, SyntaxError, struct.error, IndexError and others
        raise ValueError(f"not a readable image: {str(error)[:300]}") from error
    return pixels.reshape(*pixels.shape[:2], channels), orientation


def _silence_pillow() -> None:
    """Keeps Pillow's warnings, such as those about damaged EXIF data, from the user: `decode` judges by the pixels."""
    # Images are decoded in threads, and `warnings.catch_warnings` would disturb the other threads. The filter stays,
    # unless somebody resets the filters.
    if _FILTER not in warnings.filters:
        warnings.filterwarnings("ignore", module=_PILLOW)


def _formats(encoded: bytes) -> tuple[str, ...]:
    """The names of Pillow's plugins that may read the image."""
    if encoded[4:8] != b"ftyp":
        return _PIL_FORMATS
    end = min(int.from_bytes(encoded[:4]), 1024)
    brands = {encoded[at : at + 4] for at in range(8, end, 4)}
    if brands & _AVIF_BRANDS:
        try:
            importlib.import_module("PIL.AvifImagePlugin")
        except ImportError as error:
            raise ValueError("an AVIF image: needs pillow>=11.3") from error
        return ("AVIF",)
    if brands & _HEIF_BRANDS:
        try:
            importlib.import_module("pillow_heif").register_heif_opener()
        except ImportError as error:
            raise ValueError("a HEIC image: needs the extra heif, pip install 'flax_resnets[heif]'") from error
        return ("HEIF",)
    raise ValueError(f"not {_KNOWN}")


def _in_eight_bits(image: Image.Image) -> Image.Image:
    """An image of more bits in eight. Pillow would clip its values to 255."""
    if not image.mode.startswith(("I", "F")):
        return image
    values = np.asarray(image)
    tags = getattr(image, "tag_v2", {})
    if image.mode.startswith("I;16"):
        bits = tags.get(_BITS_PER_SAMPLE, (16,))[0]
        grey = (values >> (bits - 8)).astype(np.uint8)
    else:
        if image.mode == "I" and tags.get(_SAMPLE_FORMAT, (1,))[0] == 1:
            values = values.view(np.uint32)
        white = np.max(values, where=np.isfinite(values), initial=0)
        scales = (1, 255, 65535, 2**32 - 1) if image.mode == "F" else (255, 65535, 2**32 - 1)
        white = next((scale for scale in scales if white <= scale), white)
        grey = np.nan_to_num(values * np.float32(255 / white), nan=0).clip(0, 255).round().astype(np.uint8)
    return Image.fromarray(255 - grey if tags.get(_PHOTOMETRIC) == 0 else grey)  # 0: white is zero


def _opaque(image: Image.Image, white_background: bool) -> Image.Image:
    if white_background and (image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info):
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    # If a palette with transparency is converted directly to RGB, Pillow warns. Colours that are multiplied by alpha
    # have no other conversion.
    through = {"P": "RGBA", "RGBa": "RGBA", "La": "LA"}.get(image.mode)
    return image.convert(through) if through else image


def _orientation(exif: bytes | None) -> int:
    """The orientation in EXIF data, from 1 to 8; 1 if they have none or are damaged."""
    if not exif:
        return 1
    _silence_pillow()
    block = Image.Exif()
    try:
        block.load(exif)
        value = block.get(ExifTags.Base.Orientation)
    except Exception:  # SyntaxError, struct.error, KeyError and others
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _turned(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """The image upright. The orientation says which sides the first row and the first column are (EXIF 2.3, 4.6.4)."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def _check_pixels(width: int, height: int) -> None:
    if width * height > _MAX_PIXELS:
        raise ValueError(f"{width}x{height} pixels: more than {_MAX_PIXELS} are not decoded")
