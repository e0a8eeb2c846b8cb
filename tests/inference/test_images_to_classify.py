"""What may be given as images: the pixels are always those that training would have decoded."""

import io
import os

import numpy as np
import pytest
from PIL import Image

from flax_resnets.data.decode import decode
from flax_resnets.errors import UserError
from flax_resnets.inference.images import each_image


@pytest.fixture(scope="module")
def colour() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (12, 9, 3)).astype(np.uint8)


def png(image: np.ndarray | Image.Image) -> bytes:
    buffer = io.BytesIO()
    (Image.fromarray(image) if isinstance(image, np.ndarray) else image).save(buffer, "PNG")
    return buffer.getvalue()


def pixels(images, channels: int) -> list[np.ndarray]:
    return [item.pixels(channels) for item in each_image(images)]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "1", "LA", "CMYK"])
def test_a_pillow_image_a_file_and_its_bytes_are_the_same(colour, tmp_path, channels, mode):
    image = Image.fromarray(colour).convert(mode)
    kind = "JPEG" if mode == "CMYK" else "PNG"
    path = tmp_path / f"image.{kind.lower()}"
    image.save(path)
    encoded = path.read_bytes()
    wanted = decode(encoded, channels)
    opened = Image.open(path)
    for given in (path, str(path), os.fsencode(path), encoded, bytearray(encoded), memoryview(encoded), opened):
        if isinstance(given, bytes) and given == os.fsencode(path):
            continue  # bytes are a file's content
        (found,) = pixels(given, channels)
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("channels", [1, 3])
def test_arrays_are_converted_as_files_are(colour, channels):
    grey, clear = colour[..., 0], np.dstack([colour, colour[..., 0]])
    for array in (grey, grey[..., None], colour, clear, colour[::-1, ::2]):
        wanted = decode(png(array.squeeze() if array.ndim == 3 and array.shape[-1] == 1 else array), channels)
        (found,) = pixels(array, channels)
        np.testing.assert_array_equal(found, wanted)
        assert found.flags.c_contiguous


def test_a_batch_is_its_images(colour):
    batch = np.stack([colour, colour[::-1]])
    assert [item.name for item in each_image(batch)] == ["image[0]", "image[1]"]
    assert [item.name for item in each_image([batch, colour])] == ["images[0][0]", "images[0][1]", "images[1]"]
    np.testing.assert_array_equal(pixels(batch, 3)[1], colour[::-1])


def test_a_generator_is_read_one_by_one(colour):
    items = each_image(colour for _ in iter(int, 1))  # endless
    assert next(items).name == "images[0]"
    assert next(items).name == "images[1]"


def test_a_folder_is_its_images_sorted(colour, tmp_path):
    (tmp_path / "b" / "deep").mkdir(parents=True)
    names = ["b/deep/1.JPG", "a.png", "b/2.webp", "b/10.gif", "c.BMP", "d.jpeg"]
    for name in [*names, "readme.txt", ".hidden.png", "e.npy"]:
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "b" / "loop").symlink_to(tmp_path)
    found = [item.name for item in each_image(tmp_path)]
    assert found == sorted(str(tmp_path / name) for name in names)
    assert [item.name for item in each_image([tmp_path / "a.png", tmp_path / "b"])][:2] == [found[0], found[1]]


def test_hidden_folders_are_left_out(tmp_path):
    for name in (".thumbnails/a.png", "@eaDir/b.png", "cats/.x.png", "cats/@eaDir/c.png", "cats/1.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert [item.name for item in each_image(tmp_path)] == [str(tmp_path / "cats/1.png")]
    assert [item.name for item in each_image(tmp_path / ".thumbnails")] == [str(tmp_path / ".thumbnails/a.png")]


def test_an_array_or_series_of_paths_is_a_list(colour):
    names = ["a.png", "b.png"]
    for paths in (np.array(names), np.array(names, object)):
        assert [item.name for item in each_image(paths)] == names
    ragged = np.empty(2, object)
    ragged[:] = [colour, colour[:5]]
    assert [each.shape for each in pixels(ragged, 3)] == [(12, 9, 3), (5, 9, 3)]
    assert "image: is a <U5 array; pixels must be uint8" in refusal(np.array([names]))
    pandas = pytest.importorskip("pandas")
    for paths in (pandas.Series(names), pandas.Series(names, dtype=object)):
        assert [item.name for item in each_image(paths)] == names


def refusal(images) -> str:
    with pytest.raises(UserError) as error:
        pixels(images, 3)
    message = str(error.value)
    assert len(message) < 600
    return message


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int64", "bool", "int8", "uint16"])
def test_only_uint8_has_one_meaning(dtype):
    assert f"images[0]: is a {dtype} array; pixels must be uint8, from 0 to 255" in refusal(
        [np.zeros((4, 4, 3), dtype)]
    )


@pytest.mark.parametrize("shape", [(), (3,), (4, 4, 2), (4, 4, 5), (3, 4, 8), (0, 4, 3), (4, 0), (1, 1, 1, 4, 3)])
def test_shapes_that_are_no_image(shape):
    assert "must be (height, width)" in refusal(np.zeros(shape, np.uint8))


def test_a_batch_of_grey_images_needs_an_axis_for_the_channel():
    batch = np.zeros((3, 28, 28), np.uint8)
    assert "; for grey images (N, height, width) give x[..., None]" in refusal(batch)
    assert len(list(each_image(batch[..., None]))) == 3


@pytest.mark.parametrize("shape", [(3, 28, 28), (2, 3, 28, 28)])
def test_channels_that_come_first_as_in_torch(shape):
    assert refusal(np.zeros(shape, np.uint8)).endswith("; of (3, height, width) give np.moveaxis(x, -3, -1)")


def test_objects_that_are_no_image(tmp_path):
    assert "a NoneType; must be a path" in refusal(None)
    assert "images[0]: a dict; must be a path" in refusal([{}])
    assert "image: a dict; must be a path" in refusal({"a": 1})
    assert "images[0]: a list" in refusal([[]])
    assert "mode 'F'" in refusal(Image.new("F", (4, 4)))
    assert "not a JPEG, PNG" in refusal(b"no image")
    assert "has no image in it, by the endings" in refusal(tmp_path)
    assert "gs://bucket/shoe.png: must be on this machine, no URL" in refusal("gs://bucket/shoe.png")


def test_a_folder_that_cannot_be_read_has_a_place_among_the_images(tmp_path, monkeypatch):
    (tmp_path / "closed").mkdir()
    (tmp_path / "a.png").touch()
    scan = os.scandir

    def scandir(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", scandir)
    picture, closed = each_image(tmp_path)
    assert picture.name == str(tmp_path / "a.png")
    with pytest.raises(UserError, match=r"closed: Permission denied"):
        closed.pixels(3)


def test_paths_that_are_no_file(tmp_path):
    assert refusal("no/such.png") == "no/such.png: no such file"
    os.mkfifo(tmp_path / "pipe.png")
    assert "is no file" in refusal(tmp_path / "pipe.png")
    assert "no such file" in refusal("a\0b.png")
    assert "no such file" in refusal("x" * 5000 + ".png")
    (tmp_path / "dangling.png").symlink_to("nowhere")
    assert "is no file" in refusal(tmp_path / "dangling.png")


def test_a_damaged_file_behind_a_pillow_image(colour):
    opened = Image.open(io.BytesIO(png(colour)[:150]))
    assert "image: not a readable image" in refusal(opened)
