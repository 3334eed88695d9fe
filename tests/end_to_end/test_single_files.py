"""Single files: one Run gives the map that the engine finds with a bundle, from pictures to pictures if asked."""

import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

import networks
import other_networks
from onnxplain import BundleError, Explainer, OutputError, ParameterError, PictureError
from onnxplain.cli import main
from onnxplain.jobs import Job
from onnxplain_export import export, export_single
from onnxplain_export.methods import METHODS
from onnxplain_export.single.recipes import REASONS, RECIPES

Array = NDArray[Any]
FEW = {"samples": 5, "steps": 6, "masks": 50, "window": 9, "stride": 7, "cells": 3}
NEEDED = {"expected_gradients": {"baseline": 0.0}, "kernel_shap": {"samples": 40}}
NOT_LINEAR = ("eigencam", "sobol", "hsic")
"""Their loops have a form in one graph, but not with their formulas."""
MODELS = Path(__file__).parents[2] / "models"


class Smooth(torch.nn.Module):
    """A classifier without kinks: what differs by rounding alone stays close."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = torch.nn.Conv2d(3, 8, 3, 2, 1), torch.nn.Conv2d(8, 12, 3, 2, 1)
        self.last = torch.nn.Linear(12, 5)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        act = torch.nn.functional.silu
        return self.last(act(self.second(act(self.first(image)))).mean((2, 3)))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(4)
    target = tmp_path_factory.mktemp("single") / "smooth.explain"
    network, example = networks.randomised(Smooth()), torch.zeros(1, 3, 27, 34)
    return export(network, target, example=example, methods="all", preprocessing="torchvision")


def few(explainer: Explainer, method: str) -> dict[str, Any]:
    known = explainer.bundle.methods[method].parameters
    return {**{n: v for n, v in FEW.items() if n in known}, **NEEDED.get(method, {})}


def run(file: Path, images: Array, targets: Any, **free: Array) -> dict[str, Array]:
    """All outputs of the file by nothing but onnxruntime."""
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    image = session.get_inputs()[0].name
    found = session.run(None, {image: images, "target": np.asarray(targets, np.int64), **free})
    return {output.name: value for output, value in zip(session.get_outputs(), found, strict=True)}


def images_of(explainer: Explainer, count: int) -> Array:
    return np.random.default_rng(1).normal(size=(count, *explainer.bundle.image.shape[1:])).astype(np.float32)


def apart(found: Array, expected: Array) -> float:
    return float(np.linalg.norm(found.astype(float) - expected) / np.linalg.norm(expected.astype(float)))


ONE_RUN = [name for name, entry in METHODS.items() if entry["loop"] in RECIPES and name not in NOT_LINEAR]
SUMS = [
    name
    for name in ONE_RUN
    if METHODS[name]["graph"] in ("path", "noise") or METHODS[name]["graph"].startswith("masked")
]


@pytest.mark.parametrize(
    ("method", "unrolled"), [*((name, False) for name in ONE_RUN), *((name, True) for name in SUMS)]
)
def test_one_run_gives_the_engines_map(bundle, tmp_path, method, unrolled):
    explainer = Explainer(bundle, device="cpu")
    if method not in explainer.bundle.methods:
        pytest.skip(explainer.bundle.left_out[method])
    parameters, images = few(explainer, method), images_of(explainer, 3)
    file = export_single(bundle, tmp_path / "one.onnx", method, parameters=parameters, rows=4, unrolled=unrolled)
    targets = [[-1, 2], [0, -1], [4, 4]]
    found = run(file, images, targets)
    top = explainer.scores(images).argmax(axis=1)
    settled = [[int(top[i]) if t < 0 else t for t in row] for i, row in enumerate(targets)]
    expected = explainer.explain(images, method, settled, **parameters)
    assert found["attribution"].shape == expected.attribution.shape
    # Small differences of probabilities, which round.
    tolerance = 1e-4 if METHODS[method]["graph"].startswith("masked") else 1e-5
    assert apart(found["attribution"], expected.attribution) < tolerance
    assert apart(found["scores"], expected.scores) < 1e-6
    loops = {node.op_type for node in onnx.load(file).graph.node} & {"Loop"}
    assert not (unrolled and loops)
    # The engine opens the file like a bundle, and has its map at once.
    again = Explainer(file, device="cpu")
    result = again.explain(images, targets=settled)
    assert result.method == method
    assert apart(result.attribution, expected.attribution) < tolerance
    assert again.bundle.single is not None
    assert again.bundle.single.parameters.keys() == explainer.bundle.methods[method].parameters.keys()


def test_every_method_has_a_recipe_or_a_reason(bundle, tmp_path):
    explainer = Explainer(bundle, device="cpu")
    refused = [m for m in explainer.bundle.methods.values() if m.loop not in RECIPES]
    assert refused
    for method in refused:
        with pytest.raises(ParameterError, match=f"{method.name} has no form in one graph: {REASONS[method.loop]}"):
            export_single(bundle, tmp_path / "one.onnx", method.name)
    for name in NOT_LINEAR:
        with pytest.raises(ParameterError, match=f"{name} has no form in one graph: it"):
            export_single(bundle, tmp_path / "one.onnx", name)
    with pytest.raises(ParameterError, match="segments must be 'grid'"):
        export_single(bundle, tmp_path / "one.onnx", "lime", parameters={"segments": "slic"})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("method", "free", "other"),
    [
        ("smoothgrad", "noise", 0.4),
        ("smoothgrad", "seed", 11),
        ("integrated_gradients", "baseline", 0.5),
        ("integrated_gradients", "baseline", "white"),
        ("occlusion", "fill", "white"),
        ("lrp_epsilon", "epsilon", 0.01),
    ],
)
def test_what_is_left_free_is_an_input(bundle, tmp_path, method, free, other):
    explainer = Explainer(bundle, device="cpu")
    parameters, images = few(explainer, method), images_of(explainer, 2)
    file = export_single(bundle, tmp_path / "one.onnx", method, parameters=parameters, free=[free])
    single = Explainer(file, device="cpu")
    assert list(single.bundle.methods[method].parameters) == [free]
    for value in (other, parameters.get(free, explainer.bundle.methods[method].parameters[free].default)):
        expected = explainer.explain(images, method, **{**parameters, free: value})
        assert apart(single.explain(images, **{free: value}).attribution, expected.attribution) < 1e-4
    assert np.array_equal(single.scores(images), single.explain(images).scores)


def test_noise_of_each_image_by_itself(bundle, tmp_path):
    explainer = Explainer(bundle, device="cpu")
    images = images_of(explainer, 2)
    file = export_single(bundle, tmp_path / "one.onnx", "smoothgrad", parameters={"samples": 4}, free=["noise"])
    found = run(file, images, [[1], [1]], noise=np.array([0.1, 0.5], np.float32))["attribution"][:, 0]
    for number, noise in enumerate((0.1, 0.5)):
        one = explainer.explain(images[[number]], "smoothgrad", 1, samples=4, noise=noise).attribution
        assert apart(found[[number]], one) < 1e-5


@pytest.mark.parametrize("layer_method", ["gradcam", "gradient", "smoothgrad"])
def test_from_a_camera_frame_to_a_picture(bundle, tmp_path, layer_method):
    explainer = Explainer(bundle, device="cpu")
    file = export_single(
        bundle,
        tmp_path / "one.onnx",
        layer_method,
        parameters=few(explainer, layer_method),
        picture_input=True,
        picture_output=True,
    )
    path = tmp_path / "frame.jpg"
    frame = np.random.default_rng(2).integers(0, 256, (12, 17, 3), dtype=np.uint8)
    cv2.imwrite(str(path), cv2.resize(frame, (170, 121), interpolation=cv2.INTER_CUBIC))
    pixels = cv2.imread(str(path))[..., ::-1]
    found = run(file, np.ascontiguousarray(pixels)[None], [[-1]])
    expected = explainer.explain(path, layer_method, **few(explainer, layer_method))
    assert apart(found["attribution"][:, 0], expected.attribution) < 1e-5
    assert np.abs(found["heatmap"][:, 0] - np.rint(expected.heatmap() * 255)).max() <= 1
    assert np.abs(found["overlay"][:, 0].astype(int) - expected.overlay()).max() <= 2
    single = Explainer(file, device="cpu")
    result = single.explain(path)
    assert apart(result.attribution, expected.attribution) < 1e-5
    assert np.array_equal(result.overlay(original=True)[0], expected.overlay(original=True)[0])
    with pytest.raises(PictureError, match="this file takes pictures, uint8"):
        single.explain(np.zeros((1, 3, 27, 34), np.float32))


def test_a_picture_in_and_a_baseline_of_another(bundle, tmp_path):
    explainer = Explainer(bundle, device="cpu")
    options: dict[str, Any] = {"picture_input": True, "free": ["baseline"]}
    file = export_single(bundle, tmp_path / "one.onnx", "integrated_gradients", parameters={"steps": 4}, **options)
    single = Explainer(file, device="cpu")
    picture = np.random.default_rng(2).integers(0, 256, (40, 51, 3), dtype=np.uint8)
    for baseline in (0.0, "white", np.full((3, 1, 1), 0.2, np.float32)):
        expected = explainer.explain(picture, "integrated_gradients", steps=4, baseline=baseline).attribution
        assert apart(single.explain(picture, baseline=baseline).attribution, expected) < 1e-5
    with pytest.raises(ParameterError, match="is made of the image that this file prepares inside"):
        single.explain(picture, baseline="mean")


def test_the_loop_takes_as_much_memory_as_one_turn(bundle, tmp_path):
    few_steps, many = (
        export_single(bundle, tmp_path / f"{n}.onnx", "smoothgrad", parameters={"samples": n}, rows=4) for n in (8, 64)
    )
    first, second = (Explainer(file).bundle.graphs["single"] for file in (few_steps, many))
    assert second.bytes_per_row <= 1.5 * first.bytes_per_row
    assert many.stat().st_size < 1.1 * few_steps.stat().st_size


def test_several_inputs(tmp_path):
    torch.manual_seed(0)
    network = networks.randomised(other_networks.PictureAndAge())
    example = (torch.zeros(1, 3, 16, 16), torch.zeros(1, 5))
    bundle = export(network, tmp_path / "b.explain", example=example, methods=["gradient", "smoothgrad"])
    explainer = Explainer(bundle, device="cpu")
    file = export_single(bundle, tmp_path / "one.onnx", "smoothgrad", parameters={"samples": 3})
    random = np.random.default_rng(0)
    inputs = {
        entry.name: random.normal(size=(2, *entry.shape[1:])).astype(np.float32) for entry in explainer.bundle.inputs
    }
    expected = explainer.explain(inputs, "smoothgrad", samples=3).attribution
    assert apart(Explainer(file, device="cpu").explain(inputs).attribution, expected) < 1e-5


def test_gradients_inside_the_network(tmp_path):
    torch.manual_seed(0)
    bundle = export(
        networks.randomised(other_networks.TwoParts()),
        tmp_path / "b.explain",
        example=torch.zeros(1, 3, 16, 16),
        wrt="relu",
        methods=["gradient", "integrated_gradients", "input_x_gradient"],
    )
    explainer = Explainer(bundle, device="cpu")
    images = images_of(explainer, 2)
    for method in ("integrated_gradients", "input_x_gradient"):
        file = export_single(bundle, tmp_path / f"{method}.onnx", method, parameters=few(explainer, method))
        expected = explainer.explain(images, method, **few(explainer, method))
        assert apart(Explainer(file, device="cpu").explain(images).attribution, expected.attribution) < 1e-5


@pytest.mark.parametrize("unrolled", [False, True])
def test_on_the_reference_evaluator(bundle, tmp_path, unrolled):
    explainer = Explainer(bundle, device="cpu")
    images = images_of(explainer, 2)
    file = export_single(
        bundle, tmp_path / "one.onnx", "smoothgrad", parameters={"samples": 3}, rows=4, unrolled=unrolled
    )
    image = explainer.bundle.image.name
    found = ReferenceEvaluator(str(file)).run(["attribution"], {image: images, "target": np.array([[-1], [2]])})[0]
    expected = explainer.explain(images, "smoothgrad", [None, 2], samples=3)
    assert apart(found[:, 0], expected.attribution) < 1e-5


def test_what_cannot_be_is_said(bundle, tmp_path):
    file = tmp_path / "one.onnx"

    def refused(error: type[Exception], match: str, method: str = "smoothgrad", **options: Any) -> None:
        with pytest.raises(error, match=match):
            export_single(bundle, file, method, **options)

    refused(ParameterError, "samples is part of what the file is made of", free=["samples"])
    refused(ParameterError, r"unknown parameter of smoothgrad 'noize'", free=["noize"])
    refused(ParameterError, "samples=0 is out of range", parameters={"samples": 0})
    refused(ParameterError, "rows=0", rows=0)
    refused(ParameterError, "gradient has no parameter that can stay an input", "gradient", free=["seed"])
    refused(ParameterError, "draws its baselines", method="expected_gradients")
    refused(ParameterError, "isn't made inside a single file", "integrated_gradients", parameters={"baseline": "blur"})
    refused(ParameterError, "did you mean", "smoothgrat")
    refused(
        ParameterError, "upsample must be bilinear", "gradcam", parameters={"upsample": "none"}, picture_output=True
    )
    file.write_bytes(b"kept")
    refused(OutputError, "exists")
    assert file.read_bytes() == b"kept"


def test_files_that_cannot_be_opened(bundle, tmp_path):
    file = export_single(bundle, tmp_path / "one.onnx", "gradient")
    model = onnx.load(file)
    told = json.loads(next(entry.value for entry in model.metadata_props if entry.key == "onnxplain"))

    def saved(text: str | None) -> Path:
        del model.metadata_props[:]
        if text is not None:
            model.metadata_props.add(key="onnxplain", value=text)
        other = tmp_path / "other.onnx"
        onnx.save(model, other)
        return other

    with pytest.raises(BundleError, match="has format 99, made by onnxplain"):
        Explainer(saved(json.dumps({**told, "format": 99})))
    with pytest.raises(BundleError, match="is a file, not a bundle"):
        Explainer(saved(None))
    with pytest.raises(BundleError, match="is incomplete: 'methods' is missing"):
        Explainer(saved(json.dumps({name: part for name, part in told.items() if name != "methods"})))
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(file.read_bytes()[:-2000])
    with pytest.raises(BundleError, match="is a file, not a bundle"):
        Explainer(cut)
    renamed = tmp_path / "renamed.onnx"
    shutil.move(file, renamed)
    assert Explainer(renamed).explain(np.zeros((1, 3, 27, 34), np.float32)).method == "gradient"
    with pytest.raises(ParameterError, match="unknown method 'occlusion'"):
        Explainer(renamed).explain(np.zeros((1, 3, 27, 34), np.float32), "occlusion")


def test_the_command(tmp_path, capsys, pictures):
    file = tmp_path / "honest.smoothgrad.onnx"
    words = ["export", str(MODELS / "honest.onnx"), "--single", "smoothgrad", "--set", "samples=3", "-o", str(file)]
    assert main([*words, "--picture-input", "--picture-output", "--free", "noise"]) == 0
    assert (
        "takes picture uint8 ['N', 'H', 'W', 3], target int64 ['N', 'T'], noise float32 ['N']"
        in capsys.readouterr().out
    )
    assert main(["explain", str(file), str(pictures[0]), "--method", "smoothgrad", "-o", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "report.html").is_file()
    assert main(["info", str(file), "--try", str(pictures[0]), "-o", str(tmp_path / "seen.png")]) == 0
    assert main(["export", str(MODELS / "honest.onnx"), "--unrolled"]) != 0
    assert "--unrolled is for a single file" in capsys.readouterr().err


def test_batch_jobs_take_single_files(bundle, tmp_path, pictures):
    file = export_single(bundle, tmp_path / "one.onnx", "smoothgrad", parameters={"samples": 3})
    Job(file, pictures[:3], tmp_path / "out", ["smoothgrad"]).run()
    maps = np.load(next((tmp_path / "out").rglob("*smoothgrad*.npy")))
    expected = Explainer(bundle, device="cpu").explain(pictures[:3], "smoothgrad", samples=3).attribution
    assert apart(maps.astype(np.float32), expected) < 1e-3


def test_the_command_says_what_it_assumes_and_what_it_can_not_change(bundle, tmp_path, capsys, pictures):
    file = tmp_path / "honest.gradient.onnx"
    assert main(["export", str(MODELS / "honest.onnx"), "--single", "gradient", "-o", str(file)]) == 0
    assert "'torchvision' is assumed and part of the file" in capsys.readouterr().err
    assert main(["explain", str(file), str(pictures[0]), "-o", str(tmp_path / "out")]) == 0  # its own method
    fixed = (["--float16"], ["--precision", "float32"], ["--preprocessing", "caffe"], ["--labels", "x.txt"])
    for words in (*fixed, ["--layer", "x"]):
        assert main(["export", str(bundle), "--single", "gradient", *words, "-o", str(tmp_path / "no.onnx")]) == 2
        assert f"{words[0]} is chosen when a bundle is made" in capsys.readouterr().err
    assert not (tmp_path / "no.onnx").exists()
