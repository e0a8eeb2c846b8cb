"""Files, paths and mappings that are no weights, or whose headers must not be trusted."""

import io
import json
import os
import pickle
import zipfile

import numpy as np
import pytest
from watching import listing, short

from flax_resnets import ResNet
from flax_resnets.errors import UserError
from flax_resnets.weights import load_weights

MODEL = ResNet(stage_sizes=(1,), width=8, num_classes=10)
DEEP = b"[" * 100_000


class Payload:
    def __reduce__(self):
        return os.mkdir, ("canary",)


def safetensors(header: object, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(dtype: object = "F32", shape: object = (1,), offsets: object = (0, 4)) -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def npy(shape: object = (1,), descr: object = "<f4", data: bytes = b"\0" * 4, order: object = False) -> bytes:
    header = repr({"descr": descr, "fortran_order": order, "shape": shape}).encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + data


def archive(*members: tuple[str, bytes], kind: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", kind) as file:
        for name, content in members:
            file.writestr(name, content)
    return buffer.getvalue()


def objects() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **{"conv1.weight": np.array([Payload()], dtype=object)})
    return buffer.getvalue()


WHOLE = archive(("conv1.weight.npy", npy()))

FILES: dict[str, list[bytes]] = {
    ".safetensors": [
        (2**60).to_bytes(8, "little") + b"{}",
        (2**63).to_bytes(8, "little") + b"{}",
        (4_000_001).to_bytes(8, "little") + b" " * 4_000_001,
        safetensors(b""),
        safetensors(b"null"),
        safetensors(b'"text"'),
        safetensors(b"{}" * 2),
        safetensors(DEEP),
        safetensors(b'{"a":' * 100_000),
        safetensors(b'{"a": NaN}'),
        safetensors({"conv1.weight": None}),
        safetensors({"conv1.weight": []}),
        safetensors({"conv1.weight": entry("PICKLE")}, b"\0" * 4),
        safetensors({"conv1.weight": entry("f4")}, b"\0" * 4),
        safetensors({"conv1.weight": entry("F32\n\x1b[2J")}, b"\0" * 4),
        safetensors({"conv1.weight": entry(None)}, b"\0" * 4),
        safetensors({"conv1.weight": entry(shape=[10**12, 10**12])}, b"\0" * 4),
        safetensors({"conv1.weight": entry(shape=[2**64])}, b"\0" * 4),
        safetensors({"conv1.weight": entry(shape=["1"])}, b"\0" * 4),
        safetensors({"conv1.weight": entry(shape={"0": 1})}, b"\0" * 4),
        safetensors({"conv1.weight": entry(shape=[[1]])}, b"\0" * 4),
        safetensors({"conv1.weight": entry(shape=[1e0])}, b"\0" * 4),
        safetensors({"conv1.weight": entry(offsets=[0, 2**63])}, b"\0" * 4),
        safetensors({"conv1.weight": entry(offsets=[4, 0])}, b"\0" * 4),
        safetensors({"conv1.weight": entry(offsets=[None, 4])}, b"\0" * 4),
        safetensors({"conv1.weight": entry(), "bn1.bias": entry()}, b"\0" * 4),
        safetensors({"../../evil": entry()}, b"\0" * 4),
        safetensors({"/etc/passwd": entry()}, b"\0" * 4),
        safetensors({"a\nb\x1b[2J\0": entry()}, b"\0" * 4),
        safetensors({"x" * 100_000: entry()}, b"\0" * 4),
        safetensors({"\u202e": entry()}, b"\0" * 4),
        safetensors({str(n): entry(shape=[0], offsets=[0, 0]) for n in range(30_000)}),
        safetensors({"__metadata__": entry()}, b"\0" * 4),
        safetensors({"__metadata__": {"__reduce__": "os.mkdir('canary')"}}),
        pickle.dumps(Payload()),
        WHOLE,
    ],
    ".npz": [
        b"",
        b"PK\x05\x06" + b"\0" * 18,
        b"PK\x05\x06" + b"\xff" * 18,
        b"PK\x03\x04" + b"\xff" * 100,
        b"\0" * 1000,
        pickle.dumps(Payload()),
        npy(),
        objects(),
        WHOLE[:-1],
        WHOLE[1:],
        WHOLE + b"\0",
        WHOLE[:40] + bytes(20) + WHOLE[60:],
        archive(("x.npy", b"")),
        archive(("x.npy", b"\x93NUMPY")),
        archive(("x.npy", b"\x93NUMPY\x03\x00\xff\xff\xff\xff")),
        archive(("x.npy", b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 65535)),
        archive(("x.npy", pickle.dumps(Payload()))),
        archive(("x.npy", npy(shape=(10**12, 10**12)))),
        archive(("x.npy", npy(shape=(2**63,)))),
        archive(("x.npy", npy(shape=(-1,)))),
        archive(("x.npy", npy(shape="__import__('os').mkdir('canary')"))),
        archive(("x.npy", npy(shape=1))),
        archive(("x.npy", npy(shape=[1]))),
        archive(("x.npy", npy(shape=(1.0,)))),
        archive(("x.npy", npy(shape=(True,)))),
        archive(("x.npy", npy(descr="|O"))),
        archive(("x.npy", npy(descr=[("a", "|O")]))),
        archive(("x.npy", npy(descr=[("a", "<f4")]))),
        archive(("x.npy", npy(descr="<f4\0"))),
        archive(("x.npy", npy(descr="<U1"))),
        archive(("x.npy", npy(descr="<M8[s]", data=bytes(8)))),
        archive(("x.npy", npy(descr="V4"))),
        archive(("x.npy", npy(descr="<c8", data=bytes(8)))),
        archive(("x.npy", npy(order="yes"))),
        archive(("x.npy", npy(data=b""))),
        archive(("x.npy", npy(data=b"\0" * 5))),
        archive(("../../evil.npy", npy())),
        archive(("/etc/evil.npy", npy())),
        archive(("a\nb\x1b[2J.npy", npy())),
        archive(("x" * 60_000 + ".npy", npy())),
        archive(("link/", b"")),
        archive(("x.npy", npy()), kind=zipfile.ZIP_LZMA),
        archive(("x.npy", npy()), kind=zipfile.ZIP_BZIP2),
        archive(("x.npy", npy((10**8,), data=b"")), ("y.npy", npy()), kind=zipfile.ZIP_DEFLATED),
    ],
    ".pth": [b"", pickle.dumps(Payload()), pickle.dumps({"conv1.weight": Payload()}), DEEP, WHOLE],
    ".bin": [pickle.dumps(Payload())],
    ".ckpt": [pickle.dumps(Payload())],
    ".safetensors\n": [safetensors({})],
    ".NPZ": [WHOLE],
}
CASES = [
    pytest.param(suffix, content, id=f"{short(suffix)}-{number}")
    for suffix, contents in FILES.items()
    for number, content in enumerate(contents)
]


def refusal(source) -> str:
    with pytest.raises(UserError) as caught:
        load_weights(MODEL, source)
    line = str(caught.value)
    assert line.isprintable()
    assert len(line) <= 600
    return line


@pytest.mark.parametrize(("suffix", "content"), CASES)
def test_a_file_that_is_no_weights(sandbox, capfd, suffix, content):
    path = sandbox / "work" / f"model{suffix}"
    path.write_bytes(content)
    before = listing(sandbox)
    assert "/work/model" in refusal(path)
    assert listing(sandbox) == before
    assert capfd.readouterr() == ("", "")


def test_places_that_hold_no_file(sandbox):
    work = sandbox / "work"
    os.mkfifo(work / "pipe.npz")
    (work / "loop.npz").symlink_to("loop.npz")
    (work / "directory.npz").mkdir()
    for place in PATHS:
        refusal(place)


PATHS = ["pipe.npz", "loop.npz", "directory.npz", "", ".", "/", "x\0.npz", "x" * 300 + ".npz", "x/" * 5000 + "x.npz"]
PATHS += ["a\nb.npz", "\x1b[2J.npz", "~/x.npz", "/dev/zero", "http://127.0.0.1:9/x.npz", "file:///etc/x.npz"]

WEIGHT = np.zeros((8, 3, 7, 7), np.float32)

MAPPINGS: list[object] = [
    {},
    {"state_dict": {}},
    {"model": {"model": {"conv1.weight": WEIGHT}}},
    {1: WEIGHT},
    {None: WEIGHT},
    {("conv1", "weight"): WEIGHT},
    {"conv1.weight\n\x1b[2J": WEIGHT},
    {"conv1.weight": None},
    {"conv1.weight": [[0.0]]},
    {"conv1.weight": 3.0},
    {"conv1.weight": b"\0" * 4},
    {"conv1.weight": "os.mkdir('canary')"},
    {"conv1.weight": Payload()},
    {"conv1.weight": {"conv1.weight": WEIGHT}},
    {"conv1.weight": np.empty(WEIGHT.shape, object)},
    {"conv1.weight": np.full(WEIGHT.shape, "x")},
    {"conv1.weight": np.zeros(WEIGHT.shape, "M8[s]")},
    {"conv1.weight": np.zeros(WEIGHT.shape, complex)},
    {"conv1.weight": np.zeros(WEIGHT.shape, [("a", "f4")])},
    {"conv1.weight": np.zeros(WEIGHT.shape, bool)},
    {"conv1.weight": np.full(WEIGHT.shape, np.nan, np.float32)},
    {"conv1.weight": np.full(WEIGHT.shape, 1e300)},
    {"conv1.weight": np.broadcast_to(np.float32(0), (10**6, 10**6))},
    {"conv1.weight": np.float32(0)},
    {"bn1.running_var": np.full(8, -1, np.float32)},
]


@pytest.mark.parametrize("mapping", MAPPINGS, ids=range(len(MAPPINGS)))
def test_a_mapping_that_is_no_weights(sandbox, mapping):
    assert refusal(mapping).startswith("source: ")
    assert not list((sandbox / "work").iterdir())


@pytest.mark.parametrize("source", [None, 3, b"model.npz", [], object()], ids=range(5))
def test_a_source_that_is_none(source):
    assert refusal(source).startswith("source=")
