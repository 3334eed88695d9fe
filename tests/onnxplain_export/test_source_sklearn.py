"""Fitted scikit-learn models are exported through skl2onnx; their gradients are those of their own formulas."""

import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from sklearn.base import BaseEstimator
from sklearn.datasets import load_iris
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis, QuadraticDiscriminantAnalysis
from sklearn.ensemble import RandomForestClassifier
from sklearn.gaussian_process import GaussianProcessClassifier, GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, WhiteKernel
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge, SGDClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, Normalizer, PolynomialFeatures, StandardScaler
from sklearn.svm import SVC, SVR, LinearSVC

import small_models
from onnxplain import Explainer
from onnxplain.errors import ModelError, NoGradientError
from onnxplain_export import export
from onnxplain_export.check.checking import check
from onnxplain_export.graphs.forward import forward
from onnxplain_export.graphs.gradient import gradient
from onnxplain_export.normalize import Normalized, normalize
from onnxplain_export.sources import read_source

FEATURES, THREE = load_iris(return_X_y=True)
TWO = (THREE > 0).astype(int)
AMOUNT = FEATURES @ [0.5, -1.0, 2.0, 0.25] + np.sin(FEATURES[:, 0])
ROWS = FEATURES[5::25].astype(np.float32)

Formula = Callable[[Any, np.ndarray], np.ndarray]


def decision(model: Any, rows: np.ndarray) -> np.ndarray:
    """What the model decides by, [N, classes]; of two classes (−d, d)."""
    values = model.decision_function(rows)
    return np.stack([-values, values], axis=1) if values.ndim == 1 else values


def log_probabilities(model: Any, rows: np.ndarray) -> np.ndarray:
    """Logarithms of the probabilities without their mean: what of the logits can be seen from outside."""
    logs = np.log(model.predict_proba(rows))
    return logs - logs.mean(axis=1, keepdims=True)


def log_odds(model: Any, rows: np.ndarray) -> np.ndarray:
    """(−z, z) of a network of one logit z."""
    return 2 * log_probabilities(model, rows)


def answer(model: Any, rows: np.ndarray) -> np.ndarray:
    return np.reshape(model.predict(rows), (len(rows), -1))


def network(kind: type, **options: Any) -> Any:
    return kind(hidden_layer_sizes=(8,), max_iter=60, random_state=0, **options)


MODELS: dict[str, tuple[BaseEstimator, np.ndarray, Formula, str]] = {
    "logistic": (make_pipeline(StandardScaler(), LogisticRegression()), THREE, decision, "softmax"),
    "logistic of two": (make_pipeline(StandardScaler(), LogisticRegression()), TWO, decision, "sigmoid"),
    "search": (GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, cv=2), THREE, decision, "softmax"),
    "one against the rest": (OneVsRestClassifier(LogisticRegression()), THREE, decision, "none"),
    "polynomial": (make_pipeline(PolynomialFeatures(2), LogisticRegression(max_iter=500)), TWO, decision, "sigmoid"),
    "scaled": (make_pipeline(MinMaxScaler(), Normalizer(), LogisticRegression()), THREE, decision, "softmax"),
    "discriminant": (LinearDiscriminantAnalysis(), THREE, decision, "softmax"),
    "relu network": (network(MLPClassifier), THREE, log_probabilities, "softmax"),
    "tanh network": (network(MLPClassifier, activation="tanh"), THREE, log_probabilities, "softmax"),
    "network of two": (network(MLPClassifier, activation="logistic"), TWO, log_odds, "sigmoid"),
    "linear SVC": (LinearSVC(), THREE, decision, "none"),
    "linear SVC of two": (LinearSVC(), TWO, decision, "none"),
    "linear kernel": (make_pipeline(PCA(3), SVC(kernel="linear")), THREE, decision, "none"),
    "radial kernel": (SVC(), THREE, decision, "none"),
    "radial kernel of two": (make_pipeline(StandardScaler(), SVC()), TWO, decision, "none"),
    "polynomial kernel": (SVC(kernel="poly", coef0=1.0), TWO, decision, "none"),
    "sigmoid kernel": (make_pipeline(StandardScaler(), SVC(kernel="sigmoid")), TWO, decision, "none"),
    "hinge loss": (SGDClassifier(random_state=0), THREE, decision, "none"),
    "log loss": (SGDClassifier(loss="log_loss", random_state=0), THREE, decision, "none"),
    "naive Bayes": (GaussianNB(), THREE, log_probabilities, "softmax"),
    "quadratic": (QuadraticDiscriminantAnalysis(reg_param=0.1), THREE, log_probabilities, "softmax"),
    "ridge": (Ridge(), AMOUNT, answer, "none"),
    "two amounts": (LinearRegression(), np.stack([AMOUNT, AMOUNT**2], axis=1), answer, "none"),
    "support vector regression": (SVR(), AMOUNT, answer, "none"),
    "network of amounts": (network(MLPRegressor), AMOUNT, answer, "none"),
    "Gaussian process": (
        GaussianProcessRegressor(RBF(2.0) + WhiteKernel(0.3), optimizer=None),
        AMOUNT,
        answer,
        "none",
    ),
}


def fitted(model: BaseEstimator, goal: np.ndarray, rows: np.ndarray = FEATURES) -> Any:
    with warnings.catch_warnings(action="ignore"):  # of few iterations
        return model.fit(rows, goal)


def differences(formula: Formula, model: Any, rows: np.ndarray) -> np.ndarray:
    """∂ formula / ∂ rows by central differences in float64, [N, outputs, features]."""
    steps = 1e-5 * np.eye(rows.shape[1])
    pairs = [(formula(model, rows + step) - formula(model, rows - step)) / 2e-5 for step in steps]
    return np.stack(pairs, axis=2)


def gradients(found: Normalized, rows: np.ndarray) -> np.ndarray:
    """The exported gradient of every score, [N, classes, features]."""
    targets = np.tile(np.arange(found.scores.classes), (len(rows), 1))
    return small_models.run(ir.to_proto(gradient(found)), {found.image: rows, "target": targets}, "total")


@pytest.mark.parametrize("name", MODELS)
def test_the_gradient_is_that_of_the_models_own_formula(name: str) -> None:
    model, goal, formula, activation = MODELS[name]
    fitted(model, goal)
    found = normalize(read_source(model))
    assert {node.domain for node in found.model.graph} == {""}
    assert found.scores.activation == activation
    ours = gradients(found, ROWS).astype(np.float64)
    if formula is log_probabilities:
        ours -= ours.mean(axis=1, keepdims=True)
    truth = differences(formula, model, ROWS.astype(np.float64))
    np.testing.assert_allclose(ours, truth, rtol=0, atol=1e-4 * np.abs(truth).max())


@pytest.mark.parametrize("name", ["logistic", "network of two", "naive Bayes", "log loss", "radial kernel", "ridge"])
def test_the_scores_are_what_the_model_says(name: str) -> None:
    model, goal, formula, activation = MODELS[name]
    fitted(model, goal)
    found = normalize(read_source(model))
    scores = small_models.run(ir.to_proto(forward(found)), {"features": ROWS}, "scores").astype(np.float64)
    if activation == "softmax":
        raised = np.exp(scores - scores.max(axis=1, keepdims=True))
        said, truth = raised / raised.sum(axis=1, keepdims=True), model.predict_proba(ROWS)
    elif activation == "sigmoid":
        said, truth = 1 / (1 + np.exp(-scores)), model.predict_proba(ROWS)
    else:
        said, truth = scores, formula(model, ROWS)
    np.testing.assert_allclose(said, truth, rtol=1e-4, atol=1e-5 * np.abs(truth).max())


def test_an_export_names_the_classes_and_is_proved(tmp_path: Path) -> None:
    names = np.array(["setosa", "versicolor", "virginica"])
    model = fitted(make_pipeline(StandardScaler(), SVC()), names[THREE], FEATURES * [1, 10, 100, 1000])
    bundle = export(model, tmp_path / "iris.explain")
    description = json.loads((bundle / "explainer.json").read_text())
    assert description["name"] == "Pipeline"
    assert description["outputs"][0]["labels"] == names.tolist()
    assert {"gradient", "smoothgrad", "integrated_gradients"} <= set(description["methods"])
    assert "occlusion" not in description["methods"]
    rows = ROWS * np.float32([1, 10, 100, 1000])
    ours = Explainer(bundle, device="cpu").gradient(rows, ["virginica"] * len(rows))
    truth = differences(decision, model, rows.astype(np.float64))[:, 2]
    np.testing.assert_allclose(ours, truth, rtol=1e-3, atol=1e-4 * np.abs(truth).max())


@pytest.mark.parametrize(
    ("model", "goal", "said"),
    [
        (RandomForestClassifier(3, random_state=0), THREE, "zero everywhere.*TreeEnsembleClassifier.*perturbation"),
        (KNeighborsClassifier(), THREE, "zero everywhere"),
        (GaussianProcessClassifier(), TWO, "com.microsoft::Solve"),
    ],
    ids=["forest", "neighbours", "Gaussian process"],
)
def test_models_without_a_gradient_are_refused(model: BaseEstimator, goal: np.ndarray, said: str, tmp_path: Path):
    fitted(model, goal)
    with pytest.raises(NoGradientError, match=said):
        export(model, tmp_path / "net.explain")
    verdict = check(model)
    assert not verdict.differentiable
    assert verdict.obstacles


class Unknown(BaseEstimator):
    """An estimator that no converter knows."""

    n_features_in_ = 4


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (LogisticRegression(), "doesn't say how many features"),
        (Unknown(), r"skl2onnx can't convert Unknown to ONNX: \S"),
        (LogisticRegression, "the class LogisticRegression; give a model made from it"),
    ],
    ids=["not fitted", "unknown", "a class"],
)
def test_what_cannot_be_converted_says_why(model: Any, said: str) -> None:
    with pytest.raises(ModelError, match=said) as failure:
        read_source(model)
    assert "\n" not in str(failure.value)


@pytest.mark.parametrize(
    ("model", "example", "rows"),
    [
        (make_pipeline(StandardScaler(), LogisticRegression()), None, 16),
        (make_pipeline(MinMaxScaler(), LogisticRegression()), None, 16),
        (SVC(), None, 16),
        (LogisticRegression(), FEATURES[:5], 5),
        (LogisticRegression(), None, None),
    ],
    ids=["mean", "range", "support vectors", "example", "unknown"],
)
def test_examples_are_of_the_size_of_the_data(model: Any, example: Sequence[Any] | None, rows: int | None) -> None:
    shift = np.array([1000, 0, -50, 3])
    fitted(model, THREE, FEATURES + shift)
    examples = read_source(model, None if example is None else example + shift).examples
    assert (None if examples is None else len(examples)) == rows
    if examples is not None:
        assert np.abs(examples - (FEATURES + shift).mean(axis=0)).max() < 15
