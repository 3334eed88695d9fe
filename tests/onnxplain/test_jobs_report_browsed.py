"""The page of a finished job in a browser that opens it from disk: sorted, filtered, reloaded, used by keyboard."""

import json

import numpy as np
import pytest

from finished_jobs import METHODS, write, write_job
from headless import CHROMIUM, Browser
from onnxplain.jobs import report, shards
from onnxplain.jobs.thumbnails import SIDE


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    folder = write_job(tmp_path_factory.mktemp("large") / "job", 10_200, overlays=True)
    write(folder)
    return folder


COUNT = "document.querySelector('.count').textContent"
NAMES_SHOWN = "[...document.querySelectorAll('.cards .name')].map(name => name.textContent)"
FOCUS = "document.activeElement.dataset.number"


def choose(browser, **values):
    """Fills in fields of the page's form as a person would."""
    for name, value in values.items():
        browser.run(
            f"{{const field = document.forms[0].elements[{name!r}]; field.value = {json.dumps(value)};"
            "field.dispatchEvent(new Event('input', {bubbles: true}))}"
        )


@pytest.mark.skipif(CHROMIUM is None, reason="no browser (chromium, google-chrome) to try the page in")
def test_a_person_browses_ten_thousand_results(large, tmp_path):
    lines = [line for number in range(21) for line in shards.lines(shards.shard_folder(large, number) / shards.INDEX)]
    assert len(lines) == 9996
    with Browser(tmp_path / "profile") as browser:
        browser.look(1280, 900)
        browser.open((large / report.REPORT).as_uri())
        assert browser.run(COUNT) == "9,996 of 9,996 pictures; here 1 to 60"
        shown = browser.run(NAMES_SHOWN)
        assert (len(shown), shown[0]) == (60, "a/00000.jpg")
        assert "<img src=x onerror=alert(1)>" in shown[3]
        _sorts(browser, lines)
        _filters(browser, lines)
        _keeps_its_state(browser)
        _opens_by_keyboard(browser, lines)
        _draws_the_parts(browser)
        assert browser.complaints == []


def short(line):
    return line["name"].removeprefix("/data/")


def _sorts(browser, lines):
    choose(browser, sort="smoothgrad.captum.concentration", order="down")
    key = "smoothgrad.captum.concentration"
    best = sorted((line for line in lines if line[key] is not None), key=lambda line: -float(f"{line[key]:.7g}"))
    assert browser.run(NAMES_SHOWN) == [short(line) for line in best[:60]]
    assert browser.run("document.querySelectorAll('.bars i').length") == 40
    # What has no number comes last, in either direction.
    zero = [line for line in lines if line[key] is None]
    for order in ("up", "down"):
        choose(browser, order=order)
        browser.run("document.querySelector('.pages input').value = 167")
        browser.run("document.querySelector('.pages input').dispatchEvent(new Event('change'))")
        assert browser.run(NAMES_SHOWN) == [short(line) for line in zero[-36:]]
    assert browser.run(COUNT).endswith("here 9,961 to 9,996")
    choose(browser, sort="number", order="up")


def _filters(browser, lines):
    def left(fits):
        expected = sum(map(fits, lines))
        assert browser.run(COUNT).startswith(f"{expected:,} of 9,996" if expected else "No picture"), expected

    browser.run("document.querySelector('[aria-label=\"Find a predicted class\"]').value = 'crane'")
    choose(browser, verdict="wrong")
    left(lambda line: line["right"] is False)
    # Two classes of one name have their numbers; counts are those within the other filters.
    options = browser.run("[...document.forms[0].elements.predicted.options].map(option => option.text)")
    wrong = [sum(line["predicted"] == number and line["right"] is False for line in lines) for number in (2, 4)]
    assert sorted(options[1:]) == sorted([f"{wrong[0]} · crane (2)", f"{wrong[1]} · crane (4)"])
    choose(browser, predicted="4", least="80", most="95.5")
    left(lambda line: line["right"] is False and line["predicted"] == 4 and 0.8 <= line["probability"] <= 0.955)
    choose(browser, verdict="unknown", predicted="", text="A/0")
    left(lambda line: line["right"] is None and 0.8 <= line["probability"] <= 0.955 and "a/0" in line["name"])
    browser.run("document.getElementById('clear').click()")
    left(lambda line: True)
    choose(browser, of="gradient.magnitude", **{"from": "40", "to": "50.5"})
    left(lambda line: 40 <= line["gradient.magnitude"] <= 50.5)
    choose(browser, true="0")
    left(lambda line: 40 <= line["gradient.magnitude"] <= 50.5 and line["label"] == 0)
    choose(browser, text="nothing is called so")
    left(lambda line: False)
    choose(browser, text="")


def _keeps_its_state(browser):
    choose(browser, sort="gradient.magnitude", true="3", **{"from": "", "to": ""})
    browser.run("document.querySelector('.pages .after').click()")
    before = browser.run("location.hash"), browser.run(COUNT), browser.run(NAMES_SHOWN)
    assert before[0] == "#sort=gradient.magnitude&of=gradient.magnitude&true=3&page=2"
    assert "here 61 to 120" in before[1]
    browser.reload()
    assert (browser.run("location.hash"), browser.run(COUNT), browser.run(NAMES_SHOWN)) == before
    assert browser.run("document.forms[0].elements.true.value") == "3"
    browser.run("history.back()")
    browser.wait(f"{COUNT}.includes('here 1 to 60')")
    browser.run("location.hash = '#sort=nonsense&page=999999&predicted=none&open=x'")
    browser.wait(f"{COUNT}.startsWith('No picture')")
    browser.run("location.hash = '#page=999999'")
    browser.wait(f"{COUNT}.endsWith('here 9,961 to 9,996')")
    browser.run("location.hash = '#all'")
    browser.wait(f"{COUNT}.endsWith('here 1 to 60')")


def _opens_by_keyboard(browser, lines):
    browser.run("document.getElementById('clear').hidden || document.getElementById('clear').focus()")
    browser.run("document.querySelector('.pages .after').focus()")
    browser.press("Enter")
    browser.wait(f"{COUNT}.endsWith('here 61 to 120')")
    browser.press("Tab")
    assert browser.run(FOCUS) == str(lines[60]["number"])
    assert browser.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    browser.press("Enter")
    browser.wait("document.querySelector('dialog').open")
    heading = "document.querySelector('dialog h2 bdi').textContent"
    assert browser.run(heading) == lines[60]["name"]
    assert browser.run("location.hash") == f"#page=2&open={lines[60]['number']}"
    browser.press("ArrowRight", "ArrowRight")
    assert browser.run(heading) == lines[62]["name"]
    browser.press("ArrowLeft", "ArrowLeft", "ArrowLeft")
    assert browser.run(heading) == lines[59]["name"]
    assert browser.run(COUNT).endswith("here 1 to 60")
    text = browser.run("document.querySelector('dialog').innerText")
    row = lines[59]["row"]
    assert f'np.load("shards/00000000/smoothgrad.captum.npy", mmap_mode="r")[{row}]' in text
    links = browser.run("[...document.querySelectorAll('a')].map(link => link.getAttribute('href'))")
    odd = lines[59]["number"] % 2
    assert links == [f"shards/00000000/overlays/{lines[59]['number']:08d}.gradient.png"] * odd
    browser.press("Escape")
    browser.wait("!document.querySelector('dialog').open && !location.hash.includes('open')")
    assert browser.run(FOCUS) == str(lines[59]["number"])


def _draws_the_parts(browser):
    """Which part of which sheet a card shows, by the colour in the middle of what is painted."""
    browser.run("location.hash = '#page=9&sort=number'")
    browser.wait(f"{COUNT}.endsWith('here 481 to 540')")
    for number, place in ((495, 495), (505, 5)):
        box = browser.run(
            f"(() => {{const card = document.querySelector('[data-number=\"{number}\"]');"
            "card.scrollIntoView({block: 'center'});"
            "const found = [...card.querySelectorAll('.thumb')].map(one => one.getBoundingClientRect());"
            "return found.map(one => [one.x + one.width / 2, one.y + one.height / 2, one.width])})()"
        )
        assert [width for *_, width in box] == [SIDE] * 3
        expected = [[(place * factor + 90 * kind) % 256 for factor in (37, 59, 83)] for kind in range(3)]
        assert np.abs(np.array(colours(browser, box)) - expected).max() <= 16


def colours(browser, points):
    import cv2

    seen = cv2.imdecode(np.frombuffer(browser.picture(), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    return [seen[round(y), round(x)].astype(int) for x, y, *_ in points]


@pytest.mark.skipif(CHROMIUM is None, reason="no browser (chromium, google-chrome) to try the page in")
def test_a_phone_shows_all_of_its_width_and_a_page_without_data_says_so(tmp_path):
    folder = write_job(tmp_path / "job", 300, known=False, parquet=True)
    write(folder)
    with Browser(tmp_path / "profile") as browser:
        browser.look(375, 700)
        browser.open((folder / report.REPORT).as_uri() + "#open=4")
        browser.wait("document.querySelector('dialog').open")
        assert browser.run("document.documentElement.scrollWidth") == 375
        text = browser.run("document.querySelector('dialog pre').textContent").splitlines()
        assert text[1] == 'row = pd.read_parquet("shards/00000000/maps.parquet", filters=[("number", "==", 4)]).iloc[0]'
        assert text[2:] == [f'{name.replace(".", "_")} = row["{name}"].reshape(3, 8, 8)' for name in METHODS]
        assert browser.run("(box => box.scrollWidth <= box.clientWidth)(document.querySelector('dialog'))")
        browser.run("document.querySelector('dialog').close()")
        assert browser.run("document.documentElement.scrollWidth") == 375
        assert browser.run("getComputedStyle(document.querySelector('.pick.known')).display") == "none"
        assert browser.run("document.getElementById('missing').hidden")
        assert browser.complaints == []
        (folder / report.DATA / "results-000.js").unlink()
        browser.open((folder / report.REPORT).as_uri())
        assert not browser.run("document.getElementById('missing').hidden")
