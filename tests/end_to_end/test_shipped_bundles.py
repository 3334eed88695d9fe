"""What the shipped networks' bundles promise: complete, independent of the plan and of neighbours, and telling."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from onnxplain import Explainer
from onnxplain.pictures import read_picture

MODELS = Path(__file__).parents[2] / "models"
METHODS = ("gradient", "smoothgrad", "integrated_gradients", "smoothgrad_integrated", "occlusion")
FEW = {
    "smoothgrad": {"samples": 7},
    "integrated_gradients": {"steps": 7},
    "smoothgrad_integrated": {"samples": 3, "steps": 4},
}


def relative(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    return float(np.linalg.norm(a.astype(np.float64) - b) / np.linalg.norm(b))


def mask(picture: Path, part: str) -> NDArray[np.bool_]:
    return np.asarray(read_picture(MODELS / "masks" / f"{picture.stem}.{part}.png")[..., 0] > 127)


@pytest.mark.parametrize("name", ["honest", "shortcut"])
def test_integrated_gradients_add_up_to_the_change_of_score(
    name: str, bundles: dict[str, Path], pictures: list[Path]
) -> None:
    explainer = Explainer(bundles[name], device="cpu")
    result = explainer.explain(pictures, "integrated_gradients")
    start = explainer.scores(np.zeros((1, 3, 64, 64), np.float32))[0]
    rows = np.arange(len(result))
    change = result.scores[rows, result.targets] - start[result.targets]
    gap = np.abs(result.attribution.sum(axis=(1, 2, 3), dtype=np.float64) - change) / np.abs(change)
    assert np.median(gap) <= 0.01, gap


@pytest.mark.parametrize("method", METHODS)
def test_a_map_depends_neither_on_the_plan_nor_on_its_neighbours(
    method: str, bundles: dict[str, Path], pictures: list[Path]
) -> None:
    explainer = Explainer(bundles["honest"], device="cpu")
    parameters = FEW.get(method, {})
    together = explainer.explain(pictures[:5], method, **parameters).attribution
    for rows in (1, 3):
        chunked = Explainer(bundles["honest"], device="cpu", rows=rows).explain(pictures[:5], method, **parameters)
        assert relative(chunked.attribution, together) <= 1e-5
    alone = explainer.explain(pictures[3], method, **parameters).attribution
    assert relative(alone, together[3:4]) <= 1e-5


@pytest.mark.parametrize("method", METHODS)
def test_the_maps_tell_the_shortcut_from_the_honest_network(
    method: str, bundles: dict[str, Path], pictures: list[Path]
) -> None:
    parameters = FEW.get(method, {})
    shares = {}
    for name, bundle in bundles.items():
        weight = np.abs(Explainer(bundle, device="cpu").explain(pictures, method, **parameters).attribution).sum(axis=1)
        weight /= weight.sum(axis=(1, 2), keepdims=True)
        for part in ("digit", "patch"):
            inside = [weight[i][mask(picture, part)].sum() for i, picture in enumerate(pictures)]
            shares[name, part] = float(np.mean(inside))
    assert shares["honest", "digit"] > 2 * shares["honest", "patch"], shares
    assert shares["shortcut", "patch"] > 4 * shares["shortcut", "digit"], shares


def test_several_targets_equal_each_target_alone(bundles: dict[str, Path], pictures: list[Path]) -> None:
    explainer = Explainer(bundles["honest"], device="cpu")
    both = explainer.explain(pictures[:3], "smoothgrad", targets=[[1, "seven"]] * 3, samples=4).attribution
    for place, target in enumerate((1, 7)):
        alone = explainer.explain(pictures[:3], "smoothgrad", targets=target, samples=4).attribution
        assert relative(both[:, place], alone) <= 1e-5


def test_without_noise_smoothgrad_is_the_gradient(bundles: dict[str, Path], pictures: list[Path]) -> None:
    explainer = Explainer(bundles["honest"], device="cpu")
    still = explainer.explain(pictures[:3], "smoothgrad", noise=0.0, samples=3).attribution
    assert relative(still, explainer.explain(pictures[:3], "gradient").attribution) <= 1e-5
