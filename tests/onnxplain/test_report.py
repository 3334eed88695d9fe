"""The report is one file that stands alone, shows what it was given, and trusts no text."""

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from onnxplain.errors import OutputError, ParameterError
from onnxplain.report import (
    ReportMap,
    ReportPicture,
    ReportRow,
    ReportSection,
    ReportTable,
    percent,
    report_page,
    write_report,
)

rng = np.random.default_rng(0)
SEEN, FIRST, SECOND = rng.integers(0, 256, (3, 12, 15, 3), dtype=np.uint8)
VOID = {"meta", "img", "link", "br", "hr", "input"}


class Page(HTMLParser):
    """The elements of a page with their attributes, and its visible words; unbalanced tags are an error."""

    def __init__(self, source):
        super().__init__()
        self.elements, self.words, self.open = [], [], []
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
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    def images(self):
        return [attributes for tag, attributes in self.elements if tag == "img"]


def page(name="cat.jpg", label="cat", **options):
    maps = [ReportMap("Gradient", FIRST), ReportMap("SmoothGrad", SECOND, "25 samples")]
    rows = [
        ReportRow("honest", [(label, 0.914), ("dog", 0.004)], maps),
        ReportRow("shortcut", [("dog", 0.6)], maps[:1]),
    ]
    table = ReportTable("Shares", ["method", "digit", "pictures"], [["Gradient", 0.25, "12"]])
    sections = [
        ReportSection("Numbers", ["A paragraph."], [table]),
        ReportSection("Pictures", (), (), [ReportPicture(name, SEEN, rows)]),
    ]
    return report_page("A title", sections, introduction=["Hello."], **options)


def test_pictures_and_maps_are_there_pixel_for_pixel_and_described():
    images = Page(page()).images()
    shown = []
    for image in images:
        data = base64.b64decode(image["src"].removeprefix("data:image/png;base64,"), validate=True)
        shown.append(np.asarray(Image.open(io.BytesIO(data))))
        assert (image["width"], image["height"]) == ("15", "12")
        assert "cat.jpg" in image["alt"]
    np.testing.assert_array_equal(shown, [SEEN, FIRST, SECOND, FIRST])
    assert len({image["alt"] for image in images}) == 4


def test_predictions_tables_and_provenance_are_readable_words():
    words = " ".join(Page(page(provenance={"bundle": "sha256 abc"})).words)
    for expected in (
        "A title",
        "Hello.",
        "A paragraph.",
        "cat",
        "91 %",
        "0.4 %",
        "Gradient",
        "25 samples",
        "25 %",
        "12",
    ):
        assert expected in words
    assert "sha256 abc" in words


def test_a_bar_is_as_long_as_its_share():
    assert re.findall(r"width:([\d.]+)%", page()) == ["25.0", "91.4", "0.4", "60.0"]


def test_scores_are_numbers_without_bars():
    row = ReportRow("honest", [("cat", 12.345), ("dog", -3.0)], scores=True)
    source = report_page("t", [ReportSection(pictures=[ReportPicture("p", None, [row])])])
    words = " ".join(Page(source).words)
    assert "12.3" in words
    assert "-3" in words
    assert "%" not in words
    assert not Page(source).images()


def test_the_page_asks_nothing_from_outside():
    source = page()
    for _, attributes in Page(source).elements:
        assert not {"href", "srcset", "action", "onload", "onerror"} & attributes.keys()
        assert attributes.get("src", "data:").startswith("data:")
    assert "url(" not in source
    assert "@import" not in source
    assert "<script" not in source
    assert "default-src 'none'" in source


HOSTILE = [
    "<script>alert(1)</script>.jpg",
    '"><img src=x onerror=alert(1)>.jpg',
    "' onmouseover='alert(1)",
    "</style></title><h1>",
    "${title} $style $$ $nothing",
    "&lt;b&gt;",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_shown_and_never_interpreted(text):
    calm, hostile = Page(page()), Page(page(name=text, label=text, provenance={text: text}))
    tags = [tag for tag, _ in hostile.elements if tag not in ("dt", "dd")]
    assert tags == [tag for tag, _ in calm.elements]
    assert [set(found) for tag, found in hostile.elements if tag == "img"] == [set(found) for found in calm.images()]
    assert hostile.words.count(text) == 4
    assert all(text in image["alt"] for image in hostile.images())


def test_a_file_name_that_is_no_text_is_written_all_the_same(tmp_path):
    picture = ReportPicture("caf\udce9\x00\x1b[2J.jpg", SEEN)
    write_report(tmp_path / "report.html", "Été 日本", [ReportSection(pictures=[picture])])
    source = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "caf\ufffd\ufffd\ufffd[2J.jpg" in source
    assert "Été 日本" in source


def test_a_report_is_written_whole_or_not_at_all(tmp_path):
    with pytest.raises(OutputError, match="nowhere"):
        write_report(tmp_path / "nowhere" / "report.html", "t", [])
    with pytest.raises(OutputError, match="uint8"):
        write_report(tmp_path / "report.html", "t", [ReportSection(pictures=[ReportPicture("p", SEEN / 255)])])
    assert not list(tmp_path.iterdir())


def test_the_legend_is_drawn_in_the_maps_own_colours():
    assert "linear-gradient" in page()
    assert page() != page(colour_map="turbo")
    assert "strong influence" not in " ".join(Page(page(colour_map=None)).words)
    with pytest.raises(ParameterError, match="colour map"):
        page(colour_map="rainbow")


@pytest.mark.parametrize(
    ("share", "says"),
    [
        (0.0, "0 %"),
        (0.0001, "< 0.1 %"),
        (0.004, "0.4 %"),
        (0.0999, "10.0 %"),
        (0.5, "50 %"),
        (0.994, "99.4 %"),
        (0.99996, "> 99.9 %"),
        (1.0, "100 %"),
        (float("nan"), "not a number"),
    ],
)
def test_shares_are_never_rounded_to_certainty(share, says):
    assert percent(share) == says
