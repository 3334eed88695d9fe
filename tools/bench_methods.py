"""Every method that Captum has too: the same map in turns; and what each of ours costs, row by row.

Captum is called as its documentation has it, on pictures whose classes are given to both sides.
"""

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import numpy as np
import torch
from numpy.typing import NDArray

from bench_gradient import forward
from bench_rounds import Timing, settled
from bench_statistics import agrees, median, ratio, scaled_ratio
from bench_subject import Subject, error
from onnxplain.errors import OnnxplainError
from onnxplain.loops.paths import expected_draws
from onnxplain.random import normal

Array = NDArray[Any]
MapOf = Callable[[], Array]

PICTURES, STEPS, NOISE, SEED = 2, 4, 0.1, 0
# Points of the sum for the cost of a row: with few, the pass that finds the top class would weigh.
POINTS = 25
WINDOWS = 4  # of the occlusion, along each side
GRADIENT, SAME, FORWARD = "gradient", "gradient again", "forward"
APART = 2e-2  # at most, between Captum's map in float64 and either side's
SUMS = ("smoothgrad", "integrated_gradients")


@dataclass(frozen=True, slots=True)
class Method:
    """A method under both names: our parameters, and Captum's call on (module, rows, targets, subject).

    `steps` says that it runs over many points, and is timed on two pictures.
    """

    theirs: Callable[[Any, Any, Any, Subject], Any]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    preset: str | None = "captum"
    steps: bool = False
    hooks: bool = False


def _captum(name: str) -> Any:
    import captum.attr  # may be missing where this module is only imported

    return getattr(captum.attr, name)


def _plain(name: str) -> Callable[[Any, Any, Any, Subject], Any]:
    return lambda module, rows, targets, _: _captum(name)(module).attribute(rows, target=targets)


def _smoothgrad(module: Any, rows: Any, targets: Any, _: Subject) -> Any:
    tunnel = _captum("NoiseTunnel")(_captum("Saliency")(module))
    return tunnel.attribute(rows, nt_samples=STEPS, stdevs=NOISE, target=targets, abs=False)


def _integrated(module: Any, rows: Any, targets: Any, _: Subject) -> Any:
    return _captum("IntegratedGradients")(module).attribute(rows, target=targets, n_steps=STEPS)


def _gradient_shap(module: Any, rows: Any, targets: Any, _: Subject) -> Any:
    baselines = torch.zeros_like(rows[:1])
    return _captum("GradientShap")(module).attribute(rows, baselines, STEPS, 0.0, targets)


def _occlusion(module: Any, rows: Any, targets: Any, subject: Subject) -> Any:
    window = subject.network.side // WINDOWS
    return _captum("Occlusion")(module).attribute(
        rows, (3, window, window), (3, window, window), target=targets, perturbations_per_eval=8
    )[:, :1]


def _gradcam(module: Any, rows: Any, targets: Any, subject: Subject) -> Any:
    layer = module.get_submodule(subject.network.cam)
    small = _captum("LayerGradCam")(module, layer).attribute(rows, target=targets, relu_attributions=True)
    return _captum("LayerAttribution").interpolate(small, tuple(rows.shape[2:]), "bilinear")


METHODS: Mapping[str, Method] = {
    "input_x_gradient": Method(_plain("InputXGradient")),
    "smoothgrad": Method(_smoothgrad, {"samples": STEPS, "noise": NOISE, "seed": SEED}, steps=True),
    "integrated_gradients": Method(_integrated, {"steps": STEPS}, steps=True),
    "expected_gradients": Method(
        _gradient_shap, {"samples": STEPS, "noise": 0.0, "baseline": 0.0, "seed": SEED}, steps=True
    ),
    "occlusion": Method(_occlusion, {"window": 0, "stride": 0}, steps=True),
    "gradcam": Method(_gradcam, preset=None),
    "guided_backprop": Method(_plain("GuidedBackprop"), hooks=True),
    "deconvolution": Method(_plain("Deconvolution"), hooks=True),
    "lrp_epsilon": Method(_plain("LRP"), hooks=True),
    "deeplift": Method(_plain("DeepLift"), hooks=True),
}


def measure(subject: Subject, timing: Timing) -> dict[str, Any]:
    """Captum ÷ ours of each method whose maps agree, and the cost of our rows against the plain gradient's."""
    absent: dict[str, str] = {}
    errors: dict[str, Any] = {}
    contenders: dict[str, MapOf] = {FORWARD: forward(subject)}
    for name in (GRADIENT, SAME):
        contenders[name] = _ours(subject, "gradient", Method(_plain("Saliency"), preset=None))
    for name, method in METHODS.items():
        try:
            ours = _ours(subject, name, method)
        except OnnxplainError as refusal:
            absent[name] = f"ours: {refusal}"[:200]
            continue
        contenders[name] = ours
        theirs = _their_call(subject, name, method, ours, errors, absent)
        if theirs is not None:
            contenders[f"captum {name}"] = theirs
    for name in SUMS:
        parameters = {"samples" if name == "smoothgrad" else "steps": POINTS}
        contenders[f"{name} at {POINTS}"] = _ours(subject, name, Method(_integrated, parameters, None, steps=True))
    seconds, attempts = settled(contenders, timing, GRADIENT, SAME)
    void = not agrees(seconds, GRADIENT, SAME)
    return {**_figures(subject, seconds), "errors": errors, "absent": absent, "attempts": attempts, "void": void}


def _figures(subject: Subject, seconds: Mapping[str, list[float]]) -> dict[str, Any]:
    ratios = {"gradient again ÷ gradient": ratio(seconds, SAME, GRADIENT)}
    for name in METHODS:
        if f"captum {name}" in seconds:
            ratios[f"captum {name} ÷ ours"] = ratio(seconds, f"captum {name}", name)
    for name in SUMS:
        rows = PICTURES * POINTS / subject.batch
        ratios[f"{name} ÷ gradient, per row"] = scaled_ratio(seconds, f"{name} at {POINTS}", GRADIENT, 1 / rows)
    for name, method in METHODS.items():
        if not method.steps and name in seconds:
            ratios[f"{name} ÷ gradient"] = ratio(seconds, name, GRADIENT)
    if "gradcam" in seconds:
        ratios["gradcam ÷ forward"] = ratio(seconds, "gradcam", FORWARD)
    return {"seconds": {name: median(values) for name, values in seconds.items()}, "ratios": ratios}


def _ours(subject: Subject, name: str, method: Method) -> MapOf:
    """Our map, of an explainer that does nothing else: it keeps few graphs open at once."""
    explainer = subject.explainer(name)
    parameters = dict(method.parameters)
    if name == "occlusion":
        parameters = dict.fromkeys(("window", "stride"), subject.network.side // WINDOWS)
    count = PICTURES if method.steps else subject.batch
    rows, targets = subject.array[:count], subject.targets[:count]
    return lambda: explainer.explain(rows, name, targets, preset=method.preset, **parameters).attribution


def _their_call(
    subject: Subject, name: str, method: Method, ours: MapOf, errors: dict[str, Any], absent: dict[str, str]
) -> MapOf | None:
    """Captum's, where it works and both maps are those of Captum in float64 with the same draws."""
    if subject.network.segments or (name == "gradcam" and not subject.network.cam):
        absent[f"captum {name}"] = "not tried on this kind of network"
        return None
    if method.hooks and not any(isinstance(part, torch.nn.ReLU) for part in subject.module.modules()):
        absent[f"captum {name}"] = "its hooks look for ReLU modules, and this network has none"
        return None
    count = PICTURES if method.steps else subject.batch
    targets = torch.tensor(subject.targets[:count], device=subject.device)

    def call(module: Any, dtype: Any) -> Array:
        rows = subject.tensor()[:count].to(dtype).requires_grad_()
        return method.theirs(module, rows, targets, subject).detach().float().cpu().numpy()

    module = _unshared(subject.module) if method.hooks else subject.module
    try:
        with recorded():
            truth = call(copy.deepcopy(module).double(), torch.float64)
            apart = {"ours": error(ours(), truth), "captum": error(call(module, subject.tensor().dtype), truth)}
    except Exception as failure:  # Captum's own words, of whatever kind
        lines = str(failure).strip().splitlines()
        absent[f"captum {name}"] = f"{type(failure).__name__}: {lines[0] if lines else ''}"[:200]
        return None
    errors |= {f"{name}, {side}": entry for side, entry in apart.items()}
    if not max(entry["typical"] for entry in apart.values()) <= APART:
        far = ", ".join(f"{side} {entry['typical']:.1e}" for side, entry in apart.items())
        absent[f"captum {name}"] = f"the maps differ from Captum's in float64: {far}"
        return None
    dtype = subject.tensor().dtype
    return lambda: call(module, dtype)


def _unshared(module: Any) -> Any:
    """A copy without operations in place, over which Captum's hooks trip."""
    copied = copy.deepcopy(module)
    for part in copied.modules():
        if hasattr(part, "inplace"):
            part.inplace = False
    return copied


@contextmanager
def recorded() -> Iterator[None]:
    """Captum draws what our engine draws, so that maps of random methods can be compared; not while it is timed."""
    alpha, choice = expected_draws(STEPS, 1, SEED, fresh=False)

    def noise(mean: Any, deviation: Any) -> Any:
        count = len(deviation) // STEPS
        drawn = np.tile(normal(SEED, np.arange(STEPS), tuple(deviation.shape[1:])), (count, 1, 1, 1))
        return mean + deviation * torch.from_numpy(drawn).to(deviation)

    with (
        mock.patch.object(torch, "normal", noise),
        mock.patch.object(np.random, "choice", lambda _, size: np.resize(choice, size)),
        mock.patch.object(np.random, "uniform", lambda _low, _high, size: np.resize(alpha, size)),
    ):
        yield
