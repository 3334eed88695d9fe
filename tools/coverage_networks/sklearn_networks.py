"""Models of scikit-learn, exported by skl2onnx: name → what is explained of it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

# "scores" are decision functions, values of regressors, or what a network's softmax takes.
ARCHITECTURES = {
    "logistic_regression": "probabilities",
    "logistic_regression_binary": "probabilities",
    "pca_logistic_regression": "probabilities",
    "linear_discriminant_analysis": "probabilities",
    "linear_svc": "scores",
    "mlp_logistic": "scores",
    "mlp_relu": "scores",
    "mlp_tanh": "scores",
    "mlp_regressor": "scores",
    "ridge": "scores",
    "svr": "scores",
    "gaussian_process": "scores",
    "gradient_boosting": "nothing: its gradient is zero",
    "random_forest": "nothing: its gradient is zero",
}
ENVIRONMENT = "sklearn"
FEATURES, CLASSES, ROWS = 12, 4, 3


def build(name: str, folder: Path) -> None:
    """Fits one of them to random points, converts it, and differentiates what is explained."""
    # skl2onnx and scikit-learn are only in this source's own environment.
    from skl2onnx import to_onnx

    from coverage_networks import sklearn_models
    from coverage_networks.case import MODEL, Case, top_classes

    model = sklearn_models.MODELS[name]
    points, classes, values = _points(2 if name.endswith("binary") else CLASSES)
    regresses = name in sklearn_models.REGRESSORS
    model.fit(points, values if regresses else classes)
    rows = points[:ROWS].astype(np.float32)
    settings = {} if regresses else {"options": {id(sklearn_models.last_of(model)): sklearn_models.as_arrays(name)}}
    (folder / MODEL).write_bytes(to_onnx(model, rows, target_opset=18, **settings).SerializeToString())
    wide = rows.astype(np.float64)
    scores = sklearn_models.scores_of(model, name, ARCHITECTURES[name])
    targets, cotangent = top_classes(scores(wide))
    gradient = differences(scores, wide, cotangent)
    Case(
        inputs={"X": rows},
        outputs=scores(wide),
        gradient=gradient,
        gradients32=[gradient],  # scikit-learn has no gradients, so no float32 ones either
        cotangent=cotangent,
        targets=targets,
        exporter="skl2onnx",
        packages=["scikit_learn", "skl2onnx"],
        precision="float64 differences",
        options={"score": "probabilities"} if ARCHITECTURES[name] == "probabilities" else {},
        answers=sklearn_models.answers_of(model, wide),
    ).write(folder)


def _points(classes: int) -> tuple[Any, Any, Any]:
    """Points [200, features], the class and the value of each: noisy enough that probabilities stay away from 1."""
    generator = np.random.default_rng(0)
    points = generator.standard_normal((200, FEATURES)) * generator.uniform(0.5, 2.0, FEATURES)
    sums = points @ generator.standard_normal((FEATURES, classes)) + 6 * generator.standard_normal((200, classes))
    return points, sums.argmax(1), sums[:, 0] + 3 * np.sin(sums[:, 1])


def differences(scores: Callable[[Any], Any], rows: Any, cotangent: Any, step: float = 1e-3) -> Any:
    """The gradient of the product of scores and cotangent: central differences of the sixth order, in float64."""
    gradient = np.zeros_like(rows)
    for feature in range(rows.shape[1]):
        along = np.zeros(rows.shape[1])
        along[feature] = step
        for distance, share in ((1, 45), (2, -9), (3, 1)):
            change = scores(rows + distance * along) - scores(rows - distance * along)
            gradient[:, feature] += share * (change * cotangent).sum(1) / (60 * step)
    return gradient
