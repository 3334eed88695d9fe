"""Bundles of the shipped networks, exported once for all journeys."""

from pathlib import Path

import pytest

from onnxplain_export import export

MODELS = Path(__file__).parents[2] / "models"
STEPS = [
    {"step": "colour", "order": "RGB"},
    {"step": "scale", "factor": 1 / 255},
    {"step": "mean", "values": [0.5, 0.5, 0.5]},
    {"step": "std", "values": [0.5, 0.5, 0.5]},
    {"step": "layout", "order": "NCHW"},
]


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The bundle of each shipped network, with the methods on the core graphs."""
    folder = tmp_path_factory.mktemp("bundles")
    return {
        name: export(
            MODELS / f"{name}.onnx", folder / f"{name}.explain", preprocessing=STEPS, labels=MODELS / "labels.txt"
        )
        for name in ("honest", "shortcut")
    }


@pytest.fixture(scope="session")
def all_bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The bundle of each shipped network, with all methods."""
    folder = tmp_path_factory.mktemp("all_bundles")
    return {
        name: export(MODELS / f"{name}.onnx", folder / f"{name}.explain", preprocessing=STEPS, methods="all")
        for name in ("honest", "shortcut")
    }


@pytest.fixture(scope="session")
def pictures() -> list[Path]:
    """The shipped pictures, in order."""
    return sorted((MODELS / "pictures").glob("*.png"))
