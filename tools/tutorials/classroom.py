"""What the tutorials share: their options, where figures go, and the pictures that networks learn from.

The pictures come with two packages: scikit-learn's handwritten digits, and photographs of scikit-image that are CC0 or
in the public domain. Nothing is downloaded, and nothing that is tested on was trained on.
"""

import argparse
import sys
import textwrap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage import data
from sklearn.datasets import load_digits

from onnxplain.pictures import write_png
from onnxplain.tracking.sinks import figure_pixels

TOOLS = Path(__file__).resolve().parents[1]
if str(TOOLS) not in sys.path:
    sys.path.append(str(TOOLS))

from digit_pictures import draw_picture, load_source  # noqa: E402 (stands in tools/)

OUT = TOOLS.parent / "demo" / "tutorials"
Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]

DIGITS = tuple("0123456789")
PHOTOGRAPHS = ("cat", "coffee", "motorcycle", "rocket", "galaxies")
TRAINING_SHARE = 2 / 3
"""Of scikit-learn's digits; of photographs the left halves are learned from."""


@dataclass(frozen=True)
class Pictures:
    """N pictures, uint8 [N, H, W, 3], their classes [N], and where what they show is, if known, bool [N, H, W]."""

    images: Bytes
    labels: NDArray[np.int64]
    ink: NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.images)

    def rows(self) -> Floats:
        """What a network takes, [N, 3, H, W] in 0..1."""
        return np.ascontiguousarray(self.images.transpose(0, 3, 1, 2)).astype(np.float32) / 255

    def first_of_each(self) -> NDArray[np.int64]:
        """The place of each class's first picture."""
        return np.unique(self.labels, return_index=True)[1]


def options() -> tuple[Path, bool]:
    """The folder to write to, and whether a short form will do: --out DIR, --short."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--out", type=Path, default=OUT, help="folder to write; default: demo/tutorials")
    parser.add_argument("--short", action="store_true", help="few pictures and epochs, to see that it runs")
    found, _ = parser.parse_known_args()  # in a notebook, the kernel's own words stand there
    found.out.mkdir(parents=True, exist_ok=True)
    return found.out, found.short


def say(words: str) -> None:
    """Prints a paragraph."""
    print(textwrap.fill(" ".join(words.split()), 100), flush=True)


def table(columns: Mapping[str, Iterable[Any]]) -> None:
    """Prints columns under their heads, numbers to three digits."""
    cells = {head: [_told(each) for each in entries] for head, entries in columns.items()}
    widths = {head: max(map(len, [head, *entries])) for head, entries in cells.items()}
    rows = [list(cells), *map(list, zip(*cells.values(), strict=True))]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths.values(), strict=True)) for row in rows]
    print("\n".join(lines), flush=True)


def _told(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float | np.floating) else str(value)


def show(path: Path, figure: Any = None) -> None:
    """Writes a figure of matplotlib's, or pixels, as PNG; without one, the file is there. A notebook shows it."""
    if figure is not None:
        write_png(path, figure if isinstance(figure, np.ndarray) else figure_pixels(figure))
    print(f"-> {path}", flush=True)
    notebook = sys.modules.get("IPython")
    if notebook is not None and notebook.get_ipython() is not None:
        notebook.display.display(notebook.display.Image(filename=str(path)))


def digits() -> tuple[Floats, NDArray[np.int64], Floats, NDArray[np.int64]]:
    """scikit-learn's 1,797 digits, [N, 1, 8, 8] in 0..1, and their classes [N]: to train on, then to test on."""
    found = load_digits()
    order = np.random.default_rng(0).permutation(len(found.target))
    images, labels = (found.images[order, None] / 16).astype(np.float32), found.target[order].astype(np.int64)
    cut = round(TRAINING_SHARE * len(order))
    return images[:cut], labels[:cut], images[cut:], labels[cut:]


def ink_on_paper(digit: Floats) -> Bytes:
    """A digit [H, W] as it was written, dark on white."""
    return np.rint(255 * (1 - digit)).astype(np.uint8)


def digits_on_photographs(count: int, *, training: bool, seed: int, side: int = 32) -> Pictures:
    """Digits in random ink, somewhere on random pieces of photographs, with the pixels that are ink."""
    source, rng = load_source(training=training), np.random.default_rng(seed)
    chosen = rng.integers(len(source.digits), size=count)
    drawn = [
        draw_picture(rng, source.digits[each], source.photographs[rng.integers(len(source.photographs))], None)
        for each in chosen
    ]
    images = np.stack([_sized(each.image, side) for each in drawn])
    ink = np.stack([_sized(each.digit.astype(np.float32), side) > 0.5 for each in drawn])
    return Pictures(images, source.classes[chosen], ink)


def pieces_of_photographs(count: int, *, training: bool, seed: int, side: int = 64) -> Pictures:
    """Square pieces of five photographs: of their left halves, some mirrored, to train on; of the right to test on."""
    photographs, rng = _photographs(training), np.random.default_rng(seed)
    labels = rng.permutation(np.arange(count) % len(PHOTOGRAPHS))
    images = np.stack([_piece(rng, photographs[each], side) for each in labels])
    turned = rng.random(count) < (0.5 if training else 0)
    return Pictures(np.where(turned[:, None, None, None], images[:, :, ::-1], images), labels)


def _photographs(training: bool) -> list[Bytes]:
    """The part of each photograph, in the order of PHOTOGRAPHS."""
    whole = [data.chelsea(), data.coffee(), data.stereo_motorcycle()[0], data.rocket(), data.hubble_deep_field()]
    return [np.array_split(each, 2, axis=1)[0 if training else 1] for each in whole]


def _piece(rng: np.random.Generator, photograph: Bytes, side: int) -> Bytes:
    """A random square, of more than half the smaller side, at another size."""
    height, width = photograph.shape[:2]
    edge = round(min(height, width) * rng.uniform(0.55, 1))
    top, left = int(rng.integers(height - edge + 1)), int(rng.integers(width - edge + 1))
    return _sized(photograph[top : top + edge, left : left + edge], side)


def _sized(image: Any, side: int) -> Any:
    return cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)
