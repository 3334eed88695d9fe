"""How far RISE's maps have converged: Spearman's correlation of 8,000 masks with 16,000, on the shipped pictures.

`python tools/rise_convergence.py BUNDLE` prints it for each picture, with the same seed (the first half of the masks is
then the same) and with independent ones, for masks in balanced blocks and for masks drawn each by itself.
"""

import argparse
import resource
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from onnxplain import Explainer
from onnxplain.metrics.correlation import spearman

PICTURES = Path(__file__).resolve().parent.parent / "models" / "pictures"
DESIGNS = ("orthogonal", "independent")


def main() -> None:
    """Prints a line for each picture, then the means, and how much memory it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--masks", type=int, default=8000, help="of the smaller map; the larger has twice as many")
    arguments = parser.parse_args()
    explainer = Explainer(arguments.bundle)
    pictures = sorted(PICTURES.glob("*.png"))
    table: dict[str, list[float]] = {f"{design}, {seeds}": [] for design in DESIGNS for seeds in ("same", "other")}
    for picture in pictures:
        for design in DESIGNS:
            few = explained(explainer, picture, design, arguments.masks, 0)
            same, other = (explained(explainer, picture, design, 2 * arguments.masks, seed) for seed in (0, 1))
            table[f"{design}, same"].append(float(spearman(few, same)[0]))
            table[f"{design}, other"].append(float(spearman(few, other)[0]))
        print(f"{picture.name:16}", "  ".join(f"{name} {values[-1]:.3f}" for name, values in table.items()), flush=True)
    for name, values in table.items():
        print(f"{name} seed: mean {np.mean(values):.3f}, lowest {min(values):.3f}")
    print(f"most memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3:.0f} MB")


def explained(explainer: Explainer, picture: Path, design: str, masks: int, seed: int) -> NDArray[np.float32]:
    """The map as one row."""
    result = explainer.explain(picture, "rise", masks=masks, design=design, seed=seed)
    return result.attribution.reshape(1, -1)


if __name__ == "__main__":
    main()
