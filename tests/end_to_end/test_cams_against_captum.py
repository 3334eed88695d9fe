"""The CAM family end to end: torch with hooks in float64 on four kinds of networks, and Captum's LayerGradCam."""

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

import networks
from onnxplain import Explainer
from onnxplain_export import export

TOLERANCE = 1e-5
OF_DIFFERENCES = 1e-4
"""Score-CAM and Ablation-CAM weigh by small differences of scores, in which float32's last places stand out."""
METHODS = (
    "gradcam",
    "gradcam_plus_plus",
    "hirescam",
    "layercam",
    "xgradcam",
    "eigencam",
    "scorecam",
    "ablationcam",
    "reciprocam",
)
SLOW = ("scorecam", "ablationcam", "reciprocam")
"""They run the network many times, and torch does so one by one here."""


def plain() -> nn.Module:
    """Convolutions, a pool, and layers that see every place: VGG's kind."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 1, 1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 12, 3, 2), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(12 * 4 * 5, 16), nn.ReLU(), nn.Linear(16, 5),
    )  # fmt: skip


def residual() -> nn.Module:
    """A stem and two residual blocks with BatchNormalization: ResNet's kind."""
    stem = [nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU()]
    blocks = [networks.Residual(8, 8, 1), networks.Residual(8, 16, 2)]
    ends = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 5)]
    return networks.randomised(nn.Sequential(*stem, *blocks, *ends))


class Transformer(networks.VisionTransformer):
    """A vision transformer with a class token, for pictures that needn't be square."""

    def __init__(self) -> None:
        super().__init__(size=32, patch=8, width=16, depth=2, heads=2, classes=5)
        self.position = nn.Parameter(torch.randn(1, 4 * 6 + 1, 16))


class Windows(nn.Module):
    """A block of attention in shifted windows on [N, h, w, C] (Liu et al. 2021, arXiv:2103.14030)."""

    def __init__(self, width: int, side: int, shift: int) -> None:
        super().__init__()
        self.side, self.shift, self.block = side, shift, networks.Attention(width, 2)

    def forward(self, x: Tensor) -> Tensor:
        n, h, w, c = x.shape
        s = self.side
        x = torch.roll(x, (-self.shift, -self.shift), (1, 2)) if self.shift else x
        windows = x.reshape(n, h // s, s, w // s, s, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, s * s, c)
        mixed = self.block(windows).reshape(n, h // s, w // s, s, s, c).permute(0, 1, 3, 2, 4, 5).reshape(n, h, w, c)
        return torch.roll(mixed, (self.shift, self.shift), (1, 2)) if self.shift else mixed


class Swin(nn.Module):
    """Patches, two blocks of windows, a merge of neighbours, two more, and the mean over places."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.merge = nn.Conv2d(3, 8, 4, 4), nn.Linear(32, 16)
        self.first = nn.Sequential(Windows(8, 2, 0), Windows(8, 2, 1))
        self.second = nn.Sequential(Windows(16, 2, 0), Windows(16, 2, 1))
        self.norm, self.head = nn.LayerNorm(16), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(self.patches(x).permute(0, 2, 3, 1))
        parts = [x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)]
        return self.head(self.norm(self.second(self.merge(torch.cat(parts, -1)))).mean((1, 2)))


def to_grid(kind: str, prefix: int, grid: tuple[int, int], values: Tensor) -> Tensor:
    """A layer's values [N, …] as [N, K, h, w]."""
    if kind == "NCHW":
        return values
    places = values.reshape(len(values), -1, values.shape[-1])[:, prefix:]
    return places.transpose(1, 2).reshape(len(values), -1, *grid)


NETWORKS: dict[str, tuple[Any, tuple[int, int], Any, str, tuple[int, int], int]] = {
    "plain": (plain, (35, 46), lambda net: net[4], "NCHW", (8, 11), 0),
    "residual": (residual, (33, 45), lambda net: net[4], "NCHW", (9, 12), 0),
    "transformer": (Transformer, (32, 48), lambda net: net.blocks[-1].norm1, "tokens", (4, 6), 1),
    "windows": (Swin, (32, 48), lambda net: net.norm, "NHWC", (4, 6), 0),
}


class Case:
    """One network, its bundle, some images, and torch's own account of the layer in float64."""

    def __init__(self, name: str, folder: Path) -> None:
        make, size, layer, self.kind, self.grid, self.prefix = NETWORKS[name]
        torch.manual_seed(3)
        self.module = make().eval()
        bundle = export(self.module, folder / f"{name}.explain", example=torch.zeros(1, 3, *size), methods=[*METHODS])
        self.explainer = Explainer(bundle, device="cpu")
        self.double = copy.deepcopy(self.module).double()
        self.layer = layer(self.double)
        self.images = np.random.default_rng(4).standard_normal((7, 3, *size)).astype(np.float32)
        self.targets = np.array([[0, 3], [1, 4], [2, 0], [4, 1], [3, 2], [0, 1], [2, 4]])
        self.size = size

    def run(self, rows: Tensor, replaced: Any = None) -> tuple[Tensor, Tensor]:
        """Scores and the layer's features; `replaced(features)` goes on in their place."""
        caught: list[Tensor] = []

        def hook(_module: nn.Module, _given: Any, features: Tensor) -> Tensor:
            caught.append(features if replaced is None else replaced(features))
            return caught[0]

        handle = self.layer.register_forward_hook(hook)
        try:
            return self.double(rows), caught[0]
        finally:
            handle.remove()

    def features_and_gradients(self, image: int, target: int) -> tuple[Tensor, Tensor, Tensor]:
        scores, features = self.run(torch.from_numpy(self.images[image : image + 1]).double())
        (gradient,) = torch.autograd.grad(scores[0, target], features)
        return self.on_grid(features.detach())[0], self.on_grid(gradient)[0], scores.detach()[0]

    def on_grid(self, values: Tensor) -> Tensor:
        return to_grid(self.kind, self.prefix, self.grid, values)

    def picture(self, name: str, image: int, target: int) -> np.ndarray:
        """The method's map by torch [H, W]."""
        point = Point(self, image, target, *self.features_and_gradients(image, target))
        with torch.no_grad():
            found = globals()[f"_{name}"](point)
            large = F.interpolate(found[None, None], size=self.size, mode="bilinear", align_corners=False)
        return large[0, 0].numpy()


@dataclass(frozen=True)
class Point:
    """One image and target of a case: its features and gradients [K, h, w] and the image's scores."""

    case: Case
    image: int
    target: int
    a: Tensor
    g: Tensor
    scores: Tensor


def _gradcam(at: Point) -> Tensor:
    return F.relu((at.g.mean((1, 2), keepdim=True) * at.a).sum(0))


def _gradcam_plus_plus(at: Point) -> Tensor:
    alpha = at.g**2 / (2 * at.g**2 + at.a.sum((1, 2), keepdim=True) * at.g**3)
    weight = (torch.nan_to_num(alpha) * F.relu(at.g)).sum((1, 2), keepdim=True)
    return F.relu((weight * at.a).sum(0))


def _hirescam(at: Point) -> Tensor:
    return (at.g * at.a).sum(0)


def _layercam(at: Point) -> Tensor:
    return F.relu((F.relu(at.g) * at.a).sum(0))


def _xgradcam(at: Point) -> Tensor:
    total = at.a.sum((1, 2), keepdim=True)
    weight = torch.where(total == 0, 0, (at.a * at.g).sum((1, 2), keepdim=True) / torch.where(total == 0, 1, total))
    return F.relu((weight * at.a).sum(0))


def _eigencam(at: Point) -> Tensor:
    flat = at.a.reshape(len(at.a), -1)
    _, _, right = torch.linalg.svd(flat, full_matrices=False)
    found = (right[0] * torch.linalg.norm(flat @ right[0])).reshape(at.a.shape[1:])
    return found * torch.sign(found.sum())


def _scorecam(at: Point) -> Tensor:
    rows = torch.from_numpy(at.case.images[at.image : at.image + 1]).double()
    large = F.interpolate(at.a[None], size=at.case.size, mode="bilinear", align_corners=False)[0]
    low, high = large.amin((1, 2), keepdim=True), large.amax((1, 2), keepdim=True)
    masks = torch.where(high > low, (large - low) / torch.where(high > low, high - low, 1), 0)
    none = torch.softmax(at.case.run(rows * 0)[0], 1)[0, at.target]
    gains = torch.stack([torch.softmax(at.case.run(rows * mask)[0], 1)[0, at.target] - none for mask in masks])
    return F.relu((gains[:, None, None] * at.a).sum(0))


def _ablationcam(at: Point) -> Tensor:
    rows = torch.from_numpy(at.case.images[at.image : at.image + 1]).double()

    def without(channel: int) -> Tensor:
        def replaced(features: Tensor) -> Tensor:
            changed = features.clone()
            (changed[:, channel] if at.case.kind == "NCHW" else changed[..., channel]).zero_()
            return changed

        return at.case.run(rows, replaced)[0][0, at.target]

    lost = (
        torch.stack([at.scores[at.target] - without(channel) for channel in range(len(at.a))])
        / at.scores[at.target].abs()
    )
    return F.relu((lost[:, None, None] * at.a).sum(0))


def _reciprocam(at: Point) -> Tensor:
    rows = torch.from_numpy(at.case.images[at.image : at.image + 1]).double()
    found = torch.zeros(at.case.grid, dtype=torch.float64)
    for place in np.ndindex(*at.case.grid):
        kept = torch.zeros(at.case.grid, dtype=torch.float64)
        kept[place] = 1

        def replaced(features: Tensor, kept: Tensor = kept) -> Tensor:
            if at.case.kind == "NCHW":
                return features * kept
            if at.case.kind == "NHWC":
                return features * kept[..., None]
            before = torch.ones(at.case.prefix, dtype=torch.float64)
            return features * torch.cat([before, kept.ravel()])[:, None]

        found[place] = torch.softmax(at.case.run(rows, replaced)[0], 1)[0, at.target]
    return found


@pytest.fixture(scope="module", params=NETWORKS)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case(request.param, tmp_path_factory.mktemp("cams"))


def relative(a: np.ndarray, b: np.ndarray) -> float:
    scale = float(np.linalg.norm(b.ravel()))
    return float(np.linalg.norm((a - b).ravel())) / (scale or 1.0)


def test_the_layer_that_was_found_is_the_one_that_people_take(case: Case) -> None:
    (layer,) = case.explainer.bundle.layers
    assert (layer.layout, layer.grid, layer.prefix, layer.default) == (case.kind, case.grid, case.prefix, True)


@pytest.mark.parametrize("method", METHODS)
def test_a_map_is_torchs_for_two_targets(case: Case, method: str) -> None:
    count = 1 if method in SLOW else 2
    found = case.explainer.explain(case.images[:count], method, targets=case.targets[:count].tolist()).attribution
    assert found.shape == (count, 2, 1, *case.size)
    expected = np.array(
        [[case.picture(method, image, int(target)) for target in case.targets[image]] for image in range(count)]
    )
    assert np.abs(expected).max() > 0
    assert relative(found[:, :, 0], expected) <= (
        OF_DIFFERENCES if method in ("scorecam", "ablationcam") else TOLERANCE
    )


@pytest.mark.parametrize("method", METHODS)
def test_a_map_is_the_same_alone_and_in_a_batch_of_seven(case: Case, method: str) -> None:
    options = {"channels": 3} if method == "scorecam" else {}
    targets = case.targets[:, 0].tolist()
    together = case.explainer.explain(case.images, method, targets=targets, **options).attribution
    alone = case.explainer.explain(case.images[5], method, targets=targets[5], **options).attribution
    assert np.isfinite(together).all()
    assert relative(alone[0], together[5]) <= (OF_DIFFERENCES if method in ("scorecam", "ablationcam") else TOLERANCE)


def test_scorecams_channels_are_those_that_vary_most(case: Case) -> None:
    a, g, scores = case.features_and_gradients(0, 1)
    kept = np.argsort(-a.flatten(1).std(1).numpy(), kind="stable")[:3]
    only = torch.zeros_like(a)
    only[kept] = a[kept]
    with torch.no_grad():
        expected = F.interpolate(
            _scorecam(Point(case, 0, 1, only, g, scores))[None, None],
            size=case.size,
            mode="bilinear",
            align_corners=False,
        )
    found = case.explainer.explain(case.images[0], "scorecam", targets=1, channels=3).attribution
    assert relative(found[0, 0], expected[0, 0].numpy()) <= OF_DIFFERENCES


def test_without_enlarging_the_map_has_the_layers_size(case: Case) -> None:
    found = case.explainer.explain(case.images[:1], "gradcam", targets=2, upsample="none", relu=False)
    assert found.attribution.shape == (1, 1, *case.grid)
    a, g, _ = case.features_and_gradients(0, 2)
    assert relative(found.attribution[0, 0], (g.mean((1, 2), keepdim=True) * a).sum(0).numpy()) <= TOLERANCE


def test_mindspores_preset_goes_through_bytes(case: Case) -> None:
    """Its map is a whole number of 255ths; for values in 0..1 it is ours to a byte or so."""
    ours = case.explainer.explain(case.images, "gradcam", targets=0).attribution
    theirs = case.explainer.explain(case.images, "gradcam", targets=0, preset="mindspore").attribution
    np.testing.assert_allclose(theirs * 255, np.rint(theirs * 255), atol=1e-4)
    fits = ours.max((1, 2, 3)) < 1
    assert fits.any()
    assert np.abs(theirs - ours)[fits].max() <= 2 / 255


@pytest.mark.parametrize("name", ["plain", "residual", "mobile"])
def test_captums_layer_gradcam_under_its_preset(name: str, tmp_path: Path) -> None:
    attr = pytest.importorskip("captum.attr")
    torch.manual_seed(5)
    if name == "mobile":
        module, size, layer = networks.mobile_net(5), (64, 64), lambda net: net[-4]
    else:
        make, size, layer = NETWORKS[name][:3]
        module = make().eval()
    double = copy.deepcopy(module).double()
    bundle = export(module, tmp_path / "net.explain", example=torch.zeros(1, 3, *size), methods=["gradcam"])
    images = np.random.default_rng(6).standard_normal((3, 3, *size)).astype(np.float32)
    targets = [1, 4, 0]
    rows = torch.from_numpy(images).double()
    expected = attr.LayerGradCam(double, layer(double)).attribute(rows, torch.tensor(targets)).detach().numpy()
    found = Explainer(bundle, device="cpu").explain(images, "gradcam", targets=targets, preset="captum").attribution
    assert relative(found, expected) <= TOLERANCE


@pytest.mark.filterwarnings("ignore")  # Captum warns of its hooks and of setting requires_grad
def test_guided_gradcam_is_the_product_of_captums_two_parts(tmp_path: Path) -> None:
    """Captum's own GuidedGradCam enlarges by nearest neighbours; the paper's is bilinear."""
    attr = pytest.importorskip("captum.attr")
    make, size, layer = NETWORKS["plain"][:3]
    torch.manual_seed(6)
    module = make().eval()
    double = copy.deepcopy(module).double()
    bundle = export(module, tmp_path / "net.explain", example=torch.zeros(1, 3, *size), methods=["guided_gradcam"])
    images = np.random.default_rng(6).standard_normal((3, 3, *size)).astype(np.float32)
    targets = [1, 4, 0]
    rows = torch.from_numpy(images).double()
    cams = attr.LayerGradCam(double, layer(double)).attribute(rows, torch.tensor(targets), relu_attributions=True)
    guided = attr.GuidedBackprop(double).attribute(rows, torch.tensor(targets))
    expected = guided * F.interpolate(cams, size=size, mode="bilinear", align_corners=False)
    found = Explainer(bundle, device="cpu").explain(images, "guided_gradcam", targets=targets).attribution
    assert np.abs(found).max() > 0
    assert relative(found, expected.detach().numpy()) <= TOLERANCE
