"""Methods of the gradient family: sensitivities at one point, at noisy points, along paths."""

from typing import Any

from onnxplain_export.methods.method import method
from onnxplain_export.methods.parameters import NOISE, SEED, array, choice, count, number

_SAMPLES = "noisy copies of each image"
_NOISE = {**NOISE, "maximum": 100_000.0, "help": "σ as a share of what noise_of names"}
_NOISE_OF = choice(
    "image", "what σ is a share of: each image's range, that of all images, or 1", "image", "batch", "absolute"
)
_RULES = (
    "gausslegendre",
    "midpoint",
    "trapezoid",
    "riemann_left",
    "riemann_right",
    "riemann_middle",
    "riemann_trapezoid",
    "inclusive",
)
_RULE = choice("gausslegendre", "the integration rule that places the points", *_RULES)
_NAMES = ("black", "white", "mean", "blur", "random")


def _steps(default: int) -> dict[str, Any]:
    return count(default, "points on each path", 2000)


def _baseline(default: float | str, *names: str) -> dict[str, Any]:
    meaning = "where a path starts: a number in the model's own input, an array of one or several, or " + ", ".join(
        names
    )
    return {"kind": "image", "default": default, "choices": list(names), "help": meaning}


_BASELINES: dict[str, Any] = {
    "baseline": _baseline(0.0, *_NAMES),
    "baselines": count(1, "how many baselines are drawn where baseline is random", 10_000),
    "seed": SEED,
}
_NOISY: dict[str, Any] = {"samples": count(25, _SAMPLES), "noise": _NOISE, "noise_of": _NOISE_OF, "seed": SEED}

GRADIENT = {
    "gradient": method("what a small change of each pixel would change (Simonyan 2014)", "gradient"),
    "input_x_gradient": method(
        "each pixel times its gradient (Shrikumar 2016)", "gradient", loop="input_x_gradient", measures="contribution"
    ),
    "smoothgrad": method("the gradient, averaged over noisy copies (Smilkov 2017)", "noise", "draws", **_NOISY),
    "smoothgrad_squared": method(
        "the mean squared gradient over noisy copies (Hooker 2019)",
        "noise",
        "draws",
        loop="smoothgrad_squared",
        **_NOISY,
    ),
    "vargrad": method(
        "the variance of the gradient over noisy copies (Adebayo 2018)", "noise", "draws", loop="vargrad", **_NOISY
    ),
    "integrated_gradients": method(
        "each pixel's part in the score, along the path from a baseline (Sundararajan 2017)",
        "path",
        "points",
        loop="integrated_gradients",
        measures="contribution",
        steps=_steps(50),
        rule=_RULE,
        **_BASELINES,
    ),
    "smoothgrad_integrated": method(
        "integrated gradients, averaged over noisy copies",
        "noise",
        "draws_points",
        loop="smoothgrad_integrated",
        measures="contribution",
        samples=count(10, _SAMPLES),
        noise=_NOISE,
        noise_of=_NOISE_OF,
        steps=_steps(25),
        rule=_RULE,
        **_BASELINES,
    ),
    "expected_gradients": method(
        "integrated gradients from many random baselines, one point each (Erion 2021)",
        "path",
        beside=("noise",),
        loop="expected_gradients",
        measures="contribution",
        samples=count(100, "random points, each on the path from a random baseline", 100_000),
        baseline=_baseline("random", *_NAMES),
        noise={**_NOISE, "default": 0.0},
        noise_of=_NOISE_OF,
        seed=SEED,
    ),
    "blur_integrated_gradients": method(
        "the gradient along the path from a blurred image (Xu 2020)",
        "gradient",
        loop="blur_integrated_gradients",
        measures="contribution",
        pictures=True,
        sigma=number(50.0, "the path's widest blur, in pixels", 0.01, 100_000.0),
        steps=_steps(100),
        rule=choice("midpoint", "where in each interval the gradient is taken", "midpoint", "riemann_left"),
    ),
    "guided_integrated_gradients": method(
        "integrated gradients on a path that changes what matters least first (Kapishnikov 2021)",
        "gradient",
        loop="guided_integrated_gradients",
        measures="contribution",
        steps=_steps(200),
        fraction=number(0.25, "share of the elements that move first, those with the smallest gradients", 0.0001, 1.0),
        max_dist=number(0.02, "how far an element may leave the straight path, as a share of it", 0.0, 1.0),
        **_BASELINES,
    ),
    "xrai": method(
        "the image's segments, ranked by integrated gradients (Kapishnikov 2019)",
        "path",
        "points",
        loop="xrai",
        measures="importance",
        pictures=True,
        steps=_steps(50),
        rule=_RULE,
        baseline=_baseline("black_white", "black_white", "range", *_NAMES[:4]),
        reduction=choice("sum", "how a pixel's channels become one number", "sum", "max"),
        segments=array(None, "labels [H, W] or masks [S, H, W] of your own, for all images or for each"),
    ),
}
