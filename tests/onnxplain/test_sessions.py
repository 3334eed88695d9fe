"""Sessions take little memory, and no more than they are told to."""

import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

import onnxplain
from onnxplain.sessions import session_options

ROW = 4 * 2**20
# A process of its own, since the arena is shared by a whole process and others would have filled it.
PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
import numpy as np
from onnxplain.runtime import onnxruntime
from onnxplain.sessions import session_options

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096

session = onnxruntime.InferenceSession(sys.argv[2], session_options(1), providers=["CPUExecutionProvider"])
image = np.ones((int(sys.argv[3]), 1 << 20), np.float32)
before = resident()
for _ in range(3):
    session.run(None, {"x": image})
print(resident() - before)
"""


@pytest.mark.parametrize("threads", [None, 1, 3])
def test_threads_are_those_asked_for(threads):
    assert session_options(threads).intra_op_num_threads == (threads or 0)


def chain(path):
    """Ten sines: two buffers of the input's size are in use at once."""
    nodes = [helper.make_node("Sin", ["x" if i == 0 else f"v{i}"], [f"v{i + 1}"]) for i in range(10)]
    nodes.append(helper.make_node("ReduceMean", ["v10"], ["y"]))
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 1 << 20])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "chain", [x], [y])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the system doesn't tell the size of a process")
@pytest.mark.parametrize("rows", [3, 5, 9])
def test_the_arena_grows_by_what_is_asked_for_and_not_to_the_next_power_of_two(tmp_path, rows):
    chain(tmp_path / "chain.onnx")
    root = Path(onnxplain.__file__).parent.parent
    command = [sys.executable, "-c", PROGRAM, str(root), str(tmp_path / "chain.onnx"), str(rows)]
    growth = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert growth < 2.3 * rows * ROW


def test_a_run_that_fails_is_not_done_again_elsewhere(explainer, rows):
    explainer.explain(rows)
    assert {session._enable_fallback for session in explainer._sessions._open.values()} == {False}


def test_dense_layers_of_quantised_weights_are_computed_in_full():
    assert session_options().get_session_config_entry("session.qdq_matmulnbits_accuracy_level") == "1"


def test_threads_do_not_go_on_spinning_when_their_run_has_ended():
    assert session_options().get_session_config_entry("session.force_spinning_stop") == "1"
