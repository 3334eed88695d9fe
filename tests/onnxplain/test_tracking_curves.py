"""The figures hold every curve with its band and name, and nothing covers the data."""

import io
import sys

import numpy as np
import pytest
from PIL import Image

from onnxplain.errors import OnnxplainError, OutputError, ParameterError
from onnxplain.tracking import InstanceTracker, LabelTracker

pytest.importorskip("matplotlib")
EPOCHS = 6


def labels_of(count, bounds="std", mapping=None, wrong=None, epochs=EPOCHS):
    """A tracker of `count` labels whose means fall to a tenth of their number; `wrong` {epoch: value} for label 1."""
    rng = np.random.default_rng(0)
    tracker = LabelTracker("loss_", bounds, mapping)
    found = np.repeat(np.arange(count), 20)
    for epoch in range(1, epochs + 1):
        values = found / 10 + rng.random(len(found)) / epoch
        values[found == 1] = (wrong or {}).get(epoch, values[found == 1])
        tracker.update(found, values)
        tracker.epoch_end(epoch)
    return tracker


def instances_of(count, epochs=EPOCHS, **options):
    rng = np.random.default_rng(0)
    tracker = InstanceTracker("loss", **options)
    for epoch in range(1, epochs + 1):
        tracker.update(np.arange(count), np.arange(count) + rng.random(count))
        tracker.epoch_end(epoch)
    return tracker


def legend(axis):
    return [text.get_text() for text in axis.get_legend().get_texts()]


def named(axis):
    """The last word of every entry of the legend."""
    return [text.split("  ")[-1].strip() for text in legend(axis)]


def coloured(axis):
    """The curves in colour, which are those with a wide line."""
    return [line for line in axis.lines if line.get_linewidth() == 1.6 and len(line.get_xdata())]


def test_few_labels_share_a_panel_with_their_bands():
    tracker = labels_of(3, mapping={"cat": 0, "dog": 1, "cart": 2})
    figure = tracker.figure(title="A title")
    (axis,) = figure.axes
    assert figure.get_suptitle() == "A title"
    assert (axis.get_xlabel(), axis.get_ylabel(), axis.get_title("left")) == (
        "step",
        "loss_",
        "eval: mean ± standard deviation",
    )
    assert list(axis.get_xticks()) == [1, 2, 3, 4, 5, 6]
    assert named(axis) == ["cart", "dog", "cat"]
    curves = tracker.history["eval"]
    for name, line, band in zip(("cart", "dog", "cat"), coloured(axis), axis.collections, strict=True):
        recorded = curves[name]["std"]
        np.testing.assert_array_equal(line.get_ydata(), [each.mean for each in recorded.values()])
        edges = band.get_paths()[0].vertices
        assert {(step, edge) for step, each in recorded.items() for edge in (each.low, each.high)} <= set(
            map(tuple, edges)
        )
        assert line.get_color() == "#%02x%02x%02x".upper() % tuple(
            (band.get_facecolor()[0, :3] * 255).round().astype(int)
        )


def test_the_legend_gives_the_last_values():
    tracker = labels_of(2, None)
    (axis,) = tracker.figure().axes
    means = [tracker.history["eval"][label][None][EPOCHS] for label in (1, 0)]
    assert [float(text.replace("\u2007", " ").split()[0]) for text in legend(axis)] == pytest.approx(means, rel=5e-3)
    assert axis.get_legend().get_title().get_text() == "last value, label"
    # In columns, whatever their digits.
    assert len({text.rindex("  ") for text in legend(axis)}) == 1
    assert len({len(f"{mean:#.3g}") for mean in means}) == 2


def test_more_bands_than_one_panel_can_show_get_panels_of_their_own():
    figure = labels_of(7).figure()
    main, *small = [axis for axis in figure.axes if axis.axison]
    assert len(coloured(main)) == 7
    assert not main.collections
    assert [axis.get_title("left") for axis in small] == list("0123456")
    assert all(len(axis.collections) == 1 for axis in small)
    colours = dict(zip(named(main), [line.get_color() for line in coloured(main)], strict=True))
    assert [axis._left_title.get_color() for axis in small] == [colours[name] for name in "0123456"]
    assert len(labels_of(7, None).figure().axes) == 1


def test_of_many_labels_the_highest_and_the_lowest_are_named_and_the_rest_grey():
    figure = labels_of(40).figure()
    main, *small = figure.axes
    assert named(main) == ["39", "38", "37", "36", "35", "30 others", "4", "3", "2", "1", "0"]
    assert len({line.get_color() for line in coloured(main)}) == 10
    assert len([line for line in main.lines if len(line.get_xdata())]) == 40
    assert [axis.get_title("left") for axis in small] == ["0", "1", "2", "3", "4", "35", "36", "37", "38", "39"]


def test_up_to_twenty_curves_all_differ():
    (axis,) = labels_of(20, None).figure().axes
    assert len(named(axis)) == len({(line.get_color(), line.get_linestyle()) for line in coloured(axis)}) == 20


def test_every_mode_and_kind_of_bounds_has_its_panel():
    tracker = labels_of(2, ["std", "range", None])
    tracker.update([0, 1], [1, 2], mode="train")
    tracker.epoch_end(1, "train")
    titles = [axis.get_title("left") for axis in tracker.figure().axes]
    kinds = ["mean ± standard deviation", "mean, minimum to maximum", "mean"]
    assert titles == [f"{mode}: {kind}" for mode in ("eval", "train") for kind in kinds]
    assert len(tracker.figure(mode="train").axes) == 3


@pytest.mark.parametrize("value", [np.nan, np.inf], ids=str)
def test_what_is_no_number_is_a_gap_and_a_cross_below_the_data(value):
    (axis,) = labels_of(3, wrong={2: value, 4: value}).figure().axes
    curve = coloured(axis)[1]
    assert list(np.isnan(curve.get_ydata())) == [False, True, False, True, False, False]
    crosses = [line for line in axis.lines if line.get_marker() == "x" and len(line.get_xdata())]
    assert [(list(line.get_xdata()), line.get_color()) for line in crosses] == [
        ([2], curve.get_color()),
        ([4], curve.get_color()),
    ]
    assert legend(axis)[-1] == "NaN or infinite"
    lowest = min(np.nanmin(line.get_ydata()) for line in coloured(axis))
    edge = axis.transAxes.inverted().transform(axis.transData.transform((1, lowest)))[1]
    (dotted,) = [line for line in axis.lines if line.get_linestyle() == ":"]
    strip = axis.transAxes.inverted().transform(axis.transData.transform((1, dotted.get_ydata()[0])))[1]
    assert all(line.get_ydata()[0] < strip - 0.02 for line in crosses)
    assert strip < edge
    assert min(axis.get_yticks()) > axis.get_ylim()[0]


def test_crosses_of_one_step_do_not_cover_each_other():
    tracker = LabelTracker("loss")
    for epoch in (1, 2):
        tracker.update([0, 1, 2, 3], [1, np.nan, np.nan, np.nan])
        tracker.epoch_end(epoch)
    (axis,) = tracker.figure().axes
    crosses = [line for line in axis.lines if line.get_marker() == "x" and list(line.get_xdata()) == [2]]
    assert len({round(line.get_ydata()[0], 3) for line in crosses}) == len({line.get_color() for line in crosses}) == 3


@pytest.mark.parametrize("epochs", [1, 3])
def test_an_infinite_bound_leaves_the_rest_to_be_seen(epochs, tmp_path):
    tracker = LabelTracker("loss", "range")
    for epoch in range(1, epochs + 1):
        tracker.update([0, 0, 1, 1], [-np.inf, 5.0, 1.0, 2.0])
        tracker.epoch_end(epoch)
    (axis,) = tracker.figure(tmp_path / "labels.png").axes
    low, high = axis.get_ylim()
    assert 0 < low < high < 6


def test_curves_that_are_nothing_but_nan_can_be_drawn():
    figure = labels_of(2, wrong=dict.fromkeys(range(1, EPOCHS + 1), np.nan)).figure()
    assert named(figure.axes[0])[:2] == ["1", "0"]
    assert legend(figure.axes[0])[0].startswith("nan")


def test_at_a_single_step_the_curves_are_points_beside_each_other():
    (axis,) = labels_of(10, epochs=1).figure().axes
    places = [line.get_xdata()[0] for line in coloured(axis)]
    assert len(set(places)) == 10
    assert all(0.5 < place < 1.5 for place in places)
    assert len(axis.collections) == 10
    assert list(axis.get_xticks()) == [1]


def test_names_are_shown_as_they_are():
    mapping = {"_hidden": 0, "$x^2$": 1, "a" * 60 + "z.png": 2}
    (axis,) = labels_of(3, None, mapping).figure().axes
    assert named(axis) == ["a" * 14 + "…" + "a" * 9 + "z.png", "$x^2$", "_hidden"]
    assert not any(text.get_parse_math() for text in axis.get_legend().get_texts())


def test_samples_are_drawn_in_their_groups():
    (axis,) = instances_of(50, n_max_to_keep=2, n_min_to_keep=2, list_to_keep=[20, 49]).figure().axes
    assert named(axis) == ["highest", "49", "48", "listed", "20", "lowest", "1", "0"]
    assert [line.get_marker() for line in coloured(axis)] == ["^", "^", "o", "v", "v"]
    assert axis.get_title("left") == "eval"
    (axis,) = instances_of(50, n_max_to_keep=15, n_min_to_keep=15).figure().axes
    assert named(axis)[:2] + named(axis)[5:9] == ["highest", "49", "45", "20 others", "lowest", "4"]


@pytest.mark.parametrize(
    "tracker",
    [
        *[labels_of(count, wrong={2: np.nan}) for count in (3, 10, 20, 40)],
        labels_of(20, None, {f"the label number {at:015d}": at for at in range(20)}),
        instances_of(50, list_to_keep=range(20, 30)),
        instances_of(50, epochs=1, list_to_keep=[20]),
    ],
    ids=["3", "10", "20", "40", "long", "samples", "one step"],
)
def test_nothing_covers_the_data_or_leaves_the_figure(tracker):
    figure = tracker.figure(title="A title")
    figure.draw_without_rendering()
    for axis in figure.axes:
        box = axis.get_window_extent()
        whole = axis.get_tightbbox()
        assert whole.x0 >= -1
        assert whole.x1 <= figure.bbox.x1 + 1
        assert whole.y0 >= -1
        assert whole.y1 <= figure.bbox.y1 + 1
        if axis.get_legend() is not None:
            beside = axis.get_legend().get_window_extent()
            assert not box.overlaps(beside)
            assert beside.y0 > box.y0 - 30
        for other in figure.axes:
            assert other is axis or not box.overlaps(other.get_window_extent())


def test_the_file_is_a_png_of_the_figure(tmp_path):
    path = tmp_path / "labels.png"
    figure = labels_of(3).figure(path)
    found = Image.open(io.BytesIO(path.read_bytes()))
    assert found.format == "PNG"
    assert found.size == pytest.approx(tuple(figure.get_size_inches() * 120), abs=1)
    with pytest.raises(OutputError, match="nowhere"):
        instances_of(9).figure(tmp_path / "nowhere" / "instances.png")
    assert list(tmp_path.iterdir()) == [path]


def test_without_anything_recorded_there_is_nothing_to_draw():
    for tracker in (LabelTracker("loss"), InstanceTracker("loss")):
        tracker.update([0], [1])
        with pytest.raises(ParameterError, match="nothing to draw: no epoch has been recorded"):
            tracker.figure()
        with pytest.raises(ParameterError, match="no epoch of mode 'test' has been recorded; recorded: nothing"):
            tracker.figure(mode="test")
    with pytest.raises(ParameterError, match="no sample is kept"):
        instances_of(3, n_max_to_keep=0, n_min_to_keep=0).figure()


def test_without_matplotlib_only_the_figures_are_missing(monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.setitem(sys.modules, name, None)
    for tracker in (labels_of(3), instances_of(3)):
        assert tracker.summaries()
        with pytest.raises(OnnxplainError, match=r'pip install "onnxplain\[plots\]"'):
            tracker.figure()
