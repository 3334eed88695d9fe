"""The command `onnxplain export`."""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from onnxplain.errors import ModelError, ParameterError
from onnxplain.preprocessing import PRESETS, override, preset_steps
from onnxplain_export.check.checking import Verdict
from onnxplain_export.commands.model_options import add_model, checked, reading
from onnxplain_export.commands.single_options import add_single, refuse_without_single, run_single
from onnxplain_export.exporting import PRECISIONS, assumed_preset, export
from onnxplain_export.methods import ALL, METHODS
from onnxplain_export.normalize.shapes import image_layout
from onnxplain_export.tables import COMPOSITES

EXPORTING = """Adds the gradient graph to a model, proves it against the model, and writes the explainer bundle, a
folder. A torch module goes in by Python: onnxplain_export.export(module, folder, example=batch)."""

PROOFS = {
    "forward": "the scores are the model's",
    "half": "the scores are those of the model's own half precision",
    "float16": "with rounded weights the scores stay near the model's",
    "onward": "the scores follow from the explained value",
    "batch": "an image's scores don't depend on its neighbours",
    "gradient": "the gradient is that of finite differences",
    "precision": "gradients in half precision stay near those in float32",
    "missing": "random directions find nothing that the gradient lacks",
    "path": "sums along a path agree with the gradient",
    "noise": "sums over noise agree with the gradient",
    "gradient.targets": "targets that share a forward pass get the gradients that they get alone",
    "path.targets": "so do their sums along a path",
    "noise.targets": "so do their sums over noise",
    "gradient.guided": "the guided backward pass treats images alone and together alike",
    "gradient.deconvolution": "so does the deconvolution's",
    "gradient.guided.targets": "targets that share a forward pass get the guided maps that they get alone",
    "gradient.deconvolution.targets": "so do the deconvolution's",
    **{f"relevance.{name}": f"relevance by {name} adds up to the score, less what is kept" for name in COMPOSITES},
    "deeplift": "DeepLIFT's parts add up to the difference of the scores",
    "masked": "masked images get the scores that they should",
    "masked.random": "images masked at random get the scores that they should",
    "masked.segments": "images with segments hidden get the scores that they should",
    "layer": "features and the gradients at them are those of the network behind the layer",
    "tail": "features go on to the network's scores",
}


def add_command(commands: Any) -> None:
    """Adds the parser of `onnxplain export`."""
    parser = commands.add_parser("export", help="make a bundle from an ONNX model", description=EXPORTING)
    add_model(parser)
    parser.add_argument("-o", "--output", type=Path, metavar="FOLDER", help="default: MODEL's name with .explain")
    parser.add_argument(
        "--methods", metavar="A,B", help=f"default: those on the core graphs; all, or any of {', '.join(METHODS)}"
    )
    parser.add_argument("--labels", type=Path, metavar="FILE", help="the classes' names, one a line")
    parser.add_argument("--name", help="what the bundle calls the model; default: the file's name")
    parser.add_argument(
        "--layer", action="append", default=[], metavar="NAME", help="a feature layer for CAM methods; repeatable"
    )
    parser.add_argument("--float16", action="store_true", help="weights in half precision: files of half the size")
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        help=f"of the networks' arithmetic ({PRECISIONS[0]}); float16 is for GPUs",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing bundle")
    _add_preprocessing(parser)
    add_single(parser)
    parser.set_defaults(run=run_export)


def _add_preprocessing(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("how pictures are prepared (try it with: onnxplain info BUNDLE --try PICTURE)")
    group.add_argument("--preprocessing", metavar="PRESET", help=f"one of {', '.join(PRESETS)}; default: torchvision")
    group.add_argument("--mean", nargs="+", type=float, metavar="M", help="subtracted, by channel, after --scale")
    group.add_argument("--std", nargs="+", type=float, metavar="S", help="divided by, by channel")
    group.add_argument(
        "--scale", type=float, metavar="F", help="factor on the values 0..255, such as 0.00392156862745098"
    )
    group.add_argument("--colour", choices=("RGB", "BGR", "GREY"), help="order of the channels")
    group.add_argument("--resize", metavar="SIZE", help="256 (shorter side), 224x224 (exact) or none")
    group.add_argument("--crop", metavar="SIZE", help="224, 224x320 or none: the centre of the picture")
    group.add_argument("--kernel", choices=("bilinear", "bicubic", "nearest"), help="of the resize")


def run_export(arguments: argparse.Namespace) -> int:
    """Exports, and says what was proved."""
    if arguments.single is not None:
        return run_single(arguments, lambda methods, folder: _bundle(arguments, methods, folder))
    refuse_without_single(arguments)
    target = arguments.output or Path(arguments.model.stem + ".explain")
    description = _bundle(arguments, _methods(arguments.methods), target)
    print("\n".join(_exported(target, description)))
    _say_what_is_assumed(description, target)
    return 0


def _bundle(arguments: argparse.Namespace, methods: list[str] | str | None, target: Path) -> dict[str, Any]:
    """Exports the bundle, and returns its description."""
    export(
        arguments.model,
        target,
        methods=methods,
        preprocessing=_preprocessing(arguments),
        labels=arguments.labels,
        name=arguments.name,
        overwrite=arguments.overwrite,
        float16=arguments.float16,
        precision=arguments.precision or PRECISIONS[0],
        layers=arguments.layer,
        **reading(arguments),
    )
    return dict(json.loads((target / "explainer.json").read_text("utf-8")))


def _say_what_is_assumed(description: dict[str, Any], target: Path) -> None:
    if description["preprocessing"]["assumed"]:
        print(
            f"no --preprocessing was named: {description['preprocessing']['preset']!r} is assumed; "
            f"see what the network sees with: onnxplain info {target} --try PICTURE",
            file=sys.stderr,
        )


def _methods(text: str | None) -> list[str] | str | None:
    return [name.strip() for name in text.split(",")] if text and text != ALL else text


def _preprocessing(arguments: argparse.Namespace) -> str | list[dict[str, Any]] | None:
    """The preset's name, or its steps with the flags' changes."""
    names = ("mean", "std", "scale", "colour", "resize", "crop", "kernel")
    changes = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    if not changes:
        return None if arguments.preprocessing is None else str(arguments.preprocessing)
    # The preset's sizes come from the model's own input, so the model is looked at first.
    return override(_preset(arguments, checked(arguments)), **changes)


def _preset(arguments: argparse.Namespace, verdict: Verdict) -> list[dict[str, Any]]:
    if verdict.error is not None:
        raise ModelError(verdict.error)
    axes = verdict.shape
    layout = image_layout(["N", *axes])
    if layout is None:
        raise ParameterError(f"preprocessing is for pictures; the model's input is {verdict.image}")
    channels, height, width = axes if layout == "NCHW" else (axes[2], axes[0], axes[1])
    name = arguments.preprocessing or assumed_preset(channels, verdict.integers)
    return preset_steps(name, height, width, channels=channels, layout=layout)


def _exported(target: Path, description: dict[str, Any]) -> Iterator[str]:
    yield f"{target}: {', '.join(description['methods'])}"
    for change in description["source"]["changes"]:
        yield f"  changed: {change}"
    reasons: dict[str, list[str]] = {}
    for name, reason in description["left_out"].items():
        reasons.setdefault(reason, []).append(name)
    for reason, names in reasons.items():
        yield f"  left out: {', '.join(names)}: {reason}"
    for name, entry in description["verification"].items():
        what = PROOFS.get(name) or PROOFS.get(name.partition(".")[0], name)
        yield f"  proved: {what} (error {entry['error']:.1e}, tolerance {entry['tolerance']:.0e})"
