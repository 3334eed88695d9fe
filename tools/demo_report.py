"""Exports the shipped networks, explains the shipped pictures, and measures where on the pictures the maps lie."""

import argparse
import csv
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from onnxplain import Explainer, OnnxplainError, Result
from onnxplain.pictures import read_picture
from onnxplain.report import ReportMap, ReportPicture, ReportRow, ReportSection, ReportTable, write_report
from onnxplain_export import export

MODELS = Path(__file__).resolve().parent.parent / "models"
NETWORKS = ("honest", "shortcut")
PARTS = ("digit", "patch")
CORE = ("gradient", "smoothgrad", "integrated_gradients", "smoothgrad_integrated", "occlusion")
PREPROCESSING = [
    {"step": "colour", "order": "RGB"},
    {"step": "resize", "rule": "exact", "size": [64, 64], "kernel": "bilinear", "antialias": True, "round": True},
    {"step": "scale", "factor": 1 / 255},
    {"step": "mean", "values": [0.5, 0.5, 0.5]},
    {"step": "std", "values": [0.5, 0.5, 0.5]},
    {"step": "layout", "order": "NCHW"},
]

INTRODUCTION = (
    "Two networks name the handwritten digit on a photograph. On pictures like those that they learned from, both are "
    "right nearly every time, so a test score can't tell them apart.",
    "But the pictures that one of them learned from carried a patch of tinted sky, a coloured square, whose colour "
    "gave the answer away. Is it really reading the digit, or cheating by noticing the sky? The maps show what each "
    "answer rests on: look at where the bright spots are.",
)


@dataclass(frozen=True)
class Sample:
    """A shipped picture with what is known of it."""

    name: str
    label: str
    patch_label: str
    digit: NDArray[np.bool_]
    patch: NDArray[np.bool_]

    @property
    def lies(self) -> bool:
        """Whether the patch has the colour of another class than the digit's."""
        return self.label != self.patch_label

    @property
    def path(self) -> Path:
        """The picture's file."""
        return MODELS / "pictures" / self.name


def main() -> int:
    """Writes FOLDER/report.html and prints the shares."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--all", action="store_true")
    arguments = parser.parse_args()
    try:
        report = make_report(arguments.folder, arguments.all)
    except OnnxplainError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 2
    print(f"\nopen this in a browser: {report}")
    return 0


def make_report(folder: Path, every_method: bool = False) -> Path:
    """Exports, explains and writes the report; returns its path."""
    samples = read_samples()
    wanted = "all" if every_method else CORE
    explainers = {name: Explainer(exported(name, folder, wanted), device="cpu") for name in NETWORKS}
    methods = tuple(explainers["honest"].bundle.methods) if every_method else CORE
    results = {
        (network, method): explain(explainer, network, method, samples)
        for network, explainer in explainers.items()
        for method in methods
    }
    table = shares_table(samples, methods, results)
    print_table(table)
    report = folder / "report.html"
    pictures = [shown(i, sample, methods, results) for i, sample in enumerate(samples)]
    lying = [picture for picture, sample in zip(pictures, samples, strict=True) if sample.lies]
    telling = [picture for picture, sample in zip(pictures, samples, strict=True) if not sample.lies]
    sections = [
        ReportSection("Where the patch lies", LIES_EXPLAINED, (), lying),
        ReportSection("The numbers", SHARES_EXPLAINED, [table, accuracy_table()]),
        ReportSection("Where the patch tells the digit", TRUTHS_EXPLAINED, (), telling),
    ]
    versions = dict(results[NETWORKS[0], methods[0]].provenance["versions"])
    write_report(report, TITLE, sections, introduction=INTRODUCTION, provenance=versions)
    return report


TITLE = "A network caught cheating"
ACCURACIES = {
    "no patch": "no patch of sky",
    "own patch": "patch in the colour of the digit's class",
    "shuffled patch": "patch in a colour of no meaning",
}
LIES_EXPLAINED = (
    "On these pictures the patch has the colour of another digit. One network reads the digit all the same; the other "
    "answers for the patch.",
)
TRUTHS_EXPLAINED = ("Here both networks give the same, right answer, for different reasons.",)
SHARES_EXPLAINED = (
    "How much of each map, on average over the pictures, lies on the digit and how much on the patch of sky. A map "
    "without any preference would give each its share of the picture's area, in the first row.",
)


def read_samples() -> list[Sample]:
    """The shipped pictures with their masks."""
    with (MODELS / "pictures.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [
        Sample(
            row["picture"],
            row["class"],
            row["patch_class"],
            mask(row["picture"], "digit"),
            mask(row["picture"], "patch"),
        )
        for row in rows
    ]


def mask(picture: str, part: str) -> NDArray[np.bool_]:
    """Where the digit or the patch is, [H, W]."""
    return np.asarray(read_picture(MODELS / "masks" / f"{Path(picture).stem}.{part}.png")[..., 0] > 127)


def exported(name: str, folder: Path, methods: Sequence[str] | str) -> Path:
    """The network's bundle with these methods, made anew."""
    print(f"exporting models/{name}.onnx", flush=True)
    return export(
        MODELS / f"{name}.onnx",
        folder / f"{name}.explain",
        preprocessing=PREPROCESSING,
        labels=MODELS / "labels.txt",
        methods=methods,
        overwrite=True,
    )


def explain(explainer: Explainer, network: str, method: str, samples: Sequence[Sample]) -> Result:
    """The maps of one network and method for all pictures, each for what the network says it sees."""
    print(f"explaining {len(samples)} pictures: {network}, {method}", flush=True)
    return explainer.explain([sample.path for sample in samples], method=method, progress=True)


def share(result: Result, index: int, where: NDArray[np.bool_]) -> float:
    """How much of a picture's map, in absolute value, lies inside the mask, 0..1.

    Maps that only rank places, such as RISE's, are taken from their lowest value.
    """
    weight = np.abs(result.attribution[index].astype(np.float64)).sum(axis=0)
    weight -= weight.min() if result.measures == "importance" else 0
    return float(weight[where].sum() / weight.sum()) if weight.any() else 0.0


def shares_table(
    samples: Sequence[Sample], methods: Sequence[str], results: Mapping[tuple[str, str], Result]
) -> ReportTable:
    """One row a network and method: the mean share of the maps on the digit, on the patch, and elsewhere."""
    area = [float(np.mean([getattr(sample, part).mean() for sample in samples])) for part in PARTS]
    rows: list[tuple[str | float, ...]] = [("", "share of the picture's area", area[0], area[1], 1 - sum(area))]
    for method in methods:
        for network in NETWORKS:
            result = results[network, method]
            parts = [
                float(np.mean([share(result, i, getattr(sample, part)) for i, sample in enumerate(samples)]))
                for part in PARTS
            ]
            rows.append((network, method, parts[0], parts[1], 1 - sum(parts)))
    return ReportTable("Where the attribution lies", ("network", "method", "digit", "patch of sky", "elsewhere"), rows)


def accuracy_table() -> ReportTable:
    """How often each network is right, by what the patch says; from models/accuracy.json."""
    measured = json.loads((MODELS / "accuracy.json").read_text("utf-8"))
    rows = [(network, *(float(measured[network][kind]) for kind in ACCURACIES)) for network in NETWORKS]
    note = "A test set that carries the same patch as the training pictures gives the cheat a perfect score."
    return ReportTable("Right answers on held-out pictures", ("network", *ACCURACIES.values()), rows, note)


def print_table(table: ReportTable) -> None:
    """The same table in the terminal."""
    print()
    for row in (table.header, *table.rows):
        cells = [f"{cell:>8.0%}" if isinstance(cell, float) else cell for cell in row]
        print(f"{cells[0]:<9} {cells[1]:<28} {cells[2]:>8} {cells[3]:>13} {cells[4]:>10}")


def shown(
    index: int, sample: Sample, methods: Sequence[str], results: Mapping[tuple[str, str], Result]
) -> ReportPicture:
    """One picture with a row for each network."""
    labels = (MODELS / "labels.txt").read_text("utf-8").split()
    rows = []
    for network in NETWORKS:
        first = results[network, methods[0]]
        best = np.argsort(-first.probabilities[index])[:2]
        predictions = [(labels[k], float(first.probabilities[index, k])) for k in best]
        maps = [
            ReportMap(method, results[network, method].overlay()[index], note(results[network, method], index, sample))
            for method in methods
        ]
        rows.append(ReportRow(network, predictions, maps))
    patch = f"the colour of its patch means {sample.patch_label}" if sample.lies else "its patch says the same"
    seen = results[NETWORKS[0], methods[0]].images[index].seen
    return ReportPicture(f"{sample.label}; {patch}", seen, rows)


def note(result: Result, index: int, sample: Sample) -> str:
    """Small print under a map."""
    return f"digit {share(result, index, sample.digit):.0%}, patch {share(result, index, sample.patch):.0%}"


if __name__ == "__main__":
    sys.exit(main())
