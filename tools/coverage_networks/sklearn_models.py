"""The models of sklearn_networks.py, and the scores that are explained of each."""

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVR, LinearSVC

SCALE = StandardScaler()
NETWORK: dict[str, Any] = {"hidden_layer_sizes": (16, 16), "max_iter": 60, "random_state": 0}
MODELS: dict[str, Any] = {
    "logistic_regression": make_pipeline(SCALE, LogisticRegression()),
    "logistic_regression_binary": make_pipeline(SCALE, LogisticRegression()),
    "linear_svc": make_pipeline(SCALE, LinearSVC()),
    "pca_logistic_regression": make_pipeline(PCA(5), LogisticRegression()),
    "linear_discriminant_analysis": LinearDiscriminantAnalysis(),
    "mlp_relu": make_pipeline(SCALE, MLPClassifier(activation="relu", **NETWORK)),
    "mlp_tanh": make_pipeline(SCALE, MLPClassifier(activation="tanh", **NETWORK)),
    "mlp_logistic": make_pipeline(SCALE, MLPClassifier(activation="logistic", **NETWORK)),
    "mlp_regressor": MLPRegressor(activation="tanh", **NETWORK),
    "ridge": make_pipeline(SCALE, Ridge()),
    "svr": make_pipeline(SCALE, SVR()),
    "gaussian_process": GaussianProcessRegressor(RBF(5.0), alpha=0.1, optimizer=None),
    "random_forest": RandomForestClassifier(10, random_state=0),
    "gradient_boosting": GradientBoostingClassifier(n_estimators=10, random_state=0),
}
REGRESSORS = ("mlp_regressor", "ridge", "svr", "gaussian_process")


def last_of(model: Any) -> Any:
    """The last step of a pipeline, or the model itself."""
    return model[-1] if isinstance(model, Pipeline) else model


def as_arrays(name: str) -> dict[str, Any]:
    """skl2onnx's option that makes the output an array: of decision functions for a LinearSVC."""
    return {"raw_scores": True} if name == "linear_svc" else {"zipmap": False}


def scores_of(model: Any, name: str, kind: str) -> Callable[[Any], Any]:
    """The function from rows to what is explained of them: [N, classes], or [N, 1] of a regressor."""
    if name in REGRESSORS:
        return lambda rows: model.predict(rows).reshape(len(rows), 1)
    if kind == "probabilities":
        return model.predict_proba
    if name.startswith("mlp"):
        return lambda rows: _logits(model[-1], model[0].transform(rows))
    return getattr(model, "decision_function", None) or model.predict_proba


def answers_of(model: Any, rows: Any) -> Any:
    """What the ONNX file puts out for the rows."""
    if hasattr(model, "predict_proba"):
        return model.predict_proba(rows)
    return model.decision_function(rows) if hasattr(model, "classes_") else model.predict(rows).reshape(len(rows), 1)


ACTIVATIONS = {"relu": lambda x: np.maximum(x, 0), "tanh": np.tanh, "logistic": lambda x: 1 / (1 + np.exp(-x))}


def _logits(network: Any, rows: Any) -> Any:
    """What the softmax of a network of scikit-learn takes, which it has no method for."""
    *hidden, last = zip(network.coefs_, network.intercepts_, strict=True)
    for weights, shift in hidden:
        rows = ACTIVATIONS[network.activation](rows @ weights + shift)
    return rows @ last[0] + last[1]
