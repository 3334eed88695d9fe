"""Builds one network inside its framework's environment: `python -m coverage_networks.build SOURCE NAME FOLDER`."""

import sys
from importlib import import_module
from pathlib import Path


def main(source: str, name: str, folder: str) -> None:
    """Writes the network's ONNX file and its framework's answers to the folder."""
    module = import_module(f"coverage_networks.{source}_networks")
    module.build(name, Path(folder))


if __name__ == "__main__":
    main(*sys.argv[1:])
