"""benchmarks/accelerator_pack.py on a few images: what it packs is read under the same names."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import accelerator_pack
from benchmarks.on_accelerator.results import packed_sets
from flax_resnets.data.source import SAMPLE, open_source
from flax_resnets.data.tfds import SAMPLE_DIR


@pytest.fixture
def data_dir(tmp_path) -> Path:
    """A `data_dir` with an Imagenette of five training and three validation images, and the sample as Fashion-MNIST."""
    from array_record.python import array_record_module
    from tensorflow_datasets.proto import tf_example_pb2

    data_dir = tmp_path / "tfds"
    directory = data_dir / "imagenette" / "160px-v2" / "1.0.0"
    directory.mkdir(parents=True)
    counts = {"train": 5, "validation": 3}
    for split, count in counts.items():
        path = directory / f"imagenette-{split}.array_record-00000-of-00001"
        writer = array_record_module.ArrayRecordWriter(str(path), "group_size:1")
        for number in range(count):
            file = io.BytesIO()
            Image.fromarray(np.full((160, 200, 3), 40 * number, np.uint8)).save(file, "JPEG")
            example = tf_example_pb2.Example()
            example.features.feature["image"].bytes_list.value.append(file.getvalue())
            example.features.feature["label"].int64_list.value.append(number)
            writer.write(example.SerializeToString())
        writer.close()
    module = "tensorflow_datasets.core.features"
    features = {
        "pythonClassName": f"{module}.features_dict.FeaturesDict",
        "featuresDict": {
            "features": {
                "image": {
                    "pythonClassName": f"{module}.image_feature.Image",
                    "image": {"shape": {"dimensions": ["-1", "-1", "3"]}, "dtype": "uint8", "encodingFormat": "jpeg"},
                },
                "label": {
                    "pythonClassName": f"{module}.class_label_feature.ClassLabel",
                    "classLabel": {"numClasses": "10"},
                },
            }
        },
    }
    (directory / "features.json").write_text(json.dumps(features))
    (directory / "label.labels.txt").write_text("\n".join(f"class {number}" for number in range(10)))
    template = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
    info = {
        "name": "imagenette",
        "configName": "160px-v2",
        "version": "1.0.0",
        "description": "Ten classes.",
        "fileFormat": "array_record",
        "splits": [
            {"name": split, "filepathTemplate": template, "numBytes": "9", "shardLengths": [str(count)]}
            for split, count in counts.items()
        ],
    }
    (directory / "dataset_info.json").write_text(json.dumps(info))
    fashion = data_dir / "fashion_mnist" / "3.0.1"
    fashion.mkdir(parents=True)
    (sample,) = (SAMPLE_DIR / SAMPLE).glob("[0-9]*")
    for path in sample.iterdir():
        content = path.read_bytes()
        if path.suffix == ".json":
            content = content.replace(SAMPLE.encode(), b"fashion_mnist").replace(b'"1.0.0"', b'"3.0.1"')
        (fashion / path.name.replace(SAMPLE, "fashion_mnist")).write_bytes(content)
    return data_dir


@pytest.fixture
def no_downloads(monkeypatch):
    def wheels(folder: Path) -> None:
        folder.mkdir(parents=True)
        (folder / "six-1-py3-none-any.whl").write_bytes(b"a wheel")

    monkeypatch.setattr(accelerator_pack, "download_wheels", wheels)


def test_what_is_packed_is_read_under_its_name(tmp_path, data_dir, no_downloads, capsys):
    output = tmp_path / "packed"
    assert accelerator_pack.main(["--data_dir", str(data_dir), "--output", str(output)]) == 0
    assert sorted(path.name for path in output.iterdir()) == ["fashion_mnist", "imagenette", "wheels"]
    assert len(capsys.readouterr().out.splitlines()) == 3
    for folder in output.iterdir():
        assert (folder / "wheels" / "six-1-py3-none-any.whl").exists()
        assert set(accelerator_pack.WHEELS) == set((folder / "requirements.txt").read_text().split())
    for split in ("train", "validation"):
        theirs = open_source("imagenette/160px-v2", split, data_dir)
        packed = open_source("imagenette/160px-v2", split, output / "imagenette" / "data")
        assert len(packed) == len(theirs)
        assert packed.class_names == theirs.class_names
        for index in range(len(theirs)):
            assert packed.label(index) == theirs.label(index)
            image = packed.image(index)
            assert image.shape == (128, 128, 3)
            assert abs(int(image.mean()) - 40 * index) <= 2
    sets = packed_sets(output / "imagenette" / "data")
    assert sets["imagenette/160px-v2"]["fields"] == {"store_size": "128"}
    assert "JPEGs of 128 px and quality" in sets["imagenette/160px-v2"]["differs"]
    fashion = output / "fashion_mnist" / "data"
    assert len(open_source("fashion_mnist", "train", fashion)) == len(open_source("fashion_mnist", "train", data_dir))
    assert packed_sets(fashion)["fashion_mnist"]["differs"] is None


def test_a_folder_that_would_be_too_large_is_not_left_behind(tmp_path, data_dir, no_downloads, capsys, monkeypatch):
    monkeypatch.setattr(accelerator_pack, "MOST_BYTES", 1000)
    output = tmp_path / "packed"
    assert accelerator_pack.main(["--data_dir", str(data_dir), "--output", str(output), "--only", "imagenette"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("accelerator_pack.py: imagenette: ")
    assert err.count("\n") == 1
    assert list(output.iterdir()) == []


def test_a_folder_that_is_there_is_left_alone(tmp_path, no_downloads, capsys):
    (tmp_path / "wheels").mkdir()
    (tmp_path / "wheels" / "theirs").write_text("kept")
    assert accelerator_pack.main(["--output", str(tmp_path), "--only", "wheels"]) == 2
    assert "has wheels already; delete it, or name another directory" in capsys.readouterr().err
    assert (tmp_path / "wheels" / "theirs").read_text() == "kept"


def test_data_that_is_not_there_is_named(tmp_path, no_downloads, capsys):
    line = ["--data_dir", str(tmp_path / "nowhere"), "--output", str(tmp_path / "out"), "--only", "fashion_mnist"]
    assert accelerator_pack.main(line) == 2
    err = capsys.readouterr().err
    assert f"data_dir='{tmp_path / 'nowhere'}': no such directory" in err
    assert err.count("\n") == 1


def test_pip_that_gets_nothing_is_named(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(accelerator_pack, "WHEELS", ("no_such/name",))
    assert accelerator_pack.main(["--output", str(tmp_path / "out"), "--only", "wheels"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("accelerator_pack.py: no_such/name: pip gets no wheel of it: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--only nosuch", "--only: invalid choice: 'nosuch'"),
        ("--only wheels --output /proc/nowhere", "--output=/proc/nowhere: No such file or directory; name a directory"),
    ],
)
def test_a_mistake_is_one_line(capsys, line, words):
    assert accelerator_pack.main(line.split()) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"accelerator_pack.py: {words}")
    assert err.count("\n") == 1
