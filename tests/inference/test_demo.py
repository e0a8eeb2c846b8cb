"""The demo's server: its answers, its limits, and whom it refuses."""

import base64
import dataclasses
import http.client
import io
import json
import socket
import struct
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
import pytest
from PIL import Image

from flax_resnets import Classifier, create_model
from flax_resnets.errors import UserError
from flax_resnets.inference import demo
from flax_resnets.inference.demo import MOST_BYTES, DemoServer
from flax_resnets.inference.preprocess import Settings

NAMES = ["<b>cat</b>", "dog & owl", "hen"]


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    settings = Settings(model="lenet", dataset="", image_size=28, channels=1, mean=(0.3,), std=(0.4,))
    model = create_model("lenet", num_classes=3)
    variables = jax.jit(model.init)(jax.random.key(0), np.zeros((1, 28, 28, 1), np.float32))
    return Classifier(model, jax.tree.map(lambda leaf: 3 * leaf, variables), settings, NAMES)


@pytest.fixture(scope="module")
def server(classifier):
    with DemoServer(classifier, 'runs/"quick"<start>', port=0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def asked(server, method: str, path: str, body: bytes = b"", **headers: str):
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60)
    connection.request(method, path, body or None, headers)
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response, content


def explained(server, body: bytes, query: str = "") -> tuple[int, dict]:
    response, content = asked(server, "POST", f"/explain{query}", body)
    return response.status, json.loads(content)


def png(seed: int = 0, size: int = 40) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size, size, 3)).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def pixels(address: str) -> np.ndarray:
    assert address.startswith("data:image/png;base64,")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))))


def test_the_answer_is_that_of_the_classifier(server, classifier):
    status, answer = explained(server, png())
    assert status == 200
    predictions = classifier.predict(png())[0]
    assert [(each["class_name"], each["index"]) for each in answer["predictions"]] == [each[:2] for each in predictions]
    assert [each["probability"] for each in answer["predictions"]] == pytest.approx([each[2] for each in predictions])
    (explanation,) = classifier.explain(png(), batch_size=1)
    assert answer["heat"]["index"] == predictions[0].index == explanation.index
    np.testing.assert_array_equal(pixels(answer["heat"]["overlay"]), explanation.overlay())
    np.testing.assert_array_equal(pixels(answer["heat"]["picture"]), explanation.picture[..., 0])


def test_a_picture_is_cropped_once(classifier):
    """With timm's weights the stored image is a part of a larger one."""
    settings = dataclasses.replace(classifier.settings, shorter_side=36, interpolation="bicubic", resize="crop")
    of_timm = Classifier(classifier.model, classifier.variables, settings, NAMES)
    with DemoServer(of_timm, "timm", port=0) as server:
        answer = server.answer(png())
    predictions = of_timm.predict(png(), batch_size=1)[0]
    assert [each["probability"] for each in answer["predictions"]] == [each.probability for each in predictions]
    (explanation,) = of_timm.explain(png(), batch_size=1)
    np.testing.assert_array_equal(pixels(answer["heat"]["picture"]), explanation.picture[..., 0])


def test_the_heat_map_of_another_class(server, classifier):
    for number in range(3):
        _, answer = explained(server, png(), f"?class={number}")
        assert (answer["heat"]["index"], answer["heat"]["class_name"]) == (number, NAMES[number])
        expected = classifier.explain(png(), number, batch_size=1)[0].overlay()
        np.testing.assert_array_equal(pixels(answer["heat"]["overlay"]), expected)
    assert explained(server, png(), "?class=3") == (
        422,
        {"error": "class_name=3: must be a class's name, or a number up to 2"},
    )
    assert explained(server, png(), "?class=-1") == (422, {"error": "class=-1: must be the number of a class"})


def test_the_page_loads_nothing_from_elsewhere(server):
    response, page = asked(server, "GET", "/")
    assert response.status == 200
    assert "default-src 'none'" in response.headers["Content-Security-Policy"]
    for path in ("/", "/page.css", "/page.js"):
        response, content = asked(server, "GET", path)
        assert response.status == 200
        text = content.decode()
        assert "//" not in text.replace("http://www.w3.org/2000/svg", "").replace("// ", "")
        assert "eval(" not in text
        assert "innerHTML" not in text
    assert "runs/\\&quot;quick\\&quot;&lt;start&gt;" in page.decode()
    assert asked(server, "GET", "/other")[0].status == 404
    assert asked(server, "POST", "/", b"x")[0].status == 404


def bomb() -> bytes:
    """A PNG of a few bytes that says it has 40,000 x 40,000 pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 40000, 40000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(9999))) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"no picture", "picture: not a JPEG, PNG"),
        (png()[:200], "picture: "),
        (b"\xff\xd8\xff\xe0" + bytes(50), "picture: "),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "picture: not a JPEG, PNG"),
        (bomb(), "picture: "),
        (b"", "picture: "),
    ],
    ids=["text", "cut PNG", "broken JPEG", "SVG", "bomb", "empty"],
)
def test_what_is_no_picture_is_named_in_one_line(server, body, message):
    status, answer = explained(server, body) if body else (422, json.loads(post_nothing(server)))
    assert status == 422
    assert answer["error"].startswith(message)
    assert len(answer["error"]) <= 600
    assert "\n" not in answer["error"]
    assert explained(server, png())[0] == 200


def post_nothing(server) -> bytes:
    response, content = asked(server, "POST", "/explain", **{"Content-Length": "0"})
    assert response.status == 422
    return content


def test_a_picture_that_is_too_large_is_refused(server):
    status, answer = explained(server, bytes(MOST_BYTES + 1))
    assert status == 413
    assert answer["error"] == "the picture has 20.0 MB; at most 20 MB are taken"
    with socket.create_connection(("127.0.0.1", server.server_port)) as connection:  # which sends none of it
        connection.sendall(f"POST /explain HTTP/1.1\r\nHost: 127.0.0.1:{server.server_port}\r\n".encode())
        connection.sendall(b"Content-Length: 999999999999\r\n\r\n")
        assert b" 413 " in connection.recv(100)
    assert asked(server, "POST", "/explain", png(), **{"Content-Length": "x"})[0].status == 411


def test_ten_pictures_at_once(server, classifier):
    pictures = [png(seed) for seed in range(10)]
    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(lambda picture: explained(server, picture), pictures))
    for picture, (status, answer) in zip(pictures, answers, strict=True):
        assert status == 200
        best = classifier.predict(picture, batch_size=1)[0][0]
        assert answer["predictions"][0] == pytest.approx(best._asdict())


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 421),
        ({"Host": "evil.example:{port}"}, 421),
        ({"Host": "127.0.0.1"}, 421),
        ({"Host": "localhost:{port}"}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1:{port}"}, 200),
    ],
)
def test_only_its_own_page_may_ask(server, headers, status):
    headers = {name: value.replace("{port}", str(server.server_port)) for name, value in headers.items()}
    assert asked(server, "POST", "/explain", png(), **headers)[0].status == status
    assert asked(server, "GET", "/", **headers)[0].status == status


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.0.0.1:80"])
def test_at_port_80_browsers_name_no_port(server, monkeypatch, host):
    port = server.server_port
    monkeypatch.setattr(server, "server_port", 80)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/", headers={"Host": host, "Origin": f"http://{host}"})
    assert connection.getresponse().status == 200
    connection.close()


def test_it_listens_on_this_machine_alone(server):
    assert server.server_address[0] == "127.0.0.1"
    assert server.address == f"http://127.0.0.1:{server.server_port}/"


def test_a_browser_that_goes_away_is_no_error(server, capfd):
    with socket.create_connection(("127.0.0.1", server.server_port)) as connection:
        connection.sendall(f"POST /explain HTTP/1.1\r\nHost: 127.0.0.1:{server.server_port}\r\n".encode())
        connection.sendall(b"Content-Length: 5000\r\n\r\nabc")
    assert explained(server, png())[0] == 200
    assert capfd.readouterr() == ("", "")


def test_a_port_in_use_is_named(server, classifier):
    with pytest.raises(UserError, match=rf"port={server.server_port}: Address already in use; name another port"):
        DemoServer(classifier, "quickstart", server.server_port)
    with pytest.raises(UserError, match="port=70000: must be a whole number from 0 to 65535"):
        DemoServer(classifier, "quickstart", 70000)


def test_a_network_without_places_has_classes_alone(classifier, monkeypatch):
    monkeypatch.setattr(demo, "stages", lambda _: {"conv1": (1, 1)})
    with DemoServer(classifier, "flat", 0) as server:
        answer = server.answer(png())
    assert len(answer["predictions"]) == 3
    assert set(answer["heat"]) == {"index"}


def test_a_network_without_classes_is_refused(classifier):
    headless = Classifier(classifier.model.clone(num_classes=0), classifier.variables, classifier.settings, ())
    with pytest.raises(UserError, match="headless: has no classes to show"):
        DemoServer(headless, "headless", 0)
