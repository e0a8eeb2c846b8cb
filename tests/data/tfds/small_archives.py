"""Small archives like those from which TFDS's builders make well-known datasets, on a web server on this machine."""

import io
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from PIL import Image

TREES = ["n01440764", "n02102040"]


def picture(number: int, *shape: int) -> np.ndarray:
    """A picture whose brightness tells its number, so that a network can learn something."""
    return np.random.default_rng(number).integers(20 * (number % 8), 20 * (number % 8) + 100, shape, np.uint8)


def jpeg(number: int) -> bytes:
    return simplejpeg.encode_jpeg(picture(number, 20, 24, 3))


def png(number: int, channels: int) -> bytes:
    buffer = io.BytesIO()
    pixels = picture(number, 20, 24, channels)
    Image.fromarray(pixels[..., 0] if channels == 1 else pixels).save(buffer, "PNG")
    return buffer.getvalue()


def write_tar(path: Path, files: Mapping[str, bytes], mode: Any = "w:gz") -> None:
    with tarfile.open(path, mode) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def write_zip(path: Path, files: Mapping[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)


def cats_vs_dogs(directory: Path, address: str, data_dir: Path, monkeypatch) -> None:
    """Twelve cats, twelve dogs, and one file that is no JPEG."""
    from tensorflow_datasets.image_classification import cats_vs_dogs as module

    files = {f"PetImages/{kind}/{number}.jpg": jpeg(number) for number in range(12) for kind in ("Cat", "Dog")}
    write_zip(directory / "pets.zip", {**files, "PetImages/Cat/99.jpg": b"no image at all", "readme.txt": b""})
    monkeypatch.setattr(module, "_URL", f"{address}pets.zip")
    monkeypatch.setattr(module, "_NUM_CORRUPT_IMAGES", 1)


def tf_flowers(directory: Path, address: str, data_dir: Path, monkeypatch) -> None:
    """Five flowers of each kind."""
    from tensorflow_datasets.datasets.tf_flowers import tf_flowers_dataset_builder as module

    kinds = ["dandelion", "daisy", "tulips", "sunflowers", "roses"]
    files = {f"flower_photos/{kind}/{number}.jpg": jpeg(number) for number in range(5) for kind in kinds}
    write_tar(directory / "flower_photos.tgz", files)
    monkeypatch.setattr(module, "_URL", f"{address}flower_photos.tgz")


def oxford_iiit_pet(directory: Path, address: str, data_dir: Path, monkeypatch) -> None:
    """Ten pets to train on and six to test with; one of the JPEGs is a PNG with transparency, as in the real set."""
    from tensorflow_datasets.datasets.oxford_iiit_pet import oxford_iiit_pet_dataset_builder as module

    names = ["beagle_116", *(f"Bengal_{number}" for number in range(15))]
    images = {f"images/{name}.jpg": jpeg(number) for number, name in enumerate(names)}
    images["images/beagle_116.jpg"] = png(0, channels=4)
    write_tar(directory / "images.tar.gz", images)
    rows = [f"{name} {5 if 'beagle' in name else 6} 1 1\n" for name in names]
    annotations = {f"annotations/trimaps/{name}.png": png(number, channels=1) for number, name in enumerate(names)}
    annotations["annotations/trainval.txt"] = "".join(rows[:10]).encode()
    annotations["annotations/test.txt"] = "".join(rows[10:]).encode()
    write_tar(directory / "annotations.tar.gz", annotations)
    monkeypatch.setattr(module, "_BASE_URL", address.rstrip("/"))


def cifar100(directory: Path, address: str, data_dir: Path, monkeypatch) -> None:
    """Twenty images to train on and eight to test with, each with a fine and a coarse label."""
    from tensorflow_datasets.image_classification import cifar

    def records(count: int) -> bytes:
        return b"".join(bytes([n % 20, n % 100]) + picture(n, 3, 32, 32).tobytes() for n in range(count))

    def names(kind: str, count: int) -> bytes:
        return "".join(f"{kind} {number}\n" for number in range(count)).encode()

    write_tar(
        directory / "cifar-100-binary.tar.gz",
        {
            "cifar-100-binary/train.bin": records(20),
            "cifar-100-binary/test.bin": records(8),
            "cifar-100-binary/coarse_label_names.txt": names("coarse", 20),
            "cifar-100-binary/fine_label_names.txt": names("fine", 100),
        },
    )
    info = cifar.Cifar100._cifar_info.fget
    url = f"{address}cifar-100-binary.tar.gz"
    monkeypatch.setattr(cifar.Cifar100, "_cifar_info", property(lambda builder: info(builder)._replace(url=url)))


def eurosat(directory: Path, address: str, data_dir: Path, monkeypatch) -> None:
    """Eight satellite images of two kinds."""
    from tensorflow_datasets.image_classification.eurosat import Eurosat

    files = {
        f"2750/{kind}/{kind}_{number}.jpg": simplejpeg.encode_jpeg(picture(number, 64, 64, 3))
        for number in range(4)
        for kind in ("Forest", "River")
    }
    write_zip(directory / "EuroSAT.zip", files)
    monkeypatch.setattr(Eurosat.BUILDER_CONFIGS[0], "download_url", f"{address}EuroSAT.zip")


def imagenet2012(directory: Path, address: str, data_dir: Path, monkeypatch) -> None:
    """Sixteen images to train on, one CMYK and one a PNG, and six to validate with, in archives in the data_dir."""
    buffer = io.BytesIO()
    Image.fromarray(picture(3, 20, 24, 4), "CMYK").save(buffer, "JPEG")
    archives = {}
    for kind in TREES:
        files = {f"{kind}_{number}.JPEG": jpeg(number) for number in range(7)}
        files |= {"n01739381_1309.JPEG": buffer.getvalue()} if kind == TREES[0] else {"n02105855_2933.JPEG": png(5, 3)}
        write_tar(directory / kind, files, "w:")
        archives[f"{kind}.tar"] = (directory / kind).read_bytes()
    manual = data_dir / "downloads" / "manual"
    manual.mkdir(parents=True)
    write_tar(manual / "ILSVRC2012_img_train.tar", archives, "w:")
    files = {f"ILSVRC2012_val_{number:08}.JPEG": jpeg(number) for number in range(1, 7)}
    write_tar(manual / "ILSVRC2012_img_val.tar", files, "w:")


BUILDERS = (cats_vs_dogs, tf_flowers, oxford_iiit_pet, cifar100, eurosat, imagenet2012)
