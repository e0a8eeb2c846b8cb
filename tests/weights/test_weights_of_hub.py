"""Weights of the Hugging Face hub, by its own library. The hub is a server on this machine."""

import hashlib
import http.server
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from flax_resnets import create_model, load_weights
from flax_resnets.inference.classifier import Classifier
from flax_resnets.inference.preprocess import Settings
from flax_resnets.weights.export import export_state_dict
from flax_resnets.weights.safetensors_format import write_safetensors

pytestmark = pytest.mark.hub

COMMIT = "1" * 40


class Answers(http.server.BaseHTTPRequestHandler):
    """`OWNER/NAME/resolve/REVISION/FILE` of the folders in `root`, as the hub gives large files."""

    root: Path
    asked: list[str]

    def do_GET(self):
        match = re.fullmatch(r"/(\w+/[\w.-]+)/resolve/(\w+)/(.+)", self.path)
        repository, revision, name = match.groups() if match else ("", "", "")
        if repository.startswith("gated/"):
            return self.answer(403, error="GatedRepo")
        if not (self.root / repository).is_dir() or not match:
            return self.answer(401, error="RepoNotFound")
        if revision not in ("main", COMMIT):
            return self.answer(404, error="RevisionNotFound")
        if not (self.root / repository / name).is_file():
            return self.answer(404, error="EntryNotFound")
        content = (self.root / repository / name).read_bytes()
        etag = hashlib.sha256(content).hexdigest()
        if repository == "me/altered" and name.endswith(".safetensors"):
            content = content[:-1] + bytes([content[-1] ^ 1])
        if self.command == "GET":
            self.asked.append(f"{repository}/{name}")
        self.answer(200, content, cut=repository == "me/cut", ETag=f'"{etag}"')

    do_HEAD = do_GET

    def answer(self, status: int, content: bytes = b"", cut: bool = False, error: str = "", **headers: str) -> None:
        self.send_response(status)
        headers |= {"Content-Length": str(len(content)), "X-Repo-Commit": COMMIT}
        for name, value in (headers | ({"X-Error-Code": error} if error else {})).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content[: len(content) // 2] if cut else content)

    def log_message(self, format, *args):
        pass


PROGRAM = """
import sys
import jax
from flax_resnets import create_model, load_classifier, load_weights
from flax_resnets.errors import UserError
for source in sys.argv[1:]:
    try:
        if source.startswith("classifier="):
            classifier = load_classifier(source.removeprefix("classifier="))
            variables, names = classifier.variables, classifier.class_names[:2]
        else:
            name = source.split(".")[0] if "/" not in source else "resnet20_cifar"
            variables, names = load_weights(create_model(name), source, (32, 32, 3)), ()
        print(float(variables["params"]["head"]["bias"][0]), *names)
    except UserError as error:
        print(error)
"""


@pytest.fixture
def hub(tmp_path) -> Iterator[Callable[..., tuple[list[str], list[str]]]]:
    """Opens sources in a new process; returns the lines that it prints, and the files that it downloads."""
    pytest.importorskip("huggingface_hub")
    root, asked = tmp_path / "hub", []
    handler = type("Handler", (Answers,), {"root": root, "asked": asked})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()

        def ask(*sources: str, **variables: str) -> tuple[list[str], list[str]]:
            asked.clear()
            settings = {
                "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
                "HF_HOME": str(tmp_path / "cache"),
                "HF_HUB_DISABLE_XET": "1",
                **variables,
            }
            done = subprocess.run(
                [sys.executable, "-W", "ignore", "-c", PROGRAM, *sources],
                env={**os.environ, **settings},
                capture_output=True,
                text=True,
                timeout=300,
                check=True,
            )
            lines = done.stdout.splitlines()
            assert len(lines) == len(sources)
            assert max(map(len, lines)) < 600
            return lines, sorted(set(asked))

        yield ask
        server.shutdown()
        thread.join()


def state_dict(name: str, bias: float) -> dict[str, np.ndarray]:
    """A network's weights, all of them 0 but the bias of its head."""
    model = create_model(name)
    shapes: Any = jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 32, 32, 3), np.float32))
    variables = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes)
    variables["params"]["head"]["bias"][:] = bias
    return dict(export_state_dict(model, variables))


def write(folder: Path, tensors: dict[str, np.ndarray], name: str = "model") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_safetensors(folder / f"{name}.safetensors", tensors)


def write_shards(folder: Path, tensors: dict[str, np.ndarray]) -> None:
    """As transformers writes a large model: two files and an index."""
    names = list(tensors)
    parts = {"model-00001-of-00002": names[:50], "model-00002-of-00002": names[50:]}
    for part, inside in parts.items():
        write(folder, {name: tensors[name] for name in inside}, part)
    places = {name: f"{part}.safetensors" for part, inside in parts.items() for name in inside}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))


def test_repositories_of_every_kind(hub, tmp_path):
    root, tensors = tmp_path / "hub", state_dict("resnet20_cifar", 0.5)
    write(root / "me" / "whole", tensors)
    write(root / "me" / "altered", tensors)
    write(root / "me" / "cut", tensors)
    write_shards(root / "me" / "sharded", tensors)
    (root / "me" / "old").mkdir()
    (root / "me" / "old" / "pytorch_model.bin").write_bytes(b"")
    (root / "me" / "empty").mkdir()
    write(root / "timm" / "resnet18.a1_in1k", state_dict("resnet18", 0.25))
    there = ("hf-hub:me/whole", f"hf-hub:me/whole@{COMMIT}", "hf-hub:me/sharded", "resnet18.a1_in1k")
    wrong = {
        "hf-hub:me/whole@dev": "has no branch, tag or commit 'dev'",
        "hf-hub:me/altered": "is damaged, its SHA-256 is another; remove it and try again",
        "hf-hub:me/cut": "hf-hub:me/cut: not downloaded (",
        "hf-hub:me/old": "pytorch_model.bin: ",  # torch is not installed, or does not read the file
        "hf-hub:me/empty": "has none of the files model.safetensors, model.safetensors.index.json, pytorch_model.bin",
        "hf-hub:me/gone": "the hub has no such repository, or you have no access to it",
        "hf-hub:gated/net": "its owner asks for consent; give it on the repository's page",
    }
    printed, downloaded = hub(*there, *wrong)
    assert printed[:4] == ["0.5", "0.5", "0.5", "0.25"]
    for line, (source, message) in zip(printed[4:], wrong.items(), strict=True):
        assert message in line, source
    assert {each for each in downloaded if "sharded" in each} == {
        "me/sharded/model.safetensors.index.json",
        "me/sharded/model-00001-of-00002.safetensors",
        "me/sharded/model-00002-of-00002.safetensors",
    }

    # What is in the cache is not downloaded again, and is there without the hub.
    assert hub(*there) == (printed[:4], [])
    offline, _ = hub(*there, "hf-hub:me/altered", "hf-hub:me/gone", HF_HUB_OFFLINE="1")
    assert offline[:4] == printed[:4]
    assert "is damaged" in offline[4]
    assert "the hub is out of reach and the file is not in its cache" in offline[5]


def test_classifiers(hub, tmp_path):
    tensors = state_dict("resnet20_cifar", 0.5)
    settings = Settings(
        model="resnet20_cifar", model_options={}, dataset="any", image_size=32, channels=3, mean=(0.5,), std=(0.25,)
    )
    variables = load_weights(create_model("resnet20_cifar"), tensors, (32, 32, 3))
    names = [f"class {number}" for number in range(1000)]
    whole, sharded = tmp_path / "hub" / "me" / "whole", tmp_path / "hub" / "me" / "sharded"
    Classifier(create_model("resnet20_cifar"), variables, settings, names).save(whole)
    write_shards(sharded, tensors)
    (sharded / "config.json").write_bytes((whole / "config.json").read_bytes())
    sources = [f"classifier=hf-hub:me/{name}" for name in ("whole", "sharded")]
    assert hub(*sources, f"classifier={sharded}")[0] == ["0.5 class 0 class 1"] * 3


@pytest.mark.torch
def test_folders_of_timm_and_transformers(hub, tmp_path):
    torch, timm, transformers = map(pytest.importorskip, ("torch", "timm", "transformers"))
    root = tmp_path / "hub"

    network = timm.create_model("resnet18", num_classes=1000)
    torch.nn.init.constant_(network.fc.bias, 0.25)
    timm.models.save_for_hf(network, str(root / "timm" / "resnet18.a1_in1k"), safe_serialization=True)

    config = transformers.ResNetConfig(
        depths=[2, 2, 2, 2], hidden_sizes=[64, 128, 256, 512], layer_type="basic", num_labels=3
    )
    network = transformers.ResNetForImageClassification(config)
    torch.nn.init.constant_(network.classifier[1].bias, 0.75)
    processor = transformers.ConvNextImageProcessor(size={"shortest_edge": 224}, crop_pct=0.875)
    for name in ("large", "old"):
        network.save_pretrained(root / "me" / name, max_shard_size="20MB")
        processor.save_pretrained(root / "me" / name)
    assert len(list((root / "me" / "large").glob("*.safetensors"))) > 1
    for path in (root / "me" / "old").glob("*.safetensors*"):
        path.unlink()
    torch.save(network.state_dict(), root / "me" / "old" / "pytorch_model.bin")

    sources = (
        "resnet18.a1_in1k",
        *(f"classifier={name}" for name in ("resnet18.a1_in1k", "hf-hub:me/large", "hf-hub:me/old")),
    )
    printed, _ = hub(*sources)
    assert [line.split()[0] for line in printed] == ["0.25", "0.25", "0.75", "0.75"]
    assert hub(*sources, HF_HUB_OFFLINE="1")[0] == printed
