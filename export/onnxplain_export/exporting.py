"""`export()`: from a model to a verified bundle."""

import re
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from onnxplain.errors import ParameterError, unknown
from onnxplain.preprocessing import check_steps, preset_steps
from onnxplain_export.building import build
from onnxplain_export.bundle import new_folder, refuse_target, write_description, write_graphs
from onnxplain_export.description import describe_files, description
from onnxplain_export.graphs import SHARING
from onnxplain_export.half import round_weights, store_in_half
from onnxplain_export.half_arithmetic import in_half
from onnxplain_export.normalize import Normalized, normalize
from onnxplain_export.refreshing import write_recipe
from onnxplain_export.sources import read_source
from onnxplain_export.verify import verify

PRECISIONS = ("float32", "float16")
"""In which a bundle's networks compute."""


def export(
    model: Any,
    output: str | PathLike[str],
    *,
    methods: Sequence[str] | str | None = None,
    preprocessing: str | Sequence[Mapping[str, Any]] | None = None,
    labels: Sequence[str] | str | PathLike[str] | None = None,
    example: Any = None,
    name: str | None = None,
    size: tuple[int, int] | None = None,
    axes: Mapping[str, int] | None = None,
    score: str = "logits",
    activation: str | None = None,
    image_input: str | None = None,
    score_output: str | None = None,
    wrt: str | None = None,
    cotangent: bool = False,
    quantized: str | None = None,
    layers: Sequence[str] = (),
    float16: bool = False,
    precision: str = "float32",
    overwrite: bool = False,
) -> Path:
    """Writes the explainer bundle of `model` to the folder `output`, proves it against the model, and returns its path.

    `model` is a path, an onnx.ModelProto, an onnx_ir.Model, or a torch.nn.Module with one `example` batch. `methods`
    are those on the core graphs unless named; "all" is every one that the model allows. `preprocessing` is a preset's
    name or a list of steps; without one, pictures are assumed to be prepared as torchvision does. `labels` are the
    classes' names or a text file with one a line. `score` "logits" explains what a trailing softmax or sigmoid takes,
    "probabilities" the output as it is. `size` (height, width) fixes a picture size that the model leaves free, `axes`
    other axes by name.

    Gradients are taken at the input `image_input` (of several, a picture's unless named), or at the value `wrt` inside
    the network, by the name that the model gives it; token numbers are explained at their embedding. What is explained
    is a class of the output `score_output` (the first of shape [N, classes] unless named); an output of another shape,
    and with `cotangent` any, is explained by a cotangent of its own shape. Quantised models have no gradient unless
    `quantized="straight-through"` lets it pass their roundings (Bengio et al. 2013, arXiv:1308.3432).

    `layers` are the feature layers that CAM methods may be asked to explain at, by the names that the model gives them;
    the first is the default. Unless named, it is the last value with rows and columns, or a transformer's last tokens.

    With `float16` large weights are rounded to half precision and stored so: the files are about half as large, and
    what is proved is the network with these weights. All arithmetic stays in float32. With `precision` "float16" it is
    the arithmetic that is in half precision, weights and activations, forward and backward: for GPUs, where that is
    faster. Images, scores and maps stay float32 all the same.

    Raises ModelError (unreadable, unsupported), NoGradientError (names the node), VerificationError (the proof failed),
    ParameterError and OutputError; nothing is left behind then.
    """
    if precision not in PRECISIONS:
        raise ParameterError(unknown("precision", precision, PRECISIONS))
    if float16 and precision != "float32":
        raise ParameterError("float16=True rounds the weights of float32 arithmetic; precision='float16' does without")
    target = Path(output)
    refuse_target(target, overwrite)
    normalized = normalize(
        read_source(model, example, name),
        image_input=image_input,
        output=score_output,
        wrt=wrt,
        score=score,
        activation=activation,
        size=size or _size_of(preprocessing),
        axes=axes or {},
        cotangent=cotangent,
        quantized=quantized,
    )
    if float16:
        round_weights(normalized)
    prepared = _preprocessing(normalized, preprocessing)
    if precision == "float16":
        normalized = in_half(normalized, prepared["steps"])
    built = build(normalized, methods, layers)
    names = _labels(_own_labels(normalized) if labels is None else labels, normalized.scores.classes)
    if float16:
        store_in_half(built.models.values())
    with new_folder(target) as folder:
        tensors, places = write_graphs(folder, built.models)
        record = verify(normalized, folder, built.models, prepared["steps"], built.layers)
        for graph in [graph for graph in built.models if graph in SHARING and graph not in record]:
            del built.models[graph]  # the engine repeats the forward pass for each target
            (folder / f"{graph}.onnx").unlink()
        told = description(normalized, built, prepared, names, record)
        describe_files(told, folder, built.models, normalized, tensors)
        told["refresh"] = write_recipe(folder, told, normalized, places)
        write_description(folder, told)
    return target


def _own_labels(normalized: Normalized) -> Sequence[str] | None:
    """The classes' names that came with the source, where they are those of the explained scores."""
    own = normalized.source.labels
    return own if own is not None and len(own) == normalized.scores.classes else None


def _preprocessing(normalized: Normalized, given: str | Sequence[Mapping[str, Any]] | None) -> dict[str, Any]:
    """What explainer.json says about preprocessing; where the user says nothing, something is assumed for pictures."""
    if given is not None and not isinstance(given, str):
        return {"preset": None, "assumed": False, "steps": check_steps(given)}
    channels = normalized.image_shape[0 if normalized.layout == "NCHW" else -1]
    if normalized.layout is None or (given is None and channels not in (1, 3)):
        if given is not None and normalized.layout is None:
            raise ParameterError(
                f"preprocessing {given!r} is for pictures; the input has shape {normalized.image_shape}"
            )
        return {"preset": None, "assumed": False, "steps": []}
    preset = given or assumed_preset(channels, normalized.integers)
    steps = preset_steps(preset, *normalized.size, channels=channels, layout=normalized.layout)
    return {"preset": preset, "assumed": given is None, "steps": steps}


def assumed_preset(channels: int, integers: bool) -> str:
    """What is assumed of a network about which nothing was said: one that takes integers takes the picture's own."""
    if integers:
        return "raw"
    return "torchvision" if channels == 3 else "unit"


def _size_of(preprocessing: str | Sequence[Mapping[str, Any]] | None) -> tuple[int, int] | None:
    """The picture size that a list of steps ends with, for a network that leaves its own free."""
    if preprocessing is None or isinstance(preprocessing, str):
        return None
    for step in reversed(preprocessing):
        if step.get("step") in ("crop", "resize") and isinstance(step.get("size"), list | tuple):
            height, width = step["size"]
            return int(height), int(width)
    return None


def _labels(given: Sequence[str] | str | PathLike[str] | None, classes: int | None) -> list[str] | None:
    if given is None:
        return None
    if isinstance(given, str | PathLike):
        try:
            given = Path(given).read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ParameterError(f"labels {given}: can't be read ({error})") from None
    names = [name.strip() for name in given]
    while names and not names[-1]:
        names.pop()
    if len(names) != classes:
        pair = "; the two classes of a single logit are its negative and its positive" if len(names) == 1 else ""
        raise ParameterError(f"{len(names)} labels for {classes or 'an output without'} classes{pair}")
    return _without_numbers(names)


def _without_numbers(names: list[str]) -> list[str]:
    """The names without the class numbers that some label files carry: "0,tench", "1: goldfish", "2 shark"."""
    found = [re.fullmatch(r"(\d+)\s*[,:;\t ]\s*(\S.*)", name) for name in names]
    numbered = [match for match in found if match is not None]
    if len(numbered) == len(names) and [int(match[1]) for match in numbered] == list(range(len(names))):
        return [match[2] for match in numbered]
    return names
