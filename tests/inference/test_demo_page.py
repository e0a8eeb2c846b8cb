"""The demo's page in a browser, if there is one: `apt-get install chromium`."""

import threading
from pathlib import Path

import jax
import numpy as np
import pytest
from chromium import PROGRAM, Page, browser
from PIL import Image

from flax_resnets import Classifier, create_model
from flax_resnets.inference.demo import DemoServer
from flax_resnets.inference.preprocess import Settings

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(PROGRAM is None, reason="needs chromium: apt-get install chromium"),
]

NAMES = ["<img src=x onerror=alert(1)>", "dog & owl", "hen"]


@pytest.fixture(scope="module")
def server():
    settings = Settings(model="lenet", dataset="", image_size=28, channels=1, mean=(0.3,), std=(0.4,))
    model = create_model("lenet", num_classes=3)
    variables = jax.jit(model.init)(jax.random.key(0), np.zeros((1, 28, 28, 1), np.float32))
    classifier = Classifier(model, jax.tree.map(lambda leaf: 3 * leaf, variables), settings, NAMES)
    with DemoServer(classifier, 'runs/"<quick>"', port=0) as server:
        server.warm_up()
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def page(server, tmp_path):
    with browser(tmp_path / "profile") as page:
        page.look(1280, 900)
        page.open(server.address)
        yield page
        assert page.complaints() == []
        assert {each.split("?")[0] for each in page.requested() if not each.startswith("data:")} <= {
            server.address, *(f"{server.address}{name}" for name in ("page.css", "page.js", "explain"))
        }  # fmt: skip


@pytest.fixture
def picture(tmp_path) -> Path:
    path = tmp_path / "a <b>picture &amp;.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80, 3)).astype(np.uint8)).save(path)
    return path


def wait_for_result(page: Page) -> None:
    page.wait_for("!element('result').hidden && element('overlay').complete && element('overlay').naturalWidth === 28")


def rows(page: Page) -> list[str]:
    return page.value("[...document.querySelectorAll('#classes button')].map((each) => each.innerText)")


def test_a_picture_is_dropped(page, picture, server):
    assert page.value("element('source').textContent") == 'runs/"<quick>"'
    page.drop(picture)
    wait_for_result(page)
    expected = server.classifier.predict(picture, batch_size=1)[0]
    assert [row.split("\n")[0] for row in rows(page)] == [each.class_name for each in expected]
    assert [row.split("\n")[-1] for row in rows(page)] == [f"{100 * each.probability:.1f} %" for each in expected]
    assert page.value("document.querySelectorAll('#classes img, #classes b').length") == 0
    assert page.value("element('error').hidden")


def test_a_picture_is_chosen_and_another_class_asked_by_the_keyboard_alone(page, picture):
    page.call("Page.setInterceptFileChooserDialog", enabled=True)
    page.press("Tab")
    assert page.value("document.activeElement.id") == "file"
    assert page.value("getComputedStyle(element('drop')).outlineStyle") == "solid"
    page.press("Enter")
    chooser = page.wait_for_event("Page.fileChooserOpened")
    page.call("DOM.setFileInputFiles", files=[str(picture)], backendNodeId=chooser["backendNodeId"])
    wait_for_result(page)
    page.press("Tab")
    page.press("Tab")
    assert page.value("document.activeElement === document.querySelectorAll('#classes button')[1]")
    page.press("Enter")
    page.wait_for("document.querySelectorAll('#classes button')[1].getAttribute('aria-pressed') === 'true'")
    second = page.value("document.querySelectorAll('#classes button span')[2].innerText")
    assert page.value("element('caption').textContent").startswith(f"what speaks for “{second}”")
    assert page.value("document.activeElement === document.querySelectorAll('#classes button')[1]")


def test_what_cannot_be_shown_is_said_on_the_page(page, picture, tmp_path):
    text, large = tmp_path / "notes.txt", tmp_path / "large.png"
    text.write_text("no picture")
    large.write_bytes(bytes(20_000_001))
    page.drop(large)
    page.wait_for("!element('error').hidden")
    assert page.value("element('error').textContent") == "large.png: has 20.0 MB; at most 20 MB are taken"
    page.drop(picture)
    wait_for_result(page)
    assert page.value("element('error').hidden")
    page.drop(text)
    page.wait_for("!element('error').hidden")
    assert page.value("element('error').textContent").startswith("notes.txt: not a JPEG, PNG")
    # The browser writes a line into the console for each answer that is an error.
    page.events = [each for each in page.events if "422" not in str(each)]


def test_a_picture_is_pasted(page, picture):
    page.value(
        "new Promise((done) => {"
        "const canvas = document.createElement('canvas'); canvas.width = canvas.height = 40;"
        "canvas.toBlob((blob) => { const data = new DataTransfer();"
        "data.items.add(new File([blob], 'pasted.png', { type: 'image/png' }));"
        "dispatchEvent(new ClipboardEvent('paste', { clipboardData: data })); done(1); }); })"
    )
    wait_for_result(page)


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_nothing_overflows(page, picture, width, dark, tmp_path):
    page.look(width, 900, dark)
    page.drop(picture)
    wait_for_result(page)
    assert page.value("document.documentElement.scrollWidth") == width
    background = page.value("getComputedStyle(document.body).backgroundColor")
    assert background == ("rgb(22, 24, 27)" if dark else "rgb(250, 250, 250)")
    (tmp_path / "page.png").write_bytes(page.screenshot())
