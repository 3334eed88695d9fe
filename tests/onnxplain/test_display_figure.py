"""The grid is one figure: every column by name, every entry in its row, and a file that is a PNG."""

import io
import sys

import numpy as np
import pytest
from PIL import Image

from onnxplain.display.fastestimator import grid_columns
from onnxplain.display.figure import figure_grid
from onnxplain.errors import OnnxplainError, OutputError, ParameterError
from onnxplain.heatmap import colours

pytest.importorskip("matplotlib")
rng = np.random.default_rng(0)
PICTURES = rng.uniform(-1, 1, (3, 3, 10, 20))
MAPS = rng.random((3, 10, 20))


def shown(figure):
    """What the axes hold, as [row][column]: an array of pixels, a text, or None."""
    columns = figure.axes[0].get_subplotspec().get_gridspec().ncols
    cells = [
        np.asarray(axis.images[0].get_array()) if axis.images else axis.texts[0].get_text() if axis.texts else None
        for axis in figure.axes
    ]
    return [cells[at : at + columns] for at in range(0, len(cells), columns)]


def test_a_row_holds_one_picture_with_its_texts_and_maps():
    columns = grid_columns(PICTURES, {"raw": MAPS}, classes=["a", "b", "c"], predictions=["a", "b", "b"])
    figure = figure_grid(columns)
    cells = shown(figure)
    assert [axis.get_title() for axis in figure.axes[:5]] == ["class", "prediction", "x", "x saliency", "saliency"]
    assert [axis.get_title() for axis in figure.axes[5:]] == [""] * 10
    assert [row[0] for row in cells] == ["a", "b", "c"]
    for row, heat, picture in zip(cells, MAPS, columns["x"], strict=True):
        np.testing.assert_array_equal(row[2], picture)
        np.testing.assert_array_equal(row[4], colours(np.trunc(heat * 255) / 255, "inferno"))


def test_what_an_entry_is_follows_its_shape():
    bytes_ = np.array([[7, 9]], np.uint8)
    (cells,) = shown(figure_grid({"a": [bytes_], "b": [np.eye(2)[..., None]], "c": [None], "d": [3], "e": ["$x$"]}))
    np.testing.assert_array_equal(cells[0], [[[7] * 3, [9] * 3]])
    np.testing.assert_array_equal(cells[1], np.repeat(np.eye(2)[..., None] * 255, 3, axis=2))
    assert cells[2:] == [None, "3", r"\$x\$"]


def test_the_file_is_a_png_of_the_figures_size(tmp_path):
    path = tmp_path / "grid.png"
    figure = figure_grid({"name": ["cat"], "map": [MAPS[0]]}, path, title="A title", size=1.5, dpi=80)
    width, height = figure.get_size_inches()
    found = Image.open(io.BytesIO(path.read_bytes()))
    assert found.format == "PNG"
    assert found.size == pytest.approx((width * 80, height * 80), abs=1)
    # A map twice as wide as high is drawn so.
    box = figure.axes[1].get_window_extent()
    assert box.width / box.height == pytest.approx(2, rel=0.02)
    assert box.height == pytest.approx(1.5 * 80, rel=0.02)
    with pytest.raises(OutputError, match="nowhere"):
        figure_grid({"name": ["cat"]}, tmp_path / "nowhere" / "grid.png")
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("columns", [{}, {"a": []}, {"a": [1, 2], "b": [1]}], ids=str)
def test_columns_of_several_lengths_are_no_grid(columns):
    with pytest.raises(ParameterError, match="one length"):
        figure_grid(columns)


def test_a_picture_of_two_channels_is_an_error():
    with pytest.raises(ParameterError, match="1 or 3 channels"):
        figure_grid({"a": [np.zeros((4, 4, 2))]})


def test_without_matplotlib_the_error_names_what_to_install(monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(OnnxplainError, match=r'pip install "onnxplain\[plots\]"'):
        figure_grid({"a": [1]})
