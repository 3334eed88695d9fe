"""Integrated gradients to 2 % of their 2,048-step map: how many gradients, ours against Captum's rule doubled.

On trained networks and pictures that they know. Captum has no tolerance: its Gauss–Legendre rule is doubled until its
map is within 2 % of the right one, which a user couldn't know; all doublings count. Ours stops by its own estimate.
"""

import functools
import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from bench_networks import MODELS
from bench_rounds import Timing
from bench_statistics import geometric_mean
from bench_subject import Subject
from onnxplain import Explainer
from onnxplain.errors import ParameterError
from onnxplain_export import export

Array = NDArray[Any]

TOLERANCE, STEPS = 0.02, 2048
FIRST, ROWS = 8, 16  # Captum's first rule; the rows of one of its runs
PHOTOGRAPHS = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "motorcycle_left.png", "retina.jpg")
SCORES = ("logits", "probabilities")
METHOD = "integrated_gradients"
_leggauss = np.polynomial.legendre.leggauss


def measure(subject: Subject, _: Timing) -> dict[str, Any]:
    """Evaluations of both on every picture, for logits and for probabilities, and what ours were off by."""
    found: dict[str, Any] = {"evaluations": {}, "absent": {}}
    for score in SCORES:
        explainer = _explainer(subject, score)
        module = subject.module if score == "logits" else torch.nn.Sequential(subject.module, torch.nn.Softmax(1))
        rows = explainer.values(_pictures(subject)).astype(np.float32)
        counts: dict[str, list[float]] = {"captum": [], "ours": [], "error of ours": []}
        for row in rows[: 2 if subject.quick else None]:
            image = row[None]
            target = int(explainer.scores(image).argmax())
            truth = _truth(subject, module, image, target, score)
            counts["captum"].append(_doubled(module, image, target, truth))
            try:
                evaluations, distance = _ours(explainer, image, target, truth)
            except ParameterError as refusal:
                found["absent"][f"ours, {score}"] = f"no tolerance yet: {refusal}"[:200]
                break
            counts["ours"].append(evaluations)
            counts["error of ours"].append(distance)
        found["evaluations"] |= {f"{score}, {side}": values for side, values in counts.items()}
        if counts["ours"]:
            found |= _figures(score, counts)
    return found


def _figures(score: str, counts: Mapping[str, list[float]]) -> dict[str, float]:
    shares = [theirs / ours for theirs, ours in zip(counts["captum"], counts["ours"], strict=True)]
    return {
        f"{score}: captum's evaluations ÷ ours": geometric_mean(shares),
        f"{score}: ours ÷ captum's, worst picture": 1 / min(shares),
        f"{score}: largest error of ours": max(counts["error of ours"]),
    }


def _pictures(subject: Subject) -> list[str]:
    if subject.name in ("honest", "shortcut"):
        return [str(file) for file in sorted((MODELS / "pictures").glob("*.png"))]
    import skimage  # brings the photographs

    folder = Path(skimage.__file__).parent / "data"
    return [str(folder / name) for name in PHOTOGRAPHS if (folder / name).exists()]


def _explainer(subject: Subject, score: str) -> Explainer:
    """An explainer of the logits or of the probabilities."""
    folder = subject.work / "bundles" / f"{subject.bundle('gradient').stem}-{score}.explain"
    if not folder.exists():
        model = _with_softmax(subject.file) if score == "probabilities" else subject.file
        options = {"preprocessing": subject.network.preprocessing, "score": score, "name": subject.name}
        export(model, folder, methods=[METHOD], **options)
    return Explainer(folder, device=subject.device, threads=subject.threads, verify=False)


def _with_softmax(file: Path) -> onnx.ModelProto:
    """The model with a softmax at its end, where it has none."""
    model = onnx.load(file)
    if model.graph.node[-1].op_type == "Softmax":
        return model
    output = model.graph.output[0]
    model.graph.node.append(onnx.helper.make_node("Softmax", [output.name], ["probabilities"], axis=1))
    output.name = "probabilities"
    return model


def _integrated(module: Any, image: Array, target: int, steps: int) -> Array:
    from captum.attr import IntegratedGradients  # in the benchmark's environment only

    rows = torch.from_numpy(image)
    method = IntegratedGradients(module)
    with mock.patch.object(np.polynomial.legendre, "leggauss", _points):
        return method.attribute(rows, target=target, n_steps=steps, internal_batch_size=ROWS).detach().numpy()


@functools.cache
def _points(count: int) -> tuple[Array, Array]:
    """The rule's points and weights, made once: for 2,048 numpy takes longer than a small network for its gradients."""
    return _leggauss(count)


def _truth(subject: Subject, module: Any, image: Array, target: int, score: str) -> Array:
    """The 2,048-step map, kept: it takes a while."""
    key = hashlib.sha256(image.tobytes() + f"{subject.name} {score} {target} {STEPS}".encode()).hexdigest()[:16]
    file = subject.work / "tolerance" / f"{key}.npy"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(file, _integrated(module, image, target, STEPS))
    return np.load(file)


def _distance(found: Array, truth: Array) -> float:
    return float(np.linalg.norm(found - truth) / np.linalg.norm(truth))


def _doubled(module: Any, image: Array, target: int, truth: Array) -> int:
    """All gradients that Captum takes until its map is near enough."""
    steps, taken = FIRST, 0
    while True:
        taken += steps
        if steps >= STEPS or _distance(_integrated(module, image, target, steps), truth) <= TOLERANCE:
            return taken
        steps *= 2


def _ours(explainer: Explainer, image: Array, target: int, truth: Array) -> tuple[int, float]:
    """The gradients that ours takes, counted where graphs are run, and how far its map is from the right one."""
    with counted(explainer) as counts:
        result = explainer.explain(image, METHOD, [target], tolerance=TOLERANCE)
    return counts["rows"], _distance(result.attribution, truth)


@contextmanager
def counted(explainer: Explainer) -> Iterator[dict[str, int]]:
    """Counts the rows of every run that isn't a forward pass: each is one gradient."""
    sessions: Any = explainer._sessions
    original, counts = sessions.run, {"rows": 0}

    def run(graph: Any, outputs: Any, feeds: Any, *rest: Any, **options: Any) -> Any:
        roles = {entry.role: entry.name for entry in graph.inputs}
        if graph.name != "forward":
            steps = feeds[roles["steps"]].shape[1] if "steps" in roles else 1
            counts["rows"] += feeds[roles["image"]].shape[0] * steps
        return original(graph, outputs, feeds, *rest, **options)

    sessions.run = run
    try:
        yield counts
    finally:
        del sessions.run
