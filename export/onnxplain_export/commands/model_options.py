"""The options that say what of a model is explained, the same for every command that reads one."""

import argparse
from pathlib import Path
from typing import Any

from onnxplain.errors import ParameterError
from onnxplain_export.check.checking import Verdict, check


def add_model(parser: argparse.ArgumentParser) -> None:
    """Adds the model and the options."""
    parser.add_argument("model", metavar="MODEL", type=Path, help="an ONNX file")
    parser.add_argument("--size", nargs=2, type=int, metavar=("HEIGHT", "WIDTH"), help="where the model leaves it free")
    parser.add_argument("--score", choices=("logits", "probabilities"), default="logits", help="what is explained")
    parser.add_argument("--activation", choices=("softmax", "sigmoid", "none"), help="of logits that end the model")
    parser.add_argument("--score-output", metavar="NAME", help="which of the model's outputs is explained")
    parser.add_argument("--image-input", metavar="NAME", help="which of the model's inputs is explained")
    parser.add_argument("--wrt", metavar="NAME", help="explain at this value inside the network: a layer, an embedding")
    parser.add_argument("--quantized", choices=("straight-through",), help="let the gradient pass quantisations")
    parser.add_argument("--cotangent", action="store_true", help="explain weighted sums of the output, not classes")
    parser.add_argument(
        "--axis", action="append", default=[], metavar="NAME=SIZE", help="fixes a free axis; repeatable"
    )


def reading(arguments: argparse.Namespace) -> dict[str, Any]:
    """The options as `export` takes them."""
    return {
        "size": tuple(arguments.size) if arguments.size else None,
        "score": arguments.score,
        "activation": arguments.activation,
        "score_output": arguments.score_output,
        "image_input": arguments.image_input,
        "wrt": arguments.wrt,
        "cotangent": arguments.cotangent,
        "quantized": arguments.quantized,
        "axes": dict(map(_axis, arguments.axis)),
    }


def _axis(text: str) -> tuple[str, int]:
    name, _, size = text.rpartition("=")
    if not name or not size.isdecimal() or not int(size):
        raise ParameterError(f"--axis {text}: write NAME=SIZE")
    return name, int(size)


def checked(arguments: argparse.Namespace) -> Verdict:
    """The verdict on the model."""
    options = reading(arguments)
    return check(arguments.model, output=options.pop("score_output"), **options)
