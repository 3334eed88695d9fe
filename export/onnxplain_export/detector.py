"""Trains an out-of-distribution detector for an exported classifier, and adds `rise_plus` to its bundle."""

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxplain.activations import activate
from onnxplain.bundle import Bundle
from onnxplain.bundle_files import description_of, read_bundle
from onnxplain.errors import ModelError, ParameterError, VerificationError
from onnxplain.images import read_images, stack
from onnxplain.masks import random_masks
from onnxplain.pictures import find_pictures
from onnxplain.targets import class_of
from onnxplain_export.bundle import new_folder, sha256_of, write_description, write_graphs
from onnxplain_export.description import describe_files
from onnxplain_export.evaluate import run, session_of
from onnxplain_export.graphs.features import features_graph, own_name, penultimate
from onnxplain_export.graphs.masked import NORM_ROOM, Detector, masked_detected
from onnxplain_export.methods.perturbation import RISE_PLUS
from onnxplain_export.normalize import Normalized, normalize
from onnxplain_export.recipe import RECIPE
from onnxplain_export.sources import read_source
from onnxplain_export.verify.proof import relative, worst

if TYPE_CHECKING:
    from onnxplain_export.head_training import Training

DETECTED = "masked.detected"
AT_ONCE = 16
"""Pictures in one run of the network."""
TOLERANCE = 1e-4


@dataclass(frozen=True)
class _Examples:
    """What the network makes of the training pictures: rows [P, …] of a few, features [P, F], and labels [P]."""

    rows: NDArray[Any]
    features: NDArray[np.float32]
    labels: NDArray[np.int64]


def train_detector(
    bundle: str | os.PathLike[str],
    pictures: str | os.PathLike[str],
    *,
    labels: str = "folders",
    features: str | None = None,
    epochs: int = 90,
    learning_rate: float = 0.1,
    seed: int = 0,
) -> dict[str, Any]:
    """Trains a detector on pictures like those that the network was made for; the bundle gets the method `rise_plus`.

    `pictures` is a folder with one folder for each class, named as the class or by its number. With
    `labels="network"`, or where there are no such folders, each picture counts as what the network takes it for.
    `features` names the value inside the network that the detector looks at, the input of the last linear layer unless
    given. Returns the record that explainer.json keeps. The bundle is replaced only once the new graph is proved.

    Raises ModelError for networks without classes or such a layer, ParameterError and PictureError.
    """
    if labels not in ("folders", "network"):
        raise ParameterError(f"labels={labels!r} must be 'folders' or 'network'")
    training = _training(epochs, learning_rate, seed)
    opened = read_bundle(bundle)
    normalized = _network(opened)
    name, axis = penultimate(normalized, features)
    examples = _examples(opened, normalized, Path(pictures), labels, features_graph(normalized, name, axis))
    classes = int(opened.scores.classes or 0)
    head = _train(examples, classes, opened.scores.activation == "sigmoid", training)
    record = {
        "network": opened.source["sha256"],
        "features": own_name(name),
        "classes": len(np.unique(examples.labels)),
        "pictures": len(examples.labels),
        "accuracy": float((_cosines(examples.features, head).argmax(axis=1) == examples.labels).mean()),
        "training": asdict(training),
    }
    _add(opened, normalized, Detector(name, axis, head), examples, record)
    return record


def _training(epochs: int, learning_rate: float, seed: int) -> "Training":
    try:
        from onnxplain_export.head_training import Training  # torch is heavy, and needed for training alone
    except ModuleNotFoundError as error:
        raise ModelError(f'training a detector needs {error.name}: pip install "onnxplain[torch]"') from None
    if epochs < 1 or not learning_rate > 0:
        raise ParameterError(f"epochs={epochs} and learning_rate={learning_rate} must be more than 0")
    return Training(epochs, learning_rate, seed=seed)


def _train(examples: _Examples, classes: int, sigmoid: bool, training: "Training") -> NDArray[np.float32]:
    from onnxplain_export.head_training import train_head  # as above

    return train_head(examples.features, examples.labels, classes, sigmoid, training)


def _network(bundle: Bundle) -> Normalized:
    """The bundle's own network, ready for further graphs."""
    scores = bundle.scores
    if scores.classes is None or scores.class_axis != 1 or len(scores.shape) != 2:
        raise ModelError(f"a detector needs a classifier with scores [N, classes]; {bundle.path} has {scores.shape}")
    if bundle.image.layout is None or bundle.others:
        raise ModelError(f"a detector needs a network that takes pictures and nothing else; see {bundle.path}")
    source = read_source(bundle.path / bundle.graphs["forward"].file, name=bundle.name)
    return normalize(source, image_input=bundle.image.name, output="scores", activation=scores.activation)


def _examples(bundle: Bundle, normalized: Normalized, folder: Path, labels: str, features: ir.Model) -> _Examples:
    files, names = _listed(folder, labels)
    session = session_of(features)
    parts = []
    few: list[NDArray[Any]] = []
    for start in range(0, len(files), AT_ONCE):
        rows = stack(read_images(files[start : start + AT_ONCE], bundle), bundle.image)
        few += [] if few else [rows[:2]]
        parts.append(run(session, {normalized.image: rows}, ["features", "scores"]))
    found, scores = (np.concatenate(part) for part in zip(*parts, strict=True))
    numbers = scores.argmax(axis=1) if names is None else _numbers(names, bundle)
    if len(np.unique(numbers)) < 2:
        raise ParameterError(f"{folder}: all pictures are of one class; a detector learns from several")
    return _Examples(few[0], found.astype(np.float32), numbers.astype(np.int64))


def _listed(folder: Path, labels: str) -> tuple[list[Path], list[str] | None]:
    """The pictures in a folder, and the names of the folders in it that they lie in."""
    inside = (
        sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
        if folder.is_dir()
        else []
    )
    if labels == "network" or not inside:
        files = [file for each in inside for file in find_pictures(each)] if inside else find_pictures(folder)
        return files, None
    found = [(file, each.name) for each in inside for file in find_pictures(each)]
    return [file for file, _ in found], [name for _, name in found]


def _numbers(names: Sequence[str], bundle: Bundle) -> NDArray[np.int64]:
    """The classes that folders are named after."""
    known = bundle.scores.labels
    numbers = {
        name: class_of(int(name) if name.isdecimal() else name, int(bundle.scores.classes or 0), known)
        for name in set(names)
    }
    return np.array([numbers[name] for name in names])


def _cosines(features: NDArray[np.float32], weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """The detector's answer [rows, classes] in numpy."""
    unit, classes = (each / (np.linalg.norm(each, axis=1, keepdims=True) + NORM_ROOM) for each in (features, weight))
    answer: NDArray[np.float32] = unit @ classes.T
    return answer


def _add(
    bundle: Bundle, normalized: Normalized, detector: Detector, examples: _Examples, record: Mapping[str, Any]
) -> None:
    """Writes the bundle anew with the fused graph, its weights, the method and the record."""
    told = description_of(bundle.path)
    fused = masked_detected(normalized, detector)
    kept = {name: ir.load(bundle.path / graph.file) for name, graph in bundle.graphs.items() if name != DETECTED}
    entries = {name: entry for name, entry in told["graphs"].items() if name in kept}
    with new_folder(bundle.path) as folder:
        tensors, _ = write_graphs(folder, {**kept, DETECTED: fused})
        told["verification"][DETECTED] = _proved(folder, normalized, detector, examples)
        describe_files(told, folder, {DETECTED: fused}, normalized, tensors)
        for entry in entries.values():
            entry["sha256"] = sha256_of(folder / entry["file"])
        told["graphs"] = {**entries, **told["graphs"]}
        explains = "probabilities" if bundle.scores.activation != "none" else "logits"
        method = {key: part for key, part in RISE_PLUS.items() if key != "pictures"}
        told["methods"]["rise_plus"] = {**method, "explains": explains}
        told["detector"] = dict(record)
        told["refresh"] = {"reason": "it has a detector, which was trained for its weights"}
        write_description(folder, told)
        _keep_others(bundle.path, folder)


def _keep_others(old: Path, new: Path) -> None:
    for file in old.iterdir():
        if file.is_file() and file.name != RECIPE and not (new / file.name).exists():
            shutil.copy2(file, new / file.name)


def _proved(folder: Path, normalized: Normalized, detector: Detector, examples: _Examples) -> dict[str, Any]:
    """The fused graph against numpy's masks, the forward graph and the detector's head in numpy."""
    images = examples.rows
    height, width = normalized.size
    count = len(images)
    steps = np.array(
        [[5, 0.5, 3, height / 2, width / 2, 3, 3, 2, 1], [6, 0.4, 2, height, width, 1, 2, 0, 0]], np.float32
    )
    masks = random_masks(7, steps, height, width)
    masks = masks[:, None] if normalized.layout == "NCHW" else masks[..., None]
    reader = session_of(features_graph(normalized, detector.features, detector.axis))
    found = [run(reader, {normalized.image: images * mask}, ["features", "scores"]) for mask in masks]
    confidence = np.stack([_cosines(features, detector.weight).max(axis=1) for features, _ in found], axis=1)
    targets = np.stack([scores.argmax(axis=1) for _, scores in found], axis=1)[:, :1]
    kind = normalized.scores.activation
    chosen = np.stack([np.take_along_axis(activate(scores, kind), targets, axis=1) for _, scores in found], axis=1)
    low, high = np.full(count, -1, np.float32), np.full(count, 1, np.float32)
    share = (confidence + 1) / 2
    feeds = {
        normalized.image: images,
        "target": targets.astype(np.int64),
        "steps": steps[None],
        "fill": np.zeros([1] * images.ndim, np.float32),
        "activated": np.ones(1, np.float32),
        "seed": np.array([7], np.int64),
        "low": low,
        "high": high,
    }
    names = ["scores", "confidence", "total", "norm"]
    scores, ours, total, norm = run(session_of(folder / f"{DETECTED}.onnx"), feeds, names)
    errors = [
        relative(scores, chosen),
        relative(ours, confidence),
        relative(total, np.einsum("nk,nkt,k...->nt...", share, chosen, masks)),
        relative(norm, masks.sum(axis=0)),
    ]
    if not worst(errors) <= TOLERANCE:
        raise VerificationError(f"the detector's graph disagrees with the plain passes by {worst(errors):.1e}")
    return {"error": worst(errors), "tolerance": TOLERANCE, "images": count}
