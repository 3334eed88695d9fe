"""Methods of the gradient family: sensitivities at one point, at noisy points, along paths."""

from onnxplain_export.methods.method import method
from onnxplain_export.methods.parameters import BASELINE, NOISE, SEED, count

GRADIENT = {
    "gradient": method("gradient"),
    "smoothgrad": method("noise", "draws", samples=count(25, "noisy copies of each image"), noise=NOISE, seed=SEED),
    "integrated_gradients": method(
        "path",
        "points",
        measures="contribution",
        steps=count(50, "Gauss–Legendre points on the path", 2000),
        baseline=BASELINE,
    ),
    "smoothgrad_integrated": method(
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
