"""Files and directories in a bucket; and what is no bucket's path, in every place that takes one."""

import errno
import json
import os
import threading
from pathlib import Path

import pytest

import train
from flax_resnets import copies, storage
from flax_resnets.data.source import open_source
from flax_resnets.data.tfds.builder import _without_records
from flax_resnets.errors import UserError
from flax_resnets.paths import cache_root, expanded
from flax_resnets.training import loop
from flax_resnets.training.recipes import load_config
from flax_resnets.weights import load_weights

WRONG = {
    "gs:/bucket/x.py": "must be gs://BUCKET/PATH",
    "gs://": "must be gs://BUCKET/PATH",
    "gs:///x.py": "must be gs://BUCKET/PATH",
    "gs//bucket/x.py": "must be gs://BUCKET/PATH",
    "gs:bucket": "must be gs://BUCKET/PATH",
    "GS://bucket/x.py": "must be gs://BUCKET/PATH",
    "gcs://bucket/x.py": "must be gs://BUCKET/PATH",
    "gs://Bucket/x.py": "must be gs://BUCKET/PATH",
    "gs://bucket//x.py": "must be gs://BUCKET/PATH",
    "gs://bucket/../x.py": "must be gs://BUCKET/PATH",
    "gs://bucket/x?.py": "must be gs://BUCKET/PATH",
    "s3://bucket/x.py": "only gs:// buckets are served",
    "hdfs://host/x.py": "only gs:// buckets are served",
    "http://host/x.py": "only gs:// buckets are served",
    "https:/host/x.py": "only gs:// buckets are served",
    "file:///tmp/x.py": "only gs:// buckets are served",
}
SMALL = "--config=quickstart"


@pytest.fixture(autouse=True)
def nothing_is_made(tmp_path, monkeypatch):
    """No test makes anything in the working directory."""
    monkeypatch.chdir(tmp_path)
    yield
    assert os.listdir(tmp_path) == []


def said(capsys) -> str:
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert len(err) < 600
    return err


@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.parametrize("flag", ["--workdir", "--config", "--config.data_dir"])
def test_a_path_that_is_no_path_is_refused(wrong, flag, capsys):
    arguments = [f"{flag}={wrong}"] if flag == "--config" else [SMALL, f"{flag}={wrong}"]
    if flag == "--config.data_dir":
        arguments += ["--config.dataset=cifar10"]
    assert train.main(arguments) == 2
    err = said(capsys)
    assert f"{flag.rpartition('.')[2]}={wrong}: " in err
    assert WRONG[wrong] in err


@pytest.mark.parametrize("wrong", WRONG)
def test_weights_of_such_a_path_are_refused(wrong):
    from flax_resnets import ResNet

    right = "is an address; download the file" if wrong.startswith("http") else WRONG[wrong]
    with pytest.raises(UserError, match=right):
        load_weights(ResNet(stage_sizes=(1,), width=8), wrong)


@pytest.mark.parametrize("flag", ["--workdir", "--config", "--config.data_dir"])
def test_without_the_library_the_extra_is_named(flag, capsys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "gcsfs", None)
    arguments = [SMALL, "--config.dataset=cifar10", f"{flag}=gs://bucket/x.py"]
    assert train.main(arguments[flag == "--config" :]) == 2
    assert "gs://bucket/x.py: needs gcsfs, which is not installed: pip install 'flax_resnets[gcs]'" in said(capsys)


@pytest.mark.parametrize("variable", ["FLAX_RESNETS_CACHE", "XDG_CACHE_HOME"])
def test_caches_are_on_this_machine(variable, monkeypatch):
    monkeypatch.delenv("FLAX_RESNETS_CACHE")
    monkeypatch.setenv(variable, "gs://bucket/cache")
    with pytest.raises(UserError, match=f"{variable}=gs://bucket/cache: must be on this machine, no URL"):
        cache_root()


def test_pictures_are_on_this_machine(capsys):
    from flax_resnets import cli

    assert cli.main(["show-batch", SMALL, "--output=gs://bucket/x"]) == 2
    assert "must be on this machine" in said(capsys)


def test_a_local_name_like_a_bucket_is_written_with_a_dot():
    assert expanded("./gs:/bucket", "--workdir", buckets=True) == Path("gs:/bucket")


def test_a_run_has_a_path_of_its_own_in_the_bucket():
    with pytest.raises(UserError, match="workdir=gs://bucket: must be gs://BUCKET/PATH"):
        loop.run(load_config("quickstart"), "gs://bucket")


def place(name: str) -> Path:
    return storage.bucket_path(f"gs://bucket/{name}", "path")


def test_files_are_read_written_listed_moved_and_removed(emulator):
    directory = place("storage/files")
    assert storage.names(directory) is None
    assert storage.read(directory / "a") is None
    for number in range(120):  # more than a page of a listing
        storage.write(directory / f"sub{number % 60}" / f"{number}", b"%d" % number)
    storage.write(directory / "a", b"content")
    assert storage.read(directory / "a") == b"content"
    assert storage.names(directory) == {"a", *(f"sub{number}" for number in range(60))}
    assert len(storage.files(directory)) == 121
    storage.write(place("storage/files-not-in-it"), b"")
    storage.move(directory, place("storage/moved"))
    assert storage.names(directory) is None
    assert storage.read(place("storage/moved") / "sub3" / "63") == b"63"
    storage.remove(place("storage/moved"))
    assert storage.names(place("storage")) == {"files-not-in-it"}
    assert storage.exists(place("storage/files-not-in-it"))
    storage.remove(place("storage/files-not-in-it"))
    assert not storage.exists(place("storage"))


def test_a_conditional_write_is_one_writers(emulator):
    path = place("storage/one")
    generations = []
    writers = [
        threading.Thread(target=lambda n=n: generations.append(storage.write(path, b"%d" % n, 0))) for n in range(8)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(generations) == 8
    assert len(set(generations)) == 2
    assert generations.count(None) == 7


def test_a_written_file_whose_answer_was_lost_is_known_as_written(emulator):
    path = place("storage/lost answer")
    generation = storage.write(path, b"mine", 0)
    assert storage.write(path, b"mine", 0) == generation
    assert storage.write(path, b"another's", 0) is None


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # of a client whose connection was cut
def test_a_bucket_that_fails_now_and_then_is_asked_again(faults, monkeypatch):
    monkeypatch.setattr("google.cloud.storage.retry.DEFAULT_RETRY._initial", 0.01)
    faults.refused, faults.cut = 0.3, 0.3
    for number in range(10):
        storage.write(place(f"storage/flaky/{number}"), b"whole")
    faults.refused = faults.cut = 0.0
    assert {content for content, *_ in (faults.buckets["bucket"][f"storage/flaky/{n}"] for n in range(10))} == {
        b"whole"
    }


FAULTS = {
    503: "the bucket did not answer within 1 s: 503, as it was told to",
    429: "the bucket did not answer within 1 s: 429, as it was told to",
    400: "the bucket refuses it: 400, as it was told to",
    403: "the bucket refuses it: 403, as it was told to",
    401: "no valid credentials (Anonymous credentials cannot be refreshed.); on a VM its",
}


@pytest.mark.parametrize("status", FAULTS)
def test_a_bucket_that_fails_is_told_in_a_line(faults, status, capsys, monkeypatch):
    monkeypatch.setattr(storage, "_PATIENCE", 1.0)
    faults.status = status
    assert train.main([SMALL, "--workdir=gs://bucket/refused"]) == 2
    assert f"workdir=gs://bucket/refused: {FAULTS[status]}" in said(capsys)


def test_a_missing_bucket_is_told_in_a_line(emulator, capsys):
    assert train.main([SMALL, "--workdir=gs://no-such-bucket/x"]) == 2
    assert "workdir=gs://no-such-bucket/x: there is no bucket gs://no-such-bucket" in said(capsys)


def test_a_bucket_that_is_out_of_reach_is_told_in_a_line(emulator, capsys, monkeypatch):
    monkeypatch.setattr(storage, "_PATIENCE", 1.0)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9")
    assert train.main([SMALL, "--workdir=gs://bucket/x"]) == 2
    assert "workdir=gs://bucket/x: the bucket did not answer within 1 s" in said(capsys)


def test_missing_credentials_are_told_in_a_line(capsys, monkeypatch, tmp_path_factory):
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path_factory.mktemp("gcloud")))
    assert train.main([SMALL, "--workdir=gs://bucket/x"]) == 2
    assert "no valid credentials" in said(capsys)


def test_a_file_is_copied_once(emulator, monkeypatch):
    path = place("copies/weights.npz")
    content = bytes(range(256)) * 1000
    storage.write(path, content)
    monkeypatch.setattr(copies, "_PART", 100_000)
    local = copies.copied(path, "source")
    assert local.read_bytes() == content
    begun = len(emulator.requests)
    assert copies.copied(path, "source") == local
    assert len(emulator.requests) == begun + 1
    local.write_bytes(b"damaged")
    assert copies.copied(path, "source").read_bytes() == content
    storage.write(path, b"new")
    assert copies.copied(path, "source").read_bytes() == b"new"


def test_a_copy_that_was_cut_off_goes_on(emulator, monkeypatch):
    path = place("copies/long.npz")
    content = bytes(range(256)) * 1000
    storage.write(path, content)
    monkeypatch.setattr(copies, "_PART", 100_000)
    read, asked = storage.read_part, []

    def cut_off(path: Path, begin: int, size: int, generation: int) -> bytes:
        asked.append(begin)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return read(path, begin, size, generation)

    monkeypatch.setattr(storage, "read_part", cut_off)
    with pytest.raises(KeyboardInterrupt):
        copies.copied(path, "source")
    assert copies.copied(path, "source").read_bytes() == content
    assert asked == [0, 100_000, 100_000, 200_000]


def test_a_copy_that_was_damaged_on_the_way_is_not_used(emulator, monkeypatch):
    path = place("copies/damaged.npz")
    storage.write(path, b"right")
    with monkeypatch.context() as patch:
        patch.setattr(storage, "read_part", lambda *_: b"wrong")
        with pytest.raises(
            UserError, match=r"source=gs://bucket/copies/damaged.npz: the copy is not what the bucket has"
        ):
            copies.copied(path, "source")
    assert copies.copied(path, "source").read_bytes() == b"right"


@pytest.mark.parametrize("name", ["a/../../../../outside", "/outside", "a//b", "./a", "a\0b"])
def test_a_file_whose_name_is_no_path_is_refused(emulator, name):
    directory = f"gs://bucket/named{name.count('/')}{len(name)}"
    storage.write(place(f"{directory.rpartition('/')[2]}/good"), b"")
    emulator.write("bucket", f"{directory.rpartition('/')[2]}/{name}", b"theirs", {})
    before = {*cache_root().parent.rglob("*")}
    with pytest.raises(UserError, match=r"/named\d+: has a file named .*, which is no path"):
        copies.copied_directory(storage.bucket_path(directory, "source"), "source")
    assert {*cache_root().parent.rglob("*")} == before


@pytest.mark.parametrize("dataset", ["..", "", "../x", "a/../.."])
def test_a_dataset_whose_name_is_no_name_leaves_the_copies(emulator, dataset):
    storage.write(place("kept/weights.npz"), b"content")
    local = copies.copied(place("kept/weights.npz"), "source")
    with pytest.raises(UserError, match="must be a TFDS name"):
        open_source(dataset, "train", "gs://bucket")
    assert local.exists()


def test_a_full_disk_names_the_directory_of_the_copies(emulator, monkeypatch):
    storage.write(place("full/weights.npz"), b"content")
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # as `write` raises it, without a name
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(full))
    with pytest.raises(UserError) as caught:
        copies.copied(place("full/weights.npz"), "source")
    assert str(caught.value) == (
        f"source=gs://bucket/full/weights.npz: {cache_root()}/buckets/bucket/full: No space left on device; "
        "FLAX_RESNETS_CACHE names another directory; the same command goes on"
    )


def test_a_record_after_one_that_was_cut_off_is_kept(emulator):
    for name in "ab":
        storage.write(place(f"cut/{name}"), name.encode())
    local = copies.copied_directory(place("cut"), "source", lambda name: name == "a")
    listed = local / ".copied"
    listed.write_bytes(listed.read_bytes() + b'\n["b", ["a kill cut th')
    copies.copied_directory(place("cut"), "source")
    begun = len(emulator.requests)
    copies.copied_directory(place("cut"), "source")
    assert not [path for _, path in emulator.requests[begun:] if "alt=media" in path]


def test_weights_are_read_from_a_bucket(emulator, tmp_path_factory):
    import jax
    import numpy as np

    from flax_resnets import ResNet
    from flax_resnets.weights import export_state_dict

    model = ResNet(stage_sizes=(1,), width=8, num_classes=10)
    variables = jax.jit(model.init)(jax.random.key(0), np.ones((1, 32, 32, 3)))
    file = tmp_path_factory.mktemp("weights") / "model.npz"
    np.savez(file, **export_state_dict(model, variables))
    storage.write(place("weights/model.npz"), file.read_bytes())
    loaded = load_weights(model, "gs://bucket/weights/model.npz")
    jax.tree.map(np.testing.assert_array_equal, loaded, dict(variables))
    with pytest.raises(UserError, match=r"source=gs://bucket/weights/none.npz: there is no such file in the bucket"):
        load_weights(model, "gs://bucket/weights/none.npz")


def test_an_index_brings_the_files_that_it_names(emulator, tmp_path_factory):
    import numpy as np

    from flax_resnets.weights.safetensors_format import write_safetensors
    from flax_resnets.weights.sources import open_source

    shards = {
        "a.safetensors": {"fc.weight": np.ones((2, 3), np.float32)},
        "b.safetensors": {"fc.bias": np.ones(2, np.float32)},
    }
    made = tmp_path_factory.mktemp("weights")
    for name, tensors in shards.items():
        write_safetensors(made / name, tensors)
        storage.write(place(f"sharded/{name}"), (made / name).read_bytes())
    index = {"weight_map": {tensor: name for name, tensors in shards.items() for tensor in tensors}}
    storage.write(place("sharded/model.safetensors.index.json"), json.dumps(index).encode())
    _, tensors = open_source("gs://bucket/sharded/model.safetensors.index.json")
    assert {name: tensor.shape for name, tensor in tensors.items()} == {"fc.weight": (2, 3), "fc.bias": (2,)}
    storage.remove(place("sharded/b.safetensors"))
    with pytest.raises(UserError, match=r"sharded/b.safetensors: there is no such file in the bucket"):
        open_source("gs://bucket/sharded/model.safetensors.index.json")


def test_recipes_are_read_from_a_bucket(emulator):
    source = (Path(__file__).parents[1] / "configs" / "quickstart.py").read_bytes()
    storage.write(place("recipes/mine.py"), source)
    config = load_config("gs://bucket/recipes/mine.py", {"epochs": "7"})
    assert config == load_config("quickstart", {"epochs": "7"})
    storage.write(place("recipes/config.json"), config.to_json().encode())
    assert load_config("gs://bucket/recipes/config.json") == config
    with pytest.raises(UserError, match=r"--config=gs://bucket/recipes/none.py: No such file or directory"):
        load_config("gs://bucket/recipes/none.py")


@pytest.fixture(scope="module")
def data_dir(emulator) -> str:
    """The sample under another name, in a bucket."""
    original = open_source("fashion_mnist_sample", "train").directory
    for path in original.iterdir():
        content = path.read_bytes()
        if path.name == "dataset_info.json":
            content = content.replace(b"fashion_mnist_sample", b"my_images")
        name = path.name.replace("fashion_mnist_sample", "my_images")
        storage.write(place("tfds/my_images/1.0.0") / name, content)
    return "gs://bucket/tfds"


def test_a_dataset_in_a_bucket_is_copied_and_the_same(emulator, data_dir):
    begun = len(emulator.requests)
    source = open_source("my_images", "validation", data_dir)
    sample = open_source("fashion_mnist_sample", "validation")
    assert source.encoded(3) == sample.encoded(3)
    assert len(source) == len(sample)
    asked = " ".join(path for _, path in emulator.requests[begun:] if "alt=media" in path)
    assert "my_images-test.array_record" in asked
    assert "my_images-train.array_record" not in asked
    assert open_source("my_images:1.0.0", "train", data_dir).label(5) == open_source(
        "fashion_mnist_sample", "train"
    ).label(5)


def test_copying_records_is_said_on_stderr_unless_it_is_to_be_quiet(data_dir, monkeypatch, capsys):
    monkeypatch.setattr(copies, "_WORTH_A_WORD", 0)
    for quiet in ("0", "1"):
        monkeypatch.setenv("FLAX_RESNETS_QUIET", quiet)
        monkeypatch.setenv("FLAX_RESNETS_CACHE", f"{cache_root()}{quiet}")
        _without_records.cache_clear()
        open_source("my_images", "train", data_dir)
        found = capsys.readouterr()
        assert ("/my_images/1.0.0: copying 1 files, 0.00 GiB, to " in found.err) == (quiet == "0")
        assert found.out == ""
    _without_records.cache_clear()


@pytest.mark.parametrize(
    ("dataset", "directory", "message"),
    [
        ("my_images", "gs://bucket/nowhere", "data_dir=gs://bucket/nowhere: no such directory in the bucket"),
        (
            "my_images",
            "gs://no-such-bucket/tfds",
            "data_dir=gs://no-such-bucket/tfds: there is no bucket gs://no-such-",
        ),
        (
            "cifar10",
            "gs://bucket/tfds",
            "dataset='cifar10': is not prepared in data_dir=gs://bucket/tfds; prepare it on",
        ),
        ("my_imagse", "gs://bucket/tfds", "dataset='my_imagse': TFDS has no such dataset"),
        ("my_images:2.0.0", "gs://bucket/tfds", "dataset='my_images:2.0.0'"),
    ],
)
def test_a_dataset_that_is_not_there_is_told_in_a_line(data_dir, dataset, directory, message):
    with pytest.raises(UserError) as caught:
        open_source(dataset, "train", directory)
    assert message in str(caught.value)
    assert len(str(caught.value)) < 600


def test_a_folder_of_pictures_in_a_bucket_is_copied_and_the_same(emulator, tmp_path_factory):
    from PIL import Image

    root = tmp_path_factory.mktemp("pictures")
    for number in range(12):
        path = root / ("train", "val")[number % 3 == 0] / ("cat", "dog")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (number, 2 * number, 3)).save(path)
        storage.write(place("pictures") / path.relative_to(root).as_posix(), path.read_bytes())
    there = open_source("folder", "train", "gs://bucket/pictures")
    here = open_source("folder", "train", str(root))
    assert (len(there), there.class_names, there.fingerprint) == (8, ("cat", "dog"), here.fingerprint)
    with pytest.raises(UserError, match="data_dir=gs://bucket/no-pictures: no such directory in the bucket"):
        open_source("folder", "train", "gs://bucket/no-pictures")
