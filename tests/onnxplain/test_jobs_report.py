"""The page of a finished job holds every result once, is the same bytes wherever it lies, and trusts no text."""

import hashlib
import json
import re
from html.parser import HTMLParser

import pytest

from finished_jobs import HOSTILE, LABELS, METHODS, write, write_job
from onnxplain.jobs import report, shards, storage


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
