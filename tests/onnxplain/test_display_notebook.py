"""A notebook shows a batch with names and captions, and trusts no text."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from onnxplain.display.from_results import MOST_MAPS, MOST_ROWS, comparison_pictures, figure_columns, notebook_rows
from onnxplain.display.notebook import TILE, NotebookRow, notebook_html, notebook_png
from onnxplain.errors import ParameterError
from onnxplain.heatmap import heatmap, signed_map

rng = np.random.default_rng(0)
SEEN, FIRST, SECOND = rng.integers(0, 256, (3, 20, 30, 3), np.uint8)


def pictures(page):
    found = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))) for data in found]


def test_each_map_stands_beside_its_picture_over_its_caption():
    page = notebook_html(
        [NotebookRow("cat.jpg", SEEN, [("tabby 97 %", FIRST), ("dog", SECOND)], 2)], "by smoothgrad", 3
    )
    np.testing.assert_array_equal(pictures(page), [SEEN, FIRST, SECOND])
    words = re.sub(r"<[^>]*>", "|", page)
    for expected in ("cat.jpg", "tabby 97 %", "dog", "and 2 more", "by smoothgrad", "and 3 more pictures"):
        assert f"|{expected}|" in words
    assert words.index("tabby") < words.index("dog")


def test_hostile_names_are_shown_and_never_interpreted():
    hostile = '"><script>alert(1)</script>'
    page = notebook_html([NotebookRow(hostile, SEEN, [(hostile, FIRST)])], hostile)
    assert "<script" not in page
    assert page.count("&lt;script&gt;") == 5  # the heading, two captions, two descriptions
    calm = notebook_html([NotebookRow("a", SEEN, [("b", FIRST)])], "c")
    assert re.findall(r"<(\w+)", page) == re.findall(r"<(\w+)", calm)


def test_the_png_holds_the_pictures_in_rows():
    rows = [NotebookRow("a", SEEN, [("b", FIRST), ("c", SECOND)]), NotebookRow("ä 日本", None, [("d", FIRST)])]
    drawn = np.asarray(Image.open(io.BytesIO(notebook_png(rows))))
    width = round(TILE * 30 / 20)
    np.testing.assert_array_equal(drawn[:TILE:8, :width:8], SEEN)
    second = drawn[drawn.shape[0] // 2 :]
    np.testing.assert_array_equal(second[:TILE:8, :width:8], FIRST)
    assert (second[:, width + 8 :] == 255).all()
    assert (drawn[TILE : TILE + 20, :width] < 128).any()  # a caption
    with pytest.raises(ParameterError, match="nothing to show"):
        notebook_png([])


def test_the_rows_of_a_result_are_its_images_and_their_targets(explainer, rows):
    result = explainer.explain(np.concatenate([rows, rows]), "gradient", targets=[[2, 0]] * 10)
    found = notebook_rows(result)
    assert len(found) == MOST_ROWS
    names = [
        explainer.bundle.scores.labels[target] if explainer.bundle.scores.labels else str(target) for target in (2, 0)
    ]
    assert [caption for caption, _ in found[3].maps] == names
    many = explainer.explain(rows[:1], "gradient", targets=[[2, 0] * 5])
    assert len(notebook_rows(many)[0].maps) == MOST_MAPS
    assert notebook_rows(many)[0].more == 10 - MOST_MAPS


def test_results_of_the_same_images_are_compared_column_by_column(explainer, rows):
    plain, several = explainer.explain(rows, "gradient"), explainer.explain(rows, "gradient", targets=[[2, 0]] * 5)
    found = comparison_pictures({"one": plain, "two": several})
    assert [list(picture.maps) for picture in found] == [["one", "two 1", "two 2"]] * 5
    np.testing.assert_array_equal(found[3].maps["one"].heat, heatmap(plain.attribution)[3])
    np.testing.assert_array_equal(found[3].maps["two 2"].signed, signed_map(several.attribution)[3, 1])
    assert found[3].maps["one"].note == str(plain.labels[3])
    with pytest.raises(ParameterError, match="other images"):
        comparison_pictures({"one": plain, "two": explainer.explain(rows[::-1], "gradient")})
    with pytest.raises(ParameterError, match="no results"):
        comparison_pictures({})


def test_a_figures_columns_are_the_pictures_and_the_maps_of_each_result(explainer, rows):
    result = explainer.explain(rows, "gradient")
    columns = figure_columns({"one": result, "two": result})
    assert list(columns) == ["picture", "one", "two"]
    np.testing.assert_array_equal(columns["two"], result.heatmap())
    assert len(columns["picture"]) == len(rows)
