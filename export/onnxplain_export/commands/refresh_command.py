"""The command `onnxplain refresh`."""

import argparse
from pathlib import Path
from typing import Any

from onnxplain.bundle_files import description_of
from onnxplain_export.refreshing import refresh

ABOUT = """Gives a bundle the weights that its network has learned since: from a newer ONNX file of the same network, in
a second or so, without deriving the gradient again. A network that is built otherwise is refused, with the first
difference."""


def add_command(commands: Any) -> None:
    """Adds the parser of `onnxplain refresh`."""
    parser = commands.add_parser("refresh", help="give a bundle new weights of the same network", description=ABOUT)
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="the bundle; it is replaced unless -o is given")
    parser.add_argument("model", type=Path, metavar="MODEL", help="an ONNX file of the same network")
    parser.add_argument("-o", "--output", type=Path, metavar="BUNDLE", help="write a new bundle, leave the old one")
    parser.add_argument("--overwrite", action="store_true", help="replace a bundle at --output")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Refreshes, and says what was compared."""
    path = refresh(arguments.bundle, arguments.model, arguments.output, overwrite=arguments.overwrite)
    print(f"{path}: has the weights of {arguments.model}")
    told = description_of(path)
    for name, entry in told["verification"].items():
        print(f"  {name}: differs by {entry['error']:.1e} (tolerance {entry['tolerance']:.0e})")
    return 0
