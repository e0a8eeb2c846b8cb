"""decode: gives a whole image or an error, never a part of an image."""

import contextlib
import io
import struct
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps

from flax_resnets.data.cache import cached_images, resized
from flax_resnets.data.decode import decode
from flax_resnets.data.source import Source
from flax_resnets.data.stream import StreamedImages


def gradient(height=24, width=40) -> np.ndarray:
    """A smooth colour picture, which JPEG hardly changes."""
    down, across = np.linspace(0, 250, height), np.linspace(0, 250, width)
    return np.stack(
        np.broadcast_arrays(down[:, None], across[None], (down[:, None] + across[None]) / 2), axis=-1
    ).astype(np.uint8)


def encoded(pixels: np.ndarray, image_format: str, mode: str = "RGB", **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, image_format, **options)
    return buffer.getvalue()


JPEG = encoded(gradient(), "JPEG", quality=95)
PNG = encoded(gradient(), "PNG")


@pytest.mark.parametrize("image_format", ["PNG", "BMP"])
def test_lossless_formats_come_back_exactly(image_format):
    np.testing.assert_array_equal(decode(encoded(gradient(), image_format), 3), gradient())


@pytest.mark.parametrize("image_format", ["JPEG", "WEBP", "GIF"])
def test_lossy_formats_come_back_nearly(image_format):
    pixels = decode(encoded(gradient(), image_format), 3)
    assert pixels.dtype == np.uint8
    assert np.abs(pixels.astype(int) - gradient()).mean() < 8


def test_grey_and_colour_are_converted_into_each_other():
    grey = encoded(gradient(), "JPEG", "L")
    assert decode(grey, 1).shape == (24, 40, 1)
    np.testing.assert_array_equal(decode(grey, 3), np.repeat(decode(grey, 1), 3, axis=-1))
    assert np.abs(decode(JPEG, 1).astype(int) - decode(encoded(gradient(), "PNG", "L"), 1)).mean() < 3


def test_cmyk_jpeg_is_read_as_the_colours_it_shows():
    assert np.abs(decode(encoded(gradient(), "JPEG", "CMYK", quality=95), 3).astype(int) - gradient()).mean() < 4


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
def test_chroma_subsampling(subsampling):
    assert decode(encoded(gradient(), "JPEG", subsampling=subsampling), 3).shape == (24, 40, 3)


def test_transparency_and_palettes():
    np.testing.assert_array_equal(decode(encoded(gradient(), "PNG", "RGBA"), 3), gradient())
    assert decode(encoded(gradient(), "PNG", "P", transparency=b"\0\x7f"), 3).shape == (24, 40, 3)


def test_sixteen_bit_grey_keeps_its_upper_eight():
    deep = np.arange(0, 65536, 64, dtype=np.uint16).reshape(32, 32)
    buffer = io.BytesIO()
    Image.fromarray(deep).save(buffer, "PNG")
    np.testing.assert_array_equal(decode(buffer.getvalue(), 1)[..., 0], deep >> 8)


def saved(image: Image.Image, image_format: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def with_tag(tiff: bytes, tag: int, value: int) -> bytes:
    """A TIFF with another value of a tag of 16 bits."""
    at = tiff.index(struct.pack("<H", tag), int.from_bytes(tiff[4:8], "little")) + 8
    return tiff[:at] + struct.pack("<H", value) + tiff[at + 2 :]


@pytest.mark.parametrize(
    ("dtype", "values", "shown"),
    [
        (np.uint16, [0, 255, 256, 65535], [0, 0, 1, 255]),
        (np.int32, [0, 100, 255, -5], [0, 100, 255, 0]),
        (np.int32, [0, 257, 65535, -5], [0, 1, 255, 0]),
        (np.int32, [0, 2**23, 2**31 - 1, -5], [0, 0, 127, 0]),
        (np.float32, [0, 0.5, 1, np.nan], [0, 128, 255, 0]),
        (np.float32, [0, 100, 254.6, -1], [0, 100, 255, 0]),
        (np.float32, [0, 257, 65535, np.inf], [0, 1, 255, 255]),
        (np.float32, [0, 1e20, 4e20, -np.inf], [0, 64, 255, 0]),
        (np.float32, [0, 0, 0, 0], [0, 0, 0, 0]),
    ],
)
def test_grey_tiffs_of_more_than_eight_bits(dtype, values, shown):
    tiff = saved(Image.fromarray(np.array([values], dtype)), "TIFF")
    assert decode(tiff, 1).ravel().tolist() == shown
    assert decode(tiff, 3)[..., 2].ravel().tolist() == shown


def test_a_tiff_whose_white_is_zero():
    white, inverted = 1, 0
    deep = saved(Image.fromarray(np.array([[0, 256, 65535]], np.uint16)), "TIFF")
    assert decode(with_tag(deep, 262, white), 1).ravel().tolist() == [0, 1, 255]
    assert decode(with_tag(deep, 262, inverted), 1).ravel().tolist() == [255, 254, 0]


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_tiff_comes_back_exactly_and_cut_short_it_is_an_error(compression):
    tiff = saved(Image.fromarray(gradient()), "TIFF", compression=compression)
    np.testing.assert_array_equal(decode(tiff, 3), gradient())
    for length in range(0, len(tiff), 97):
        try:
            pixels = decode(tiff[:length], 3)
        except ValueError:
            continue
        np.testing.assert_array_equal(pixels, gradient())  # only the directory's end was cut


@pytest.mark.parametrize("image_format", ["GIF", "PNG", "WEBP", "TIFF"])
def test_the_first_of_several_images(image_format):
    first, second = (Image.new("RGB", (9, 6), color) for color in ("red", "blue"))
    several = saved(first, image_format, save_all=True, append_images=[second])
    assert decode(several, 3)[0, 0].tolist() == pytest.approx([255, 0, 0], abs=2)


def test_transparency_is_dropped_or_put_on_white():
    half = Image.new("RGBA", (4, 4), (200, 0, 0, 128))
    assert decode(saved(half, "PNG"), 3)[0, 0].tolist() == [200, 0, 0]
    assert decode(saved(half, "PNG"), 3, white_background=True)[0, 0].tolist() == [227, 127, 127]
    clear = Image.new("LA", (4, 4), (0, 0))
    clear_palette = Image.new("P", (4, 4), 0).convert("PA")
    clear_palette.putalpha(0)
    for content in (saved(clear, "PNG"), saved(clear, "TIFF"), saved(clear_palette, "TIFF")):
        assert decode(content, 1, white_background=True).min() == 255
        assert decode(content, 1).max() == 0
    palette = saved(Image.new("P", (4, 4), 0), "GIF", transparency=0)
    assert decode(palette, 3, white_background=True).min() == 255
    assert decode(JPEG, 3, white_background=True).tolist() == decode(JPEG, 3).tolist()


ORIENTED = ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF"]


def oriented(image_format: str, orientation: int) -> bytes:
    if image_format == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    if image_format == "AVIF":
        pytest.importorskip("PIL.AvifImagePlugin")
    exif = Image.Exif()
    exif[0x0112] = orientation
    return saved(Image.fromarray(gradient()), image_format, exif=exif)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("image_format", ORIENTED)
def test_the_exif_orientation_is_applied_when_asked(image_format, orientation):
    content = oriented(image_format, orientation)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert("RGB")
    np.testing.assert_array_equal(decode(content, 3, exif_orientation=True), np.asarray(upright))
    if image_format != "HEIF":
        np.testing.assert_array_equal(decode(content, 3), decode(oriented(image_format, 1), 3))
    assert decode(content, 1, exif_orientation=True).shape == (*upright.size[::-1], 1)


def exif(*entries: tuple[int, int, int, int]) -> bytes:
    """EXIF data with these tags: each its number, type, count and value."""
    directory = b"".join(struct.pack("<HHII", *each) for each in entries)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + directory + bytes(4)


GARBLED = {
    "nothing": b"",
    "no directory": b"II*\0",
    "no TIFF": b"garbled" * 20,
    "orientation 0": exif((0x0112, 3, 1, 0)),
    "orientation 9": exif((0x0112, 3, 1, 9)),
    "orientation as text": exif((0x0112, 2, 4, 0x36363636)),
    "a million orientations": exif((0x0112, 3, 1_000_000, 6)),
    "a directory after the end": b"II*\0\xff\xff\xff\xff",
    "a directory that is its own part": exif((0x8769, 4, 1, 8), (0x8825, 4, 1, 8)),
    "more tags than there are": b"II*\0\x08\0\0\0\xff\xff" + b"\x12",
    "unknown types": exif((0x0100, 99, 1, 1), (0x0101, 0, 2**32 - 1, 1)),
}


def with_exif(image_format: str, block: bytes) -> bytes:
    if image_format == "JPEG":
        segment = b"Exif\0\0" + block
        return JPEG[:2] + b"\xff\xe1" + (len(segment) + 2).to_bytes(2) + segment + JPEG[2:]
    return saved(Image.fromarray(gradient()), image_format, exif=b"Exif\0\0" + block, lossless=True)


@pytest.mark.parametrize("block", GARBLED.values(), ids=GARBLED)
@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP"])
def test_damaged_exif_data_leave_the_picture_as_it_is(image_format, block):
    content = with_exif(image_format, block)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        np.testing.assert_array_equal(decode(content, 3, exif_orientation=True), decode(content, 3))
    assert [str(each.message) for each in warned] == []


@given(st.binary(max_size=200), st.sampled_from(["JPEG", "PNG"]))
def test_no_exif_data_make_an_image_unreadable(block, image_format):
    for content in (block, b"II*\0\x08\0\0\0" + block):
        assert decode(with_exif(image_format, content), 3, exif_orientation=True).shape[2] == 3


def test_a_tiff_whose_further_directories_are_damaged():
    tiff = saved(Image.fromarray(gradient()), "TIFF")
    start = int.from_bytes(tiff[4:8], "little")
    count = int.from_bytes(tiff[start : start + 2], "little")
    entries = tiff[start + 2 : start + 2 + 12 * count]
    for tag in (34665, 34853, 40965):
        more = struct.pack("<H", count + 1) + entries + struct.pack("<HHII", tag, 4, 1, 2**31) + bytes(4)
        damaged = tiff[:4] + struct.pack("<I", len(tiff)) + tiff[8:] + more
        np.testing.assert_array_equal(decode(damaged, 3, exif_orientation=True), gradient())


def test_a_thumbnails_orientation_is_not_the_pictures():
    thumbnail = with_exif("JPEG", exif((0x0112, 3, 1, 6)))
    segment = b"Exif\0\0" + exif() + thumbnail
    outer = JPEG[:2] + b"\xff\xe1" + (len(segment) + 2).to_bytes(2) + segment + JPEG[2:]
    np.testing.assert_array_equal(decode(outer, 3, exif_orientation=True), decode(JPEG, 3))


class OneImage(Source):
    dataset, split, class_names, channels = "one", "train", ("a",), 3
    cache_key = "0" * 64
    directory = Path("one")

    def __init__(self, content: bytes):
        self.content = content

    def __len__(self):
        return 1

    def read(self, index):
        return self.content, 0

    def image_name(self, index):
        return "the one"


class Photo(OneImage):
    exif_orientation = True
    white_background = True


def test_a_kind_of_dataset_says_how_its_images_are_decoded():
    turned = oriented("PNG", 6)
    assert OneImage(turned).image(0).shape == (24, 40, 3)
    assert Photo(turned).image(0).shape == (40, 24, 3)
    clear = saved(Image.new("RGBA", (4, 4), (9, 9, 9, 0)), "PNG")
    assert (OneImage(clear).image(0).max(), Photo(clear).image(0).min()) == (9, 255)


def test_a_heic_image_without_the_plugin_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(ValueError, match=r"flax_resnets\[heif\]"):
        decode(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40), 3)


def test_avif_comes_back_nearly():
    pytest.importorskip("PIL.AvifImagePlugin")
    avif = encoded(gradient(), "AVIF", quality=95)
    assert np.abs(decode(avif, 3).astype(int) - gradient()).mean() < 4
    for length in range(0, len(avif), 50):
        with pytest.raises(ValueError, match=r"."):
            decode(avif[:length], 3)


def test_formats_whose_readers_start_programs_are_not_tried():
    with pytest.raises(ValueError, match="not a JPEG, PNG"):
        decode(saved(Image.fromarray(gradient()), "EPS"), 3)


def photo(height: int, width: int) -> np.ndarray:
    """A picture with the spectrum of photographs: the amplitude falls with the frequency."""
    rng = np.random.default_rng(0)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None] * height, np.fft.rfftfreq(width)[None] * width)
    frequency[0, 0] = 1
    waves = rng.normal(size=(3, *frequency.shape)) + 1j * rng.normal(size=(3, *frequency.shape))
    grey, *colors = np.fft.irfft2(waves / frequency**1.1, s=(height, width))
    channels = np.stack([grey + 0.3 * colors[0], grey, grey + 0.3 * colors[1]], axis=-1)
    return (128 + 50 * channels / channels.std()).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("height", "width", "size", "part"),
    [
        (720, 960, 160, 1),
        (720, 960, 80, 2),
        (960, 720, 81, 1),
        (720, 960, 40, 4),
        (720, 960, 20, 8),
        (724, 960, 20, 4),
        (722, 960, 20, 2),
        (721, 960, 20, 1),
        (720, 961, 20, 1),
    ],
)
def test_by_how_much_a_jpeg_is_shrunk(height, width, size, part):
    jpeg = simplejpeg.encode_jpeg(np.zeros((height, width, 3), np.uint8))
    assert decode(jpeg, 3, shrink_for=size).shape == (height // part, width // part, 3)
    assert decode(jpeg, 1, shrink_for=size).shape == (height // part, width // part, 1)
    assert decode(jpeg, 3).shape == (height, width, 3)


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:0"])
@pytest.mark.parametrize("resize", ["squash", "crop"])
@pytest.mark.parametrize("size", [128, 64, 32])
def test_a_shrunk_jpeg_looks_the_same_when_it_is_resized(size, resize, subsampling):
    jpeg = encoded(photo(1160, 1600), "JPEG", quality=90, subsampling=subsampling)
    shrunk = resized(decode(jpeg, 3, shrink_for=size), size, resize)
    difference = np.abs(shrunk.astype(int) - resized(decode(jpeg, 3), size, resize))
    assert difference.mean() < 0.35
    assert difference.max() <= 4


def test_a_shrunk_jpeg_is_turned_too():
    exif = Image.Exif()
    exif[0x0112] = 6
    jpeg = encoded(photo(480, 640), "JPEG", exif=exif)
    assert decode(jpeg, 3, exif_orientation=True, shrink_for=50).shape == (320, 240, 3)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0, "restart_marker_rows": 3}], ids=str)
def test_a_damaged_jpeg_is_refused_shrunk_or_not(options):
    whole = encoded(photo(160, 240), "JPEG", **options)
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(40):
        cut = int(rng.integers(600, len(whole)))
        damaged = bytearray(whole)
        damaged[cut] ^= 1 << rng.integers(8)
        for content in (whole[:cut], whole[:cut] + b"\xff\xd9", bytes(damaged)):
            answers = [answer(content, size) for size in (None, 16, 8, 4)]
            assert answers == answers[:1] * 4
            refused += answers[0] != "decoded"
    assert refused > 80


def answer(content: bytes, shrink_for: int | None) -> str:
    try:
        decode(content, 3, shrink_for=shrink_for)
    except ValueError as error:
        return str(error)
    return "decoded"


def test_a_kind_of_dataset_says_whether_its_jpegs_are_shrunk(tmp_path, monkeypatch):
    monkeypatch.setenv("FLAX_RESNETS_CACHE", str(tmp_path))

    class Draft(OneImage):
        draft = True

    jpeg = encoded(photo(480, 640), "JPEG")
    assert Draft(jpeg).image(0).shape == (480, 640, 3)
    assert Draft(jpeg).shrunk(0, 50)[0].shape == (240, 320, 3)
    assert OneImage(jpeg).shrunk(0, 50)[0].shape == (480, 640, 3)
    whole, shrunk = (cached_images(kind(jpeg), 50).images[0] for kind in (OneImage, Draft))
    np.testing.assert_array_equal(whole, resized(decode(jpeg, 3), 50, "squash"))
    np.testing.assert_array_equal(shrunk, resized(decode(jpeg, 3, shrink_for=50), 50, "squash"))
    assert (whole != shrunk).any()
    for kind, cached in ((OneImage, whole), (Draft, shrunk)):
        with contextlib.closing(StreamedImages(kind(jpeg), 50).eval_batches(1)) as batches:
            np.testing.assert_array_equal(next(batches).images[0], cached)


@given(st.integers(0, len(JPEG) - 1))
def test_a_truncated_jpeg_is_an_error(length):
    with pytest.raises(ValueError, match=r"."):
        decode(JPEG[:length], 3)


@given(st.integers(0, len(PNG) - 1))
def test_a_truncated_png_is_an_error_unless_all_pixels_came_before_the_cut(length):
    try:
        pixels = decode(PNG[:length], 3)
    except ValueError:
        return
    np.testing.assert_array_equal(pixels, gradient())


def test_a_jpeg_closed_in_mid_picture_is_an_error_not_grey_filler():
    whole = encoded(gradient(240, 400), "JPEG")
    with pytest.raises(ValueError, match="premature end"):
        decode(whole[: len(whole) * 3 // 4] + b"\xff\xd9", 3)


@given(
    st.sampled_from([JPEG, PNG, *(encoded(gradient(), each) for each in ("GIF", "BMP", "WEBP", "TIFF")), b"\xff\xd8"]),
    st.lists(st.tuples(st.integers(0, 4000), st.binary(min_size=1, max_size=4)), max_size=6),
    st.sampled_from([1, 3]),
)
def test_damaged_bytes_give_an_error_or_an_image(original, patches, channels):
    damaged = bytearray(original)
    for position, patch in patches:
        damaged[position : position + len(patch)] = patch
    try:
        pixels = decode(bytes(damaged), channels)
    except ValueError:
        return
    assert pixels.dtype == np.uint8
    assert pixels.ndim == 3
    assert pixels.shape[2] == channels


def test_the_error_says_what_it_is_not():
    with pytest.raises(ValueError, match="not a JPEG, PNG"):
        decode(b"GET / HTTP/1.1", 3)


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "TIFF"])
def test_an_enormous_image_is_refused_before_it_is_decoded(image_format, monkeypatch):
    monkeypatch.setattr("flax_resnets.data.decode._MAX_PIXELS", 24 * 40 - 1)
    with pytest.raises(ValueError, match="40x24 pixels"):
        decode(encoded(gradient(), image_format), 3)


def test_two_channels_are_not_offered():
    with pytest.raises(ValueError, match="channels=2"):
        decode(simplejpeg.encode_jpeg(gradient()), 2)
