"""Fixtures that several packages of tests share."""

import functools
import http.server
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.drills.emulator import Emulator
from flax_resnets.data.source import open_source


@pytest.fixture(autouse=True, scope="session")
def _a_hang_up_is_heard() -> Iterator[None]:
    """Restores SIGHUP, which is ignored in all tests and their processes if they run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture(scope="session")
def emulator() -> Iterator[Emulator]:
    """Google Cloud Storage on this machine, with the bucket `bucket`. Tests use paths of their own in it."""
    with Emulator("bucket").serving() as emulator, pytest.MonkeyPatch.context() as patch:
        for name, value in emulator.environment.items():
            patch.setenv(name, value)
        yield emulator


@pytest.fixture
def faults(emulator) -> Iterator[Emulator]:
    """The same, for a test that makes it fail; afterwards it works again."""
    before = {name: value for name, value in vars(emulator).items() if isinstance(value, int | float)}
    yield emulator
    vars(emulator).update(before)


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format, *args):
        pass


@pytest.fixture
def website(tmp_path_factory) -> Iterator[tuple[Path, str]]:
    """A directory, and the address under which a web server on this machine offers it."""
    directory = tmp_path_factory.mktemp("www")
    handler = functools.partial(QuietHandler, directory=str(directory))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield directory, f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@pytest.fixture
def damaged_data_dir(tmp_path) -> Path:
    """The sample under another name, with a byte changed in the middle of its records."""
    original = open_source("fashion_mnist_sample", "train").directory
    copy = tmp_path / "data" / "my_images" / "1.0.0"
    copy.mkdir(parents=True)
    for path in original.iterdir():
        content = path.read_bytes()
        if path.name == "dataset_info.json":
            content = content.replace(b"fashion_mnist_sample", b"my_images")
        if "train.array_record" in path.name:
            middle = len(content) // 2
            content = content[:middle] + bytes(64) + content[middle + 64 :]
        (copy / path.name.replace("fashion_mnist_sample", "my_images")).write_bytes(content)
    return tmp_path / "data"
