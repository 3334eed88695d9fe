"""Methods of the gradient family: sensitivities at one point, at noisy points, along paths."""

from onnxplain_export.methods.method import method
from onnxplain_export.methods.parameters import BASELINE, NOISE, SEED, count

GRADIENT = {
    "gradient": method("what a small change of each pixel would change (Simonyan 2014)", "gradient"),
    "smoothgrad": method(
        "the gradient, averaged over noisy copies (Smilkov 2017)",
        "noise",
        "draws",
        samples=count(25, "noisy copies of each image"),
        noise=NOISE,
        seed=SEED,
    ),
    "integrated_gradients": method(
        "each pixel's part in the score, along the path from a baseline (Sundararajan 2017)",
        "path",
        "points",
        measures="contribution",
        steps=count(50, "Gauss–Legendre points on the path", 2000),
        baseline=BASELINE,
    ),
    "smoothgrad_integrated": method(
        "integrated gradients, averaged over noisy copies",
        "noise",
        "draws_points",
        measures="contribution",
        samples=count(10, "noisy copies of each image"),
        noise=NOISE,
        steps=count(25, "Gauss–Legendre points on each path", 2000),
        baseline=BASELINE,
        seed=SEED,
    ),
}
