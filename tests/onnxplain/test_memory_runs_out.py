"""Memory that runs out in the middle of a call: smaller runs, the same map, and no other error taken for it."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from onnxplain import Explainer, ModelError
from onnxplain.planner import Chunk
from onnxplain.sessions import GROW_AFTER, MemoryRanOutError, Sessions, ran_out
from onnxplain.summing import Feed, run_chunk, side_by_side

METHODS = ("gradient", "smoothgrad", "integrated_gradients", "smoothgrad_integrated", "occlusion")
RAN_OUT = (
    "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Non-zero status code returned while running Conv node. Name:'c' "
    "Status Message: /onnxruntime/core/framework/bfc_arena.cc:376 void* onnxruntime::BFCArena::AllocateRawInternal("
    "size_t, bool) Failed to allocate memory for requested buffer of size 6422528000\n",
    "[ONNXRuntimeError] : 1 : FAIL : Available memory of 1024 is smaller than requested bytes of 4096",
    "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Exception during initialization: std::bad_alloc",
    "std::bad_alloc",
    "bad allocation",
    "[ONNXRuntimeError] : 1 : FAIL : CUDA failure 2: out of memory ; GPU=0 ; hostname=h ; file=cuda_allocator.cc",
    "[ONNXRuntimeError] : 1 : FAIL : CUDNN failure 4: CUDNN_STATUS_ALLOC_FAILED ; GPU=0",
    "CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED ; GPU=0 ; hostname=h",
)
SOMETHING_ELSE = (
    "[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : Invalid input name: out of memory",
    "[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : Failed to allocate memory for requested buffer of size 4",
    "[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : Got invalid dimensions for input: std::bad_alloc\n",
    "[ONNXRuntimeError] : 9 : NOT_IMPLEMENTED : Could not find an implementation for Conv(11) 'bad_alloc'",
    "[ONNXRuntimeError] : 10 : INVALID_GRAPH : This is an invalid model. Error: memory",
    "[ONNXRuntimeError] : 3 : NO_SUCHFILE : Load model from out of memory.onnx failed. File doesn't exist",
    "[ONNXRuntimeError] : 7 : INVALID_PROTOBUF : Load model from m.onnx failed: Protobuf parsing failed.",
    "[ONNXRuntimeError] : 1 : FAIL : Non-zero status code returned while running Conv node. Name:'out of memory/Conv'",
    "[ONNXRuntimeError] : 1 : FAIL : CUDA failure 700: an illegal memory access was encountered ; GPU=0",
    "[ONNXRuntimeError] : 1 : FAIL : CUDA failure 35: CUDA driver version is insufficient ; GPU=0",
    "[ONNXRuntimeError] : 1 : FAIL : CUDA failure 98: invalid device function ; GPU=0",
    "[ONNXRuntimeError] : 1 : FAIL : CUDNN failure 9: CUDNN_STATUS_NOT_SUPPORTED ; GPU=0",
    "[ONNXRuntimeError] : 1 : FAIL : CUBLAS failure 13: CUBLAS_STATUS_EXECUTION_FAILED",
    "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : bfc_arena.h:343 RegionFor Could not find Region for 0x55c4",
    "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : BFCArena::Free was called on a null pointer",
    "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Name:'bad_alloc_1' The input tensor cannot be reshaped",
    "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Input shape:{1,3}, requested shape:{2,2}",
    "[ONNXRuntimeError] : 1 : FAIL : Memory pattern planner is on but the shapes are unknown",
    "[ONNXRuntimeError] : 1 : FAIL : Allocator of memory type 'Cuda' isn't registered",
    "Unable to open shared memory /dev/shm/x",
    "operands could not be broadcast together with shapes (2,3) (4,)",
)


@pytest.mark.parametrize("message", RAN_OUT)
def test_messages_of_memory_that_ran_out_are_known(message):
    assert ran_out(RuntimeError(message))


@pytest.mark.parametrize("message", SOMETHING_ELSE)
def test_no_other_message_is_taken_for_it(message):
    assert not ran_out(RuntimeError(message))


def test_pythons_own_error_is_known():
    assert ran_out(MemoryError("Unable to allocate 3.2 GiB for an array"))


class Failing:
    """A session that fails now and then: `fails(number of the run, its rows)`."""

    def __init__(self, session, fails, message=RAN_OUT[0]):
        self.session, self.fails, self.message = session, fails, message
        self.sizes = []

    def run(self, outputs, feeds, options=None):
        rows = feeds["image"].shape[0] * (feeds["steps"].shape[1] if "steps" in feeds else 1)
        self.sizes.append(rows)
        if self.fails(len(self.sizes), rows):
            raise RuntimeError(self.message)
        return self.session.run(outputs, feeds, options)


@pytest.fixture
def failing(folder, monkeypatch):
    """Gives an explainer whose sessions fail, and a list of those sessions."""

    def make(fails, message=RAN_OUT[0]):
        made, create = [], Sessions._create

        def created(self, graph):
            made.append(Failing(create(self, graph), fails, message))
            return made[-1]

        monkeypatch.setattr(Sessions, "_create", created)
        return Explainer(folder, device="cpu", rows=16), made  # not as many as were once measured best here

    return make


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("every", [1, 2, 3, 5])
def test_a_map_is_the_same_when_memory_runs_out_at_every_so_many_runs(explainer, rows, failing, method, every):
    expected = explainer.explain(rows, method, targets=[[0, 2]] * 5)
    disturbed, sessions = failing(lambda number, size: number % every == 0 and size > 1)
    found = disturbed.explain(rows, method, targets=[[0, 2]] * 5)
    assert sum(len(session.sizes) for session in sessions) > 1
    scale = np.abs(expected.attribution).max()
    assert_allclose(found.attribution, expected.attribution, atol=1e-6 * scale, rtol=0)
    assert_allclose(found.scores, expected.scores, rtol=1e-6)


def test_runs_stay_small_while_there_is_no_memory_for_more(rows, failing):
    explainer, sessions = failing(lambda _, size: size > 4)
    explainer.explain(rows, "smoothgrad", samples=16)
    sizes = sessions[-1].sizes
    assert sizes[:3] == [16, 8, 4]
    assert len([size for size in sizes if size > 4]) <= 2 + len(sizes) // GROW_AFTER


def test_runs_grow_again_when_there_is_memory(rows, failing):
    explainer, sessions = failing(lambda number, size: number <= 2 and size > 1)
    explainer.explain(rows, "smoothgrad", samples=16 * 16)
    assert sessions[-1].sizes[:3] == [16, 8, 4]
    assert sessions[-1].sizes[-1] == 16


def test_a_single_row_that_fails_is_an_error_that_says_so(rows, failing):
    explainer, _ = failing(lambda *_: True)
    with pytest.raises(ModelError, match=r"memory ran out in a run of a single row of \w+\.onnx"):
        explainer.explain(rows, "smoothgrad")


@pytest.mark.parametrize("message", SOMETHING_ELSE[:8])
def test_another_failure_is_not_tried_again(rows, failing, message):
    explainer, sessions = failing(lambda *_: True, message)
    with pytest.raises(ModelError, match="failed"):
        explainer.explain(rows, "smoothgrad")
    assert [len(session.sizes) for session in sessions if session.sizes] == [1]


class Recorder:
    """Sessions whose answer is each row's image and step, for at most `most` rows."""

    def __init__(self, most):
        self.sessions, self.most = Sessions(None, [], None), most

    def __getattr__(self, name):
        return getattr(self.sessions, name)

    def run(self, _graph, _outputs, feeds):
        images, steps = feeds["image"][:, 0], feeds["steps"][0, :, 0]
        if len(images) * len(steps) > self.most:
            raise MemoryRanOutError("too many")
        return [images[:, None] * 100 + steps, np.ones((1, len(steps)))]


@pytest.mark.parametrize(("images", "steps"), [(3, 5), (5, 1), (5, 2)])
@pytest.mark.parametrize("most", [1, 2, 4, 7, 15])
def test_outputs_of_halves_lie_side_by_side(explainer, images, steps, most):
    graph = explainer.bundle.graphs["noise"]
    feeds = {
        **{entry.key: Feed(np.zeros((1, 1), np.float32)) for entry in graph.inputs},
        "image": Feed(np.arange(images, dtype=np.float32)[:, None], per_image=True),
        "steps": Feed(np.arange(steps, dtype=np.float32)[None, :, None], per_step=True),
    }
    chunk = Chunk(slice(0, images), slice(0, steps), True, True)
    table, shared = run_chunk(Recorder(most), graph, ["a", "b"], feeds, chunk, side_by_side)
    assert table.tolist() == [[100 * image + step for step in range(steps)] for image in range(images)]
    assert shared.shape in ((1, steps), (images, steps))
    assert (shared == 1).all()
