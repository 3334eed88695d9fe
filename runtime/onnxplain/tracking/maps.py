"""What a SaliencyTracker shows of one epoch: pictures with their class, what the network said, and their maps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.bundle import Bundle
from onnxplain.display.fastestimator import display_pixels, highlight
from onnxplain.display.figure import figure_grid
from onnxplain.errors import ParameterError
from onnxplain.heatmap import at_size, overlay
from onnxplain.images import Image
from onnxplain.pictures import png_bytes
from onnxplain.result import Result
from onnxplain.tracking.sinks import figure_pixels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Pixels = NDArray[np.uint8]

COLUMNS = ("class", "prediction", "picture", "highlight", "maps")
NAMES = {
    "gradient": "gradient",
    "smoothgrad": "smoothed",
    "integrated_gradients": "integrated",
    "smoothgrad_integrated": "smoothed + integrated",
}
"""What heads the column of a method; others are called by their own names."""
COUNTS = ("samples", "steps", "masks")
UNBROKEN = "\u00a0"
"""A space at which no line is broken."""
SIZE = 1.8
"""Height of a row in inches."""


@dataclass(frozen=True, eq=False, slots=True, repr=False)
class TrackedMaps:
    """The kept pictures of a mode after an epoch: N `images` and the `results` for them, by method.

    `labels` are the names of their classes (None: they came without), `predictions` those that the network gave them
    (None: its output holds no classes) and `confidence` the probabilities of these, where there are any. `shown` are
    the columns that are drawn, of COLUMNS.
    """

    epoch: int
    mode: str
    images: tuple[Image, ...]
    labels: tuple[str, ...] | None
    predictions: tuple[str, ...] | None
    confidence: tuple[float, ...] | None
    results: Mapping[str, Result]
    pictures: tuple[Pixels, ...]
    shown: tuple[str, ...] = COLUMNS
    preset: str | None = None

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        return f"<{self.title} of {len(self)} pictures: {', '.join(self.results)}>"

    @property
    def title(self) -> str:
        """What stands above the figure."""
        return f"epoch {self.epoch}, {self.mode}"

    @property
    def scores(self) -> NDArray[np.float32]:
        """The network's scores of the pictures, `[N, classes]`."""
        return next(iter(self.results.values())).scores

    @property
    def rows(self) -> int:
        """How many rows the network was run on for each picture, beside a first look at its scores."""
        return sum(int(result.steps.max()) for result in self.results.values())

    def columns(self) -> dict[str, list[object]]:
        """Return the columns for onnxplain.display.figure.figure_grid, by what heads them."""
        columns: dict[str, list[object]] = {}
        if "class" in self.shown and self.labels is not None:
            columns["class"] = list(self.labels)
        if "prediction" in self.shown and self.predictions is not None:
            columns["prediction"] = self._said()
        if "picture" in self.shown:
            columns["picture"] = list(self.pictures)
        if "highlight" in self.shown:
            columns["highlight"] = self._highlights()
        if "maps" in self.shown:
            for method, result in self.results.items():
                columns[heading(method, result.parameters)] = list(result.heatmap())
        return columns

    def figure(self, path: str | Path | None = None, *, size: float = SIZE) -> "Figure":
        """Return a matplotlib figure with a row for each picture, `size` inches high; with `path` written as PNG."""
        return figure_grid(self.columns(), path, title=self.title, size=size)

    def pixels(self) -> Pixels:
        """Return the figure as RGB uint8 `[H, W, 3]`."""
        return figure_pixels(self.figure())

    def _repr_png_(self) -> bytes:
        """For notebooks."""
        return png_bytes(self.pixels())

    def _said(self) -> list[object]:
        if self.confidence is None or self.predictions is None:
            return list(self.predictions or ())
        return [f"{name} ({share:.0%})" for name, share in zip(self.predictions, self.confidence, strict=True)]

    def _highlights(self) -> list[object]:
        """The pictures lit up by the last method's maps, as the preset's system does it."""
        heats = list(self.results.values())[-1].heatmap()
        if self.preset == "fastestimator":
            rows, layout = _rows(self.images), str(next(iter(self.results.values())).layout)
            last = highlight(rows, heats, layout)
            return [display_pixels(np.moveaxis(one, 0, -1) if layout == "NCHW" else one) for one in last]
        return [
            overlay(picture, at_size(heat, *picture.shape[:2]))
            for picture, heat in zip(self.pictures, heats, strict=True)
        ]


def heading(method: str, parameters: Mapping[str, Any]) -> str:
    """What heads a method's column: its name and how many steps it takes, such as "smoothed, 25 samples"."""
    counts = {name: f"{parameters[name]}" for name in COUNTS if name in parameters}
    name = NAMES.get(method, method.replace("_", " "))
    number = f"{' × '.join(counts.values())} {list(counts)[-1]}" if counts else ""
    return f"{name}, {number.replace(' ', UNBROKEN)}" if counts else name


def shown_pictures(images: Sequence[Image], bundle: Bundle, preset: str | None = None) -> tuple[Pixels, ...]:
    """The pictures as the network saw them, RGB uint8 `[H, W, 3]`; of floats what their values suggest.

    A float image is taken back through the bundle's preprocessing, unless that was only assumed. ParameterError for a
    network whose input is no picture.
    """
    layout = bundle.image.layout
    if layout is None:
        raise ParameterError("this network's input is no picture, so there are no maps to be shown")
    if preset == "fastestimator":
        rows = _rows(images)
        return tuple(display_pixels(one) for one in (np.moveaxis(rows, 1, -1) if layout == "NCHW" else rows))
    known = all(image.prepared is not None or not bundle.assumed for image in images)
    seen = [image.seen for image in images] if known else [None]
    found = [each for each in seen if each is not None]
    return tuple(found) if len(found) == len(images) else tuple(stretched(_rows(images), layout))


def _rows(images: Sequence[Image]) -> NDArray[Any]:
    return np.concatenate([image.row for image in images])


def stretched(rows: NDArray[Any], layout: str) -> list[Pixels]:
    """Return a batch `[N, C, H, W]` ("NCHW") or `[N, H, W, C]` on any scale as RGB uint8 `[H, W, 3]` each.

    One rule serves the whole batch, so that its pictures can be compared: values in 0..1, −0.5..0.5 or −1..1 are on
    that scale, whole numbers in 0..255 are bytes where some exceed 16, and others go from each channel's smallest to
    its largest. Other numbers of channels than 1 and 3 are drawn as the mean of all.
    """
    values = (np.moveaxis(rows, 1, -1) if layout == "NCHW" else rows).astype(np.float64)
    if values.shape[-1] not in (1, 3):
        values = values.mean(axis=-1, keepdims=True)
    low, high = _scale(values)
    pixels = np.rint(np.clip((values - low) / np.where(high > low, high - low, 1.0), 0.0, 1.0) * 255).astype(np.uint8)
    return list(np.repeat(pixels, 3, axis=-1) if pixels.shape[-1] == 1 else pixels)


def _scale(values: NDArray[np.float64]) -> tuple[Any, Any]:
    """What is black and what is white in values [N, H, W, C]: numbers, or one for each channel."""
    low, high = values.min(), values.max()
    for least, most in ((0.0, 1.0), (-0.5, 0.5), (-1.0, 1.0)):
        if least <= low and high <= most:
            return least, most
    if low >= 0 and 16 < high <= 255 and (values == np.rint(values)).all():
        return 0.0, 255.0
    return values.min(axis=(0, 1, 2)), values.max(axis=(0, 1, 2))
