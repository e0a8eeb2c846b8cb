"""What a split holds: sizes, damaged and repeated images."""

import io

import numpy as np
import pytest
import simplejpeg
from PIL import Image

from flax_resnets.data.contents import contents_of, sampled_statistics
from flax_resnets.data.source import Source


class Photos(Source):
    """Images of several sizes in memory."""

    dataset, split, class_names, channels = "photos", "train", ("cat", "dog", "cow"), 3

    def __init__(self, files: list[tuple[bytes, int]]):
        self._files = files

    def __len__(self):
        return len(self._files)

    def read(self, index):
        return self._files[index]

    def image_name(self, index):
        return f"photo-{index}"


def jpeg(width: int, height: int, value: int = 128) -> bytes:
    return simplejpeg.encode_jpeg(np.full((height, width, 3), value, np.uint8))


def png(width: int, height: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), (1, 2, 3)).save(file, format="PNG")
    return file.getvalue()


@pytest.fixture
def photos() -> Photos:
    cut = jpeg(300, 200)[:-40]
    return Photos([(jpeg(40, 20), 0), (png(30, 50), 1), (jpeg(40, 20), 1), (cut, 0), (b"no image", 0), (png(9, 9), 7)])


def test_headers_tell_sizes_and_bytes_tell_copies(photos):
    contents = contents_of(photos)
    assert contents.class_counts == (3, 2, 0)
    assert contents.labels.tolist() == [0, 1, 1, 0, 0, -1]
    assert (contents.shorter_side, contents.longer_side) == ((20, 25, 200), (40, 45, 300))
    assert contents.repeated == [(2, 0)]
    assert ["photo-4" in contents.broken[0], "photo-5" in contents.broken[1], contents.checked] == [True, True, False]


def test_a_check_decodes_every_image(photos):
    told: list[int] = []
    contents = contents_of(photos, check=True, progress=told.append)
    assert [f"photo-{index}" in message for index, message in zip((3, 4, 5), contents.broken, strict=True)] == [
        True
    ] * 3
    assert contents.checked
    assert told == [6]


def test_copies_between_splits_count_each_image(photos):
    other = contents_of(Photos([(jpeg(40, 20), 2), (jpeg(40, 20, value=9), 2), (jpeg(40, 20), 0)]))
    assert other.also_in(contents_of(photos)) == [(0, 0), (2, 0)]
    assert contents_of(photos).also_in(other) == [(0, 0), (2, 0)]


def test_statistics_are_those_of_the_whole_images(photos):
    found, broken = sampled_statistics(photos, 8, "squash")
    assert len(broken) == 3
    expected = np.mean([[128] * 3, [1, 2, 3], [128] * 3], 0) / 255
    assert found is not None
    np.testing.assert_allclose(found.mean, expected, atol=1e-2)
    assert sampled_statistics(Photos([(b"", 0)]), 8, "squash")[0] is None
