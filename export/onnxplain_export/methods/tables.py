"""Methods that are backward passes under another table of rules: see onnxplain_export.tables."""

from typing import Any

from onnxplain_export.methods.method import method
from onnxplain_export.methods.parameters import BASELINE, number
from onnxplain_export.tables import COMPOSITES, Composite

_PARAMETERS: dict[str, dict[str, Any]] = {
    "epsilon": number(1e-6, "ε, which keeps the denominators from 0", 0.0),
    "gamma": number(0.25, "γ: how much more positive weights count", 0.0),
    "alpha": number(2.0, "α of positive contributions; negative ones have α − 1", 1.0),
    "low": {**BASELINE, "default": "black", "help": "the least that a pixel can be, in the model's own input"},
    "high": {**BASELINE, "default": "white", "help": "the most that a pixel can be, in the model's own input"},
}
_ABOUT = {
    "epsilon": "relevance passed down by the ε rule (Bach 2015)",
    "epsilon_plus": "relevance: z⁺ in convolutions, ε in dense layers (Montavon 2019)",
    "epsilon_plus_flat": "the same, flat at the image",
    "gamma": "relevance by the γ rule (Montavon 2019)",
    "epsilon_gamma_box": "relevance: γ in convolutions, ε in dense layers, z-box at the image (Montavon 2019)",
    "alpha_beta": "relevance by the αβ rule (Bach 2015)",
    "epsilon_alpha2_beta1": "relevance: α2β1 in convolutions, ε in dense layers (Montavon 2019)",
    "epsilon_alpha2_beta1_flat": "the same, flat at the image",
}


def _relevance(composite: Composite) -> dict[str, Any]:
    chosen: dict[str, Any] = {name: _PARAMETERS[name] for name in composite.parameters}
    about, graph = _ABOUT[composite.name], f"relevance.{composite.name}"
    return method(about, graph, measures="contribution", **chosen)


TABLES = {
    "guided_backprop": method(
        "the gradient, only where ReLUs pass positive parts both ways (Springenberg 2015)", "gradient.guided"
    ),
    "deconvolution": method(
        "the gradient, rectified on its way back at every ReLU (Zeiler & Fergus 2013)", "gradient.deconvolution"
    ),
    **{f"lrp_{name}": _relevance(composite) for name, composite in COMPOSITES.items()},
    "deeplift": method(
        "each pixel's part in the difference to a baseline, by the rescale rule (Shrikumar 2017)",
        "deeplift",
        beside=("deeplift.captum",),
        measures="contribution",
        baseline=BASELINE,
    ),
}
