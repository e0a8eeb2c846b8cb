"""decode: gives a whole image or an error, never a part of an image."""

import io

import numpy as np
import pytest
import simplejpeg
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from flax_resnets.data.decode import decode


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
    st.sampled_from([JPEG, PNG, encoded(gradient(), "GIF"), encoded(gradient(), "BMP"), b"\xff\xd8", b""]),
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


@pytest.mark.parametrize("image_format", ["JPEG", "PNG"])
def test_an_enormous_image_is_refused_before_it_is_decoded(image_format, monkeypatch):
    monkeypatch.setattr("flax_resnets.data.decode._MAX_PIXELS", 24 * 40 - 1)
    with pytest.raises(ValueError, match="40x24 pixels"):
        decode(encoded(gradient(), image_format), 3)


def test_two_channels_are_not_offered():
    with pytest.raises(ValueError, match="channels=2"):
        decode(simplejpeg.encode_jpeg(gradient()), 2)
