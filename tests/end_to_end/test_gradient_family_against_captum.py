"""The gradient family under preset="captum" is Captum's, on three architectures, with the very same random draws."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import networks
from onnxplain import Explainer
from onnxplain.loops.paths import expected_draws
from onnxplain.random import normal
from onnxplain_export import export

captum = pytest.importorskip("captum.attr", reason="captum is the oracle here: pip install captum")

METHODS = [
    "gradient",
    "input_x_gradient",
    "smoothgrad",
    "smoothgrad_squared",
    "vargrad",
    "integrated_gradients",
    "smoothgrad_integrated",
    "expected_gradients",
]
SIDE, SAMPLES, SEED, NOISE = 32, 6, 5, 0.3
TARGETS = [1, 3]
CLOSE = 1e-4


def plain() -> nn.Module:
    """Convolutions and max-pools, one after the other."""
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(3, 12, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(12, 24, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(24 * (SIDE // 4) ** 2, 5),
    ).eval()


def residual() -> nn.Module:
    """Residual blocks with BatchNorm."""
    torch.manual_seed(4)
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5)]
    return networks.randomised(nn.Sequential(networks.Residual(3, 8, 1), networks.Residual(8, 16, 2), *head))


def transformer() -> nn.Module:
    """Patches, attention, LayerNorm, GELU."""
    return networks.vision_transformer(size=SIDE, patch=8, width=24, depth=1, heads=2, classes=5)


NETWORKS = {"plain": plain, "residual": residual, "transformer": transformer}


@pytest.fixture(scope="module", params=NETWORKS)
def both(request, tmp_path_factory) -> tuple[nn.Module, Explainer]:
    """A network, and its bundle's explainer."""
    torch.set_num_threads(1)
    module = NETWORKS[request.param]()
    folder = tmp_path_factory.mktemp("captum") / "net.explain"
    export(module, folder, example=torch.zeros(1, 3, SIDE, SIDE), methods=METHODS)
    return module, Explainer(folder, device="cpu")


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((2, 3, SIDE, SIDE)).astype(np.float32)


@pytest.fixture
def recorded(monkeypatch) -> None:
    """Captum draws what our engine draws: its noise by torch.normal, baselines and points by numpy."""
    alpha, choice = expected_draws(SAMPLES, 3, SEED, fresh=False)

    def noise(mean: float, deviation: Tensor) -> Tensor:
        images = len(deviation) // SAMPLES
        drawn = np.tile(normal(SEED, np.arange(SAMPLES), deviation.shape[1:]), (images, 1, 1, 1))
        return mean + deviation * torch.from_numpy(drawn)

    monkeypatch.setattr(torch, "normal", noise)
    monkeypatch.setattr(np.random, "choice", lambda count, size: np.resize(choice, size))
    monkeypatch.setattr(np.random, "uniform", lambda low, high, size: np.resize(alpha, size))


def inputs(images: np.ndarray) -> Tensor:
    """The images as Captum wants them: it warns where they have no gradient."""
    return torch.from_numpy(images).requires_grad_()


def difference(ours: np.ndarray, theirs: Tensor) -> float:
    truth = theirs.detach().double().numpy()
    return float(np.linalg.norm(ours - truth) / np.linalg.norm(truth))


def assert_same(explainer: Explainer, images: np.ndarray, method: str, theirs: Tensor, **parameters: object) -> None:
    ours = explainer.explain(images, method, TARGETS, preset="captum", **parameters).attribution
    assert difference(ours, theirs) < CLOSE


def test_saliency(both, images):
    module, explainer = both
    assert_same(explainer, images, "gradient", captum.Saliency(module).attribute(inputs(images), TARGETS))


def test_input_x_gradient(both, images):
    module, explainer = both
    theirs = captum.InputXGradient(module).attribute(inputs(images), TARGETS)
    assert_same(explainer, images, "input_x_gradient", theirs)


@pytest.mark.parametrize(
    "rule", ["gausslegendre", "riemann_left", "riemann_right", "riemann_middle", "riemann_trapezoid"]
)
def test_integrated_gradients_by_every_rule(both, images, rule):
    module, explainer = both
    baseline = np.random.default_rng(1).standard_normal(images.shape).astype(np.float32)
    theirs = captum.IntegratedGradients(module).attribute(
        torch.from_numpy(images), torch.from_numpy(baseline), TARGETS, n_steps=7, method=rule
    )
    assert_same(explainer, images, "integrated_gradients", theirs, rule=rule, steps=7, baseline=baseline)


def test_integrated_gradients_by_default(both, images):
    module, explainer = both
    theirs = captum.IntegratedGradients(module).attribute(torch.from_numpy(images), target=TARGETS)
    assert_same(explainer, images, "integrated_gradients", theirs)


@pytest.mark.usefixtures("recorded")
@pytest.mark.parametrize("kind", ["smoothgrad", "smoothgrad_sq", "vargrad"])
def test_noise_tunnel_of_the_signed_gradient(both, images, kind):
    module, explainer = both
    theirs = captum.NoiseTunnel(captum.Saliency(module)).attribute(
        torch.from_numpy(images), nt_type=kind, nt_samples=SAMPLES, stdevs=NOISE, target=TARGETS, abs=False
    )
    method = {"smoothgrad_sq": "smoothgrad_squared"}.get(kind, kind)
    assert_same(explainer, images, method, theirs, samples=SAMPLES, noise=NOISE, seed=SEED)


@pytest.mark.usefixtures("recorded")
def test_noise_tunnel_of_integrated_gradients(both, images):
    module, explainer = both
    theirs = captum.NoiseTunnel(captum.IntegratedGradients(module)).attribute(
        torch.from_numpy(images), nt_samples=SAMPLES, stdevs=NOISE, target=TARGETS, n_steps=9
    )
    assert_same(explainer, images, "smoothgrad_integrated", theirs, samples=SAMPLES, noise=NOISE, seed=SEED, steps=9)


@pytest.mark.usefixtures("recorded")
@pytest.mark.parametrize("noise", [0.0, NOISE])
def test_gradient_shap(both, images, noise):
    module, explainer = both
    baselines = np.random.default_rng(2).standard_normal((3, 3, SIDE, SIDE)).astype(np.float32)
    theirs = captum.GradientShap(module).attribute(
        torch.from_numpy(images), torch.from_numpy(baselines), SAMPLES, noise, TARGETS
    )
    parameters = {"samples": SAMPLES, "noise": noise, "seed": SEED, "baseline": baselines}
    assert_same(explainer, images, "expected_gradients", theirs, **parameters)


def test_a_preset_takes_the_systems_own_defaults(both, images):
    _, explainer = both
    result = explainer.explain(images, "smoothgrad.captum", TARGETS)
    assert {name: result.parameters[name] for name in ("samples", "noise", "noise_of")} == {
        "samples": 5,
        "noise": 1.0,
        "noise_of": "absolute",
    }
