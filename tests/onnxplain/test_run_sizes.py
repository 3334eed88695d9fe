"""The rows of a run on an accelerator are bounded by its own memory, and on any machine by what a loop holds there."""

import pytest

from onnxplain import DeviceError, ParameterError, cuda_driver, planner
from onnxplain.bundle import Graph
from onnxplain.holding import Held
from onnxplain.planner import MOST_ROWS_ACCELERATED
from onnxplain.providers import CPU, CUDA
from onnxplain.run_sizes import RunSizes

GB = 10**9
ROW = 10**8
GRAPH = Graph("noise", "noise.onnx", "", (), (), None, bytes_per_row=ROW, bytes_per_run=ROW)


@pytest.fixture
def memory(monkeypatch, tmp_path):
    """Sets what is free on this machine and on its GPUs, and lists which of these were asked."""
    asked = []

    def set_up(here, there):
        def of_gpu(number):
            asked.append(number)
            return there

        monkeypatch.setattr(planner, "free_memory", lambda: here)
        monkeypatch.setattr(cuda_driver, "free_memory", of_gpu)
        return asked

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return set_up


def sizes(explainer, provider, rows=None):
    return RunSizes(explainer.bundle, provider, 2, rows)


def test_a_gpus_own_memory_counts_and_not_the_machines(explainer, memory):
    asked = memory(here=GB, there=4 * GB)
    found = sizes(explainer, (CUDA, {"device_id": "3"}))
    assert [found.rows(GRAPH, None) for _ in range(2)] == [19, 19]  # half of 4 GB, less what a run takes in any case
    assert found.rows(GRAPH, None, targets=5) == 3
    assert asked == [3]


@pytest.mark.parametrize("provider", [CUDA, (CUDA, {})])
def test_a_gpu_without_a_number_is_the_first(explainer, memory, provider):
    asked = memory(here=GB, there=100 * GB)
    assert sizes(explainer, provider).rows(GRAPH, None) == MOST_ROWS_ACCELERATED
    assert asked == [0]


def test_where_the_gpu_does_not_tell_the_machines_memory_counts(explainer, memory):
    memory(here=GB, there=None)
    assert sizes(explainer, CUDA).rows(GRAPH, None) == 4


@pytest.mark.parametrize("there", [100 * GB, None])
def test_what_a_provider_may_take_bounds_its_runs(explainer, memory, there):
    memory(here=100 * GB, there=there)
    for limit in (4 * GB, str(4 * GB)):
        assert sizes(explainer, (CUDA, {"gpu_mem_limit": limit})).rows(GRAPH, None) == 19
    memory(here=100 * GB, there=2 * GB)
    assert sizes(explainer, (CUDA, {"gpu_mem_limit": 4 * GB})).rows(GRAPH, None) == 9
    with pytest.raises(DeviceError, match="gpu_mem_limit='much' must be a number"):
        sizes(explainer, (CUDA, {"gpu_mem_limit": "much"}))


def test_what_is_best_on_one_gpu_is_not_taken_for_another(explainer, memory):
    memory(here=GB, there=GB)
    first, second = (sizes(explainer, (CUDA, {"device_id": number})).calibration for number in (0, 1))
    first.measure(GRAPH, lambda _: None, 1000, 1000, 4)
    assert first.rows(GRAPH) is not None
    assert second.rows(GRAPH) is None
    assert sizes(explainer, CUDA).calibration.rows(GRAPH) == first.rows(GRAPH)


@pytest.mark.parametrize("provider", [CPU, "CoreMLExecutionProvider"])
def test_others_are_not_asked_for_a_gpu(explainer, memory, provider):
    asked = memory(here=GB, there=100 * GB)
    assert sizes(explainer, provider, rows=50).rows(GRAPH, None) == 4
    assert asked == []


def test_what_a_loop_holds_lies_on_the_machine_and_a_groups_sums_on_the_gpu(explainer, memory):
    memory(here=4 * GB, there=4 * GB)
    found = sizes(explainer, CUDA)
    assert found.rows(GRAPH, None, held=Held(10**8, 0, 0), images=19) == 19  # 1.9 GB of the 2 GB here
    assert found.rows(GRAPH, None, held=Held(10**8, 2 * 10**7, 0), images=19) == 5
    assert found.rows(GRAPH, None, held=Held(0, 0, 10**9)) == 9


def test_a_bound_holds_for_both_memories_together(explainer, memory):
    asked = memory(here=GB, there=GB)
    found = sizes(explainer, CUDA)
    assert found.rows(GRAPH, "1GB", held=Held(10**8, 10**8, 10**8), images=3) == 2
    with pytest.raises(ParameterError, match=r"needs 700\.0 MB"):
        found.rows(GRAPH, "600MB", held=Held(10**8, 10**8, 10**8), images=3)
    assert asked == []
