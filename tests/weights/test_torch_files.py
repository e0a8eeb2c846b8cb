"""Files that torch wrote. These tests need torch."""

import argparse
from pathlib import Path

import numpy as np
import pytest

from flax_resnets.errors import UserError
from flax_resnets.weights.sources import open_source

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")


def read(path: Path) -> dict[str, np.ndarray]:
    return {name: stored.read() for name, stored in open_source(path)[1].items()}


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin", ".ckpt", ".pth.tar", ".PTH"])
def test_a_state_dict_is_read(tmp_path, suffix):
    path = tmp_path / f"model{suffix}"
    weight = torch.nn.Parameter(torch.arange(6.0).reshape(2, 3))
    half = torch.tensor([1.5, -2], dtype=torch.bfloat16)
    torch.save({"model": {"module.fc.weight": weight, "module.fc.bias": half}, "epoch": 3}, path)
    arrays = read(path)
    np.testing.assert_array_equal(
        arrays["model/module.fc.weight"], np.arange(6, dtype=np.float32).reshape(2, 3), strict=True
    )
    np.testing.assert_array_equal(arrays["model/module.fc.bias"], np.float32([1.5, -2]), strict=True)


class Payload:
    def __init__(self, trace: Path):
        self.trace = trace

    def __reduce__(self):
        return Path.touch, (self.trace,)


@pytest.mark.parametrize("new", [True, False], ids=["zip", "older"])
def test_what_holds_more_than_tensors_is_refused_and_not_run(tmp_path, new):
    path, trace = tmp_path / "model.pth", tmp_path / "trace"
    for content in (Payload(trace), argparse.Namespace(lr=Payload(trace))):
        torch.save({"fc.weight": torch.zeros(3), "args": content}, path, _use_new_zipfile_serialization=new)
        with pytest.raises(
            UserError, match=r"not read by torch.load.*it holds a (pathlib.(Posix)?Path|getattr), which is not read; "
        ) as caught:
            read(path)
        assert len(str(caught.value)) < 600
    assert not trace.exists()


@pytest.mark.parametrize("new", [True, False], ids=["zip", "older"])
def test_the_arguments_of_a_command_line_are_harmless(tmp_path, new):
    path = tmp_path / "model.pth"
    arguments = argparse.Namespace(lr=0.1, names=["a"], nested=argparse.Namespace(x=1))
    content = {"state_dict": {"fc.weight": torch.ones(3)}, "args": arguments}
    torch.save(content, path, _use_new_zipfile_serialization=new)
    assert list(read(path)) == ["state_dict/fc.weight"]
    assert argparse.Namespace not in torch.serialization.get_safe_globals()


def test_a_whole_network_is_refused_by_the_name_of_its_class(tmp_path):
    path = tmp_path / "model.pth"
    torch.save(torch.nn.Linear(2, 2), path)
    with pytest.raises(UserError, match=r"it holds a [\w.]*(Linear|_nn)[\w.]*, .* torch.save\(model.state_dict"):
        read(path)


@pytest.mark.parametrize("content", [b"", b"noise", b"PK\3\4"])
def test_damaged_files_are_one_line(tmp_path, content):
    path = tmp_path / "model.pth"
    path.write_bytes(content)
    with pytest.raises(UserError, match="not read by torch"):
        read(path)


def test_a_tensor_alone_is_no_state_dict(tmp_path):
    path = tmp_path / "model.pth"
    torch.save(torch.zeros(3), path)
    with pytest.raises(UserError, match="holds a Tensor, not the dictionary"):
        read(path)
