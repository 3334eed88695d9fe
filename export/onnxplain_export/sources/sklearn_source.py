"""A fitted scikit-learn estimator or pipeline becomes an ONNX graph through skl2onnx."""

import warnings
from typing import Any, NamedTuple

import numpy as np
import onnx
from numpy.typing import NDArray

from onnxplain.errors import ModelError
from onnxplain_export.sources.causes import root_cause

OPSETS = {"": 20, "ai.onnx.ml": 3}
INPUT = "features"
ROWS = 16
"""At most, that the export is proved on."""
PLAIN = frozenset({"LogisticRegression", "LogisticRegressionCV", "LinearDiscriminantAnalysis"})
"""Classifiers whose probabilities are a softmax or sigmoid of the decision function, which is explained then."""


class Converted(NamedTuple):
    """A fitted model as a graph, the names of its classes and rows like those that it was fitted to, where known."""

    proto: onnx.ModelProto
    labels: tuple[str, ...] | None
    rows: NDArray[np.float32] | None


def converted_from_sklearn(model: Any, example: Any = None) -> Converted:
    """The graph of a fitted model with input [N, features] in float32.

    A classifier is explained by its decision function; one without has its probabilities explained. `example` is a
    batch of rows: what the export is proved on.
    """
    model = getattr(model, "best_estimator_", model)  # of a search
    last = model.steps[-1][1] if hasattr(model, "steps") else model
    try:
        import skl2onnx  # optional; imports scipy and scikit-learn
        from skl2onnx.common.data_types import FloatTensorType
    except ImportError as error:
        raise ModelError("exporting a scikit-learn model needs skl2onnx: pip install skl2onnx") from error
    inputs = [(INPUT, FloatTensorType([None, _features(model, example)]))]
    try:
        with warnings.catch_warnings(action="ignore"):  # of the two packages about each other's versions
            proto = _converted(skl2onnx.to_onnx, model, last, inputs)
    except ModelError:
        raise
    except Exception as error:  # converters raise many kinds
        raise ModelError(f"skl2onnx can't convert {type(last).__name__} to ONNX: {root_cause(error)}") from error
    classes = getattr(model, "classes_", None)
    labels = None if classes is None or np.ndim(classes) != 1 else tuple(str(name) for name in classes)
    return Converted(proto, labels, _rows(model, example))


def _converted(convert: Any, model: Any, last: Any, inputs: list[Any]) -> onnx.ModelProto:
    """The model with the first options that its converter knows."""
    decides = hasattr(last, "decision_function") and type(last).__name__ not in PLAIN
    for options in _options(decides, hasattr(last, "classes_")):
        try:
            return convert(
                model, initial_types=inputs, options={id(last): options} if options else None, target_opset=OPSETS
            )
        except NameError as error:  # "Option 'zipmap' not in […]"
            unknown = error
    raise unknown


def _options(decides: bool, classifies: bool) -> list[dict[str, bool]]:
    raw, plain = {"raw_scores": True}, {"zipmap": False}
    options: list[dict[str, bool]] = [{**raw, **plain}, raw] if decides else []
    return [*options, plain, {}] if classifies else [{}]


def _features(model: Any, example: Any) -> int:
    """The number of columns that the model was fitted with."""
    try:
        found = getattr(model, "n_features_in_", None)
    except AttributeError:  # a pipeline asks its first step
        found = None
    if found is None and example is not None and np.ndim(example) == 2:
        found = np.shape(example)[1]
    if found is None:
        raise ModelError(
            f"{type(model).__name__} doesn't say how many features it takes: fit it first, or give example=, a batch"
        )
    return int(found)


def _rows(model: Any, example: Any) -> NDArray[np.float32] | None:
    """Rows of the size of the model's own data: far from them, a kernel is flat and a sigmoid saturated."""
    if example is not None and np.ndim(example) == 2:
        return np.asarray(example, np.float32)[:ROWS]
    first = model.steps[0][1] if hasattr(model, "steps") else model
    draws = np.random.default_rng(0).standard_normal((ROWS, _features(model, example)))
    for centre, spread in (("mean_", "scale_"), ("center_", "scale_"), ("data_min_", "data_range_")):
        if getattr(first, centre, None) is not None and getattr(first, spread, None) is not None:
            if centre == "data_min_":
                draws = np.clip(0.5 + draws / 4, 0, 1)
            return np.asarray(getattr(first, centre) + draws * getattr(first, spread), np.float32)
    for name in ("support_vectors_", "X_train_", "theta_"):
        rows = getattr(first, name, None)
        if isinstance(rows, np.ndarray) and rows.ndim == 2 and rows.shape[1] == draws.shape[1]:
            return np.asarray(rows[:ROWS], np.float32)
    return None
