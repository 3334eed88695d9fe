"""The comparison is one file that stands alone, holds every map once, and trusts no text."""

import base64
import hashlib
import io
import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from onnxplain.display.comparison import ComparisonMap, ComparisonPicture, comparison_page, write_comparison
from onnxplain.errors import OutputError, ParameterError
from onnxplain.heatmap import colours, diverging, overlay

rng = np.random.default_rng(0)
SEEN = rng.integers(0, 256, (2, 12, 15, 3), np.uint8)
HEAT = rng.random((3, 12, 15))
SIGNED = rng.uniform(-1, 1, (12, 15))
VOID = {"meta", "img", "input", "br"}


class Page(HTMLParser):
    """The elements of a page with their attributes, its visible words and its images; unbalanced tags are an error."""

    def __init__(self, source):
        super().__init__()
        self.elements, self.words, self.open, self.scripts = [], [], [], []
        self.feed(source)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "script" in self.open:
            self.scripts.append(data)
        elif "style" not in self.open:
            self.words.append(data)

    def images(self):
        return [attributes for tag, attributes in self.elements if tag == "img"]


def page(name="cat.jpg", column="smoothgrad", **options):
    first = ComparisonPicture(
        name,
        SEEN[0],
        {column: ComparisonMap(HEAT[0], SIGNED, "25 samples"), "cam": ComparisonMap(HEAT[1, ::4, ::5])},
        "cat",
    )
    return comparison_page([first, ComparisonPicture("dog.jpg", SEEN[1], {"cam": ComparisonMap(HEAT[2])})], **options)


def pixels(attributes):
    data = base64.b64decode(attributes["src"].removeprefix("data:image/webp;base64,"), validate=True)
    return np.asarray(Image.open(io.BytesIO(data)))


def test_every_map_is_there_once_in_each_of_its_views():
    found = {image["alt"]: pixels(image) for image in Page(page()).images()}
    expected = {
        "cat.jpg, as the network sees it": SEEN[0],
        "smoothgrad map of cat.jpg": colours(HEAT[0]),
        "smoothgrad map of cat.jpg, over it": overlay(SEEN[0], HEAT[0]),
        "signed smoothgrad map of cat.jpg": diverging(SIGNED),
        "cam map of cat.jpg": colours(HEAT[1, ::4, ::5]),
        "dog.jpg, as the network sees it": SEEN[1],
        "cam map of dog.jpg": colours(HEAT[2]),
        "cam map of dog.jpg, over it": overlay(SEEN[1], HEAT[2]),
    }
    assert found.keys() == expected.keys() | {"cam map of cat.jpg, over it"}
    for name, drawn in expected.items():
        np.testing.assert_array_equal(found[name], drawn)
    assert found["cam map of cat.jpg, over it"].shape == (12, 15, 3)


def test_columns_stand_in_the_order_asked_for_and_gaps_are_said():
    words = " ".join(Page(page()).words)
    assert words.index("smoothgrad") < words.index("cam ")
    assert words.count("no map") == 1
    for expected in ("cat.jpg", "25 samples", "dog.jpg", "Overlay", "Signed"):
        assert expected in words
    turned = " ".join(Page(page(columns=["cam"])).words)
    assert "smoothgrad" not in turned
    assert "no map" not in turned


def test_the_switch_offers_signed_maps_only_where_there_are_any():
    values = [attributes.get("value") for tag, attributes in Page(page()).elements if tag == "input"]
    assert values[:4] == ["overlay", "map", "signed", "picture"]
    plain = comparison_page([ComparisonPicture("a", None, {"b": ComparisonMap(HEAT[0])})])
    assert "signed" not in [attributes.get("value") for _, attributes in Page(plain).elements]


def test_the_page_asks_nothing_from_outside_and_runs_its_own_script_alone():
    source = page()
    parsed = Page(source)
    for _, attributes in parsed.elements:
        assert not {"href", "srcset", "action", "onload", "onerror", "onclick"} & attributes.keys()
        assert attributes.get("src", "data:").startswith("data:")
    assert "url(" not in source
    assert "@import" not in source
    assert "fetch(" not in source
    (script,) = parsed.scripts
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = [attributes["content"] for _, attributes in parsed.elements if "http-equiv" in attributes]
    assert "default-src 'none'" in policy
    assert f"script-src 'sha256-{digest}'" in policy


@pytest.mark.parametrize(
    "text", ["</script><script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "${rows} $$ $x"]
)
def test_hostile_text_is_shown_and_never_interpreted(text):
    calm, hostile = Page(page()), Page(page(text, text, title=text, introduction=[text], provenance={text: text}))
    tags = [tag for tag, _ in hostile.elements if tag not in ("dt", "dd", "p", "wbr")]
    assert tags == [tag for tag, _ in calm.elements if tag not in ("p", "wbr")]
    assert hostile.words.count(text) == 7  # title, heading, introduction, foot twice, column, name
    assert len(hostile.scripts) == 1


def test_a_comparison_is_written_whole_or_not_at_all(tmp_path):
    with pytest.raises(OutputError, match="nowhere"):
        write_comparison(tmp_path / "nowhere" / "a.html", [ComparisonPicture("a", None, {"b": ComparisonMap(HEAT[0])})])
    assert not list(tmp_path.iterdir())
    write_comparison(tmp_path / "a.html", [ComparisonPicture("caf\udce9", None, {"b": ComparisonMap(HEAT[0])})])
    assert "caf\ufffd" in (tmp_path / "a.html").read_text(encoding="utf-8")


def test_what_can_not_be_compared_is_an_error():
    with pytest.raises(ParameterError, match="nothing to compare"):
        comparison_page([ComparisonPicture("a", SEEN[0])])
    with pytest.raises(ParameterError, match="no picture has a map 'lime'"):
        page(columns=["cam", "lime"])
    for wrong in (ComparisonMap(HEAT), ComparisonMap(HEAT[0], HEAT[:1, 0])):
        with pytest.raises(ParameterError, match=r"\[h, w\]"):
            comparison_page([ComparisonPicture("a", SEEN[0], {"b": wrong})])


DRIVER = """
const said = [], row = document.querySelector('tr.pictures'), cell = row.querySelector('td .cell');
const box = cell.getBoundingClientRect();
const at = (x, y) => ({clientX: box.left + x * box.width, clientY: box.top + y * box.height, bubbles: true});
const state = () => ['--zoom', '--x', '--y'].map(name => (+row.style.getPropertyValue(name)).toFixed(2)).join(' ');
const finger = (kind, id, x, y) => cell.dispatchEvent(new PointerEvent(kind, {...at(x, y), pointerId: id}));
const press = key => row.dispatchEvent(new KeyboardEvent('keydown', {key, bubbles: true}));
const turn = (deltaY, ctrlKey) =>
  cell.dispatchEvent(new WheelEvent('wheel', {...at(.5, .5), deltaY, ctrlKey, cancelable: true}));
cell.setPointerCapture = () => {};
const say = what => said.push(what + ' ' + state());
turn(-150, false); say('unfocused');
turn(-150, true); say('ctrl');
press('0'); say('key');
press('+'); say('plus'); press('ArrowRight'); say('right'); press('0');
finger('pointerdown', 1, .4, .5); finger('pointerdown', 2, .6, .5);
finger('pointermove', 1, .3, .5); finger('pointermove', 2, .7, .5);
finger('pointerup', 2, .7, .5); say('pinch');
finger('pointermove', 1, .4, .4); finger('pointerup', 1, .4, .4); say('drag');
finger('pointermove', 1, .9, .9); say('lifted');
for (let i = 0; i < 20; i++) press('+'); say('most');
row.querySelectorAll('.zoom button')[2].click(); say('whole');
const other = document.querySelectorAll('tr.pictures')[1].style.getPropertyValue('--zoom');
document.dispatchEvent(new KeyboardEvent('keydown', {key: '3'}));
const seen = name => getComputedStyle(cell.querySelector('.' + name)).display;
said.push('view ' + document.querySelector('.views input:checked').value + seen('signed') + seen('overlay'));
said.push('missing ' + document.querySelectorAll('.missing').length);
said.push('pictures ' + document.querySelectorAll('td .picture').length, 'other ' + other);
document.title = said.join('; ');
"""
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.mark.skipif(CHROMIUM is None, reason="no browser to try the page in")
def test_a_browser_zooms_moves_and_switches(tmp_path):
    source = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page())
    script = f"<script>addEventListener('load', () => {{{DRIVER}}})</script></body>"
    (tmp_path / "page.html").write_text(source.replace("</body>", script), encoding="utf-8")
    finished = subprocess.run(
        [
            CHROMIUM,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            f"--user-data-dir={tmp_path / 'profile'}",
            "--dump-dom",
            (tmp_path / "page.html").as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    said = re.search("<title>(.*?)</title>", finished.stdout).group(1).split("; ")
    assert said == [
        "unfocused 1.00 0.00 0.00",
        "ctrl 1.65 -0.32 -0.32",
        "key 1.00 0.00 0.00",
        "plus 1.50 -0.25 -0.25",
        "right 1.50 -0.45 -0.25",
        "pinch 2.00 -0.50 -0.50",
        "drag 2.00 -0.40 -0.60",
        "lifted 2.00 -0.40 -0.60",
        "most 32.00 -13.90 -17.10",
        "whole 1.00 0.00 0.00",
        "view signedblocknone",
        "missing 2",
        "pictures 3",
        "other 1",
    ]


def test_pictures_that_are_no_bytes_are_an_error():
    with pytest.raises(OutputError, match="uint8"):
        comparison_page([ComparisonPicture("a", SEEN[0] / 255, {"b": ComparisonMap(HEAT[0])})])
