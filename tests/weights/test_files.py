"""Reading files of weights, most of them damaged or hostile."""

import io
import json
import pickle
import sys
import tracemalloc
import types
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from flax.serialization import to_bytes
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flax_resnets.errors import UserError
from flax_resnets.weights.sources import open_source

ARRAYS = {
    "conv1.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2),
    "bn1.bias": np.array([1.5, -2.5], np.float16),
    "empty": np.zeros((0, 3), np.float32),
    "scalar": np.array(3.0),
    "counts": np.array([1, 2, 3]),
}


def read(path: Path | str) -> dict[str, np.ndarray]:
    return {name: stored.read() for name, stored in open_source(path)[1].items()}


def refused(path: Path | str) -> str:
    with pytest.raises(UserError) as caught:
        read(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def safetensors(arrays, **changes) -> bytes:
    """A valid file. `changes` replaces fields of the entry with that name."""
    dtypes = {"float32": "F32", "float16": "F16", "float64": "F64", "int64": "I64", "bfloat16": "BF16"}
    header, data = {"__metadata__": {"format": "pt"}}, b""
    for name, value in arrays.items():
        content = value.tobytes()
        offsets = [len(data), len(data) + len(content)]
        header[name] = {"dtype": dtypes[value.dtype.name], "shape": [*value.shape], "data_offsets": offsets}
        header[name] |= changes.get(name, {})
        data += content
    return with_header(json.dumps(header).encode(), data)


def with_header(header: bytes, data: bytes = b"") -> bytes:
    return len(header).to_bytes(8, "little") + header + data


def npz(save=np.savez, **arrays) -> bytes:
    buffer = io.BytesIO()
    save(buffer, **arrays)
    return buffer.getvalue()


@pytest.mark.parametrize(("suffix", "content"), [(".safetensors", safetensors(ARRAYS)), (".npz", npz(**ARRAYS))])
def test_files_give_what_was_written(tmp_path, suffix, content):
    path = tmp_path / f"model{suffix}"
    path.write_bytes(content)
    arrays = read(path)
    assert list(arrays) == list(ARRAYS)
    for name, expected in ARRAYS.items():
        np.testing.assert_array_equal(arrays[name], expected, strict=True)


def test_bfloat16_is_read(tmp_path):
    path = tmp_path / "model.safetensors"
    expected = np.array([1, -2.5, 3e38], ml_dtypes.bfloat16)
    path.write_bytes(safetensors({"x": expected}))
    np.testing.assert_array_equal(read(path)["x"], expected, strict=True)


def test_what_the_safetensors_library_writes_is_read(tmp_path):
    library = pytest.importorskip("safetensors.numpy")
    path = tmp_path / "model.safetensors"
    library.save_file(ARRAYS, path)
    for name, value in read(path).items():
        np.testing.assert_array_equal(value, ARRAYS[name], strict=True)


@pytest.mark.parametrize("order", ["C", "F"])
def test_npz_members_of_either_order_are_read(tmp_path, order):
    expected = np.asarray(ARRAYS["conv1.weight"], order=order)
    np.savez(tmp_path / "model.npz", x=expected)
    np.testing.assert_array_equal(read(tmp_path / "model.npz")["x"], expected)


X = {"x": np.zeros((2, 2), np.float32), "y": np.zeros(2, np.float32)}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "0 bytes are too few"),
        (b"\0" * 7, "7 bytes are too few"),
        ((100 * 2**30).to_bytes(8, "little") + b"{}", "its header claims 107374182400 bytes"),
        (b"\xff" * 64, "its header claims 18446744073709551615 bytes"),
        (safetensors(X)[:-1], "has data_offsets that do not fit its shape and dtype"),
        (safetensors(X)[:40], "its header claims"),
        (safetensors(X) + b"\0", "1 bytes belong to no tensor"),
        (with_header(b"[" * 100_000), "its header is no JSON (RecursionError)"),
        (with_header(b'{"a":' * 100_000), "its header is no JSON (RecursionError)"),
        (with_header(b"[1]"), "its header is no JSON object"),
        (with_header(b"\xff{}"), "its header is no JSON (UnicodeDecodeError)"),
        (with_header(b'{"x": ' + b"1" * 10_000 + b"}"), "its header is no JSON (ValueError)"),
        (with_header(b'{"x": 1}'), "the entry of 'x' is not"),
        (with_header(b'{"x": {}, "x": {}}'), "a name occurs twice"),
        (safetensors(X, x={"shape": [-2, -2]}), "the entry of 'x' is not"),
        (safetensors(X, x={"shape": [True, 4]}), "the entry of 'x' is not"),
        (safetensors(X, x={"shape": [2.0, 2]}), "the entry of 'x' is not"),
        (safetensors(X, x={"shape": [2] * 9}), "impossible shape"),
        (safetensors(X, x={"shape": [0, 10**30], "data_offsets": [0, 0]}), "impossible shape"),
        (safetensors(X, x={"shape": [2, 3]}), "'x' has data_offsets that do not fit"),
        (safetensors(X, x={"data_offsets": [16, 0]}), "'x' has data_offsets that do not fit"),
        (safetensors(X, x={"data_offsets": [10**18, 10**18 + 16]}), "'x' has data_offsets that do not fit"),
        (safetensors(X, x={"data_offsets": [-16, 0]}), "the entry of 'x' is not"),
        (safetensors(X, x={"data_offsets": [0, 16, 32]}), "the entry of 'x' is not"),
        (safetensors(X, x={"data_offsets": [8, 24]}), "overlap, or leave a gap"),
        (safetensors(X, y={"data_offsets": [8, 16]}), "overlap, or leave a gap"),
        (safetensors(X, x={"dtype": "O"}), "'x' has the dtype 'O'"),
        (safetensors(X, x={"dtype": ["F32"]}), "the entry of 'x' is not"),
    ],
)
def test_broken_safetensors_say_which_rule_they_break(tmp_path, content, message):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    assert f"{path}: not a whole .safetensors file: " in refused(path)
    assert message in refused(path)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_changed_bytes_are_an_error_or_the_same_names_and_shapes(tmp_path, data):
    """The format has no checksums, so a changed number is not noticed. Any other change must be refused."""
    content = bytearray(safetensors(ARRAYS))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "model.safetensors"
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        arrays = read(path)
    except UserError:
        return
    header = json.loads(path.read_bytes()[8 : 8 + int.from_bytes(path.read_bytes()[:8], "little")])
    header.pop("__metadata__", None)
    assert [[*value.shape] for value in arrays.values()] == [entry["shape"] for entry in header.values()]
    assert sum(value.nbytes for value in arrays.values()) <= len(content)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=200), suffix=st.sampled_from([".safetensors", ".npz"]))
def test_noise_is_an_error(tmp_path, content, suffix):
    path = tmp_path / f"model{suffix}"
    path.write_bytes(content)
    refused(path)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_changed_archive_is_an_error_or_the_exact_arrays(tmp_path, data):
    """A changed number is noticed by its checksum. A change of dates and the like may go unnoticed."""
    content = bytearray(npz(data.draw(st.sampled_from([np.savez, np.savez_compressed])), **ARRAYS))
    content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "model.npz"
    path.write_bytes(content[: data.draw(st.sampled_from([len(content), len(content) // 2]))])
    try:
        arrays = read(path)
    except UserError:
        return
    for value, expected in zip(arrays.values(), ARRAYS.values(), strict=True):
        np.testing.assert_array_equal(value, expected, strict=True)


class Payload:
    """Writes a file if it is unpickled."""

    def __init__(self, trace: Path):
        self.trace = trace

    def __reduce__(self):
        return Path.touch, (self.trace,)


@pytest.mark.parametrize("suffix", [".safetensors", ".npz"])
def test_a_pickle_in_disguise_is_not_run(tmp_path, suffix):
    path, trace = tmp_path / f"model{suffix}", tmp_path / "trace"
    path.write_bytes(pickle.dumps({"conv1.weight": Payload(trace)}))
    refused(path)
    assert not trace.exists()


def test_an_array_of_objects_is_not_run(tmp_path):
    path, trace = tmp_path / "model.npz", tmp_path / "trace"
    np.savez(path, x=np.array([Payload(trace)], dtype=object))
    assert "'x.npy' is not an array of numbers of the size it claims" in refused(path)
    assert not trace.exists()


def npy_header(**fields) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<f4", "fortran_order": False, "shape": (4,)} | fields)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("x.npy", npy_header(shape=(10**13,)))], "'x.npy' is not an array of numbers of the size it claims"),
        ([("x.npy", npy_header(shape=(-1, -4)) + b"\0" * 16)], "'x.npy' is not an array of numbers"),
        ([("x.npy", npy_header() + b"\0" * 15)], "'x.npy' is not an array of numbers of the size it claims"),
        ([("x.npy", b"\x93NUMPY\x02\x00" + b"\0" * 99)], "not a whole .npz file (ValueError)"),
        ([("x.txt", b"hello")], "not a whole .npz file (ValueError)"),
    ],
)
def test_broken_archives_are_one_line(tmp_path, members, message):
    path = tmp_path / "model.npz"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members:
            archive.writestr(name, content)
    assert message in refused(path)


@pytest.mark.filterwarnings("ignore:Reading `.npy` or `.npz` file required")
@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_changed_header_of_an_array_is_an_error_or_an_array_of_its_size(tmp_path, data):
    content = bytearray(npy_header() + b"\0" * 16)
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, 60))] = data.draw(st.integers(0, 255))
    path = tmp_path / "model.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", bytes(content))
    try:
        arrays = read(path)
    except UserError:
        return
    assert arrays["x"].nbytes <= len(content)


@pytest.mark.parametrize("descr", [(), [()], "nonsense", None, ["<f4"], "<f4\n", 3])
def test_dtypes_that_mean_nothing_are_one_line(tmp_path, descr):
    path = tmp_path / "model.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", npy_header(descr=descr) + b"\0" * 16)
    refused(path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_occurs_twice_is_refused(tmp_path):
    path = tmp_path / "model.npz"
    with zipfile.ZipFile(path, "w") as archive:
        for _ in range(2):
            archive.writestr("x.npy", npy_header() + b"\0" * 16)
    assert "a name occurs twice" in refused(path)


def test_claims_of_size_are_not_believed(tmp_path):
    """No memory is allocated for a header that claims 100 GB, or for a gigabyte of zeros that no network needs."""
    huge = tmp_path / "huge.safetensors"
    huge.write_bytes((100 * 10**9).to_bytes(8, "little") + b"{}")
    bomb = tmp_path / "bomb.npz"
    with (
        zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("x.npy", "w", force_zip64=True) as file,
    ):
        file.write(npy_header(shape=(2**24,)))
        for _ in range(64):
            file.write(b"\0" * 2**20)
    tracemalloc.start()
    refused(huge)
    assert open_source(bomb)[1]["x"].shape == (2**24,)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5_000_000


def test_a_directory_is_loaded_otherwise(tmp_path):
    found = (
        f"{tmp_path}: is a directory; a run's or a saved folder's weights are load_classifier('{tmp_path}').variables"
    )
    assert refused(tmp_path) == found


@pytest.mark.parametrize("name", ["model.pkl", "model", "model.safetensors.gz", "conv1", ".npz", "model.tar"])
def test_unknown_kinds_of_file_are_refused(tmp_path, name):
    endings = ".safetensors, .safetensors.index.json, .npz, .msgpack, .pth, .pt, .bin, .ckpt, .pth.tar"
    assert f"must end in {endings}, or be hf-hub:owner/name" in refused(tmp_path / name)


KINDS = [".safetensors", ".npz", ".msgpack", ".pth", ".bin", ".ckpt", ".pth.tar"]


@pytest.mark.parametrize("suffix", KINDS)
def test_files_that_are_not_there_are_one_line(tmp_path, suffix):
    path = tmp_path / f"model{suffix}"
    assert refused(path) == f"{path}: no such file"
    path.mkdir()
    assert refused(path) == f"{path}: no such file"


def test_endings_may_have_capitals_and_paths_a_home(tmp_path, monkeypatch):
    (tmp_path / "MODEL.SafeTensors").write_bytes(safetensors(ARRAYS))
    monkeypatch.setenv("HOME", str(tmp_path))
    for path in (tmp_path / "MODEL.SafeTensors", "~/MODEL.SafeTensors", Path("~/MODEL.SafeTensors")):
        assert list(read(path)) == list(ARRAYS)


@pytest.mark.parametrize("address", ["https://host/resnet18.pth", "HTTP://host/x.safetensors?download=true"])
def test_an_address_is_to_be_downloaded(address):
    assert refused(address) == (
        f"{address}: is an address; download the file, for example with curl -LO, and give its path"
    )


def test_a_message_about_a_long_path_is_short(tmp_path):
    path = tmp_path.joinpath(*["x" * 200] * 6, "model.npz")
    assert refused(path).endswith("/model.npz: no such file")
    path.parent.mkdir(parents=True)
    path.write_bytes(b"noise")
    assert "/model.npz: not a whole .npz file" in refused(path)
    assert len(refused(path)) <= 600


def test_trees_of_flax_are_read(tmp_path):
    path = tmp_path / "model.msgpack"
    path.write_bytes(to_bytes({"params": {"Dense_0": {"bias": ARRAYS["bn1.bias"]}}, "step": 3}))
    (tensor,) = read(path).items()
    assert tensor[0] == "params/Dense_0/bias"
    np.testing.assert_array_equal(tensor[1], ARRAYS["bn1.bias"], strict=True)


@pytest.mark.parametrize(
    "content",
    [b"", b"noise", to_bytes({"x": np.zeros(100)})[:-1], to_bytes([1]) + b"\0", pickle.dumps({}), b"\x81" * 9999],
)
def test_broken_trees_are_one_line(tmp_path, content):
    path = tmp_path / "model.msgpack"
    path.write_bytes(content)
    assert f"{path}: " in refused(path)


def sharded(folder: Path, places: dict[str, str], **files: dict[str, np.ndarray]) -> Path:
    """Writes an index and the files that it names; returns the path of the index."""
    for name, arrays in files.items():
        (folder / f"{name}.safetensors").write_bytes(safetensors(arrays))
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return index


def test_an_index_stands_for_the_tensors_of_its_files(tmp_path):
    (first, one), (second, two) = list(ARRAYS.items())[:2]
    places = {first: "a.safetensors", second: "b.safetensors"}
    index = sharded(tmp_path, places, a={first: one}, b={second: two})
    _, tensors = open_source(index)
    assert list(tensors) == [first, second]
    np.testing.assert_array_equal(tensors[second].read(), two, strict=True)


@pytest.mark.parametrize(
    ("places", "message"),
    [
        ({"x": "a.safetensors", "y": "gone.safetensors"}, "names gone.safetensors, which is not beside it"),
        ({"x": "a.safetensors", "y": "a.safetensors"}, "other tensors than the index says, such as 'y'"),
        ({"y": "a.safetensors"}, "a.safetensors has other tensors than the index says, such as 'x'"),
        ({"x": "../a.safetensors"}, "names '../a.safetensors', which is no .safetensors file beside it"),
        ({"x": "/etc/passwd"}, "names '/etc/passwd', which is no .safetensors file beside it"),
        ({"x": 3}, "names '3', which is no"),
        ({}, "has no weight_map"),
        ([], "has no weight_map"),
    ],
)
def test_an_index_that_is_wrong_is_one_line(tmp_path, places, message):
    assert message in refused(sharded(tmp_path, places, a={"x": np.ones(3, np.float32)}))


def test_without_torch_a_pth_file_names_the_extra(tmp_path, monkeypatch):
    path = tmp_path / "model.pth"
    path.write_bytes(b"")
    monkeypatch.setitem(sys.modules, "torch", None)
    assert "torch, which is not installed: pip install 'flax_resnets[torch]'" in refused(path)


def fake_hub(monkeypatch, answer) -> None:
    """A replacement for huggingface_hub, so that no test uses the network."""
    errors = types.ModuleType("huggingface_hub.errors")
    errors.EntryNotFoundError = type("EntryNotFoundError", (Exception,), {})
    errors.LocalEntryNotFoundError = type("LocalEntryNotFoundError", (errors.EntryNotFoundError,), {})
    errors.OfflineModeIsEnabled = type("OfflineModeIsEnabled", (ConnectionError,), {})
    errors.RepositoryNotFoundError = type("RepositoryNotFoundError", (Exception,), {})
    errors.GatedRepoError = type("GatedRepoError", (errors.RepositoryNotFoundError,), {})
    errors.RevisionNotFoundError = type("RevisionNotFoundError", (Exception,), {})
    hub = types.ModuleType("huggingface_hub")

    def hf_hub_download(repository, filename, revision):
        result = answer(errors, repository, filename, revision)
        if isinstance(result, Exception):
            raise result
        return str(result)

    hub.hf_hub_download = hf_hub_download
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    monkeypatch.setitem(sys.modules, "huggingface_hub.errors", errors)


def test_the_hubs_file_is_read(tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    path.write_bytes(safetensors(ARRAYS))
    asked = []
    fake_hub(monkeypatch, lambda errors, *request: asked.append(request) or path)
    label, tensors = open_source("hf-hub:timm/resnet18.a1_in1k")
    open_source("hf-hub:timm/resnet18.a1_in1k@v2")
    assert (label, list(tensors)) == ("hf-hub:timm/resnet18.a1_in1k", list(ARRAYS))
    assert asked == [
        ("timm/resnet18.a1_in1k", "model.safetensors", None),
        ("timm/resnet18.a1_in1k", "model.safetensors", "v2"),
    ]


def test_weights_by_timms_name_are_on_the_hub(tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    path.write_bytes(safetensors(ARRAYS))
    asked = []
    fake_hub(monkeypatch, lambda errors, *request: asked.append(request) or path)
    label, tensors = open_source("resnet18.a1_in1k")
    assert (label, list(tensors)) == ("hf-hub:timm/resnet18.a1_in1k", list(ARRAYS))
    assert asked == [("timm/resnet18.a1_in1k", "model.safetensors", None)]
    with pytest.raises(UserError, match=r"^resnet18.a_in1k: no such weights; did you mean resnet18.a3_in1k"):
        open_source("resnet18.a_in1k")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        ("LocalEntryNotFoundError", "the hub is out of reach"),
        ("OfflineModeIsEnabled", "the hub is out of reach"),
        ("EntryNotFoundError", "has none of the files model.safetensors, model.safetensors.index.json, pytorch_model"),
        ("GatedRepoError", "its owner asks for consent"),
        ("RevisionNotFoundError", "has no branch, tag or commit"),
        ("RepositoryNotFoundError", "no such repository"),
    ],
)
def test_the_hubs_refusals_are_told_in_one_line(monkeypatch, error, message):
    fake_hub(monkeypatch, lambda errors, *_: getattr(errors, error)("many\nlines"))
    with pytest.raises(UserError, match=f"^hf-hub:a/b: .*{message}"):
        open_source("hf-hub:a/b")


def test_other_failures_of_the_hub_are_one_line(monkeypatch):
    fake_hub(monkeypatch, lambda *_: OSError("connection\nreset"))
    with pytest.raises(UserError, match=r"^hf-hub:a/b: not downloaded \(OSError: connection reset\)$"):
        open_source("hf-hub:a/b")


def test_without_the_hubs_library_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match="needs huggingface_hub, which is not installed"):
        open_source("hf-hub:a/b")
