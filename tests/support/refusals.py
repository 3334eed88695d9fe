"""What every engine refuses, and in which words."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxplain.errors import OnnxplainError


def bad_calls(rows: np.ndarray) -> list[dict[str, Any]]:
    """Calls of explain that are refused."""
    broken = rows[0].copy()
    broken[0, 3, 4] = np.nan
    return [
        {"method": "smothgrad"},
        {"method": "xyz"},
        {"method": "rise_plus"},
        {"method": "smoothgrad", "sample": 3},
        {"method": "smoothgrad", "samples": 0},
        {"method": "smoothgrad", "samples": 2.5},
        {"method": "smoothgrad", "seed": 1048576},
        {"method": "smoothgrad", "noise_of": "images"},
        {"method": "gradient", "samples": 3},
        {"method": "integrated_gradients", "baseline": "pink"},
        {"method": "integrated_gradients", "baseline": np.zeros((2, 7), np.float32)},
        {"method": "integrated_gradients", "rule": "trapezoid", "steps": 1},
        {"method": "guided_integrated_gradients", "baseline": "random", "baselines": 2},
        {"method": "occlusion", "window": 64},
        {"method": "occlusion", "window": 3, "stride": 4},
        {"method": "rise", "cells": 33},
        {"method": "kernel_shap", "samples": 20},
        {"method": "lime", "segments": np.zeros((3, 3), np.int64)},
        {"method": "xrai", "segments": np.zeros((3, 3), np.int64)},
        {"method": "gradcam", "layer": "relu_7"},
        {"method": "gradcam", "relu": 1},
        {"method": "gradient", "targets": 10},
        {"method": "gradient", "targets": "zebra"},
        {"method": "gradient", "targets": [1, 2]},
        {"method": "gradient", "targets": [[1], [2]]},
        {"method": "gradient", "top": 11},
        {"method": "gradient", "top": 2, "targets": 1},
        {"method": "gradient", "score": "logits"},
        {"method": "occlusion", "score": "logit"},
        {"method": "smoothgrad", "memory": "1MB"},
        {"method": "smoothgrad", "memory": "lots"},
        {"method": "gradient", "images": rows[0, :, 1:]},
        {"method": "gradient", "images": rows[:, :1]},
        {"method": "gradient", "images": broken},
        {"method": "gradient", "images": np.full_like(rows[0], 3e38)},
    ]


def refusal(call: Callable[[], object]) -> tuple[str, str]:
    """The kind and the words of the error that a call ends with."""
    with pytest.raises(OnnxplainError) as caught:
        call()
    kinds = ("BundleError", "ParameterError", "PictureError", "ModelError")
    found = next(kind.__name__ for kind in type(caught.value).__mro__ if kind.__name__ in kinds)
    return found, str(caught.value)


def bad_bundles(bundle: Path, folder: Path) -> Iterator[Path]:
    """Bundles that can't be opened: none, empty, altered, incomplete, newer."""
    yield folder / "none.explain"
    (folder / "empty.explain").mkdir()
    yield folder / "empty.explain"
    yield bundle / "explainer.json"
    description = (bundle / "explainer.json").read_text()
    for number, (old, new) in enumerate(
        [
            ('"format": 1', '"format": 2'),
            ('"format": 1', '"format": null'),
            ('"outputs"', '"output"'),
            ('"explains": "logits"', '"explains": "losses"'),
            ('"forward.onnx"', '"../forward.onnx"'),
            ('"colour"', '"color"'),
            ('"graph": "noise"', '"graph": "nose"'),
        ]
    ):
        changed = shutil.copytree(bundle, folder / f"changed{number}.explain")
        (changed / "explainer.json").write_text(description.replace(old, new, 1))
        yield changed
    altered = shutil.copytree(bundle, folder / "altered.explain")
    with (altered / "weights.data").open("r+b") as file:
        file.seek(1000)
        file.write(b"x")
    yield altered
    lacking = shutil.copytree(bundle, folder / "lacking.explain")
    (lacking / "noise.onnx").unlink()
    yield lacking
