"""cached_images: images are decoded once and read back exactly; an incomplete cache is never used."""

import contextlib
import io
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from flax_resnets.data.cache import cached_images, resized
from flax_resnets.data.source import open_source
from flax_resnets.errors import UserError
from tests.data.pictures import picture


@pytest.fixture
def source():
    return open_source("fashion_mnist_sample", "validation")


def caches(cache_dir: Path) -> list[Path]:
    """All caches, complete or not."""
    return sorted(cache_dir.glob("*/*"))


def test_it_holds_the_sources_images_in_order(source):
    data = cached_images(source, size=28)
    assert isinstance(data.images, np.memmap)
    assert (data.images.shape, data.images.dtype) == ((1000, 28, 28, 1), np.uint8)
    assert (data.labels.shape, data.labels.dtype, len(data)) == ((1000,), np.int32, 1000)
    for index in (0, 511, 512, 999):
        np.testing.assert_array_equal(data.images[index], source.image(index))
        assert data.labels[index] == source.label(index)


def test_it_is_read_only(source):
    data = cached_images(source, size=28)
    for array in (data.images, data.labels):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0


def test_the_second_time_nothing_is_decoded(source, monkeypatch):
    first = cached_images(source, size=28)
    monkeypatch.setattr(type(source), "__getitem__", None)
    np.testing.assert_array_equal(cached_images(source, size=28).images, first.images)


def test_progress_counts_to_the_end(source):
    seen = []
    cached_images(source, size=28, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(512, 1000), (1000, 1000)]


def test_each_size_and_way_to_resize_is_a_cache_of_its_own(source, cache_dir):
    assert cached_images(source, size=16).images.shape == (1000, 16, 16, 1)
    assert cached_images(source, size=28).images.shape == (1000, 28, 28, 1)
    cached_images(source, size=16, resize="crop")
    assert len(caches(cache_dir)) == 3


def test_fine_and_coarse_labels_have_caches_beside_each_other(make_set, cache_dir):
    import tensorflow_datasets as tfds

    features = {
        "image": tfds.features.Image(shape=(8, 8, 3)),
        "label": tfds.features.ClassLabel(names=["a", "b", "c"]),
        "coarse_label": tfds.features.ClassLabel(names=["ab", "c"]),
    }
    examples = [{"image": picture(number), "label": number % 3, "coarse_label": number % 3 // 2} for number in range(6)]
    root = make_set("labelled_twice", features, {"train": [examples], "test": [examples]}).parents[1]
    found = []
    for label_key in (None, "coarse_label", None, "coarse_label"):
        opened = open_source("labelled_twice", "train", root, label_key=label_key)
        assert cached_images(opened, size=8).labels.max() == (2 if label_key is None else 1)
        found.append(set(caches(cache_dir)))
    assert [len(each) for each in found] == [1, 2, 2, 2]
    assert found[1] == found[2] == found[3]


def test_when_the_files_change_the_old_cache_makes_way(prepared, cache_dir):
    cached_images(open_source("my_images", "validation", prepared), size=28)
    [old] = caches(cache_dir)
    (features,) = prepared.rglob("features.json")
    features.write_text(features.read_text() + "\n")
    cached_images(open_source("my_images", "validation", prepared), size=28)
    [new] = caches(cache_dir)
    assert new != old


def test_files_touched_and_a_version_named_leave_the_cache_as_it_is(prepared, cache_dir):
    cached_images(open_source("my_images", "validation", prepared), size=28)
    before = caches(cache_dir)
    for path in prepared.rglob("*"):
        os.utime(path, (1, 1))
    cached_images(open_source("my_images:1.0.0", "validation", prepared), size=28)
    assert caches(cache_dir) == before


def short(path: Path) -> None:
    os.truncate(path / "images.npy", (path / "images.npy").stat().st_size - 1)


def empty(path: Path) -> None:
    os.truncate(path / "images.npy", 0)


def of_another_shape(path: Path) -> None:
    np.save(path / "images.npy", np.zeros((1000, 14, 14, 1), np.uint8))


def without_labels(path: Path) -> None:
    (path / "labels.npy").unlink()


def with_too_few_labels(path: Path) -> None:
    np.save(path / "labels.npy", np.zeros(999, np.int32))


@pytest.mark.parametrize("damage", [short, empty, of_another_shape, without_labels, with_too_few_labels])
def test_a_damaged_cache_is_built_again(damage, source, cache_dir):
    expected = np.array(cached_images(source, size=28).images)
    damage(caches(cache_dir)[0])
    np.testing.assert_array_equal(cached_images(source, size=28).images, expected)
    np.testing.assert_array_equal(np.load(caches(cache_dir)[0] / "images.npy"), expected)


@pytest.fixture
def with_a_broken_image(prepared):
    path = prepared / "my_images" / "1.0.0" / "my_images-test.array_record-00000-of-00001"
    with open(path, "r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(bytes(16))
    return open_source("my_images", "validation", prepared)


def test_a_broken_image_is_named_and_leaves_no_cache(with_a_broken_image, cache_dir):
    with pytest.raises(UserError, match=r"'my_images', split 'test', image \d+"):
        cached_images(with_a_broken_image, size=28)
    assert caches(cache_dir) == []


@pytest.fixture
def with_broken_images(make_set, data_dir):
    """Two hundred images with names in three files; every twentieth image is broken."""
    import tensorflow_datasets as tfds

    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 9, 3), np.uint8)).save(buffer, "PNG")
    png = buffer.getvalue()
    names = [f"IMG_{number:03}.png" for number in range(200)]
    examples = [
        {"image": io.BytesIO(png[:60] if number % 20 == 7 else png), "label": number % 2, "file_name": name}
        for number, name in enumerate(names)
    ]
    features = {
        "image": tfds.features.Image(shape=(9, 9, 3)),
        "label": tfds.features.ClassLabel(names=["cat", "dog"]),
        "file_name": tfds.features.Text(),
    }
    make_set("snaps", features, {"train": [examples[:80], examples[80:150], examples[150:]]})
    return open_source("snaps", "train", data_dir)


@pytest.mark.parametrize("writable", [True, False])
def test_all_broken_images_are_told_of_at_once(with_broken_images, writable, cache_dir, tmp_path, monkeypatch):
    if not writable:
        (tmp_path / "file").touch()
        monkeypatch.setenv("FLAX_RESNETS_CACHE", str(tmp_path / "file"))
    with (
        contextlib.nullcontext() if writable else pytest.warns(RuntimeWarning),
        pytest.raises(UserError) as caught,
    ):
        cached_images(with_broken_images, size=9)
    message = str(caught.value)
    assert len(message) < 600
    assert message.startswith("dataset 'snaps', split 'train', image 7 in ")
    for number in (7, 27, 47):
        assert f"image {number} in snaps-train.array_record-00000-of-00003, record {number}, file_name" in message
    assert "image 67" not in message
    assert "; 10 of 200 images are broken" in message
    assert caches(cache_dir) == []
    found = re.search("all of them in (.*?);", message)
    assert (found is not None) == writable
    if found is None:
        return
    lines = Path(found[1]).read_text().splitlines()
    assert len(lines) == 10
    directory = with_broken_images.directory
    assert lines[4].startswith(
        f"dataset 'snaps', split 'train', image 87 in {directory}/snaps-train.array_record-00001-of-00003, record 7, "
        "file_name 'IMG_087.png' (class 'dog'): "
    )


@pytest.mark.parametrize("writable", [True, False])
def test_a_broken_image_can_be_left_out_and_is_named(with_a_broken_image, source, writable, tmp_path, monkeypatch):
    if not writable:
        (tmp_path / "file").touch()
        monkeypatch.setenv("FLAX_RESNETS_CACHE", str(tmp_path / "file"))
    with contextlib.nullcontext() if writable else pytest.warns(RuntimeWarning):
        data = cached_images(with_a_broken_image, size=28, broken="skip")
    (message,) = data.broken
    index = int(re.search(r"'my_images', split 'test', image (\d+)", message)[1])
    assert len(data) == 999
    rest = [other for other in range(1000) if other != index]
    np.testing.assert_array_equal(data.labels, [source.label(other) for other in rest])
    for row in (index - 1, index, 998):
        np.testing.assert_array_equal(data.images[row], source.image(rest[row]))


def test_what_was_left_out_once_is_left_out_from_the_cache_but_never_where_it_is_to_stop(
    with_a_broken_image, monkeypatch
):
    first = cached_images(with_a_broken_image, size=28, broken="skip")
    with pytest.raises(UserError, match="image"):
        cached_images(with_a_broken_image, size=28)
    monkeypatch.setattr(type(with_a_broken_image), "__getitem__", None)  # nothing is decoded
    second = cached_images(with_a_broken_image, size=28, broken="skip")
    assert second.broken == first.broken
    np.testing.assert_array_equal(second.images, first.images)


def test_where_no_image_is_broken_both_ways_share_a_cache(source, cache_dir):
    cached_images(source, size=28, broken="skip")
    (only,) = caches(cache_dir)
    assert cached_images(source, size=28).broken == ()
    assert caches(cache_dir) == [only]


def test_where_nothing_can_be_written_the_images_stay_in_memory_and_it_says_so(source, tmp_path, monkeypatch):
    on_disk = cached_images(source, size=28)
    (tmp_path / "file").touch()
    monkeypatch.setenv("FLAX_RESNETS_CACHE", str(tmp_path / "file"))
    with pytest.warns(RuntimeWarning, match=r"image cache not written.*file"):
        in_memory = cached_images(source, size=28)
    np.testing.assert_array_equal(in_memory.images, on_disk.images)
    np.testing.assert_array_equal(in_memory.labels, on_disk.labels)
    assert not in_memory.images.flags.writeable


def test_images_that_neither_cache_nor_memory_holds_are_one_line(source, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("FLAX_RESNETS_CACHE", str(tmp_path / "file"))
    with (
        pytest.warns(RuntimeWarning, match="image cache not written"),
        pytest.raises(
            UserError, match=r"images of 1048576 px: their 1024000\.0 GiB fit neither in .*file.* nor in memory"
        ),
    ):
        cached_images(source, size=2**20)


# A file may hold a hundred of the thousand images. Beyond that, write() fails as on a full disk.
FULL_DISK = """
import resource, signal, sys, warnings
from flax_resnets.data.cache import cached_images
from flax_resnets.data.source import open_source
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (80_000, 80_000))
with warnings.catch_warnings(record=True) as caught:
    data = cached_images(open_source("fashion_mnist_sample", "validation"), size=28)
assert "image cache not written" in str(caught[0].message), caught
assert (data.images[999] == open_source("fashion_mnist_sample", "validation").image(999)).all()
"""


def test_on_a_full_disk_too(cache_dir):
    subprocess.run([sys.executable, "-c", FULL_DISK], check=True)
    assert caches(cache_dir) == []


BUILD = """
import time
from flax_resnets.data.cache import cached_images
from flax_resnets.data.source import open_source
source = open_source("fashion_mnist_sample", "validation")
print("started", flush=True)
cached_images(source, 28, progress=lambda done, total: time.sleep({pause}))
"""


def test_a_killed_process_leaves_nothing_that_is_read(source, cache_dir):
    process = subprocess.Popen([sys.executable, "-c", BUILD.format(pause=60)], stdout=subprocess.PIPE)
    while not list(cache_dir.glob("*/tmp-*/images.npy")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    [abandoned] = caches(cache_dir)
    assert cached_images(source, size=28).images[999].any()
    assert not abandoned.exists()


@pytest.mark.parametrize("locks", [True, False])
def test_two_processes_at_once(locks, source, cache_dir):
    unlock = "import fcntl; fcntl.flock = lambda *args: (_ for _ in ()).throw(OSError())\n"
    command = [sys.executable, "-c", ("" if locks else unlock) + BUILD.format(pause=0.2)]
    processes = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for _ in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    [only] = caches(cache_dir)
    np.testing.assert_array_equal(np.load(only / "images.npy")[999], source.image(999))


@pytest.mark.parametrize(("variable", "below"), [("XDG_CACHE_HOME", "."), ("HOME", ".cache")])
def test_where_caches_lie_by_default(variable, below, source, tmp_path, monkeypatch):
    for name in ("FLAX_RESNETS_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name) if name in os.environ else None
    monkeypatch.setenv(variable, str(tmp_path))
    cached_images(source, size=28)
    assert caches(tmp_path / below / "flax_resnets")


@pytest.mark.parametrize(("size", "resize", "message"), [(0, "squash", "image_size=0"), (28, "pad", "resize='pad'")])
def test_mistakes(size, resize, message, source):
    with pytest.raises(UserError, match=message):
        cached_images(source, size, resize)


@given(
    st.integers(1, 70),
    st.integers(1, 70),
    st.sampled_from([1, 3]),
    st.integers(1, 70),
    st.sampled_from(["squash", "crop"]),
)
def test_resized_shapes(height, width, channels, size, resize):
    image = np.full((height, width, channels), 77, np.uint8)
    result = resized(image, size, resize)
    assert (result.shape, result.dtype) == ((size, size, channels), np.uint8)
    assert (result == 77).all()


def test_crop_takes_the_centre_and_squash_takes_it_all():
    image = np.zeros((10, 30, 3), np.uint8)
    image[:, 10:20] = 255
    assert (resized(image, 10, "crop") == 255).all()
    assert 0 < resized(image, 10, "squash").mean() < 255


def test_an_image_of_the_right_size_is_not_touched():
    image = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    assert resized(image, 16, "crop") is image


def test_shrinking_does_not_alias():
    stripes = np.zeros((64, 64, 1), np.uint8)
    stripes[:, ::2] = 255
    assert np.abs(resized(stripes, 16, "squash").astype(int) - 127).max() < 16


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize(
    ("shape", "size", "shorter_side"),
    [((333, 500, 3), 224, 256), ((500, 375, 1), 224, 235), ((160, 160, 3), 160, 168), ((97, 61, 3), 64, 64)],
)
def test_the_centre_of_a_resized_image_is_torchvisions(shape, size, shorter_side, interpolation):
    """Resize and CenterCrop in whole pixels, as torchvision's transforms write them with Pillow."""
    image = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    result = resized(image, size, "crop", interpolation, shorter_side)
    height, width = shape[:2]
    shorter = min(height, width)
    whole = [int(shorter_side * side / shorter) for side in (width, height)]
    picture = Image.fromarray(image.squeeze(-1) if shape[2] == 1 else image)
    theirs = np.asarray(picture.resize(whole, Image.Resampling[interpolation.upper()])).reshape(*whole[::-1], shape[2])
    left, top = (round((side - size) / 2) for side in whole)
    np.testing.assert_array_equal(result, theirs[top : top + size, left : left + size])
