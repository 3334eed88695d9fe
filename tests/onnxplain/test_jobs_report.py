"""The page of a finished job, of results made up here; and one browser that opens it from disk."""

import hashlib
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from headless import CHROMIUM, Browser
from onnxplain.jobs import report, shards, storage
from onnxplain.jobs.description import FILE, Description, Output, Running
from onnxplain.jobs.limits import Limits
from onnxplain.jobs.shards import Entry
from onnxplain.jobs.statistics import NAMES
from onnxplain.jobs.summary import summarized
from onnxplain.jobs.thumbnails import SIDE, sheet
from onnxplain.targets import name_of

METHODS = ("gradient", "smoothgrad.captum")
HOSTILE = "<img src=x onerror=alert(1)></script><script>alert(2)</script>\"'&\u2028\u202e\x07\udcff$title"
LABELS = ["tabby cat", "Egyptian cat", "crane", "moped", "crane", HOSTILE, "an espresso in a cup", "pole"]


def write_job(folder, count, methods=METHODS, size=500, labels=LABELS, known=True, thumbnails=True, **other):
    """A finished job with `count` pictures; every 50th failed, every 10th class isn't known, every 25th map is zero."""
    made = Description(
        bundle={"name": other.get("bundle", "a network"), "sha256": "ab" * 32},
        methods={name: {"parameters": {"steps": 32}, "explains": "logits"} for name in methods},
        targets=other.get("targets", "top"),
        source={"kind": "files", "pictures": count, "sha256": "cd" * 32},
        output=Output(shard_size=size, thumbnails=thumbnails),
        limits=Limits(),
        running=Running(1, 1, 1, 1, 1, "CPUExecutionProvider"),
        versions={"onnxplain": "0", "onnxruntime": "0"},
    )
    folder.mkdir()
    storage.write_json(folder / FILE, made.plain())
    random = np.random.default_rng(7)
    sheets = {}
    for number in range(-(-count // size)):
        here = range(number * size, min(count, (number + 1) * size))
        entries = [_entry(random, at, at - number * size, methods, labels, known) for at in here]
        if len(here) not in sheets:
            sheets[len(here)] = [_sheet(len(here), at) for at in range(1 + len(methods))]
        names = ["thumbnails.jpg", *(f"thumbnails.{method}.jpg" for method in methods)]
        files = dict(zip(names, sheets[len(here)], strict=True)) if thumbnails else {}
        if other.get("overlays"):
            files |= {f"overlays/{at:08d}.{methods[0]}.png": b"png" for at in here if at % 2}
        files[shards.INDEX] = shards.jsonl([entry.line for entry in entries if not entry.failed])
        files[shards.FAILURES] = shards.jsonl([entry.line for entry in entries if entry.failed])
        path = shards.shard_folder(folder, number)
        (path / shards.OVERLAYS).mkdir(parents=True)
        for name, data in files.items():
            (path / name).write_bytes(data)
        maps = {name: {"file": f"{name}.npy", "shape": [3, 8, 8], "dtype": "float32"} for name in methods}
        if other.get("parquet"):
            maps = {name: {"shape": [3, 8, 8], "dtype": "float32"} for name in methods}
            files["maps.parquet"] = b"parquet"
        storage.write_json(path / shards.MANIFEST, shards.manifest(number, here.start, entries, maps, files, {}))
    return folder


def _entry(random, number, row, methods, labels, known):
    name = f"/data/{'ab'[number % 2]}/{number:05d}.jpg" if number != 3 else f"/data/a/{HOSTILE}"
    if number % 50 == 7:
        line = {"number": number, "name": name, "error": f"{name}: is no picture <b>", "where": "decoding"}
        return Entry(line, failed=True)
    predicted, true = (int(each) for each in random.integers(0, len(LABELS), 2))
    true = None if not known or number % 10 == 9 else predicted if number % 3 else true
    share = 1 - float(random.beta(1, 6))
    line = {
        "number": number,
        "row": row,
        "name": name,
        "sha256": "0" * 64,
        "box": None,
        "target": predicted,
        "target_label": name_of(predicted, labels),
        "predicted": predicted,
        "predicted_label": name_of(predicted, labels),
        "probability": share,
        "target_probability": share,
        "target_score": 20 * share,
        "label": true,
        "true_label": None if true is None else name_of(true, labels),
        "right": None if true is None else true == predicted,
    }
    for method in methods:
        size = float(random.gamma(4, 8))
        values = [0.01 * size, size, 0.5, float(random.random()), [0.5, 0.25], [0.1, 0.9]]
        if number % 25 == 2:
            values = [0.0, 0.0, *[None] * 4]
        line |= {f"{method}.{key}": value for key, value in zip(NAMES, values, strict=True)}
        line[f"{method}.sha256"] = "0" * 64
    return Entry(line)


def _sheet(count, kind):
    """Thumbnails whose colours differ from place to place."""
    shades = np.arange(count, dtype=np.uint64)[:, None] * np.array([37, 59, 83], np.uint64) + np.uint64(90 * kind)
    return sheet(np.broadcast_to((shades % 256).astype(np.uint8)[:, None, None, :], (count, SIDE, SIDE, 3)))


def write(folder):
    numbers = shards.finished(folder)
    methods = list(json.loads((folder / FILE).read_text(encoding="utf-8"))["methods"])
    report.write_report(folder, numbers, summarized(folder, numbers, {}, methods))
    return (folder / report.REPORT).read_text(encoding="utf-8")


def parts(folder):
    """The data beside the page, as its scripts would see them."""
    found = []
    for path in sorted((folder / report.DATA).iterdir()):
        head, middle, tail = path.read_text(encoding="ascii").partition("(self.results??=[]).push(")
        assert (head, bool(middle), tail[-2:]) == ("", True, ")\n")
        found.append(json.loads(tail[:-2]))
    return found


def said(page):
    """What the page's own block of data holds."""
    return json.loads(re.search(r'<script type="application/json" id="job">(.*?)</script>', page, re.S).group(1))


def digests(folder):
    files = [folder / report.REPORT, *(folder / report.DATA).iterdir()]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


class Tags(HTMLParser):
    """The tags of a page and its text."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.attributes, self.text = [], [], ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]

    def handle_data(self, data):
        self.text += data


def test_the_same_shards_make_the_same_bytes_wherever_they_lie(tmp_path):
    first, second = write_job(tmp_path / "one", 60, size=25), write_job(tmp_path / "another place", 60, size=25)
    page = write(first)
    write(second)
    before = digests(first)
    assert before == digests(second)
    write(first)
    assert digests(first) == before
    assert str(tmp_path) not in page + "".join(map(str, parts(first)))


def test_leftovers_of_earlier_runs_go(tmp_path):
    folder = write_job(tmp_path / "job", 10)
    (folder / report.DATA).mkdir()
    for name in (f"{storage.TEMPORARY}results-000.js", "results-007.js"):
        (folder / report.DATA / name).write_bytes(b"old")
    write(folder)
    assert [path.name for path in (folder / report.DATA).iterdir()] == ["results-000.js"]
    assert not list(folder.glob(f"{storage.TEMPORARY}*"))


def test_every_result_is_there_with_its_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "PART", 16)
    folder = write_job(tmp_path / "job", 60, size=25)
    page, found = write(folder), parts(folder)
    lines = [line for number in range(3) for line in shards.lines(shards.shard_folder(folder, number) / shards.INDEX)]
    assert [part["count"] for part in found] == [16, 16, 16, 10]
    assert [part["sheets"] for part in found[:2]] == [{"0": [25, 7]}, {"0": [25, 7], "1": [25, 7]}]
    columns = {name: [value for part in found for value in part["columns"][name]] for name in found[0]["columns"]}
    assert columns["shard"] == [line["number"] // 25 for line in lines]
    for name in ("number", "row", "name", "predicted", "label", *(f"{method}.peak" for method in METHODS)):
        assert columns[name] == [line[name] for line in lines]
    for name in ("probability", *(f"{method}.concentration" for method in METHODS)):
        assert columns[name] == [None if line[name] is None else float(f"{line[name]:.7g}") for line in lines]
    assert said(page)["classes"] == {str(number): name for number, name in enumerate(LABELS)}
    assert said(page)["methods"] == list(METHODS)
    assert said(page)["shown"] == len(lines) == 58
    assert "sha256" not in str(columns.keys())


def test_names_and_labels_are_shown_never_interpreted(tmp_path):
    folder = write_job(tmp_path / "job", 60, bundle=HOSTILE)
    for path in (folder / "shards").rglob(shards.FAILURES):
        line = {"number": 7, "name": HOSTILE, "error": HOSTILE, "where": HOSTILE}
        path.write_bytes(shards.jsonl([line]))
    page = write(folder)
    tags = Tags(page)
    assert not {"img", "b"} & set(tags.tags)
    assert [value for tag, name, value in tags.attributes if name == "src"] == ["report-data/results-000.js"]
    assert not [name for _, name, _ in tags.attributes if name.startswith("on")]
    assert "<img src=x onerror=alert(1)></script>" in tags.text
    assert "$title" in tags.text  # of the name, not put in as the title
    assert "\x07" not in page
    assert said(page)["classes"]["5"] == HOSTILE
    data = (folder / report.DATA / "results-000.js").read_text(encoding="ascii")
    assert not set("<>&\u2028") & set(data)
    assert parts(folder)[0]["columns"]["name"][3].endswith(HOSTILE)


def test_no_script_runs_but_the_page_s_own(tmp_path):
    page = write(write_job(tmp_path / "job", 10))
    policy = re.search(r'content="(default-src[^"]*)"', page, re.S).group(1)
    assert "default-src 'none'; img-src 'self' data:;" in policy
    script = re.search(r"<script>(.*)</script>", page, re.S).group(1)
    assert re.search("script-src 'self' 'sha256-[^']*'", policy)
    assert "innerHTML" not in script
    assert len(script.splitlines()) < 400
    assert not re.search(r"https?:|//[a-z]", page)


def test_a_job_of_more_pictures_than_the_page_holds_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "MOST", 30)
    monkeypatch.setattr(report, "MOST_FAILED", 2)
    folder = write_job(tmp_path / "job", 200, size=25)
    page = write(folder)
    assert sum(part["count"] for part in parts(folder)) == said(page)["shown"] == 30
    assert "The page shows the first 30 of 196 explained pictures" in page
    assert "The first 2 of 4;" in page
    assert page.count("is no picture &lt;b&gt;") == 2
    monkeypatch.setattr(report, "MOST", 196)
    assert "The page shows" not in write(folder)


@pytest.mark.parametrize("missing", ["thumbnails", "labels", "classes", "statistics", "everything"])
def test_what_a_job_lacks_is_left_out(tmp_path, missing):
    settings = {"thumbnails": {"thumbnails": False}, "labels": {"labels": None}, "classes": {"known": False}}
    folder = write_job(tmp_path / "job", 60, **settings.get(missing, {}))
    for path in (folder / "shards").rglob("*.jsonl"):
        if missing == "everything":
            path.write_bytes(b"")
        if missing == "statistics" and path.name == shards.INDEX:
            lines = [{key: value for key, value in line.items() if "." not in key} for line in shards.lines(path)]
            path.write_bytes(shards.jsonl(lines))
    page, found = write(folder), parts(folder)
    if missing == "everything":
        assert (found, said(page)["shown"]) == ([], 0)
        return
    columns = found[0]["columns"]
    assert (found[0]["sheets"]["0"] == [60, 0]) == (missing == "thumbnails")
    assert (said(page)["classes"]["0"] == "0") == (missing == "labels")
    assert ("label" not in columns) == ("with a known class" not in page) == (missing == "classes")
    assert ("gradient.peak" not in columns) == (missing == "statistics")
    assert "overlays" not in columns


def test_overlays_are_known(tmp_path):
    folder = write_job(tmp_path / "job", 10, overlays=True)
    write(folder)
    columns = parts(folder)[0]["columns"]
    assert columns["overlays"] == [number % 2 for number in columns["number"]]


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
