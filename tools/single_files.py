"""Compares single files with the engine: `python tools/single_files.py BUNDLE… [--picture PICTURE]`.

Every method that has a form in one graph is written as a file that takes and gives pictures; one Run of it, on the
picture as OpenCV decodes it, is compared with the engine's map of the same file. Prints the largest relative difference
of the raw map (L2), of the heat map in bytes, and the two times.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
import skimage

from onnxplain import Explainer
from onnxplain.sessions import session_options
from onnxplain_export import export_single
from onnxplain_export.single.recipes import RECIPES

PICTURE = Path(skimage.__file__).parent / "data" / "chelsea.png"
PARAMETERS = {"expected_gradients": {"baseline": "black"}}


def main() -> None:
    """Prints a line for each method of each bundle."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundles", nargs="+", type=Path, metavar="BUNDLE")
    parser.add_argument("--picture", type=Path, default=PICTURE, help="default: scikit-image's cat, saved as JPEG")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "picture.jpg"
        cv2.imwrite(str(picture), cv2.imread(str(arguments.picture)))
        for bundle in arguments.bundles:
            print(f"{bundle.name}: raw map, heat map (of 255), one Run, the engine", flush=True)
            explainer = Explainer(bundle, device="cpu")
            for name, method in explainer.bundle.methods.items():
                if method.loop in RECIPES and method.finish not in ("eigencam", "total_indices", "dependence"):
                    print(f"  {name:26} {measured(explainer, name, picture, Path(folder))}", flush=True)


def measured(explainer: Explainer, method: str, picture: Path, folder: Path) -> str:
    """The differences and the times."""
    parameters: dict[str, Any] = PARAMETERS.get(method, {})
    file = export_single(
        explainer.bundle.path,
        folder / "single.onnx",
        method,
        parameters=parameters,
        picture_input=True,
        picture_output=True,
        overwrite=True,
    )
    session = onnxruntime.InferenceSession(str(file), session_options(), providers=["CPUExecutionProvider"])
    pixels = np.ascontiguousarray(cv2.imread(str(picture))[..., ::-1])
    feeds = {"picture": pixels[None], "target": np.array([[-1]])}
    begun = time.perf_counter()
    found, heat = session.run(["attribution", "heatmap"], feeds)
    middle = time.perf_counter()
    expected = explainer.explain(picture, method, **parameters)
    ended = time.perf_counter()
    raw = np.linalg.norm(found[:, 0].astype(float) - expected.attribution) / np.linalg.norm(expected.attribution)
    drawn = np.abs(heat[:, 0] - np.rint(expected.heatmap() * 255)).max()
    return f"{raw:8.1e}  {drawn:3.0f}  {middle - begun:7.3f} s  {ended - middle:7.3f} s"


if __name__ == "__main__":
    main()
