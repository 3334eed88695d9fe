"""Subjects of metrics around networks in plain numpy, whose metrics have closed forms."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxplain.metrics import Subject
from toy_bundle import write_toy_bundle

Array = NDArray[Any]


def weights(classes: int = 4, shape: tuple[int, ...] = (2, 5, 7)) -> Array:
    """Weights [classes, *shape] of a linear network."""
    return np.random.default_rng(11).normal(size=(classes, *shape)).astype(np.float32)


def images(count: int = 3, shape: tuple[int, ...] = (2, 5, 7)) -> Array:
    """Rows [count, *shape]."""
    return np.random.default_rng(12).normal(size=(count, *shape)).astype(np.float32)


def linear_subject(rows: Array | None = None, weight: Array | None = None, **changes: Any) -> Subject:
    """A linear network without activation, explained by its gradient; `measures="contribution"` by gradient × input."""
    rows = images() if rows is None else np.asarray(rows, np.float32)
    weight = weights(shape=rows.shape[1:]) if weight is None else np.asarray(weight, np.float32)
    contributes = changes.get("measures") == "contribution"
    targets = np.arange(len(rows)) % len(weight)

    def again(changed: Array, _: Array, classes: Array) -> Array:
        return weight[classes] * changed if contributes else weight[classes]

    def network(changed: Array, _: Array) -> Array:
        flat = changed.reshape(len(changed), -1).astype(np.float64)
        return flat @ weight.reshape(len(weight), -1).T.astype(np.float64)

    given: dict[str, Any] = {
        "names": tuple(f"picture {number}" for number in range(len(rows))),
        "rows": rows,
        "layout": "NCHW",
        "targets": targets,
        "maps": again(rows, targets, targets),
        "map_layout": "NCHW",
        "network": network,
        "activation": "none",
        "again": again,
        "reduction": "sum" if contributes else "absolute",
    }
    return Subject(**{**given, **changes})


def line_subject(values: list[float], map_values: list[float] | None = None, **changes: Any) -> Subject:
    """One picture of 1 × P pixels whose score is their sum, and a map of it (by default their contributions)."""
    row = np.array(values, np.float32).reshape(1, 1, 1, -1)
    maps = row if map_values is None else np.array(map_values, np.float32).reshape(row.shape)
    given = {"maps": maps, "reduction": "sum", "measures": "contribution", **changes}
    return linear_subject(row, np.ones_like(row), **given)


def mapped_subject(maps: Array, masks: Array | None = None, **changes: Any) -> Subject:
    """Pictures [N, H, W] of one channel with these maps and masks."""
    maps = np.asarray(maps, np.float32)[:, None]
    given = None if masks is None else np.asarray(masks, bool)
    return linear_subject(images(len(maps), maps.shape[1:]), maps=maps, masks=given, **{"reduction": "sum", **changes})


def measuring_bundle(folder: Path, linear: bool = False) -> Path:
    """The toy's bundle, whose path integrals are said to be contributions, as export says."""
    write_toy_bundle(folder, linear=linear)
    description = json.loads((folder / "explainer.json").read_text())
    for name, method in description["methods"].items():
        method["measures"] = "contribution" if "integrated" in name or name == "occlusion" else "sensitivity"
    (folder / "explainer.json").write_text(json.dumps(description))
    return folder
