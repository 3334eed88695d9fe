"""Uses of the differentiable operators of ai.onnx.ml."""

import numpy as np
import torch

from rule_cases_pointwise import BATCH
from rule_harness import Case

WEIGHTS = np.random.default_rng(8).standard_normal((3, 4)).astype(np.float32)
LISTED = {"coefficients": WEIGHTS.ravel().tolist(), "intercepts": [0.25, -0.5, 1.0]}
VECTORS = np.random.default_rng(9).standard_normal((5, 4)).astype(np.float32)
ROUNDED, NAN = 1e-6, float("nan")


def ml(op_type: str, inputs, attributes, note="", **options) -> Case:
    return Case(f"ai.onnx.ml::{op_type}", inputs, attributes, note=note, tolerance=ROUNDED, **options)


def svm(kernel: str, vectors: int, parameters=(), **attributes) -> Case:
    """A sum over support vectors, or a plain product with none."""
    support = {"support_vectors": VECTORS[:vectors].ravel().tolist()} if vectors else {}
    given = {
        "kernel_type": kernel,
        "coefficients": [0.5, -1.25, 0.75, 2.0, -0.5][: vectors or 4],
        "n_supports": vectors,
        "rho": [0.25],
        "kernel_params": list(parameters) or [0.0, 0.0, 0.0],
        **support,
        **attributes,
    }
    return ml("SVMRegressor", [BATCH], given, f"{kernel} {vectors} {parameters}")


CASES: list[Case] = [
    ml("Scaler", [BATCH], {"scale": [0.5, 2.0, -1.0, 4.0], "offset": [0.0, 1.0, 2.0, 3.0]}, "by column"),
    ml("Scaler", [BATCH], {"scale": [0.25] * 4, "offset": [1.0] * 4}, "one scale"),
    ml("Scaler", [(2, 1)], {"scale": [3.0], "offset": [1.0]}, "one column"),
    ml("Scaler", [(5, 2)], {"scale": [3.0, 0.5], "offset": [0.5, 0.25]}, "two columns"),
    ml("Scaler", [(1, 3)], {"scale": [1.0, 0.0, 2.0], "offset": [0.5, 0.25, 1.0]}, "a zero"),
    *[
        ml(
            "Normalizer",
            [shape],
            {"norm": norm},
            f"{norm}",
            torch=lambda x, p=p: torch.nn.functional.normalize(x, p, -1),
        )
        for norm, p in (("L1", 1), ("L2", 2))
        for shape in (BATCH, (2, 7), (1, 2))
    ],
    *[
        ml("LinearRegressor", [BATCH], {**LISTED, "targets": 3}, "three targets"),
        ml("LinearRegressor", [BATCH], {"coefficients": [0.5, 1.0, -2.0, 0.25], "intercepts": [1.0]}, "one target"),
        ml("LinearRegressor", [(5, 2)], {"coefficients": [0.5, -2.0], "intercepts": [0.5], "targets": 1}, "two"),
        ml("LinearRegressor", [(1, 4)], {**LISTED, "targets": 3, "post_transform": "NONE"}, "one row"),
        ml("LinearRegressor", [(3, 1)], {"coefficients": [3.0], "intercepts": [0.5]}, "one number"),
    ],
    *[
        ml(
            "LinearClassifier",
            [BATCH],
            {**LISTED, "classlabels_ints": [0, 1, 2], "post_transform": transform},
            transform,
            outputs=2,
            used=(1,),
        )
        for transform in ("NONE", "LOGISTIC", "SOFTMAX")
    ],
    *[
        ml(
            "LinearClassifier",
            [BATCH],
            {
                "coefficients": WEIGHTS[:2].ravel().tolist(),
                "intercepts": [0.5, -0.5],
                "classlabels_strings": ["a", "b"],
                "post_transform": transform,
            },
            f"two names {transform}",
            outputs=2,
            used=(1,),
        )
        for transform in ("NONE", "LOGISTIC", "SOFTMAX")
    ],
    *[svm("LINEAR", count) for count in (0, 5)],
    svm("RBF", 5, (0.5, 0.0, 3.0)),
    svm("POLY", 5, (0.5, 0.25, 3.0)),
    svm("POLY", 3, (0.5, 0.25, 1.0)),
    svm("SIGMOID", 4, (0.5, 0.25, 3.0)),
    *[
        ml(
            "Imputer",
            [x],
            {"imputed_value_floats": values, "replaced_value_float": replaced},
            f"{replaced} by {len(values)} in {x.shape}",
        )
        for x, values, replaced in (
            (np.array([[0.5, NAN, 2.0], [NAN, 1.0, 3.0]]), [1.0, 2.0, 3.0], NAN),
            (np.array([[0.5, NAN, 2.0]]), [1.0], NAN),
            (np.array([[0.5, 2.0]]), [1.0], -9.0),
            (np.array([[7.5], [1.0]]), [1.0], 7.0),
            (np.array([[0.5, NAN], [NAN, 2.5]]), [1.0, -3.0], NAN),
        )
    ],
    *[
        ml("FeatureVectorizer", [(3, width) for width in widths], {"inputdimensions": widths}, f"{widths}", wrt=wrt)
        for widths, wrt in (
            ([2, 3], (0, 1)),
            ([2, 1, 4], (0, 1, 2)),
            ([4], (0,)),
            ([1, 1], (0, 1)),
            ([5, 2], (0, 1)),
        )
    ],
    *[
        ml("ArrayFeatureExtractor", [shape, np.array(columns)], {}, f"{columns}", fed=fed)
        for shape, columns, fed in (
            (BATCH, [[1, 3]], ()),
            (BATCH, [2], (1,)),
            (BATCH, [0, 0, 3, 0], (1,)),
            ((2, 3, 4), [[3, 1, 1]], ()),
            ((5,), [1, 4], ()),
        )
    ],
]
