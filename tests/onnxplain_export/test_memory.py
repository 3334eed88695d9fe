"""The memory of runs, as export measures it."""

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnxplain_export.memory import ALWAYS, ROWS, line_above, measured_memory

WIDTH = 1 << 20
ROW = 4 * WIDTH


def sines(path: Path) -> None:
    """Two buffers of the input's size are in use at once."""
    nodes = [helper.make_node("Sin", ["x" if i == 0 else f"v{i}"], [f"v{i + 1}"]) for i in range(6)]
    nodes.append(helper.make_node("ReduceMean", ["v6"], ["y"]))
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", WIDTH])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "sines", [x], [y])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux tells the highest point")
def test_every_graph_is_measured_as_if_it_were_the_first(tmp_path: Path) -> None:
    """The arena that all sessions share must not serve a graph with what an earlier one left."""
    names = ["one", "two", "three"]
    sines(tmp_path / "one.onnx")
    for name in names[1:]:
        shutil.copy(tmp_path / "one.onnx", tmp_path / f"{name}.onnx")
    runs = [[{"name": "x", "dtype": "float32", "shape": [None, WIDTH]}]]
    found = measured_memory(tmp_path, dict.fromkeys(names, runs))
    for per_row, per_run in found.values():
        assert 2 * ROW <= per_row < 2.5 * ROW
        assert ALWAYS <= per_run < ALWAYS + ROW


def test_no_measured_size_lies_above_the_line() -> None:
    rows = np.array(ROWS, np.float64)
    for grown in (5 * rows, 5 * rows + 100, 3 * np.sqrt(rows) * 1e6, np.array([1.0, 50.0, 60.0]) * 1e6):
        slope, offset = line_above([rows, grown], 0)
        assert (slope * rows + offset - ALWAYS >= grown).all()
        assert (slope * rows + offset - ALWAYS).max() < 2 * grown.max()


def test_what_cant_be_measured_is_taken_for_the_least_that_is_likely() -> None:
    assert line_above([ROWS, [0, 0, 0]], 7.0) == (7, ALWAYS)
