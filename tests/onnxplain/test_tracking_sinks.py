"""A figure and its numbers arrive where they are sent: read back from PNG files and from TensorBoard's events."""

import math
import sys
from types import ModuleType

import cv2
import numpy as np
import pytest

from onnxplain.errors import OnnxplainError, OutputError, ParameterError
from onnxplain.pictures import read_picture
from onnxplain.tracking import InstanceTracker, LabelTracker, Notebook, PngFolder, publish
from onnxplain.tracking.sinks import EventWriter, Sink, as_sinks

PIXELS = np.random.default_rng(0).integers(0, 256, (9, 13, 3), np.uint8)


class Recorder:
    """A sink that remembers."""

    def __init__(self):
        self.figures, self.scalars = {}, {}

    def figure(self, name, pixels, step):
        self.figures[name, step] = pixels

    def scalar(self, name, value, step):
        self.scalars[name, step] = value


def torch_writer(folder):
    return pytest.importorskip("torch.utils.tensorboard").SummaryWriter(folder)


def tensorboardx_writer(folder):
    return pytest.importorskip("tensorboardX").SummaryWriter(str(folder))


WRITERS = {"torch": torch_writer, "tensorboardX": tensorboardx_writer}


def events(folder):
    """The images and numbers of an events file: {tag: {step: …}} each."""
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found = event_accumulator.EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0}).Reload()
    images = {
        tag: {event.step: decoded(event.encoded_image_string) for event in found.Images(tag)}
        for tag in found.Tags()["images"]
    }
    numbers = {tag: {event.step: event.value for event in found.Scalars(tag)} for tag in found.Tags()["scalars"]}
    return images, numbers


def decoded(data):
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)


@pytest.mark.parametrize("kind", WRITERS)
def test_writers_write_events_that_tensorboard_reads(tmp_path, kind):
    writer = WRITERS[kind](tmp_path)
    (sink,) = as_sinks(writer)
    sink.figure("saliency/eval", PIXELS, 5)
    sink.figure("saliency/eval", PIXELS[::-1], 10)
    sink.scalar("loss/eval/cat", 0.25, 5)
    sink.scalar("loss/eval/cat", math.nan, 10)
    writer.close()
    images, numbers = events(tmp_path)
    np.testing.assert_array_equal(images["saliency/eval"][5], PIXELS)
    np.testing.assert_array_equal(images["saliency/eval"][10], PIXELS[::-1])
    assert numbers["loss/eval/cat"][5] == 0.25
    assert math.isnan(numbers["loss/eval/cat"][10])


def test_a_writer_of_figures_alone_gets_a_figure():
    class Figures:
        def add_figure(self, tag, figure, global_step):
            self.given = tag, figure, global_step

        def add_scalar(self, tag, value, global_step):
            """Not called here."""

    writer = Figures()
    as_sinks(writer)[0].figure("saliency/eval", PIXELS, 5)
    tag, figure, step = writer.given
    assert (tag, step) == ("saliency/eval", 5)
    np.testing.assert_array_equal(np.asarray(figure.axes[0].images[0].get_array()), PIXELS)


def test_png_files_have_names_and_epochs(tmp_path):
    sink = PngFolder(tmp_path / "new" / "folder")
    for step, pixels in ((5, PIXELS), (12345, PIXELS), (5, PIXELS[::-1])):
        sink.figure("saliency/eval", pixels, step)
    sink.scalar("loss", 1.0, 5)
    files = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    folder = tmp_path / "new" / "folder" / "saliency" / "eval"
    assert files == [folder / "epoch_0005.png", folder / "epoch_12345.png"]
    np.testing.assert_array_equal(read_picture(files[0]), PIXELS[::-1])


@pytest.mark.parametrize(
    ("name", "inside"),
    [("../../etc", "_/_/etc"), ("a:b*?", "a_b__"), ("/root", "_/root"), ("Zürich 2.5", "Zürich 2.5"), ("...", "_")],
)
def test_a_name_stays_inside_the_folder(tmp_path, name, inside):
    assert PngFolder(tmp_path).path_of(name, 1) == tmp_path / inside / "epoch_0001.png"


def test_a_folder_that_can_not_be_made_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="can't make the folder"):
        PngFolder(tmp_path / "file").figure("saliency", PIXELS, 1)


@pytest.fixture
def shown(monkeypatch):
    """What a notebook's IPython was asked to show: pictures by the number of their place."""
    places = []

    class Handle:
        def __init__(self, place):
            self.place = place

        def update(self, image):
            places[self.place] = image

    def display(image, display_id):
        assert display_id
        places.append(image)
        return Handle(len(places) - 1)

    module = ModuleType("IPython.display")
    module.display, module.Image = display, lambda data: decoded(data)
    monkeypatch.setitem(sys.modules, "IPython", ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    return places


@pytest.mark.parametrize("replace", [False, True])
def test_a_notebook_shows_figures_below_each_other_or_in_place(shown, replace):
    sink = Notebook(replace=replace)
    for name, pixels in (("a", PIXELS), ("b", PIXELS), ("a", PIXELS[::-1])):
        sink.figure(name, pixels, 1)
    sink.scalar("loss", 1.0, 1)
    expected = [PIXELS[::-1], PIXELS] if replace else [PIXELS, PIXELS, PIXELS[::-1]]
    np.testing.assert_array_equal(shown, expected)


def test_without_ipython_the_error_names_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "IPython.display", None)
    with pytest.raises(OnnxplainError, match="pip install ipython"):
        Notebook().figure("saliency", PIXELS, 1)


def test_what_a_sink_is():
    folder, notebook, recorder = PngFolder("."), Notebook(), Recorder()
    assert as_sinks([folder, notebook, recorder]) == (folder, notebook, recorder)
    assert as_sinks(folder) == (folder,)
    assert as_sinks(()) == ()
    assert isinstance(EventWriter(None), Sink)


@pytest.mark.parametrize(
    ("sink", "message"),
    [(3, "int is no sink"), (PngFolder, r"one of its objects, PngFolder\(…\)"), ([None], "NoneType")],
)
def test_what_no_sink_is(sink, message):
    with pytest.raises(ParameterError, match=message):
        as_sinks(sink)


def label_tracker(bounds):
    tracker = LabelTracker("loss", bounds=bounds, label_mapping={"cat": 0, "dog": 1})
    for step, values in ((1, [1.0, 2.0, 5.0]), (2, [1.0, 3.0, math.nan])):
        tracker.update([0, 0, 1], values)
        tracker.epoch_end(step)
    return tracker


@pytest.mark.parametrize("bounds", ["std", "range", None, ["range", None]])
def test_a_label_trackers_means_are_published(bounds):
    sink = Recorder()
    publish(label_tracker(bounds), sink, 1)
    publish(label_tracker(bounds), [sink], 2, name="val/loss")
    assert sink.figures.keys() == {("loss", 1), ("val/loss", 2)}
    assert sink.figures["loss", 1].shape[2] == 3
    assert sink.figures["loss", 1].std() > 0
    assert sink.scalars.pop(("val/loss/eval/dog", 2)) != 0  # NaN, as it is
    assert sink.scalars == {("loss/eval/cat", 1): 1.5, ("loss/eval/dog", 1): 5.0, ("val/loss/eval/cat", 2): 2.0}


def test_an_instance_trackers_kept_values_are_published():
    tracker = InstanceTracker("loss", n_max_to_keep=1, n_min_to_keep=1, list_to_keep=[7])
    tracker.update([7, 8, 9, 5], [0.4, 0.3, 0.9, 0.2])
    tracker.epoch_end(1)
    tracker.update([7, 8], [0.5, 0.1])
    tracker.epoch_end(2)
    sink = Recorder()
    publish(tracker, sink, 1)
    publish(tracker, sink, 2)
    assert sink.scalars == {
        ("loss/eval/8", 1): 0.3,
        ("loss/eval/7", 1): 0.4,
        ("loss/eval/9", 1): 0.9,
        ("loss/eval/8", 2): 0.1,
        ("loss/eval/7", 2): 0.5,
    }
