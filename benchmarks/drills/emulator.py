"""A bucket of Google Cloud Storage on this machine, for tests and drills, with faults.

It answers the part of the JSON API that google-cloud-storage, gcsfs and TensorStore use, and keeps everything in
memory. It checks conditional writes, which the emulators on PyPI do not. Point the three libraries at it by
`Emulator.environment`.
"""

import base64
import json
import random
import re
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import google_crc32c


class Emulator:
    """The server. All attributes may be changed while it runs.

    Attributes:
        buckets: objects by name, of each bucket; an object is its content, its generation and when it was written.
        latency: seconds before each answer.
        refused: share of the requests that are answered with 503.
        cut: share of the uploads after which the connection is closed without an answer, and nothing is written.
        bandwidth: bytes per second of each upload and download; 0 for no limit.
        status: if not 0, every request is answered with this status.
        read_only: whether writes are answered with 403.
        requests: method and path of every request so far.
    """

    def __init__(self, *buckets: str, seed: int = 0):
        self.buckets: dict[str, dict[str, tuple[bytes, int, float]]] = {name: {} for name in buckets}
        self.latency, self.refused, self.cut, self.bandwidth, self.status, self.read_only = 0.0, 0.0, 0.0, 0, 0, False
        self.requests: list[tuple[str, str]] = []
        self.uploads: dict[str, tuple[str, str, dict[str, str], bytes]] = {}
        self.chance, self.lock, self.last = random.Random(seed), threading.Lock(), 0
        handler = type("Handler", (_Handler,), {"emulator": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which the libraries find it."""
        token = {"GOOGLE_AUTH_TOKEN_FOR_TESTING": "none"}  # TensorStore otherwise looks for credentials, and complains
        return {"STORAGE_EMULATOR_HOST": self.url, "TENSORSTORE_GCS_HTTP_URL": self.url, **token}

    @contextmanager
    def serving(self) -> Iterator["Emulator"]:
        """A context in which the server answers."""
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        try:
            yield self
        finally:
            self.server.shutdown()
            self.server.server_close()

    def write(self, bucket: str, name: str, content: bytes, query: dict[str, str]) -> dict[str, Any] | int:
        """Writes an object if the query's condition holds; returns its resource, or a status."""
        with self.lock:
            known = self.buckets[bucket].get(name)
            if query.get("ifGenerationMatch", now := str(known[1] if known else 0)) != now:
                return 412
            self.last = max(self.last + 1, time.time_ns() // 1000)
            self.buckets[bucket][name] = content, self.last, time.time()
            return self.resource(bucket, name)

    def resource(self, bucket: str, name: str) -> dict[str, Any]:
        """What is known about an object."""
        content, generation, written = self.buckets[bucket][name]
        stamp = datetime.fromtimestamp(written, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        crc = base64.b64encode(struct.pack(">I", google_crc32c.value(content))).decode()
        link = f"{self.url}/download/storage/v1/b/{bucket}/o/{name.replace('/', '%2F')}?alt=media"
        return {
            **{"kind": "storage#object", "bucket": bucket, "name": name, "size": str(len(content)), "crc32c": crc},
            **{"generation": str(generation), "metageneration": "1", "updated": stamp, "timeCreated": stamp},
            **{"etag": str(generation), "contentType": "application/octet-stream", "mediaLink": link},
        }


class _Handler(BaseHTTPRequestHandler):
    emulator: Emulator
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def answer(self, status: int, body: bytes | dict[str, Any] = b"", **headers: str) -> None:
        if isinstance(body, dict):
            body = json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except ConnectionError:  # the client was killed
            self.close_connection = True

    def _handle(self) -> None:
        on, url = self.emulator, urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query, keep_blank_values=True).items()}
        body = self._body()
        on.requests.append((self.command, self.path))
        time.sleep(on.latency + (len(body) / on.bandwidth if on.bandwidth else 0))
        writes = self.command != "GET"
        with on.lock:
            refused, cut = on.chance.random() < on.refused, bool(body) and on.chance.random() < on.cut
        if cut:
            self.close_connection = True
        elif on.status or refused or (on.read_only and writes):
            status = on.status or (503 if refused else 403)
            self.answer(status, {"error": {"code": status, "message": "as it was told to"}})
        elif found := re.fullmatch(r"(?:/upload|/download)?(?:/storage/v1)?/b/([^/]+)(?:/o(?:/(.+))?)?", url.path):
            bucket, name = found[1], unquote(found[2] or "")
            if bucket not in on.buckets:
                self.answer(404, {"error": {"code": 404, "message": "The specified bucket does not exist."}})
            elif "uploadType" in query or "upload_id" in query:
                self._upload(bucket, query, body)
            elif to := re.fullmatch(r"(.+)/(?:copy|rewrite)To/b/([^/]+)/o/(.+)", name):
                content = on.buckets[bucket].get(to[1])
                made = on.write(to[2], to[3], content[0], {}) if content else 404
                made = {"done": True, "resource": made} if isinstance(made, dict) and "rewriteTo" in name else made
                self.answer(*((200, made) if isinstance(made, dict) else (made,)))
            elif name:
                self._object(bucket, name, query)
            elif url.path.endswith("/o"):
                self._list(bucket, query)
            else:
                self.answer(200, {"kind": "storage#bucket", "name": bucket})
        else:
            self.answer(501)

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = _handle

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _upload(self, bucket: str, query: dict[str, str], body: bytes) -> None:
        on, name = self.emulator, query.get("name", "")
        if query.get("uploadType") == "resumable" and "upload_id" not in query:
            name = name or json.loads(body)["name"]
            with on.lock:
                number = str(len(on.uploads))
                on.uploads[number] = bucket, name, query, b""
            where = f"{on.url}/upload/storage/v1/b/{bucket}/o?uploadType=resumable&upload_id={number}"
            return self.answer(200, Location=where)
        if "upload_id" in query:
            bucket, name, first, before = on.uploads[query["upload_id"]]
            span = re.fullmatch(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)", self.headers["Content-Range"])
            assert span is not None
            content = before[: int(span[1] or len(before))] + body
            on.uploads[query["upload_id"]] = bucket, name, first, content
            if span[2] == "*" or len(content) < int(span[2]):
                return self.answer(308, **({"Range": f"bytes=0-{len(content) - 1}"} if content else {}))
            query = first
        elif query["uploadType"] == "multipart":
            boundary = re.search(r"boundary=['\"]?([^'\";]+)", self.headers["Content-Type"])
            assert boundary is not None
            _, about, data, _ = body.split(b"--" + boundary[1].encode(), 3)
            name = name or json.loads(about.replace(b"\r\n", b"\n").split(b"\n\n", 1)[1])["name"]
            blank = b"\r\n\r\n" if b"\r\n\r\n" in data else b"\n\n"
            content = data.split(blank, 1)[1][: -len(blank) // 2]
        else:
            content = body
        made = on.write(bucket, name, content, query)
        return self.answer(*((200, made) if isinstance(made, dict) else (made,)))

    def _object(self, bucket: str, name: str, query: dict[str, str]) -> None:
        on = self.emulator
        known = on.buckets[bucket].get(name)
        generation = str(known[1] if known else 0)
        if known is None or query.get("generation", generation) != generation:
            self.answer(404, {"error": {"code": 404, "message": "No such object"}})
        elif query.get("ifGenerationMatch", generation) != generation:
            self.answer(412)
        elif query.get("ifGenerationNotMatch") == generation:
            self.answer(304)
        elif self.command == "DELETE":
            on.buckets[bucket].pop(name, None)
            self.answer(204)
        elif query.get("alt") == "media":
            content, span = known[0], re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
            about = {"X_Goog_Generation": generation, "Content_Type": "application/octet-stream"}
            about["X_Goog_Hash"] = f"crc32c={on.resource(bucket, name)['crc32c']}"
            about["X_Goog_Stored_Content_Length"] = str(len(content))
            part = content
            if span:
                begin, end = int(span[1]), min(int(span[2] or len(content)), len(content) - 1) + 1
                part = content[begin:end]
                about["Content_Range"] = f"bytes {begin}-{end - 1}/{len(content)}"
            time.sleep(len(part) / on.bandwidth if on.bandwidth else 0)
            self.answer(*((416,) if span and int(span[1]) >= len(content) else (206 if span else 200, part)), **about)
        else:
            self.answer(200, on.resource(bucket, name))

    def _list(self, bucket: str, query: dict[str, str]) -> None:
        """A page of a listing; pages are short, so that readers of a single page are found out."""
        prefix, delimiter, items, prefixes = query.get("prefix", ""), query.get("delimiter"), [], []
        token, most = query.get("pageToken") or query.get("startOffset", ""), min(int(query.get("maxResults", 50)), 50)
        more = {}
        for name in sorted(self.emulator.buckets[bucket]):
            if name < token or not name.startswith(prefix) or name >= query.get("endOffset", "\U0010ffff"):
                continue
            head, cut, _ = name[len(prefix) :].partition(delimiter) if delimiter else (name, "", "")
            if cut and prefix + head + cut in prefixes:
                continue
            if len(items) + len(prefixes) == most:
                more = {"nextPageToken": name}
                break
            if cut:
                prefixes.append(prefix + head + cut)
            else:
                items.append(self.emulator.resource(bucket, name))
        self.answer(200, {"kind": "storage#objects", "items": items, "prefixes": prefixes, **more})
