"""The maps of tools/ground_truth.py to look at: `python tools/ground_truth_maps.py BUNDLES OUT` (needs matplotlib).

BUNDLES is the folder that `ground_truth.py --bundles` left. One PNG a network, pictures down and methods across.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ground_truth_measure import CASES, Case, open_case, parameters_of
from onnxplain.display.figure import figure_grid
from onnxplain.heatmap import signed_map
from onnxplain.pictures import read_picture

ACROSS = 9
DOWN = 4


def main() -> None:
    """Writes OUT/NETWORK.NUMBER.png."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--methods", nargs="+")
    parser.add_argument("--network", nargs="+", choices=CASES, default=list(CASES))
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for name in arguments.network:
        case = open_case(name, arguments.bundles)
        columns = {method: maps(case, method) for method in arguments.methods or case.explainer.bundle.methods}
        names = list(columns)
        for number, start in enumerate(range(0, len(names), ACROSS)):
            shown = {"picture": pictures(case), **exact_maps(case)}
            shown.update({method: columns[method] for method in names[start : start + ACROSS]})
            file = arguments.folder / f"{name}.{number}.png"
            figure_grid(shown, file, title=name, size=1.3)
            print(file, flush=True)


def pictures(case: Case) -> list[Any]:
    """The first pictures as they are."""
    return [read_picture(one) if isinstance(one, Path) else one for one in case.pictures[:DOWN]]


def maps(case: Case, method: str) -> list[Any]:
    """The method's maps of them: contributions with their sign (blue against, red for), sensitivities by size."""
    result = case.explainer.explain(case.pictures[:DOWN], method, **parameters_of(case.explainer, method))
    return drawn(result.attribution, result.measures == "contribution")


def exact_maps(case: Case) -> dict[str, list[Any]]:
    """The right maps that are known of the network."""
    if not case.exact:
        return {}
    rows = case.explainer.values(case.pictures[:DOWN]).astype(np.float64)
    targets = case.explainer.scores(case.pictures[:DOWN]).argmax(axis=1)
    return {f"exact {of}": drawn(exact(rows, targets), of != "gradient") for of, exact in case.exact.items()}


def drawn(attribution: NDArray[Any], signed: bool) -> list[Any]:
    """Pictures of maps [N, C, H, W]: red for, blue against, white nothing; or sizes in the figure's own colours."""
    if not signed:
        size = np.abs(attribution.astype(np.float64)).sum(axis=1)
        largest = np.percentile(size, 99.5, axis=(1, 2), keepdims=True)
        return list(np.clip(size / np.where(largest > 0, largest, 1), 0, 1))
    value = signed_map(attribution.astype(np.float32), "NCHW")
    red, blue = np.clip(1 + value, 0, 1), np.clip(1 - value, 0, 1)
    colours = np.stack([red, np.minimum(red, blue), blue], axis=-1)
    return list(np.rint(255 * colours).astype(np.uint8))


if __name__ == "__main__":
    main()
