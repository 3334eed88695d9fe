"""Pictures in and out of a graph: the numbers of the engine's own preprocessing and drawing."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from numpy.typing import NDArray

from onnxplain.heatmap import heatmap, overlay
from onnxplain.preprocessing import PRESETS, override, prepare, preset_steps
from onnxplain_export.emitter import IR_VERSION, OPSET, Emitter
from onnxplain_export.single.picture_input import prepared
from onnxplain_export.single.picture_output import as_bytes, heat_of, overlaid, undone

Array = NDArray[Any]
SIZES = [(97, 131), (224, 224), (40, 23), (9, 300), (301, 300), (1, 1)]


def session_of(make: Any, *inputs: ir.Value) -> onnxruntime.InferenceSession:
    """A graph of what `make` emits for its inputs: a mapping of outputs."""
    graph = ir.Graph(list(inputs), [], nodes=[], opset_imports={"": OPSET}, name="picture")
    op = Emitter(graph, "test")
    for name, (value, dtype) in make(op, *inputs).items():
        result = op.Identity(value)
        result.name, result.type = name, ir.TensorType(dtype)
        graph.outputs.append(result)
    content = ir.to_proto(ir.Model(graph, ir_version=IR_VERSION)).SerializeToString()
    return onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])


def preprocessing(steps: Sequence[Mapping[str, Any]], size: tuple[int, int]) -> onnxruntime.InferenceSession:
    def make(op: Emitter, picture: ir.Value) -> dict[str, Any]:
        made = prepared(op, picture, steps, size, ir.DataType.FLOAT)
        return {"rows": (made.rows, ir.DataType.FLOAT), "seen": (made.seen, ir.DataType.FLOAT)}

    return session_of(make, ir.val("picture", ir.DataType.UINT8, ["N", "H", "W", 3]))


def pictures_of(size: tuple[int, int], count: int = 2) -> Array:
    return np.random.default_rng(0).integers(0, 256, (count, *size, 3), dtype=np.uint8)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("preset", PRESETS)
def test_presets_bit_for_bit(preset, layout):
    steps = preset_steps(preset, 32, 32, layout=layout)
    session = preprocessing(steps, (32, 32))
    for size in SIZES:
        pictures = pictures_of(size)
        rows, seen = session.run(None, {"picture": pictures})
        expected = [prepare(picture, steps) for picture in pictures]
        assert np.array_equal(rows, np.stack([one.rows for one in expected])), size
        assert np.array_equal(seen, np.stack([one.seen for one in expected])), size


@pytest.mark.parametrize("kernel", ["bilinear", "bicubic", "nearest"])
@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("resize", [(30, 50), 41, "none"])
def test_kernels_sizes_and_crops(kernel, antialias, resize):
    steps = preset_steps("torchvision", 28, 44)
    changes = {} if resize == "none" else {"kernel": kernel, "antialias": antialias}
    steps = override(steps, resize=resize, crop=(28, 44), **changes)
    session = preprocessing(steps, (28, 44))
    for size in SIZES:
        pictures = pictures_of(size, 1)
        assert np.array_equal(session.run(["rows"], {"picture": pictures})[0][0], prepare(pictures[0], steps).rows), (
            size
        )


def test_grey_networks_and_networks_of_the_pictures_own_size():
    steps = preset_steps("unit", 20, 30, channels=1)
    pictures = pictures_of((61, 47))
    rows, seen = preprocessing(steps, (20, 30)).run(None, {"picture": pictures})
    expected = [prepare(picture, steps) for picture in pictures]
    assert np.array_equal(rows, np.stack([one.rows for one in expected]))
    assert np.array_equal(seen, np.stack([one.seen for one in expected]))
    steps = override(preset_steps("unit", 20, 30), resize="none")
    pictures = pictures_of((20, 30))
    assert np.array_equal(
        preprocessing(steps, (20, 30)).run(["rows"], {"picture": pictures})[0][0], prepare(pictures[0], steps).rows
    )


def drawing(layout: str, size: tuple[int, int], channels: int) -> onnxruntime.InferenceSession:
    def make(op: Emitter, attribution: ir.Value, seen: ir.Value) -> dict[str, Any]:
        heat = heat_of(op, attribution, layout, size)
        byte = ir.DataType.UINT8
        return {"heatmap": (as_bytes(op, heat), byte), "overlay": (overlaid(op, seen, heat), byte)}

    shape = [channels, *size] if layout == "NCHW" else [*size, channels]
    attribution = ir.val("attribution", ir.DataType.FLOAT, ["N", "T", *shape])
    return session_of(make, attribution, ir.val("seen", ir.DataType.FLOAT, ["N", *size, 3]))


@pytest.mark.parametrize(("layout", "channels"), [("NCHW", 3), ("NHWC", 3), ("NCHW", 1)])
def test_heat_maps_and_overlays(layout, channels):
    size = (23, 37)
    random = np.random.default_rng(1)
    shape = (channels, *size) if layout == "NCHW" else (*size, channels)
    maps = random.normal(size=(4, 2, *shape)).astype(np.float32)
    maps[1] = 0.3  # constant
    maps[2] = 0
    maps[3].reshape(2, -1)[:, 5] *= 1e6  # one pixel alone: the percentile is far below the largest
    maps[3] *= np.abs(maps[3]) > 3  # few pixels: the percentile is the minimum
    seen = pictures_of(size, 4)
    found = dict(
        zip(
            ("heatmap", "overlay"),
            drawing(layout, size, channels).run(None, {"attribution": maps, "seen": seen.astype(np.float32)}),
            strict=True,
        )
    )
    expected = heatmap(maps, layout)
    assert np.abs(found["heatmap"] - np.rint(expected * 255)).max() <= 1
    assert not found["heatmap"][1:3].any()
    assert found["heatmap"][3].max() == 255
    for target in range(2):
        drawn = overlay(seen, expected[:, target])
        assert np.abs(found["overlay"][:, target].astype(int) - drawn).max() <= 2
        assert (found["overlay"][:, target] == drawn).mean() > 0.98


@pytest.mark.parametrize("preset", ["torchvision", "caffe", "raw"])
def test_the_picture_comes_back_from_what_the_network_takes(preset):
    steps = preset_steps(preset, 24, 24)
    ready = prepare(pictures_of((24, 24), 1)[0], override(steps, resize="none", crop=(24, 24)))
    session = session_of(
        lambda op, image: {"seen": (undone(op, image, steps), ir.DataType.FLOAT)},
        ir.val("image", ir.DataType.FLOAT, ["N", 3, 24, 24]),
    )
    assert np.array_equal(session.run(None, {"image": ready.rows[None]})[0][0], ready.seen)
