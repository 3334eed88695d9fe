"""The JavaScript engine on what isn't a picture with classes: tokens, segmentations, further inputs, feature layers."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import networks
import node_engine
import other_networks
from node_engine import JavaScriptError, run_calls
from onnxplain import Explainer
from onnxplain.errors import ParameterError
from onnxplain_export import export
from other_networks import LENGTH, WORDS

pytestmark = pytest.mark.filterwarnings("ignore")  # torch's exporter warns of its own affairs
PICTURE = (3, 16, 24)
FEW = {"samples": 4, "steps": 3, "masks": 20, "window": 5, "stride": 4, "cells": 3, "channels": 4, "designs": 3}
TOLERANCE = 1e-5
CASES = ("text", "segmentation", "two_inputs", "feature_layer", "tokens")


@pytest.fixture(scope="module", autouse=True)
def node() -> None:
    reason = node_engine.missing_node()
    if reason is not None:
        pytest.skip(f"no JavaScript engine: {reason}")


def random(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def exported(kind: str, folder: Path) -> Path:
    """A bundle of one of the networks."""
    torch.manual_seed(3)
    pictures = torch.zeros(2, *PICTURE)
    made: dict[str, tuple[torch.nn.Module, tuple[torch.Tensor, ...], dict[str, Any]]] = {
        "text": (
            other_networks.TextClassifier(),
            tuple(torch.ones(2, LENGTH, dtype=torch.int64) for _ in range(3)),
            {},
        ),
        "segmentation": (other_networks.Segmentation(), (pictures,), {"labels": list("abcde")}),
        "two_inputs": (other_networks.PictureAndAge(), (pictures, torch.zeros(2, 5)), {}),
        "feature_layer": (other_networks.TwoParts(), (pictures,), {"wrt": "relu"}),
        "tokens": (networks.vision_transformer(size=32, patch=8), (torch.zeros(2, 3, 32, 32),), {"methods": "all"}),
    }
    module, example, options = made[kind]
    shapes = tuple({0: "batch"} for _ in example)
    file = folder / "network.onnx"
    torch.onnx.export(module.eval(), example, dynamo=True, verbose=False, dynamic_shapes=shapes).save(file)
    return export(file, folder / "network.explain", **options)


def inputs_of(kind: str) -> Any:
    """Two images, as the Python engine takes them."""
    if kind == "text":
        rng = np.random.default_rng(1)
        mask = np.ones((2, LENGTH), np.int64)
        mask[1, 5:] = 0
        kinds = rng.integers(0, 2, (2, LENGTH))
        return {"input_ids": rng.integers(0, WORDS, (2, LENGTH)), "attention_mask": mask, "token_type_ids": kinds}
    if kind == "two_inputs":
        return {"picture": random(2, *PICTURE), "age": random(2, 5, seed=1)}
    return random(2, 3, 32, 32) if kind == "tokens" else random(2, *PICTURE)


def few(explainer: Explainer, method: str) -> dict[str, Any]:
    """Parameters that make a method quick."""
    known = explainer.bundle.methods[method].parameters
    found = {name: number for name, number in FEW.items() if name in known}
    return {**found, "samples": 40} if method == "kernel_shap" else found


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found.astype(np.float64) - expected) / max(np.linalg.norm(expected), 1e-30))


def result_of(explainer: Explainer, inputs: Any, method: str) -> Any:
    """Python's result, or why a method can't explain this network."""
    try:
        return explainer.explain(inputs, method, **few(explainer, method))
    except ParameterError as error:
        return error


@pytest.mark.parametrize("kind", CASES)
def test_every_method_of_other_networks_gives_the_map_that_python_gives(kind: str, tmp_path: Path) -> None:
    bundle = exported(kind, tmp_path)
    explainer, inputs = Explainer(bundle, device="cpu"), inputs_of(kind)
    given: Any = [{"inputs": inputs}] if isinstance(inputs, dict) else [inputs]
    methods = [method for method in explainer.bundle.methods if method != "xrai"]
    calls: list[dict[str, Any]] = [
        {"what": "explain", "images": given, "options": {"method": method, "parameters": few(explainer, method)}}
        for method in methods
    ]
    expected = [result_of(explainer, inputs, method) for method in methods]
    if kind == "segmentation":
        cotangent = random(2, 2, 5, *PICTURE[1:], seed=4)
        calls.append({"what": "explain", "images": given, "options": {"cotangent": cotangent}})
        expected.append(explainer.explain(inputs, cotangent=cotangent))
        methods.append("gradient of a cotangent")
    answers = run_calls(tmp_path / "job", calls, runtime="node", bundle=bundle)
    wrong = {}
    for method, answer, result in zip(methods, answers, expected, strict=True):
        if isinstance(result, ParameterError) or isinstance(answer, JavaScriptError):
            if getattr(answer, "message", None) != str(result):
                wrong[method] = str(answer)
        elif answer["attribution"].shape != result.attribution.shape:
            wrong[method] = f"{answer['attribution'].shape}"
        elif (error := relative(answer["attribution"], result.attribution)) > TOLERANCE:
            wrong[method] = f"{error:.2g}"
        else:
            assert answer["targets"] == result.targets.tolist()
            assert answer["layout"] == result.layout
    assert not wrong
