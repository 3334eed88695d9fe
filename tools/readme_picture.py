"""Draws the README's picture, models/cheating.png, from the bundles that tools/demo.py left in demo/."""

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from demo_report import MODELS, NETWORKS, read_samples
from onnxplain import Explainer
from onnxplain.pictures import write_png

DEMO = Path(__file__).resolve().parent.parent / "demo"
PICTURES = ("01_one.png", "04_four.png", "08_eight.png", "11_seven.png")
SIDE, GAP, HEAD, LEFT = 168, 12, 34, 150
PAPER, INK = (246, 245, 241), (28, 28, 28)
METHOD = "smoothgrad_integrated"


def main() -> None:
    """Three rows (the picture, and where each network looked) of four pictures."""
    samples = {sample.name: sample for sample in read_samples()}
    paths = [samples[name].path for name in PICTURES]
    results = {name: Explainer(DEMO / f"{name}.explain", device="cpu").explain(paths, METHOD) for name in NETWORKS}
    rows = [("the picture", [image.seen for image in results["honest"].images], [""] * len(paths))]
    for name in NETWORKS:
        rows.append((name, list(results[name].overlay()), [f"says {label}" for label in results[name].labels]))
    canvas = np.full((len(rows) * (SIDE + HEAD) + GAP, LEFT + len(paths) * (SIDE + GAP), 3), PAPER, np.uint8)
    for line, (title, pictures, captions) in enumerate(rows):
        top = GAP + line * (SIDE + HEAD)
        write(canvas, title, 14, top + SIDE // 2, 0.62)
        for place, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
            left = LEFT + place * (SIDE + GAP)
            canvas[top : top + SIDE, left : left + SIDE] = cv2.resize(
                picture, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC
            )
            write(canvas, caption, left, top + SIDE + 20, 0.5)
    write_png(MODELS / "cheating.png", canvas)


def write(canvas: NDArray[np.uint8], text: str, left: int, base: int, size: float) -> None:
    """Text on the canvas, its base line at `base`."""
    cv2.putText(canvas, text, (left, base), cv2.FONT_HERSHEY_SIMPLEX, size, INK, 1, cv2.LINE_AA)


if __name__ == "__main__":
    main()
