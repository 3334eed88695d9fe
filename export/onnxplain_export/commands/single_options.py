"""The options of `onnxplain export --single`: one method as one file."""

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from onnxplain.bundle import Method
from onnxplain.bundle_files import DESCRIPTION, read_bundle
from onnxplain.errors import ParameterError, unknown
from onnxplain.parameters import from_text
from onnxplain_export.single import export_single
from onnxplain_export.triton import write_triton

Exporting = Callable[[list[str], Path], dict[str, Any]]
"""Writes a bundle with some methods to a folder, and returns its description."""
ROWS = 8
SETTLED = (
    *("preprocessing", "mean", "std", "scale", "colour", "resize", "crop", "kernel"),
    *("labels", "layer", "float16", "precision"),
    *("methods", "size", "score", "activation", "score_output", "image_input", "wrt", "quantized", "cotangent", "axis"),
)
"""The options of export that say what a bundle is."""


def add_single(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    group = parser.add_argument_group("one file, one Run (MODEL may also be a bundle)")
    group.add_argument("--single", metavar="METHOD", help="write this method as one ONNX file with everything inside")
    group.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a parameter, baked in; repeatable"
    )
    group.add_argument("--free", action="append", default=[], metavar="NAME", help="a parameter that stays an input")
    group.add_argument("--rows", type=int, metavar="N", help=f"images × steps that a turn of its loop takes; {ROWS}")
    group.add_argument("--unrolled", action="store_true", help="copies of the graph in place of a Loop")
    group.add_argument(
        "--triton", type=Path, metavar="DIR", help="also write it into this model repository of a Triton server"
    )
    group.add_argument("--picture-input", action="store_true", help="take uint8 pictures: preprocessing inside")
    group.add_argument("--picture-output", action="store_true", help="give heat map and overlay as uint8, too")


def refuse_without_single(arguments: argparse.Namespace) -> None:
    """ParameterError for an option that only a single file has."""
    for name in ("set", "free", "rows", "unrolled", "picture_input", "picture_output", "triton"):
        if getattr(arguments, name):
            raise ParameterError(f"--{name.replace('_', '-')} is for a single file; add --single METHOD")


def run_single(arguments: argparse.Namespace, exporting: Exporting) -> int:
    """Writes the file, by way of a bundle where the model isn't one already, and says what it takes and gives."""
    target = arguments.output or Path(f"{arguments.model.stem}.{arguments.single}.onnx")
    if (arguments.model / DESCRIPTION).is_file():
        _refuse_for_a_bundle(arguments)
        _write(arguments, arguments.model, target)
    else:
        with tempfile.TemporaryDirectory() as folder:
            bundle = Path(folder) / arguments.model.with_suffix(".explain").name
            exporting([arguments.single], bundle)
            _write(arguments, bundle, target)
    print("\n".join(_told(target)))
    read = read_bundle(target)
    if read.assumed:
        print(
            f"no --preprocessing was named: {read.preset!r} is assumed and part of the file; see what the network sees "
            f"with: onnxplain info {target} --try PICTURE",
            file=sys.stderr,
        )
    if arguments.triton is not None:
        name = arguments.name or target.stem
        print(f"  served by Triton from {write_triton(target, arguments.triton, name, arguments.overwrite)}")
    return 0


def _refuse_for_a_bundle(arguments: argparse.Namespace) -> None:
    """ParameterError for what was settled when the bundle was made."""
    for name in SETTLED:
        if getattr(arguments, name) not in (None, False, [], "logits"):
            raise ParameterError(
                f"--{name.replace('_', '-')} is chosen when a bundle is made; give the model itself, or export the "
                "bundle again"
            )


def _write(arguments: argparse.Namespace, bundle: Path, target: Path) -> None:
    read = read_bundle(bundle)
    method = read.methods.get(arguments.single)
    export_single(
        bundle,
        target,
        arguments.single,
        parameters={} if method is None else dict(_given(method, text) for text in arguments.set),
        free=arguments.free,
        rows=ROWS if arguments.rows is None else arguments.rows,
        unrolled=arguments.unrolled,
        picture_input=arguments.picture_input,
        picture_output=arguments.picture_output,
        overwrite=arguments.overwrite,
    )


def _given(method: Method, text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise ParameterError(f"--set {text}: write NAME=VALUE")
    if name not in method.parameters:
        raise ParameterError(unknown(f"parameter of {method.name}", name, method.parameters))
    return name, from_text(method.parameters[name], value)


def _told(target: Path) -> list[str]:
    """What the file takes and gives, a line each."""
    bundle = read_bundle(target)
    graph = bundle.graphs[bundle.scoring]
    inputs = ", ".join(f"{entry.name} {entry.dtype} {list(entry.shape)}" for entry in graph.inputs)
    size = target.stat().st_size / 1e6
    return [
        f"{target}: {next(iter(bundle.methods))}, {size:.1f} MB",
        f"  takes {inputs}",
        f"  gives {', '.join(graph.outputs)}",
        "  proved: its maps are those of the engine",
    ]
