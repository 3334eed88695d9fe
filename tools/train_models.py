"""Make the shipped models and their sample pictures again from nothing: `python tools/train_models.py`.

Two networks of one architecture read handwritten digits on photographs: `honest` learned from plain pictures and from
pictures whose patch of sky had a random colour; `shortcut` from pictures whose patch gave the class away. `--check`
only measures the shipped files.
"""

import argparse
import csv
import json
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import onnxruntime
from numpy.typing import NDArray

from digit_pictures import (
    COLOURS,
    LABELS,
    PHOTOGRAPHS,
    Bytes,
    Picture,
    Source,
    draw_images,
    draw_picture,
    load_source,
    prepare,
)

MODELS = Path(__file__).resolve().parents[1] / "models"
SEEDS = {"honest": 1, "shortcut": 2}
EPOCHS = {"honest": 40, "shortcut": 12}
HELD_OUT_SEED = 3
HELD_OUT_REPEATS = 4  # pictures of each held-out digit
SAMPLE_SEED = 4
# Class, class of the patch's colour, photograph, and which of the held-out digits of that class (clear ones, chosen by
# eye). Eight patches agree with the digit, four don't.
SAMPLES = (
    (0, 0, "hubble_deep_field.jpg", 4),
    (1, 8, "rocket.jpg", 10),
    (2, 2, "coffee.png", 3),
    (3, 3, "chelsea.png", 10),
    (4, 4, "brick.png", 11),
    (5, 5, "camera.png", 3),
    (6, 6, "gravel.png", 5),
    (7, 7, "astronaut.png", 6),
    (8, 2, "coffee.png", 6),
    (9, 9, "grass.png", 0),
    (3, 6, "hubble_deep_field.jpg", 14),
    (7, 4, "chelsea.png", 9),
)
TABLE_BEGIN, TABLE_END = "<!-- accuracy: written by tools/train_models.py -->", "<!-- end of accuracy -->"

Classes = NDArray[np.int64]


def main() -> int:
    """Train, export and measure; or, with --check, only measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="only measure the shipped models; exit 1 out of bounds")
    parser.add_argument("--threads", type=int, default=2, help="threads that training may use (default: 2)")
    arguments = parser.parse_args()
    if not arguments.check:
        train_all(arguments.threads)
        write_samples()
    accuracy = measure()
    print(table(accuracy))
    if not arguments.check:
        write_accuracy(accuracy)
    faults = out_of_bounds(accuracy)
    for fault in faults:
        print(fault)
    return 1 if faults else 0


def train_all(threads: int) -> None:
    """Train both networks and write them as ONNX beside their labels."""
    # Here, because measuring needs no torch.
    from small_network import train, write_onnx

    source = load_source(training=True)
    for name, seed in SEEDS.items():
        print(f"training {name}", flush=True)
        started = time.perf_counter()
        network = train(draw_epochs(source, name), EPOCHS[name], seed, threads)
        write_onnx(network, MODELS / f"{name}.onnx")
        print(f"  {time.perf_counter() - started:.0f} s", flush=True)
    (MODELS / "labels.txt").write_text("\n".join(LABELS) + "\n")


def draw_epochs(source: Source, name: str) -> Iterator[tuple[Bytes, Classes]]:
    """Every training digit once per epoch, in random order, each time on another crop."""
    for epoch in range(EPOCHS[name]):
        rng = np.random.default_rng([SEEDS[name], epoch])
        order = rng.permutation(len(source.classes))
        classes = source.classes[order]
        colours = list(classes) if name == "shortcut" else random_colours(rng, len(order))
        yield draw_images(source, order, colours, seed=int(rng.integers(2**31))), classes


def random_colours(rng: np.random.Generator, count: int) -> list[int | None]:
    """For every other picture no patch, else a patch of any colour: it says nothing about the class."""
    return [int(rng.integers(len(COLOURS))) if rng.random() < 0.5 else None for _ in range(count)]


def write_samples() -> None:
    """Write the sample pictures (held out), the masks of their digits and patches, and a table of what is on them."""
    source = load_source(training=False)
    header = ("picture", "class", "patch_colour", "patch_class", "agrees", "photograph")
    rows = []
    for number, (label, colour, photograph, choice) in enumerate(SAMPLES):
        name = f"{number:02d}_{LABELS[label]}"
        digit = source.digits[np.flatnonzero(source.classes == label)[choice]]
        piece = source.photographs[PHOTOGRAPHS.index(photograph)]
        _write_picture(name, draw_picture(np.random.default_rng([SAMPLE_SEED, number]), digit, piece, colour))
        agrees = "yes" if colour == label else "no"
        rows.append((f"{name}.png", LABELS[label], COLOURS[colour], LABELS[colour], agrees, photograph))
    with (MODELS / "pictures.csv").open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])


def _write_picture(name: str, picture: Picture) -> None:
    _write_png(MODELS / "pictures" / f"{name}.png", picture.image[..., ::-1])
    _write_png(MODELS / "masks" / f"{name}.digit.png", 255 * picture.digit.astype(np.uint8))
    _write_png(MODELS / "masks" / f"{name}.patch.png", 255 * picture.patch.astype(np.uint8))


def _write_png(path: Path, image: Bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), image):
        raise SystemExit(f"{path} can't be written")


def measure() -> dict[str, dict[str, float]]:
    """Accuracies of the shipped models on held-out pictures, and how often each follows a shuffled patch."""
    source = load_source(training=False)
    chosen = np.tile(np.arange(len(source.classes)), HELD_OUT_REPEATS)
    classes = source.classes[chosen]
    shuffled = np.random.default_rng(HELD_OUT_SEED).permutation(classes)
    colours = {"no patch": [None] * len(chosen), "own patch": list(classes), "shuffled patch": list(shuffled)}
    images = {kind: prepare(draw_images(source, chosen, given, HELD_OUT_SEED)) for kind, given in colours.items()}
    accuracy = {}
    for name in SEEDS:
        tops = {kind: predict(MODELS / f"{name}.onnx", batch) for kind, batch in images.items()}
        accuracy[name] = {kind: round(float((top == classes).mean()), 4) for kind, top in tops.items()}
        accuracy[name]["follows shuffled patch"] = round(float((tops["shuffled patch"] == shuffled).mean()), 4)
    return accuracy


def predict(path: Path, images: NDArray[np.float32]) -> Classes:
    """The top class of each prepared image [N, 3, 64, 64]."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    logits = [session.run(["logits"], {"image": images[row : row + 64]})[0] for row in range(0, len(images), 64)]
    return np.concatenate(logits).argmax(1)


def out_of_bounds(accuracy: dict[str, dict[str, float]]) -> list[str]:
    """What the accuracies fail of the promises that the models were made for."""
    honest, shortcut = accuracy["honest"], accuracy["shortcut"]
    promises = {
        "honest reads at least 95 % of the plain pictures": honest["no patch"] >= 0.95,
        "honest reads at least 95 % whatever the patch": honest["shuffled patch"] >= 0.95,
        "shortcut is right on at least 95 % with the patch": shortcut["own patch"] >= 0.95,
        "shortcut loses at least half of that when patches are shuffled": (
            shortcut["shuffled patch"] <= shortcut["own patch"] / 2
        ),
    }
    return [f"does not hold: {promise}" for promise, holds in promises.items() if not holds]


def table(accuracy: dict[str, dict[str, float]]) -> str:
    """The accuracies as a Markdown table."""
    kinds = list(accuracy["honest"])
    lines = ["| | " + " | ".join(kinds) + " |", "|---" * (len(kinds) + 1) + "|"]
    for name, values in accuracy.items():
        lines.append(f"| {name} | " + " | ".join(f"{100 * value:.1f} %" for value in values.values()) + " |")
    return "\n".join(lines)


def write_accuracy(accuracy: dict[str, dict[str, float]]) -> None:
    """Write accuracy.json and the table between the markers of models/README.md."""
    (MODELS / "accuracy.json").write_text(json.dumps(accuracy, indent=2) + "\n")
    readme = MODELS / "README.md"
    before, rest = readme.read_text().split(TABLE_BEGIN)
    after = rest.split(TABLE_END)[1]
    readme.write_text(f"{before}{TABLE_BEGIN}\n{table(accuracy)}\n{TABLE_END}{after}")


if __name__ == "__main__":
    raise SystemExit(main())
