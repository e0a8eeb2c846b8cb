"""A page on this machine that classifies pictures and shows their heat maps; see `DemoServer`.

The server is Python's own: three static files and one kind of request need no framework. Gradio would bring a hundred
packages, loads fonts from the network and reports its use; starlette and uvicorn would be an extra to install.
"""

import base64
import http.server
import io
import json
import socketserver
import threading
import urllib.parse
from http import HTTPStatus
from importlib import resources
from typing import Any

import numpy as np
from PIL import Image

from flax_resnets.errors import UserError
from flax_resnets.inference.classifier import Classifier
from flax_resnets.inference.explain import explain, stages
from flax_resnets.inference.images import Item, Stored

MOST_BYTES = 20_000_000
"""Size of the largest picture that the page takes."""

_ADDRESS = "127.0.0.1"
_PORT_OF_HTTP = 80  # which browsers leave out of a request's Host and Origin
_DRAINED = 8 * MOST_BYTES  # what is read of a picture that is too large, so that its sender reads the answer
_SECONDS = 60  # after which a connection that stands still is closed
_TOP = 5
_FILES = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
}
_HEADERS = {
    # The page loads its own files and nothing else, and no other page may show it in a frame.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class DemoServer(http.server.ThreadingHTTPServer):
    """Serves the page on 127.0.0.1, for this machine alone.

    `GET /` is the page. `POST /explain` takes a picture's bytes and answers with the most probable classes and two
    pictures, as JSON; `?class=3` asks for the heat map of another class than the most probable one. Requests whose Host
    header names another address are refused, so that no page of a stranger can reach the server by a name that it
    makes lead here (DNS rebinding); so are those that another page sends. Pictures are classified one after the other.

    Args:
        classifier: classifies the pictures.
        source: what the page calls it.
        port: to listen on; 0 for any that is free.

    Attributes:
        address: of the page, such as `http://127.0.0.1:7860/`.

    Raises:
        UserError: the port is in use, or the classifier has no classes.

    Example:
        >>> DemoServer(load_classifier("runs/quickstart"), "quickstart").serve_forever()  # doctest: +SKIP
    """

    daemon_threads = True
    allow_reuse_port = False  # two servers must not share a port
    request_queue_size = 64

    def __init__(self, classifier: Classifier, source: str, port: int = 7860):
        if not classifier.class_names:
            raise UserError(f"{source}: has no classes to show, because num_classes=0")
        self.classifier = classifier
        self.source = source
        self._one_at_a_time = threading.Lock()
        self._has_places = any(height * width > 1 for height, width in stages(classifier).values())
        try:
            super().__init__((_ADDRESS, port), _Handler)
        except OverflowError:
            raise UserError(f"port={port}: must be a whole number from 0 to 65535") from None
        except OSError as error:
            raise UserError(f"port={port}: {error.strerror}; name another port, or 0 for any that is free") from None
        self.address = f"http://{_ADDRESS}:{self.server_port}/"

    def server_bind(self) -> None:
        """Binds without asking a name server for this machine's name."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.server_address[:2]  # pyright: ignore[reportAttributeAccessIssue]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says nothing of a browser that has gone away."""

    def warm_up(self) -> None:
        """Compiles the network, so that the first picture need not wait."""
        self.answer(base64.b64decode(_png(np.zeros((1, 1, 1), np.uint8)).partition(",")[2]))

    def answer(self, picture: bytes, class_index: int | None = None) -> dict[str, Any]:
        """What the page shows of a picture.

        Args:
            picture: the bytes of an image file.
            class_index: the class of the heat map; None for the most probable one.

        Raises:
            UserError: the bytes are no picture, or there is no such class.
        """
        with self._one_at_a_time:  # a picture of 89 million pixels takes 300 MB
            stored = [Stored("picture", self.classifier.preprocess.stored(Item("picture", picture)))]
            (predictions,) = self.classifier.predict(stored, _TOP, batch_size=1)
            shown: dict[str, Any] = {"index": predictions[0].index}
            if self._has_places:
                (explanation,) = explain(self.classifier, stored, class_index, batch_size=1)
                shown = {
                    "index": explanation.index,
                    "class_name": explanation.class_name,
                    "stage": explanation.stage,
                    "picture": _png(explanation.picture),
                    "overlay": _png(explanation.overlay()),
                }
        return {"predictions": [each._asdict() for each in predictions], "heat": shown}


class _Handler(http.server.BaseHTTPRequestHandler):
    server: DemoServer  # pyright: ignore[reportIncompatibleVariableOverride]
    timeout = _SECONDS
    server_version, sys_version = "flax_resnets", ""

    def do_GET(self) -> None:
        if not self._may():
            return
        path = self.path.partition("?")[0]
        if path not in _FILES:
            self._error(HTTPStatus.NOT_FOUND, "no such page")
            return
        name, kind = _FILES[path]
        content = resources.files(__name__).joinpath(name).read_text(encoding="utf-8")
        if name == "page.html":
            about = {"source": self.server.source, "most_bytes": MOST_BYTES}
            content = content.replace("{about}", _in_attribute(json.dumps(about)))
        self._send(HTTPStatus.OK, content.encode(), kind)

    def do_POST(self) -> None:
        path, _, query = self.path.partition("?")
        if not self._may():
            return
        if path != "/explain":
            self._error(HTTPStatus.NOT_FOUND, "no such page")
            return
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdecimal() and len(length) < 20):
            self._error(HTTPStatus.LENGTH_REQUIRED, "the picture's size is missing")
            return
        if int(length) > MOST_BYTES:
            self._error(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"the picture has {int(length) / 1e6:,.1f} MB; at most {MOST_BYTES // 10**6} MB are taken",
            )
            self._drain(int(length))
            return
        picture = self.rfile.read(int(length))
        wanted = urllib.parse.parse_qs(query).get("class", [""])[0]
        try:
            if len(picture) < int(length):
                raise UserError("the picture was cut off on its way")
            if wanted and not (wanted.isascii() and wanted.isdecimal() and len(wanted) < 10):
                raise UserError(f"class={wanted[:100]}: must be the number of a class")
            answer = self.server.answer(picture, int(wanted) if wanted else None)
        except UserError as error:
            self._error(HTTPStatus.UNPROCESSABLE_ENTITY, str(error))
        except Exception as error:  # a picture must not end the server, nor leave the page waiting
            self._error(HTTPStatus.INTERNAL_SERVER_ERROR, f"{type(error).__name__}: {error}")
        else:
            self._send(HTTPStatus.OK, json.dumps(answer).encode(), "application/json")

    def _may(self) -> bool:
        """Whether the request is from this server's own page, or from a program on this machine; or answers it."""
        port = self.server.server_port
        names = (_ADDRESS, "localhost")
        hosts = {f"{name}:{port}" for name in names} | {*(names if port == _PORT_OF_HTTP else ())}
        origin = self.headers.get("Origin")
        if self.headers.get("Host") not in hosts:
            self._error(HTTPStatus.MISDIRECTED_REQUEST, f"this is {self.server.address}")
        elif origin is not None and origin not in {f"http://{host}" for host in hosts}:
            self._error(HTTPStatus.FORBIDDEN, f"only {self.server.address} may ask")
        else:
            return True
        return False

    def _error(self, status: HTTPStatus, message: str) -> None:
        self._send(status, json.dumps({"error": str(UserError(message))[:600]}).encode(), "application/json")

    def _send(self, status: HTTPStatus, content: bytes, kind: str) -> None:
        self.send_response(status)
        for name, value in {**_HEADERS, "Content-Type": kind, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def _drain(self, length: int) -> None:
        self.wfile.flush()
        left = min(length, _DRAINED)
        while left > 0 and (part := self.rfile.read(min(left, 2**20))):
            left -= len(part)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def _png(pixels: np.ndarray) -> str:
    """A picture as an address that holds it."""
    file = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def _in_attribute(text: str) -> str:
    for sign, escaped in (("&", "&amp;"), ('"', "&quot;"), ("<", "&lt;"), (">", "&gt;")):
        text = text.replace(sign, escaped)
    return text
