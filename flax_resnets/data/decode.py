"""Decodes the bytes of an image file to pixels."""

import io
import re

import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

from flax_resnets.data.jpeg import without_extras

_PIL_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "WEBP")
_PIL_MODES = {1: "L", 3: "RGB"}
# Above this number Pillow warns of an attack on memory. Here the limit is for JPEG too.
_MAX_PIXELS = Image.MAX_IMAGE_PIXELS or 2**27
# libjpeg's warnings that may not concern any pixel. libjpeg reports only the first warning of a file.
_MAY_BE_HARMLESS = re.compile(
    "extraneous bytes|unknown JFIF revision|Unknown Adobe color transform|Invalid SOS parameters|bad ICC marker"
)


def decode(encoded: bytes, channels: int) -> np.ndarray:
    """Decodes a whole image; an image that is cut short or damaged is an error.

    libjpeg only warns of a JPEG that is cut short or damaged, and fills the missing part with grey. In a training set
    nobody would notice it, so here it is an error. Some of libjpeg's warnings are about bytes that no pixel depends on,
    such as a camera's own bytes before the end marker. Such a JPEG is decoded, see `without_extras`.

    Args:
        encoded: the file's bytes: JPEG, PNG, GIF (its first frame), BMP or WebP.
        channels: 3 for RGB, 1 for grey. The image is converted if need be; transparency is dropped.

    Returns:
        The pixels, uint8, `(height, width, channels)`.

    Raises:
        ValueError: the bytes are not a whole image of a known format, or the image has more than 89 million pixels.

    Example:
        >>> white = simplejpeg.encode_jpeg(np.full((4, 6, 3), 255, np.uint8))
        >>> decode(white, channels=1).shape
        (4, 6, 1)
    """
    if channels not in _PIL_MODES:
        raise ValueError(f"channels={channels}: must be 1 or 3")
    if encoded[:2] == b"\xff\xd8":
        return _decode_jpeg(encoded, channels)
    return _decode_with_pillow(encoded, channels)


def _decode_jpeg(encoded: bytes, channels: int) -> np.ndarray:
    try:
        return _decode_clean_jpeg(encoded, channels)
    except ValueError as error:
        refusal = error
    # The second try removes more bytes than the first. Each time the strict decoder checks what is left.
    for read_scans in (False, True):
        if not _MAY_BE_HARMLESS.search(str(refusal)):
            break
        rest = without_extras(encoded, read_scans)
        if rest is None:
            break
        try:
            return _decode_clean_jpeg(rest, channels)
        except ValueError as error:
            refusal = error
    raise refusal


def _decode_clean_jpeg(encoded: bytes, channels: int) -> np.ndarray:
    try:
        height, width, colorspace, _ = simplejpeg.decode_jpeg_header(encoded)
    except ValueError as error:
        if _MAY_BE_HARMLESS.search(str(error)):
            raise
        # turbojpeg reads six kinds of chroma subsampling. JPEG allows more, which Pillow reads.
        return _decode_with_pillow(encoded, channels)
    _check_pixels(int(width), int(height))
    if colorspace in ("CMYK", "YCCK"):
        simplejpeg.decode_jpeg(encoded, "CMYK", strict=True)  # raises an error if it is cut short; Pillow does not
        # Adobe inverts the colours of these. Pillow looks for Adobe's marker, turbojpeg does not.
        return _decode_with_pillow(encoded, channels)
    return simplejpeg.decode_jpeg(encoded, "GRAY" if channels == 1 else "RGB", strict=True)


def _decode_with_pillow(encoded: bytes, channels: int) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(encoded), formats=_PIL_FORMATS) as image:
            _check_pixels(image.width, image.height)
            if image.mode.startswith("I;16"):
                # Pillow would clip values of 16 bits to 255. The upper 8 bits are the picture.
                image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
            elif image.mode == "P":
                # If a palette with transparency is converted directly to RGB, Pillow warns.
                image = image.convert("RGBA")
            pixels = np.array(image.convert(_PIL_MODES[channels]))
    except UnidentifiedImageError as error:
        raise ValueError("not a JPEG, PNG, GIF, BMP or WebP image") from error
    except Exception as error:  # Pillow's plugins raise OSError, SyntaxError, struct.error, IndexError and others
        raise ValueError(f"not a readable image: {error}") from error
    return pixels.reshape(*pixels.shape[:2], channels)


def _check_pixels(width: int, height: int) -> None:
    if width * height > _MAX_PIXELS:
        raise ValueError(f"{width}x{height} pixels: more than {_MAX_PIXELS} are not decoded")
