"""The JavaScript engine prepares and draws pictures as the Python engine does, whatever their size."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import node_engine
from node_engine import JavaScriptError, picture, run_calls
from onnxplain.errors import ParameterError
from onnxplain.heatmap import COLOUR_MAPS, colours, diverging, overlay, overlay_original, signed_overlay
from onnxplain.preprocessing import PRESETS, prepare, preset_steps

SIZES = [(64, 64), (61, 97), (97, 61), (5, 300), (231, 7), (1, 1), (40, 40)]


@pytest.fixture(scope="module", autouse=True)
def node() -> None:
    reason = node_engine.missing_node()
    if reason is not None:
        pytest.skip(f"no JavaScript engine: {reason}")


def noise(size: tuple[int, int], channels: int = 3) -> np.ndarray:
    """A picture of smooth colours and some noise."""
    random = np.random.default_rng(size[0] * 1000 + size[1])
    rows, columns = np.mgrid[: size[0], : size[1]]
    waves = [127 + 90 * np.sin(rows / (3 + c)) * np.cos(columns / (5 + c)) for c in range(channels)]
    mixed = np.stack(waves, axis=-1) + random.normal(0, 20, (*size, channels))
    return np.asarray(np.clip(mixed, 0, 255), np.uint8)


def cases() -> list[tuple[str, list[dict[str, Any]], np.ndarray]]:
    found = []
    for name in PRESETS:
        for layout, channels, side in (("NCHW", 3, (48, 48)), ("NHWC", 3, (33, 50)), ("NCHW", 1, (32, 32))):
            try:
                steps = preset_steps(name, *side, channels, layout)
            except ParameterError:
                continue  # a preset for colour
            found += [(f"{name} {layout} {channels} {size}", steps, noise(size)) for size in SIZES]
    return found


def test_every_preset_makes_the_same_numbers_of_pictures_of_any_size(tmp_path: Path) -> None:
    every = cases()
    calls = [{"what": "prepare", "picture": picture(pixels), "steps": steps} for _, steps, pixels in every]
    wrong = {}
    for (name, steps, pixels), found in zip(every, run_calls(tmp_path, calls), strict=True):
        expected = prepare(pixels, steps)
        if isinstance(found, JavaScriptError):
            wrong[name] = str(found)
            continue
        scale = max(1.0, float(np.abs(expected.rows).max()))
        same = np.array_equal(found["seen"], expected.seen) and np.allclose(found["box"], expected.box)
        if not same or np.abs(found["rows"] - expected.rows).max() > 1e-6 * scale:
            wrong[name] = "differs"
    assert not wrong


def test_grey_and_transparent_pictures_are_those_of_their_colours(tmp_path: Path) -> None:
    steps = preset_steps("unit", 16, 16)
    colour, grey = noise((20, 30)), noise((20, 30), 1)
    alpha = np.concatenate([colour, np.full((20, 30, 1), 7, np.uint8)], axis=-1)
    calls = [{"what": "prepare", "picture": picture(each), "steps": steps} for each in (alpha, grey)]
    found = run_calls(tmp_path, calls)
    assert np.array_equal(found[0]["rows"], prepare(colour, steps).rows)
    assert np.array_equal(found[1]["rows"], prepare(np.repeat(grey, 3, axis=2), steps).rows)


def test_drawings_are_the_same(tmp_path: Path) -> None:
    random = np.random.default_rng(3)
    seen, original = noise((24, 31)), noise((90, 70))
    heat = random.random((24, 31)).astype(np.float32) ** 3
    share = (random.random((24, 31)) * 2 - 1).astype(np.float32)
    box = (-3.0, 5.5, 80.0, 66.0)
    ramp = np.linspace(0, 1, 777, dtype=np.float32)
    calls: list[dict[str, Any]] = [{"what": "colours", "heat": ramp, "map": name} for name in COLOUR_MAPS]
    expected = [colours(ramp, name) for name in COLOUR_MAPS]
    for name in ("inferno", "jet"):
        calls.append({"what": "overlay", "seen": seen, "heat": heat, "options": {"colourMap": name, "strength": 0.7}})
        expected.append(overlay(seen, heat, name, 0.7))
    calls += [
        {"what": "signed_overlay", "seen": seen, "share": share},
        {"what": "diverging", "share": share},
        {"what": "original", "original": original, "heat": heat, "box": box},
    ]
    expected += [signed_overlay(seen, share), diverging(share), overlay_original(original, heat, box)]
    for call, found, right in zip(calls, run_calls(tmp_path, calls), expected, strict=True):
        assert not isinstance(found, JavaScriptError), found
        assert found.shape == right.shape, call["what"]
        assert np.mean(found != right) <= 1e-3, call["what"]
        assert np.abs(found.astype(int) - right).max() <= 1, call["what"]
