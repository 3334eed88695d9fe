"""The web page: built, served by a plain server under a sub-path, and used in a headless Chromium."""

import functools
import http.server
import json
import shutil
import socketserver
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import headless
import web_page
from onnxplain import Explainer, OnnxplainError, Result
from onnxplain.pictures import read_picture

MODELS = Path(__file__).parents[2] / "models"
METHODS = ("gradient", "smoothgrad", "gradcam", "rise")
PLACE = "/some/where/"
MEGABYTE = 1_000_000
ALIVE = "!!window.onnxplainPage"
DONE = f"{ALIVE} && !!onnxplainPage.result"
QUIET = "document.getElementById('running').classList.contains('idle')"


class Site:
    """A server of static files and nothing else, which counts what it sends."""

    def __init__(self, folder: Path) -> None:
        self.sent: dict[str, int] = {}
        site = self

        class Handler(http.server.SimpleHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                pass

            def copyfile(self, source: Any, outputfile: Any) -> None:
                data = source.read()
                site.sent[self.path] = site.sent.get(self.path, 0) + len(data)
                outputfile.write(data)

        handler = functools.partial(Handler, directory=str(folder))
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.handle_error = lambda *_: None  # type: ignore[method-assign]  # a page that is left hangs up
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        host, port = self.server.server_address[:2]
        self.origin = f"http://{host!s}:{port}"

    def close(self) -> None:
        self.server.shutdown()
        socketserver.TCPServer.server_close(self.server)


@pytest.fixture(scope="module")
def root(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A server's folder with the built page below it."""
    if headless.CHROMIUM is None:
        pytest.skip("chromium is missing: apt-get install chromium")
    if not (web_page.PACKAGES / "onnxruntime-web").is_dir():
        pytest.skip(f"onnxruntime-web is missing: npm ci --ignore-scripts in {web_page.WEB}")
    folder = tmp_path_factory.mktemp("site")
    web_page.build(folder / PLACE.strip("/"), bundles=request.getfixturevalue("bundles"), builds=1)
    return folder


@pytest.fixture(scope="module")
def site(root: Path) -> Iterator[Site]:
    made = Site(root)
    yield made
    made.close()


@pytest.fixture(scope="module")
def browser(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[headless.Browser]:  # noqa: ARG001 (skips)
    with headless.Browser(tmp_path_factory.mktemp("profile")) as made:
        made.look(1280, 900)
        yield made


@pytest.fixture
def page(browser: headless.Browser, site: Site) -> Iterator[headless.Browser]:
    """The page with its first map; whatever a test does, the page may not complain or ask anyone else for anything."""
    site.sent.clear()
    browser.open(site.origin + PLACE)
    browser.wait(DONE)
    yield browser
    asked = browser.run("onnxplainPage.requests()")
    assert [each["name"] for each in asked if not each["name"].startswith((site.origin + PLACE, "blob:"))] == []
    assert browser.complaints == []


def shown(page: headless.Browser, what: str = "onnxplainPage.result") -> NDArray[np.float32]:
    """The raw map that the page has."""
    found = page.run(f"({{data: Array.from({what}.attribution.data), dims: {what}.attribution.dims}})")
    return np.array(found["data"], np.float32).reshape(found["dims"])


def apart(found: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def bound(explainer: Explainer, expected: Result, method: str, **settings: Any) -> float:
    """How far a map may be from Python's: 1e-5, or 3 times what one unit in the last place of the picture changes.

    Where a ReLU is within rounding of its kink, any other order of additions makes it open or shut.
    """
    seen = expected.images[0].seen.astype(np.float32)
    image = ((seen * np.float32(1 / 255) - np.float32(0.5)) / np.float32(0.5)).transpose(2, 0, 1)[None]
    up = np.random.default_rng(0).random(image.shape) < 0.5
    ends = np.where(up, np.float32(np.inf), np.float32(-np.inf))
    moved = explainer.explain(np.nextafter(image, ends), method, **settings)
    return max(1e-5, 3 * apart(moved.attribution, expected.attribution))


def choose(page: headless.Browser, selector: str, value: str) -> None:
    """Sets a menu or field as a person's choice would, and waits for the map that comes of it."""
    page.run(
        f"(() => {{ const field = document.querySelector({json.dumps(selector)}); field.value = {json.dumps(value)};"
        "field.dispatchEvent(new Event('change', {bubbles: true})); })()"
    )


def press(page: headless.Browser, selector: str) -> None:
    page.run(f"document.querySelector({json.dumps(selector)}).click()")


def text(page: headless.Browser, identity: str) -> str:
    """What an element says; nothing while it is hidden."""
    found: str = page.run(f"(e => e.hidden ? '' : e.textContent)(document.getElementById({json.dumps(identity)}))")
    return found


def hand_in(page: headless.Browser, identity: str, files: list[Path]) -> None:
    """Chooses files in a dialogue for files."""
    document = page.say("DOM.getDocument")["root"]["nodeId"]
    node = page.say("DOM.querySelector", nodeId=document, selector=f"#{identity}")["nodeId"]
    page.say("DOM.setFileInputFiles", nodeId=node, files=[str(file) for file in files])


def settled(page: headless.Browser) -> None:
    page.wait(f"{DONE} && {QUIET}")


def test_first_map_is_pythons_and_small(
    browser: headless.Browser, site: Site, bundles: dict[str, Path], record_property: Any
) -> None:
    site.sent.clear()
    start = time.monotonic()
    browser.open(site.origin + PLACE)
    browser.wait(DONE)
    took = time.monotonic() - start
    sent = sum(site.sent.values())
    record_property("seconds to the first map, cold", round(took, 2))
    record_property("megabytes to the first map", round(sent / MEGABYTE, 2))
    assert sent <= 6 * MEGABYTE
    assert took < 30
    explainer = Explainer(bundles["shortcut"], device="cpu")
    expected = explainer.explain(MODELS / "pictures" / "08_eight.png", "smoothgrad")
    assert apart(shown(browser), expected.attribution) <= bound(explainer, expected, "smoothgrad")
    assert text(browser, "map-title") == f"smoothgrad for “{expected.labels[0]}”"
    assert all(path.startswith(PLACE) for path in site.sent)
    assert browser.complaints == []


def test_every_method_is_pythons(page: headless.Browser, bundles: dict[str, Path]) -> None:
    explainer = Explainer(bundles["honest"], device="cpu")
    press(page, "#networks input[value=honest]")
    for method in METHODS:
        settings = {"masks": 64} if method == "rise" else {}
        choose(page, "#method", method)
        for name, value in settings.items():
            choose(page, f"#parameters [name={name}]", str(value))
        page.wait(f"{DONE} && {QUIET} && onnxplainPage.result.method === '{method}'")
        expected = explainer.explain(MODELS / "pictures" / "08_eight.png", method, **settings)
        assert apart(shown(page), expected.attribution) <= bound(explainer, expected, method, **settings), method


def test_works_by_keyboard(page: headless.Browser) -> None:
    page.run("document.querySelector('#networks :checked').focus()")
    page.press("ArrowDown")
    page.wait(f"{DONE} && onnxplainPage.result.network.key === 'honest'")
    order = []
    for _ in range(30):
        page.press("Tab")
        order.append(page.run("document.activeElement.id || document.activeElement.name"))
        if order[-1] == "method":
            break
    assert [name for name in order if name in ("picture", "mode", "view", "save-picture", "class", "method")] == [
        "picture", "mode", "view", "save-picture", "class", "method",
    ]  # fmt: skip
    page.press("Shift+Tab", "Shift+Tab")
    before = page.run("onnxplainPage.result.target")
    page.press("ArrowDown")
    page.wait(f"{DONE} && onnxplainPage.result.target !== {before}")
    assert page.run("document.activeElement.name") == "class"


def test_takes_a_bundle_and_a_picture(page: headless.Browser, bundles: dict[str, Path], tmp_path: Path) -> None:
    hand_in(page, "bundle-files", sorted(bundles["honest"].iterdir()))
    page.wait(f"{DONE} && onnxplainPage.result.network.key.startsWith('own')")
    picture = shutil.copy(MODELS / "pictures" / "04_four.png", tmp_path / "mine.png")
    hand_in(page, "picture-files", [picture])
    page.wait(f"{DONE} && onnxplainPage.result.picture.name === 'mine.png'")
    choose(page, "#method", "gradient")
    page.wait(f"{DONE} && onnxplainPage.result.method === 'gradient'")
    expected = Explainer(bundles["honest"], device="cpu").explain(picture, "gradient")
    assert apart(shown(page), expected.attribution) <= 1e-5
    assert page.run("onnxplainPage.result.predictions[0].label") == expected.labels[0] == "four"


def test_takes_what_is_dropped(page: headless.Browser, bundles: dict[str, Path], tmp_path: Path) -> None:
    picture = shutil.copy(MODELS / "pictures" / "10_three.png", tmp_path / "dropped.png")
    dropped = {"items": [], "files": [str(bundles["honest"]), str(picture)], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver"):
        page.say("Input.dispatchDragEvent", type=kind, x=200, y=200, data=dropped)
    page.wait("!document.getElementById('drop').hidden")
    page.say("Input.dispatchDragEvent", type="drop", x=200, y=200, data=dropped)
    page.wait(f"{DONE} && onnxplainPage.result.picture.name === 'dropped.png'")
    assert page.run("[onnxplainPage.result.network.about, onnxplainPage.result.label]") == ["yours", "three"]
    assert page.run("document.getElementById('drop').hidden")


def test_nothing_can_be_sent_elsewhere(browser: headless.Browser, site: Site) -> None:
    browser.open(site.origin + PLACE)
    browser.wait(DONE)
    other = site.origin.replace("127.0.0.1", "localhost")
    send = f"fetch('{other}', {{method: 'POST', body: 'a picture', mode: 'no-cors'}}).then(() => 'sent', () => 'kept')"
    assert browser.run(send) == "kept"
    thread = f"URL.createObjectURL(new Blob([{json.dumps(send + '.then(postMessage)')}]))"
    assert (
        browser.run(f"new Promise(done => {{ new Worker({thread}).onmessage = ({{data}}) => done(data); }})") == "kept"
    )
    browser.complaints.clear()


def newer(bundle: Path) -> None:
    description = bundle / "explainer.json"
    data = json.loads(description.read_text("utf-8"))
    description.write_text(json.dumps({**data, "format": 99, "onnxplain": "9.0"}), "utf-8")


def altered(bundle: Path) -> None:
    weights = bytearray((bundle / "weights.data").read_bytes())
    weights[1000] ^= 1
    (bundle / "weights.data").write_bytes(weights)


def incomplete(bundle: Path) -> None:
    (bundle / "noise.onnx").unlink()


def test_a_bad_bundle_is_refused_in_pythons_words(
    page: headless.Browser, bundles: dict[str, Path], tmp_path: Path
) -> None:
    for number, spoil in enumerate((newer, altered, incomplete)):
        folder = tmp_path / str(number)
        bundle = folder / "the bundle"
        shutil.copytree(bundles["honest"], bundle)
        spoil(bundle)
        with pytest.raises(OnnxplainError) as raised:
            Explainer(bundle, device="cpu")
        hand_in(page, "bundle-files", sorted(bundle.iterdir()))
        expected = str(raised.value).replace(f"{folder}/", "")
        page.wait(f"document.getElementById('network-error').textContent === {json.dumps(expected)}")
        assert text(page, "network-error") == expected
    assert page.run("onnxplainPage.result.network.key") == "shortcut"


def test_bad_input_is_refused_where_it_was_given(
    page: headless.Browser, bundles: dict[str, Path], tmp_path: Path
) -> None:
    choose(page, "#parameters [name=samples]", "0")
    page.wait("!document.getElementById('method-error').hidden")
    with pytest.raises(OnnxplainError) as raised:
        Explainer(bundles["shortcut"]).explain(MODELS / "pictures" / "08_eight.png", "smoothgrad", samples=0)
    assert text(page, "method-error") == str(raised.value)
    choose(page, "#parameters [name=samples]", "4")
    settled(page)
    assert text(page, "method-error") == ""
    (tmp_path / "no picture.png").write_text("no picture")
    hand_in(page, "picture-files", [tmp_path / "no picture.png"])
    page.wait("!document.getElementById('picture-error').hidden")
    assert text(page, "picture-error") == "no picture.png can't be read as a picture"


def test_a_map_grows_and_can_be_cancelled(page: headless.Browser) -> None:
    choose(page, "#method", "rise")
    page.wait("Number(document.getElementById('progress').getAttribute('aria-valuenow')) > 0")
    page.wait("!document.getElementById('map').classList.contains('stale')")
    press(page, "#cancel")
    page.wait(QUIET)
    assert text(page, "status") == "Cancelled."
    choose(page, "#method", "gradient")
    page.wait(f"{DONE} && onnxplainPage.result.method === 'gradient'")


def test_compares_networks_pictures_and_methods(page: headless.Browser, tmp_path: Path) -> None:
    page.run("onnxplainPage.state.tickedMethods = new Set(['gradient', 'gradcam'])")
    press(page, "[name=mode][value=compare]")
    page.wait("document.querySelectorAll('#board button.cell canvas').length === 4")
    press(page, "#pictures input[value='04_four']")
    page.wait("document.querySelectorAll('#board button.cell canvas').length === 8")
    names = page.run("[...document.querySelectorAll('#board th[scope=row] small')].map(each => each.textContent)")
    assert [name.split(",")[0] for name in names] == [
        "shortcut says four", "honest says four", "shortcut says two", "honest says eight",
    ]  # fmt: skip
    page.wait("!document.getElementById('compare-save').hidden")
    saved(page, tmp_path, "#compare-save", "comparison.png")
    press(page, "#board tr:nth-child(2) button.cell")
    page.wait(f"{DONE} && !document.getElementById('one').hidden")
    assert page.run("onnxplainPage.result.network.key") == "honest"


def saved(page: headless.Browser, folder: Path, button: str, name: str) -> Path:
    """The file that a button of the page saves."""
    page.say("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder))
    press(page, button)
    end = time.monotonic() + headless.PATIENCE
    while not (folder / name).exists() and time.monotonic() < end:
        time.sleep(0.02)
    return folder / name


def test_saves_the_map_and_the_picture(page: headless.Browser, bundles: dict[str, Path], tmp_path: Path) -> None:
    name = "08_eight.shortcut.smoothgrad.two"
    assert np.array_equal(np.load(saved(page, tmp_path, "#save-map", f"{name}.npy")), shown(page)[0])
    # Drawn as in Python, and enlarged by a whole factor.
    picture = read_picture(saved(page, tmp_path, "#save-picture", f"{name}.png"))
    explainer = Explainer(bundles["shortcut"], device="cpu")
    overlay = explainer.explain(MODELS / "pictures" / "08_eight.png", "smoothgrad").overlay()[0]
    assert np.abs(picture[::8, ::8].astype(int) - overlay).max() <= 2


def test_fits_its_window(page: headless.Browser) -> None:
    for width, dark in ((375, False), (375, True), (1280, True)):
        page.look(width, 812, dark)
        page.wait(f"innerWidth === {width}")
        for mode in ("compare", "one"):
            press(page, f"[name=mode][value={mode}]")
            assert page.run("document.documentElement.scrollWidth") <= width, (width, mode)
    page.look(1280, 900)
    settled(page)
