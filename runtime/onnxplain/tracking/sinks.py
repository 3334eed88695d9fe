"""Where trackers show what they find: PNG files, a notebook, a writer of TensorBoard's events."""

import importlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from onnxplain.display.figure import figure_grid
from onnxplain.errors import OnnxplainError, OutputError, ParameterError
from onnxplain.pictures import png_bytes, write_png

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Pixels = NDArray[np.uint8]


@runtime_checkable
class Sink(Protocol):
    """Takes figures, RGB uint8 `[H, W, 3]`, and single numbers, each under a name and at a step."""

    def figure(self, name: str, pixels: Pixels, step: int) -> None:
        """Shows or stores a figure."""

    def scalar(self, name: str, value: float, step: int) -> None:
        """Shows or stores a number."""


class PngFolder:
    """Writes every figure to NAME/epoch_0005.png in a folder, whole or not at all; numbers are left out.

    A "/" in a name makes a folder of its own; letters that a file's name can't have everywhere become "_". Raises
    OutputError where a file can't be written.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)

    def path_of(self, name: str, step: int) -> Path:
        """The file of a figure."""
        parts = [re.sub(r"[^\w .+=()-]", "_", part).strip(" .") for part in name.split("/")]
        return self.folder.joinpath(*(part or "_" for part in parts), f"epoch_{step:04d}.png")

    def figure(self, name: str, pixels: Pixels, step: int) -> None:
        """Writes the file, in place of one that is there."""
        path = self.path_of(name, step)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"can't make the folder {path.parent}: {error.strerror or error}") from error
        write_png(path, pixels)

    def scalar(self, name: str, value: float, step: int) -> None:
        """Nothing: a number is no picture."""


class Notebook:
    """Shows every figure below the running cell; with `replace`, in the place of the last one of the same name.

    Numbers are left out. Raises OnnxplainError where IPython, which a notebook runs on, is missing.
    """

    def __init__(self, replace: bool = False) -> None:
        self._replace = replace
        self._handles: dict[str, Any] = {}

    def figure(self, name: str, pixels: Pixels, step: int) -> None:  # noqa: ARG002 (every sink's signature)
        """Shows it."""
        try:
            notebook = importlib.import_module("IPython.display")  # a notebook's own; nothing else needs it
        except ImportError:
            raise OnnxplainError("showing figures in a notebook needs IPython: pip install ipython") from None
        image = notebook.Image(data=png_bytes(pixels))
        if self._replace and name in self._handles:
            self._handles[name].update(image)
        else:
            self._handles[name] = notebook.display(image, display_id=True)

    def scalar(self, name: str, value: float, step: int) -> None:
        """Nothing: the curves of a figure show it."""


class EventWriter:
    """A sink around anything with add_image (or add_figure) and add_scalar: torch's and tensorboardX's SummaryWriter.

    Where it has both of the first, pixels go to add_image.
    """

    def __init__(self, writer: Any) -> None:
        self.writer = writer

    def figure(self, name: str, pixels: Pixels, step: int) -> None:
        """Writes an image."""
        if hasattr(self.writer, "add_image"):
            self.writer.add_image(name, pixels, step, dataformats="HWC")
        else:
            self.writer.add_figure(name, _figure_of(pixels), step)

    def scalar(self, name: str, value: float, step: int) -> None:
        """Writes a number, NaN and infinity as they are."""
        self.writer.add_scalar(name, value, step)


def _figure_of(pixels: Pixels) -> "Figure":
    """A matplotlib figure that shows the pixels and nothing else."""
    return figure_grid({"": [pixels]}, size=pixels.shape[0] / 100, dpi=100)


def as_sinks(sinks: Any) -> tuple[Sink, ...]:
    """One sink or several, writers wrapped; ParameterError for what is neither."""
    return tuple(_sink(each) for each in (sinks if isinstance(sinks, Iterable) else [sinks]))


def _sink(sink: Any) -> Sink:
    if isinstance(sink, type):
        raise ParameterError(f"{sink.__name__} is a class: hand in one of its objects, {sink.__name__}(…)")
    if isinstance(sink, Sink):
        return sink
    if hasattr(sink, "add_scalar") and (hasattr(sink, "add_image") or hasattr(sink, "add_figure")):
        return EventWriter(sink)
    raise ParameterError(
        f"{type(sink).__name__} is no sink: that is a PngFolder, a Notebook, or anything with figure(name, pixels, "
        "step) and scalar(name, value, step), or with add_image (or add_figure) and add_scalar"
    )


def publish(tracker: Any, sinks: Any, step: int, *, name: str = "") -> None:
    """Gives the sinks a LabelTracker's or InstanceTracker's figure, and its numbers at a step.

    Numbers are the means of the labels and the values of the instances that are kept, NaN among them, as
    NAME/MODE/LABEL; what wasn't recorded at this step is left out. `name` is the tracker's metric unless given. The
    figure needs matplotlib.
    """
    found, name = as_sinks(sinks), name or f"{tracker.metric}"
    if not found:
        return
    pixels, numbers = figure_pixels(tracker.figure()), list(_numbers(tracker, step))
    for sink in found:
        sink.figure(name, pixels, step)
        for path, value in numbers:
            sink.scalar(f"{name}/{path}", value, step)


def _numbers(tracker: Any, step: int) -> Iterator[tuple[str, float]]:
    for mode, entries in tracker.history.items():
        # Of a data set's instances there are too many to be written one by one.
        for key in tracker.kept(mode) if hasattr(tracker, "kept") else entries:
            value = _value_at(entries[key], step) if key in entries else None
            if value is not None:
                yield f"{mode}/{key}", value


def _value_at(entry: Mapping[Any, Any], step: int) -> float | None:
    """The number at a step in {step: value}, or in {bounds: {step: mean or (low, mean, high)}}; None: there is none."""
    by_step = next((each for each in entry.values() if isinstance(each, Mapping)), entry)
    value = by_step.get(step)
    if value is None:
        return None
    return float(value[1] if isinstance(value, tuple | list) else value)


def figure_pixels(figure: "Figure") -> Pixels:
    """Return what a matplotlib figure looks like, RGB uint8 `[H, W, 3]`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # heavy, and an extra

    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    return np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., :3])
