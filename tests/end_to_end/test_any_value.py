"""Text at its embedding, feature layers, several inputs, outputs that are no classes: against autograd in float64."""

import copy
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import other_networks
from onnxplain import Explainer
from onnxplain.cli import main
from onnxplain.errors import ParameterError, PictureError
from onnxplain_export import export
from other_networks import LENGTH, WORDS

pytestmark = pytest.mark.filterwarnings("ignore")  # torch's exporter warns of its own affairs
PICTURE = (3, 16, 24)
MASK = np.array([[1] * LENGTH, [1] * 5 + [0] * 3, [1] * LENGTH])


def relative(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm((a - b).ravel()) / np.linalg.norm(b.ravel()))


def made(kind: type[nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return kind().eval()


def exported(
    module: nn.Module, folder: Path, example: tuple[Tensor, ...], free: bool = True, **options: object
) -> Path:
    file = folder / "network.onnx"
    shapes = tuple({0: "batch"} for _ in example) if free else None
    torch.onnx.export(module, example, dynamo=True, verbose=False, dynamic_shapes=shapes).save(file)
    return export(file, folder / "network.explain", **options)


def autograd(value: np.ndarray, explained: Callable[[Tensor], Tensor]) -> np.ndarray:
    """The gradient of the sum of what is explained, in float64."""
    leaf = torch.tensor(value, dtype=torch.float64, requires_grad=True)
    explained(leaf).sum().backward()
    assert leaf.grad is not None
    return leaf.grad.numpy()


def top_scores(scores: Tensor) -> Tensor:
    return scores.max(dim=1).values


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def sentences() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    kinds = rng.integers(0, 2, (3, LENGTH))
    return {"input_ids": rng.integers(0, WORDS, (3, LENGTH)), "attention_mask": MASK, "token_type_ids": kinds}


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Explainer]:
    module = made(other_networks.TextClassifier)
    example = tuple(torch.ones(2, LENGTH, dtype=torch.int64) for _ in range(3))  # one tensor thrice is one input
    bundle = exported(module, tmp_path_factory.mktemp("text"), example)
    return module.double(), Explainer(bundle, device="cpu")


def test_token_numbers_are_explained_at_their_embedding(text: tuple[nn.Module, Explainer]) -> None:
    module, explainer = text
    feeds = sentences()
    ids, mask, kinds = (torch.tensor(value) for value in feeds.values())
    words = module.word(ids).detach().numpy()
    truth = autograd(words, lambda words: top_scores(module.onward(words, mask, kinds)))
    assert explainer.bundle.inside is not None
    assert relative(explainer.values(feeds), words) < 1e-6
    assert relative(explainer.gradient(feeds), truth) < 1e-5
    for index in range(3):  # alone as in the batch
        one = {name: value[index] for name, value in feeds.items()}
        assert relative(explainer.gradient(one), truth[index : index + 1]) < 1e-5


def test_maps_of_tokens_add_up_to_the_change_of_the_score(text: tuple[nn.Module, Explainer]) -> None:
    module, explainer = text
    feeds = sentences()
    _, mask, kinds = (torch.tensor(value) for value in feeds.values())
    padding = {**feeds, "input_ids": np.zeros_like(feeds["input_ids"])}
    baseline = explainer.values(padding)
    result = explainer.explain(feeds, "integrated_gradients", baseline=baseline, memory="4MB")
    without = module.onward(torch.tensor(baseline, dtype=torch.float64), mask, kinds).detach().numpy()
    change = np.take_along_axis(result.scores - without, result.targets[:, None], axis=1)[:, 0]
    assert result.tokens().shape == (3, LENGTH)
    np.testing.assert_allclose(result.tokens().sum(axis=1), change, rtol=1e-3, atol=1e-5)
    assert not result.tokens()[1, 5:].any(), "masked tokens have no part in the score"
    with pytest.raises(ParameterError, match="lies inside the network"):
        explainer.explain(feeds, "integrated_gradients", baseline="black")


def test_text_on_the_command_line(text: tuple[nn.Module, Explainer], tmp_path: Path) -> None:
    _, explainer = text
    one = {name: value[1] for name, value in sentences().items()}
    np.savez(tmp_path / "sentence.npz", **one)
    out = tmp_path / "out"
    arguments = ["explain", str(explainer.bundle.path), str(tmp_path / "sentence.npz"), "-o", str(out)]
    assert main([*arguments, "--method", "gradient,smoothgrad"]) == 0
    found = np.load(out / "sentence.gradient.npy")
    np.testing.assert_allclose(found, explainer.gradient(one)[0], rtol=1e-6)
    lines = [json.loads(line) for line in (out / "index.jsonl").read_text("utf-8").splitlines()]
    assert [line["files"] for line in lines] == [
        {"map": "sentence.gradient.npy"},
        {"map": "sentence.smoothgrad.npy"},
    ]
    np.testing.assert_allclose(lines[0]["tokens"], np.linalg.norm(found, axis=1), rtol=1e-5)


def test_wrong_inputs_of_text(text: tuple[nn.Module, Explainer]) -> None:
    _, explainer = text
    feeds = sentences()
    with pytest.raises(ParameterError, match="several inputs; give a mapping with 'input_ids', 'attention_mask'"):
        explainer.gradient(feeds["input_ids"])
    with pytest.raises(ParameterError, match="input 'attention_mask' is missing"):
        explainer.gradient({"input_ids": feeds["input_ids"]})
    with pytest.raises(ParameterError, match="unknown input 'input_idss'; did you mean 'input_ids'"):
        explainer.gradient({**feeds, "input_idss": feeds["input_ids"]})
    with pytest.raises(ParameterError, match="'attention_mask' has 2 rows for 3 images"):
        explainer.gradient({**feeds, "attention_mask": MASK[:2]})
    with pytest.raises(PictureError, match="takes whole numbers, not float64"):
        explainer.gradient({**feeds, "input_ids": feeds["input_ids"] + 0.5})


@pytest.fixture(scope="module")
def segmentation(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Explainer]:
    module = made(other_networks.Segmentation)
    bundle = exported(
        module, tmp_path_factory.mktemp("segmentation"), (torch.zeros(2, *PICTURE),), labels=list("abcde")
    )
    return module.double(), Explainer(bundle, device="cpu")


def test_a_segmentation_by_a_cotangent(segmentation: tuple[nn.Module, Explainer]) -> None:
    module, explainer = segmentation
    images, cotangent = random(2, *PICTURE), random(2, 5, *PICTURE[1:], seed=1)
    u = torch.tensor(cotangent)
    assert relative(explainer.gradient(images, cotangent=cotangent), autograd(images, lambda x: module(x) * u)) < 1e-5
    one = autograd(images, lambda x: module(x) * u[0])
    assert relative(explainer.gradient(images, cotangent=cotangent[0]), one) < 1e-5
    several = explainer.explain(images, "gradient", cotangent=np.stack([cotangent, 2 * cotangent], axis=1))
    assert relative(several.attribution[:, 1], 2 * several.attribution[:, 0]) < 1e-6
    assert several.labels[0] == ("cotangent", "cotangent")
    drop = explainer.explain(images, "occlusion", cotangent=cotangent, window=16, stride=16, score="logits")
    hidden = images.copy()
    hidden[..., :16] = 0
    with torch.no_grad():
        before, after = (module(torch.tensor(x, dtype=torch.float64)) for x in (images, hidden))
    change = ((before - after) * u).sum((1, 2, 3))
    np.testing.assert_allclose(drop.attribution[:, 0, 0, 0], change, rtol=1e-4)


def test_a_class_of_a_segmentation_is_explained_where_it_wins(segmentation: tuple[nn.Module, Explainer]) -> None:
    module, explainer = segmentation
    images = random(2, *PICTURE)
    result = explainer.explain(images, "gradient")
    winners = result.scores.argmax(axis=1).reshape(2, -1)
    top = [int(np.bincount(row).argmax()) for row in winners]
    assert result.targets.tolist() == top
    assert result.labels == tuple("abcde"[target] for target in top)

    def explained(x: Tensor) -> Tensor:
        scores = module(x)
        return torch.stack([scores[i, c][scores[i].argmax(0) == c].sum() for i, c in enumerate(top)])

    assert relative(result.attribution, autograd(images, explained)) < 1e-5
    assert explainer.explain(images, "gradient", top=2).attribution.shape == (2, 2, *PICTURE)


def test_wrong_cotangents(segmentation: tuple[nn.Module, Explainer]) -> None:
    _, explainer = segmentation
    images, cotangent = random(2, *PICTURE), random(5, *PICTURE[1:])
    with pytest.raises(ParameterError, match=r"cotangent of shape \[3, 16, 24\] does not fit the output"):
        explainer.explain(images, cotangent=cotangent[:3])
    with pytest.raises(ParameterError, match="both say what is explained"):
        explainer.explain(images, targets=1, cotangent=cotangent)
    with pytest.raises(ParameterError, match="NaN"):
        explainer.explain(images, cotangent=cotangent * np.nan)
    with pytest.raises(ParameterError, match="class a is nowhere the best one in image 0"):
        explainer.explain(np.full((1, *PICTURE), -50, np.float32), targets="a")


def test_boxes_need_a_cotangent(tmp_path: Path) -> None:
    module = made(other_networks.Boxes)
    explainer = Explainer(exported(module, tmp_path, (torch.zeros(2, *PICTURE),)), device="cpu")
    images, cotangent = random(2, *PICTURE), np.zeros((6, 4), np.float32)
    cotangent[2, 1] = 1
    module.double()
    truth = autograd(images, lambda x: module(x)[:, 2, 1])
    assert relative(explainer.gradient(images, cotangent=cotangent), truth) < 1e-5
    with pytest.raises(ParameterError, match="holds no classes; say what is explained by cotangent="):
        explainer.explain(images)


def test_the_cotangent_of_a_classifier(tmp_path: Path) -> None:
    module = made(other_networks.TwoParts)
    explainer = Explainer(exported(module, tmp_path, (torch.zeros(2, *PICTURE),), cotangent=True), device="cpu")
    images, difference = random(2, *PICTURE), np.array([1, -1, 0, 0], np.float32)
    module.double()
    truth = autograd(images, lambda x: module(x)[:, 0] - module(x)[:, 1])
    assert relative(explainer.gradient(images, cotangent=difference), truth) < 1e-5
    top = autograd(images, lambda x: top_scores(module(x)))
    assert relative(explainer.gradient(images), top) < 1e-5


@pytest.mark.parametrize("free", [True, False])
def test_a_picture_with_other_inputs(tmp_path: Path, free: bool) -> None:
    module = made(other_networks.PictureAndAge)
    example = (torch.zeros(2, *PICTURE), torch.zeros(2, 5)) if free else (torch.zeros(1, *PICTURE), torch.zeros(1, 5))
    explainer = Explainer(exported(copy.deepcopy(module), tmp_path, example, free), device="cpu")
    feeds = {"picture": random(3, *PICTURE), "age": random(3, 5, seed=1)}
    module.double()
    age = torch.tensor(feeds["age"], dtype=torch.float64)
    truth = autograd(feeds["picture"], lambda x: top_scores(module(x, age)))
    assert relative(explainer.gradient(feeds), truth) < 1e-5
    for method in explainer.bundle.methods:
        whole = explainer.explain(feeds, method, memory="8MB").attribution
        dealt = [dict(zip(feeds, pair, strict=True)) for pair in zip(*feeds.values(), strict=True)]
        alone = [result.attribution for result in explainer.stream(dealt, method)]
        assert relative(np.concatenate(alone), whole) < 1e-5


def test_another_input_is_explained_by_name(tmp_path: Path) -> None:
    module = made(other_networks.PictureAndAge)
    example = (torch.zeros(2, *PICTURE), torch.zeros(2, 5))
    explainer = Explainer(exported(module, tmp_path, example, image_input="age"), device="cpu")
    feeds = {"picture": random(3, *PICTURE), "age": random(3, 5, seed=1)}
    module.double()
    picture = torch.tensor(feeds["picture"], dtype=torch.float64)
    truth = autograd(feeds["age"], lambda age: top_scores(module(picture, age)))
    assert relative(explainer.gradient(feeds), truth) < 1e-5


def test_a_feature_layer_by_name(tmp_path: Path) -> None:
    module = made(other_networks.TwoParts)
    explainer = Explainer(exported(module, tmp_path, (torch.zeros(2, *PICTURE),), wrt="relu"), device="cpu")
    images = random(2, *PICTURE)
    module.double()
    features = module.features(torch.tensor(images, dtype=torch.float64)).detach().numpy()
    assert relative(explainer.values(images), features) < 1e-5
    assert relative(explainer.gradient(images), autograd(features, lambda h: top_scores(module.onward(h)))) < 1e-5
    result = explainer.explain(images, "integrated_gradients", steps=100)
    assert result.heatmap().shape == (2, 8, 12)
    assert result.overlay().shape == (2, 16, 24, 3)
    without = module.onward(torch.zeros(2, 8, 8, 12).double()).detach().numpy()
    change = np.take_along_axis(result.scores - without, result.targets[:, None], axis=1)[:, 0]
    np.testing.assert_allclose(result.attribution.sum(axis=(1, 2, 3)), change, rtol=1e-3)
    assert explainer.explain(images, "occlusion").heatmap().shape == (2, 16, 24)
