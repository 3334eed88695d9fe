"""Methods of the activation family: class activation maps at a feature layer."""

from typing import Any

from onnxplain_export.methods.method import method
from onnxplain_export.methods.parameters import FILL, choice, count, flag

_LAYER = {
    "kind": "layer",
    "default": "",
    "help": "the feature layer, one of the bundle's; by default its first",
}
_UPSAMPLE = choice(
    "bilinear", "how a map comes to the picture's size; bytes: through 8 bits", "bilinear", "none", "bytes"
)


def _cam(about: str, loop: str = "cam", *, relu: bool = True, **entry: Any) -> dict[str, Any]:
    """A method whose map has one channel; with `relu` it shows by default only what speaks for the target."""
    shared: dict[str, Any] = {
        "layer": _LAYER,
        "relu": flag(relu, "keep only the positive part"),
        "upsample": _UPSAMPLE,
    }
    return method(about, "layer", loop=loop, measures="importance", pictures=True, **shared, **entry)


ACTIVATION: dict[str, dict[str, Any]] = {
    "gradcam": _cam("a layer's features, each weighed by its mean gradient (Selvaraju 2017)", finish="gradcam"),
    "gradcam_plus_plus": _cam(
        "features weighed by their rising gradients, place by place (Chattopadhay 2018)", finish="gradcam_plus_plus"
    ),
    "hirescam": _cam("gradient times features at each place (Draelos 2020)", finish="hirescam", relu=False),
    "layercam": _cam("rising gradient times features at each place (Jiang 2021)", finish="layercam"),
    "xgradcam": _cam("features weighed by what they contribute in all (Fu 2020)", finish="xgradcam"),
    "eigencam": _cam("the features' main direction, whatever the class (Muhammad 2020)", finish="eigencam", relu=False),
    "scorecam": _cam(
        "features weighed by the score of the picture seen through them (Wang 2020)",
        "scorecam",
        explains="probabilities",
        fill=FILL,
        channels=count(0, "so many channels, those that vary most; 0: all", least=0),
    ),
    "ablationcam": _cam(
        "features weighed by what the score loses without them (Desai 2020)", "ablation_cam", beside=("tail",)
    ),
    "reciprocam": _cam(
        "the score that each place of a layer has alone (Byun 2022)",
        "recipro_cam",
        beside=("tail",),
        explains="probabilities",
        relu=False,
    ),
    "guided_gradcam": method(
        "Grad-CAM times guided backpropagation, at the picture's pixels (Selvaraju 2017)",
        "layer",
        beside=("gradient.guided",),
        loop="guided_gradcam",
        pictures=True,
        layer=_LAYER,
    ),
}
