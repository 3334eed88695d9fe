"""`onnxplain info`: what a bundle holds, and what its network sees in a picture."""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from onnxplain.activations import activate
from onnxplain.bundle import Bundle, Graph, Parameter, Single
from onnxplain.bundle_files import REFRESHED, description_of, read_bundle
from onnxplain.errors import OnnxplainError, ParameterError
from onnxplain.explainer import Explainer
from onnxplain.images import image_size
from onnxplain.operators import required_operators
from onnxplain.parameters import values_of
from onnxplain.pictures import read_picture, write_png
from onnxplain.predictions import predictions
from onnxplain.preprocessing import PRESETS, is_upright, prepare, preset_steps

TOP = 3


def add_command(commands: Any) -> None:
    """Adds the parser of `onnxplain info`."""
    parser = commands.add_parser("info", help="say what a bundle holds, and what its network sees in a picture")
    parser.add_argument("bundle", metavar="BUNDLE", help="what onnxplain export wrote")
    parser.add_argument("--json", action="store_true", help="print explainer.json as it is")
    parser.add_argument(
        "--try", dest="picture", metavar="PICTURE", help="write it as the network sees it, and compare presets"
    )
    parser.add_argument(
        "--operators", action="store_true", help="print what it needs of onnxruntime, for a build with nothing else"
    )
    parser.add_argument("-o", "--output", type=Path, default=Path("seen.png"), metavar="PNG", help="default: seen.png")
    parser.add_argument("--no-verify", action="store_true", help="skip the check of the bundle's hashes")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Prints the bundle's description, or tries a picture."""
    bundle = read_bundle(arguments.bundle, not arguments.no_verify)
    if arguments.operators:
        print(required_operators(bundle), end="")
    elif arguments.json:
        print(json.dumps(description_of(bundle.path), indent=2, ensure_ascii=False))
    elif arguments.picture is None:
        print("\n".join(_described(bundle)))
    if arguments.picture is not None:
        _try_picture(bundle, arguments.picture, arguments.output)
    return 0


def _described(bundle: Bundle) -> Iterator[str]:
    source = bundle.source
    yield f"{bundle.name}: explains {bundle.scores.name} of {source.get('file', 'a model')}"
    made = f"  made by {source.get('producer', 'unknown')}, opset {source.get('opset', '?')}"
    yield f"{made}, {source.get('precision', 'float32')}; bundle by onnxplain {bundle.version}"
    for change in source.get("changes", []):
        yield f"  changed: {change}"
    for kind, entries in (("input", bundle.inputs), ("output", bundle.outputs)):
        for entry in entries:
            note = "" if entry.explained else " (not explained)"
            yield f"{kind} {entry.name} {_shape(entry.shape)}{note}"
    if bundle.inside and not bundle.takes_pictures:
        yield f"explained at {bundle.inside.name} {_shape(bundle.inside.shape)}, inside the network"
    yield _classes(bundle)
    yield f"preprocessing: {_preset(bundle)}"
    yield from (f"  {_step(step)}" for step in bundle.steps)
    if bundle.single is not None:
        yield _inside(bundle.single)
        yield from _taken_and_given(bundle.graphs[bundle.scoring])
    yield "methods:"
    for method in bundle.methods.values():
        yield f"  {method.name}: {method.about or method.plan}; explains {method.explains}"
        yield from (f"    --{name} {_parameter(entry)}" for name, entry in method.parameters.items())
    yield from (f"  not {name}: {reason}" for name, reason in bundle.left_out.items())
    for layer in bundle.layers:
        grid = f"{layer.grid[0]}x{layer.grid[1]} places"
        yield f"layer {layer.name} {_shape(layer.shape)}, {grid}{' (default)' if layer.default else ''}"
    changes = bundle.source.get("changes", ())
    when = "when it was refreshed" if any(change.startswith(REFRESHED) for change in changes) else "at export"
    yield f"verified {when}:" if bundle.verification else "never verified"
    yield from (f"  {name}: {_measured(entry)}" for name, entry in bundle.verification.items())


def _inside(single: Single) -> str:
    """What a single file has baked in, and what it does beside the map."""
    baked = [f"{name} {value}" for name, value in single.parameters.items() if name not in single.free]
    also = ["preprocessing"] * single.picture_input + ["heat map and overlay"] * single.picture_output
    return f"one file, one run: {'; '.join([', '.join([single.method, *baked]), *also])}"


def _taken_and_given(graph: Graph) -> Iterator[str]:
    inputs = ", ".join(f"{entry.name} {entry.dtype} {_shape(entry.shape)}" for entry in graph.inputs)
    yield f"  takes {inputs}"
    yield f"  gives {', '.join(graph.outputs)}"


def _classes(bundle: Bundle) -> str:
    """What may be explained of the output."""
    output = bundle.scores
    labels = output.labels
    named = f": {', '.join(labels[:5])}{', …' if len(labels) > 5 else ''}" if labels else ", no labels"
    classes = f"{output.classes} classes, {output.activation}{named}" if output.classes else "no classes"
    return f"{classes}; takes a cotangent {_shape(output.shape)}" if bundle.free else classes


def _shape(shape: Sequence[int | str]) -> str:
    return "[" + ", ".join(map(str, shape)) + "]"


def _preset(bundle: Bundle) -> str:
    if not bundle.steps:
        return "none; the network takes float arrays in its own shape"
    name = bundle.preset or "its own"
    return f"{name} (assumed: compare with --try PICTURE)" if bundle.assumed else name


def _step(step: Mapping[str, Any]) -> str:
    fields = ", ".join(f"{name} {value}" for name, value in step.items() if name != "step")
    return f"{step['step']}: {fields}" if fields else str(step["step"])


def _parameter(parameter: Parameter) -> str:
    return f"{parameter.default}  ({values_of(parameter)}) {parameter.help}".rstrip()


def _measured(entry: Any) -> str:
    if not isinstance(entry, Mapping):
        return str(entry)
    return ", ".join(
        f"{name} {value:.2g}" if isinstance(value, float) else f"{name} {value}" for name, value in entry.items()
    )


def _try_picture(bundle: Bundle, picture: str, output: Path) -> None:
    """Writes what the network sees and prints what it says, under the bundle's preprocessing and under each preset."""
    if not bundle.steps:
        raise ParameterError(f"{bundle.path} has no preprocessing for pictures; export it with --preprocessing PRESET")
    explainer = Explainer(bundle.path, device="cpu", verify=False)
    pixels = read_picture(picture, is_upright(bundle.steps))
    own = prepare(pixels, bundle.steps)
    write_png(output, own.seen)
    print(f"{output}: {picture} as the network sees it, {own.seen.shape[1]}x{own.seen.shape[0]} pixels")
    # A file that prepares pictures by itself can't be given what others would make of them.
    presets = {} if bundle.takes_pictures else _presets(bundle, own.rows[None])
    width = max(map(len, ["this bundle", *presets]))
    given = pixels if bundle.takes_pictures else own.rows[None]
    print(f"  {'this bundle':<{width}}  {_says(explainer, given)}")
    for name, steps in presets.items():
        rows = prepare(read_picture(picture, is_upright(steps)), steps).rows[None]
        print(f"  {name:<{width}}  {_says(explainer, rows)}{_same(bundle, name)}")


def _same(bundle: Bundle, name: str) -> str:
    if name != bundle.preset:
        return ""
    return "  (assumed at export)" if bundle.assumed else "  (named at export)"


def _presets(bundle: Bundle, rows: np.ndarray[Any, Any]) -> dict[str, list[dict[str, Any]]]:
    """The presets that make rows of the network's shape."""
    layout = bundle.image.layout or "NCHW"
    height, width = image_size(layout, rows)
    channels = rows.shape[1] if layout == "NCHW" else rows.shape[3]
    found = {}
    for name in PRESETS:
        try:
            found[name] = preset_steps(name, height, width, channels, layout)
        except OnnxplainError:  # a preset for colour, and the network takes grey
            continue
    return found


def _says(explainer: Explainer, rows: np.ndarray[Any, Any]) -> str:
    output = explainer.bundle.scores
    scores = explainer.scores(rows)
    axis = 1 if output.class_axis is None else output.class_axis
    best = predictions(scores[0], activate(scores, output.activation, axis)[0], output, TOP)
    plain = output.activation == "none"
    return ", ".join(
        f"{each.label} {each.score:.3g}" if plain else f"{each.label} {each.probability:.1%}" for each in best
    )
