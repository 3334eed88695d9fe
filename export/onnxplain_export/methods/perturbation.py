"""Methods of the perturbation family: what hiding parts of the picture does to the scores."""

from onnxplain_export.methods.method import method
from onnxplain_export.methods.parameters import FILL, size

PERTURBATION = {
    "occlusion": method(
        "what hiding a window costs the score (Zeiler & Fergus 2013)",
        "masked",
        "windows",
        explains="probabilities",
        measures="contribution",
        pictures=True,
        window=size(0, "side in pixels; 0: an eighth of the image"),
        stride=size(0, "in pixels; 0: half a window"),
        fill=FILL,
    ),
}
