"""Files that are no images or do harm: too many pixels or scans, other formats, and files cut short or changed."""

import io
import struct
import time
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image
from watching import short

from flax_resnets.data.decode import decode

PIXELS = np.arange(24 * 40 * 3, dtype=np.uint8).reshape(24, 40, 3)


def encoded(image_format: str, mode: str = "RGB", **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).convert(mode).save(buffer, image_format, **options)
    return buffer.getvalue()


JPEG, PNG, GIF, BMP, WEBP, TIFF = (encoded(each) for each in ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF"))


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, depth: int = 8, color: int = 2, data: bytes = b"", before: bytes = b"") -> bytes:
    header = struct.pack(">IIBBBBB", width & 0xFFFFFFFF, height & 0xFFFFFFFF, depth, color, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(data))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + before + body + chunk(b"IEND", b"")


def patched(content: bytes, position: int, patch: bytes) -> bytes:
    return content[:position] + patch + content[position + len(patch) :]


FRAME = JPEG.index(b"\xff\xc0")  # height and width begin five bytes later
SCAN = JPEG.index(b"\xff\xda")


def tiff(tag: int, value: int, original: bytes = TIFF) -> bytes:
    """A TIFF with another value of a tag."""
    directory = int.from_bytes(original[4:8], "little")
    position = original.index(struct.pack("<H", tag), directory)
    return patched(original, position + 8, struct.pack("<I", value))


def progressive_bomb(scans: int, side: int = 1000) -> bytes:
    """A progressive JPEG of many small scans. Each scan costs the decoder a pass over all pixels."""
    whole = encoded("JPEG", progressive=True)
    frame = whole.index(b"\xff\xc2")
    first = whole.index(b"\xff\xda")
    second = whole.index(b"\xff\xda", first + 2)
    large = patched(whole, frame + 5, struct.pack(">HH", side, side))
    return large[:first] + large[first:second] * scans + b"\xff\xd9"


IMAGES: list[bytes] = [
    b"",
    b"\0",
    b"\xff\xd8",
    b"\xff\xd8\xff",
    b"\xff\xd8\xff\xd9",
    b"\xff\xd8" * 50_000,
    b"\x89PNG\r\n\x1a\n",
    b"GIF89a",
    b"BM",
    b"RIFF\xff\xff\xff\xffWEBP",
    # Other kinds of files.
    b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
    b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(canary) (w) file closefile\n",
    b"%PDF-1.4\n1 0 obj <</JS (app.alert(1))>> endobj\n",
    b"cos\nsystem\n(S'touch canary'\ntR.",
    b"PK\x03\x04" + b"\0" * 60,
    b"\x7fELF\x02\x01\x01" + b"\0" * 60,
    b"#!/bin/sh\ntouch canary\n",
    b"push graphic-context\nimage over 0,0 0,0 '|touch canary'\n",
    b"P6\n100000 100000\n255\n",
    encoded("PPM"),
    encoded("EPS"),
    encoded("JPEG2000"),
    encoded("ICO"),
    encoded("TGA"),
    encoded("PCX"),
    b"\0\0\0\x0cjP  \r\n\x87\n" + b"\0" * 40,
    b"8BPS\0\x01" + b"\0" * 40,
    b"\0\0\0\x1cftypavif" + b"\0" * 40,
    b"\0\0\0\x1cftypavif" + b"avif" * 100_000,
    b"\0\0\0\x1cftypheic" + b"\0" * 40,
    b"\xff\xff\xff\xffftypmp42" + b"\0" * 40,
    # More pixels than fit into memory.
    png(2**31 - 1, 2**31 - 1),
    png(100_000, 100_000),
    png(2**31 - 1, 1),
    png(0, 10),
    png(10, 0),
    png(-1, -1),
    patched(JPEG, FRAME + 5, b"\xff\xff\xff\xff"),
    patched(JPEG, FRAME + 5, b"\0\0\0\x28"),
    patched(JPEG, FRAME + 5, b"\0\x18\0\0"),
    patched(GIF, 6, b"\xff\xff\xff\xff"),
    patched(BMP, 18, struct.pack("<ii", 2**31 - 1, 2**31 - 1)),
    patched(BMP, 18, struct.pack("<ii", 100_000, 2)),
    patched(BMP, 18, struct.pack("<ii", -40, 24)),
    patched(BMP, 18, struct.pack("<ii", 0, 0)),
    tiff(256, 2**31 - 1),
    tiff(256, 100_000, tiff(257, 100_000)),
    tiff(257, 0),
    # Headers that contradict the data.
    png(40, 24),
    png(40, 24, data=b"\0" * 100),
    png(40, 24, depth=3),
    png(40, 24, color=5),
    png(40, 24, before=chunk(b"zTXt", b"key\0\0" + zlib.compress(b"\0" * 80_000_000))),
    png(40, 24, before=chunk(b"iTXt", b"key\0\1\0\0\0" + zlib.compress(b"\0" * 80_000_000))),
    png(40, 24, before=chunk(b"iCCP", b"key\0\0" + zlib.compress(b"\0" * 80_000_000))),
    png(40, 24, before=chunk(b"acTL", struct.pack(">II", 2**31 - 1, 0))),
    png(40, 24, before=struct.pack(">I", 2**31 - 1) + b"tEXt"),
    patched(PNG, PNG.index(b"IDAT") + 6, bytes(20)),
    patched(PNG, PNG.index(b"IHDR") + 16, b"\xff\xff\xff\xff"),
    PNG[: len(PNG) // 2],
    JPEG[: len(JPEG) // 2],
    JPEG[: len(JPEG) // 2] + b"\xff\xd9",
    JPEG[:SCAN],
    GIF[: len(GIF) // 4],
    BMP[: len(BMP) // 2],
    WEBP[: len(WEBP) // 2],
    TIFF[: len(TIFF) // 2],
    TIFF[:8],
    b"II+\0\x08\0\0\0\x10\0\0\0\0\0\0\0" + b"\xff" * 60,  # TIFF of 64 bits, with many tags
    tiff(273, 2**32 - 1),
    tiff(277, 60_000),
    tiff(258, 3),
    patched(BMP, 10, b"\xff\xff\xff\x7f"),
    patched(BMP, 14, b"\xff\xff\xff\xff"),
    patched(BMP, 28, b"\x21\0"),
    patched(BMP, 30, b"\x09\0\0\0"),
    patched(JPEG, FRAME + 4, b"\x0c"),  # twelve bits
    patched(JPEG, FRAME + 1, b"\xc9"),  # says arithmetic coding, but is Huffman-coded
    patched(JPEG, FRAME + 9, b"\x00"),  # no components
    patched(JPEG, FRAME + 2, b"\xff\xff"),
    patched(JPEG, SCAN + 2, b"\xff\xff"),
    patched(WEBP, 4, b"\x08\0\0\0"),
    patched(WEBP, 16, b"\xff\xff\xff\x7f"),
    # Much work for a small picture.
    progressive_bomb(2000),
]


@pytest.mark.parametrize("content", IMAGES, ids=short)
@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_that_is_none(sandbox, capfd, content, channels):
    started = time.process_time()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        with pytest.raises(ValueError, match=r".") as caught:
            decode(content, channels)
    assert len(str(caught.value)) < 1000
    assert [str(each.message) for each in warned] == []
    assert capfd.readouterr() == ("", "")
    assert time.process_time() - started < 5  # of CPU time, whatever else the machine does
    assert not list((sandbox / "work").iterdir())
