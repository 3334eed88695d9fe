"""Sums that stay on a device are those of the usual path, to the last bit: tried with "cpu" as the device."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.testing import assert_array_equal
from onnx import TensorProto, helper

from onnxplain import Explainer, ModelError, resident
from onnxplain.planner import chunks
from onnxplain.providers import CPU, Place
from onnxplain.resident import ADDING, NOTHING_YET, accumulate, adding, bound_run, running
from onnxplain.sessions import EndedError, MemoryRanOutError, Sessions, shrinking
from onnxplain.summing import Feed
from tight_memory import least_memory

HERE = Place(CPU, "cpu")
METHODS = ("gradient", "smoothgrad", "integrated_gradients", "smoothgrad_integrated", "occlusion")
OUT_OF_MEMORY = "Failed to allocate memory for requested buffer of size 6422528000"


def moved(explainer):
    """The explainer, with its arrays kept on the "device"."""
    explainer._sessions.place = HERE
    return explainer


@pytest.fixture(autouse=True)
def asked_for(monkeypatch):
    """Lets both paths have the same runs, those of one size; the list says for which that was asked."""
    asked = []

    def of_one_size(images, steps, rows, alike, shared):
        asked.append(alike)
        return chunks(images, steps, rows, alike=True, shared=shared)

    monkeypatch.setattr("onnxplain.work.chunks", of_one_size)
    return asked


@pytest.fixture
def pair(folder):
    """The toy network on both paths, in runs of so many rows."""

    def make(rows=3):
        usual, there = (Explainer(folder, device="cpu", threads=1, rows=rows) for _ in range(2))
        return usual, moved(there)

    return make


def same(found, expected):
    """The maps and scores are equal bit for bit: of zeros, the signs too."""
    assert found.attribution.dtype == expected.attribution.dtype
    assert_array_equal(found.attribution.view(np.uint32), expected.attribution.view(np.uint32))
    assert_array_equal(found.scores, expected.scores)
    assert_array_equal(found.targets, expected.targets)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("size", [1, 2, 4, 7, 16])
@pytest.mark.parametrize("targets", [None, [[0, 2, 1]] * 5])
def test_runs_of_any_size_have_the_same_map(pair, rows, size, method, targets):
    usual, there = pair(size)
    same(there.explain(rows, method, targets=targets), usual.explain(rows, method, targets=targets))


def test_runs_on_a_device_are_of_one_size(pair, rows, asked_for):
    for explainer in pair():
        explainer.explain(rows, "smoothgrad")
    assert asked_for == [False, True]


@pytest.mark.parametrize("method", METHODS)
def test_under_a_bound_on_memory_the_map_is_the_same(folder, rows, method):
    usual, there = Explainer(folder, device="cpu", threads=1), moved(Explainer(folder, device="cpu", threads=1))
    memory = least_memory(usual, rows, method, 1)
    for bound in (memory, 2 * memory):
        same(there.explain(rows, method, 1, memory=bound), usual.explain(rows, method, 1, memory=bound))


def test_sums_are_in_double_precision_and_outputs_of_a_single_run_as_they_came(explainer, rows):
    graph, feeds = noise(explainer, rows, 6)
    for size, dtype in ((12, np.float32), (4, np.float64)):
        usual, there = (Sessions(explainer.bundle, [CPU], 1) for _ in range(2))
        there.place = HERE
        plan = list(chunks(2, 6, size))
        expected, found = (
            [sums for _, sums in accumulate(each, graph, ["total", "norm"], feeds, plan)] for each in (usual, there)
        )
        for one, other in zip(found, expected, strict=True):
            assert (one is None) == (other is None)
            if one is not None:
                assert [part.dtype for part in one] == [part.dtype for part in other] == [dtype, dtype]
                for part, as_usual in zip(one, other, strict=True):
                    assert_array_equal(part, as_usual)


def noise(explainer, rows, steps):
    """The toy's graph of noise and what it is fed for two images."""
    graph = explainer.bundle.graphs["noise"]
    table = np.stack([np.arange(steps), np.ones(steps), np.ones(steps), np.zeros(steps)], axis=1)
    return graph, {
        "image": Feed(rows[:2], per_image=True),
        "target": Feed(np.array([[1], [2]]), per_image=True),
        "steps": Feed(table[None].astype(np.float32), per_step=True),
        "baseline": Feed(np.zeros((1, 3, 8, 8), np.float32)),
        "sigma": Feed(np.array([0.1, 0.2], np.float32), per_image=True),
        "seed": Feed(np.zeros(1, np.int64)),
    }


def test_what_runs_share_goes_to_the_device_once(explainer, rows, monkeypatch):
    """Two groups of an image each, in three runs each: an image goes up for its group, a baseline once for both."""
    sent, send = [], onnxruntime.OrtValue.ortvalue_from_numpy
    monkeypatch.setattr(
        onnxruntime.OrtValue, "ortvalue_from_numpy", lambda array, *at: sent.append(array.shape) or send(array, *at)
    )
    fetched, fetch = [], resident.down
    monkeypatch.setattr(resident, "down", lambda values: fetched.append(len(values)) or fetch(values))
    graph, feeds = noise(explainer, rows, 6)
    there = Sessions(explainer.bundle, [CPU], 1)
    there.place = HERE
    list(accumulate(there, graph, ["total", "norm"], feeds, chunks(2, 6, 2)))
    sent = [shape for shape in sent if shape != ()]  # the start of each sum
    assert sorted(sent) == sorted(
        [(1, 3, 8, 8)] * 3 + [(1, 1)] * 2 + [(1,)] * 3 + [(1, 2, 4)] * 6  # images and baseline; targets; σ and seed
    )
    assert fetched == [2, 2]


def test_what_is_measured_is_what_is_done(explainer, rows, monkeypatch):
    """The best size of runs is found by runs whose images are on the device, and whose sums stay there."""
    ran, run = [], bound_run
    monkeypatch.setattr(resident, "bound_run", lambda *given: ran.append(given[2]["image"]) or run(*given))
    graph, feeds = noise(explainer, rows, 6)
    chunk = next(chunks(2, 6, 4))
    usual, there = (Sessions(explainer.bundle, [CPU], 1) for _ in range(2))
    there.place = HERE
    expected = running(usual, graph, ["total"], feeds)(chunk)
    assert ran == []
    measured = running(there, graph, ["total"], feeds)
    for _ in range(2):
        assert_array_equal(measured(chunk)[0].numpy(), expected[0])
    assert ran[0] is ran[1]


def test_a_cpu_is_no_device(folder, rows, monkeypatch):
    monkeypatch.setattr(resident, "bound_run", lambda *_: 1 / 0)
    Explainer(folder, device="cpu").explain(rows, "smoothgrad")


# Memory that runs out.


@pytest.fixture
def tight(monkeypatch):
    """Lets runs of a graph run out of memory on both paths, where `fails(number of the run, its rows)`."""
    count = [0]

    def set_up(fails):
        run, run_there = Sessions.run, resident.bound_run

        def check(image, steps):
            count[0] += 1
            if fails(count[0], image[0] * (steps[1] if steps else 1)):
                raise RuntimeError(OUT_OF_MEMORY)

        def tight_run(self, graph, outputs, feeds):
            try:
                check(feeds["image"].shape, feeds["steps"].shape if "steps" in feeds else None)
            except RuntimeError as error:
                raise MemoryRanOutError from error
            return run(self, graph, outputs, feeds)

        def tight_run_there(session, place, inputs, outputs, options=None):
            if "image" in inputs:
                check(inputs["image"].shape(), inputs["steps"].shape() if "steps" in inputs else None)
            return run_there(session, place, inputs, outputs, options)

        monkeypatch.setattr(Sessions, "run", tight_run)
        monkeypatch.setattr(resident, "bound_run", tight_run_there)

    return set_up, count


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("targets", [None, [[0, 2]] * 5])
@pytest.mark.parametrize("size", [6, 16])
@pytest.mark.parametrize(
    "fails",
    [lambda _, rows: rows > 1, lambda number, rows: number % 3 == 0 and rows > 1, lambda _, rows: rows > 5],
    ids=["always", "every third", "above five"],
)
def test_where_memory_runs_out_the_map_is_that_of_the_usual_path_in_the_same_plight(
    pair, rows, tight, size, method, targets, fails
):
    (usual, there), (set_up, count) = pair(size), tight
    set_up(fails)
    expected, needed = usual.explain(rows, method, targets=targets), count[0]
    count[0] = 0
    same(there.explain(rows, method, targets=targets), expected)
    assert count[0] == needed


def test_a_single_row_that_fails_is_an_error_that_says_so(pair, rows, tight):
    set_up, _ = tight
    set_up(lambda *_: True)
    with pytest.raises(ModelError, match=r"memory ran out in a run of a single row of noise\.onnx"):
        pair()[1].explain(rows, "smoothgrad", targets=1)


def test_no_memory_for_what_is_fed_makes_runs_smaller(pair, rows, monkeypatch):
    usual, there = pair(10)
    send, large = onnxruntime.OrtValue.ortvalue_from_numpy, []

    def refuse(array, *at):
        if array.shape[:1] > (1,) and array.shape[1:] == (3, 8, 8):
            large.append(len(array))
            raise RuntimeError(OUT_OF_MEMORY)
        return send(array, *at)

    expected = usual.explain(rows, "gradient", 1).attribution
    monkeypatch.setattr(onnxruntime.OrtValue, "ortvalue_from_numpy", refuse)
    assert_array_equal(there.explain(rows, "gradient", 1).attribution, expected)
    assert large[:2] == [5, 2]


class Refusing:
    """A session that adds, now and then."""

    def __init__(self, session, message):
        self.session, self.message, self.count = session, message, 0

    def __getattr__(self, name):
        return getattr(self.session, name)

    def run_with_iobinding(self, binding, options):
        self.count += 1
        if self.count % 2:
            raise RuntimeError(self.message)
        self.session.run_with_iobinding(binding, options)


@pytest.fixture
def refusing(monkeypatch):
    def make(message):
        session = Refusing(adding(HERE, TensorProto.FLOAT), message)
        monkeypatch.setattr(resident, "adding", lambda *_: session)
        return session

    return make


def test_no_memory_to_add_up_there_is_none_lost(pair, rows, refusing):
    usual, there = pair()
    session = refusing(OUT_OF_MEMORY)
    same(there.explain(rows, "smoothgrad"), usual.explain(rows, "smoothgrad"))
    assert session.count > 2


def test_another_failure_to_add_up_is_an_error(pair, rows, refusing):
    refusing("no kernel for Add")
    with pytest.raises(ModelError, match="adding up failed: no kernel for Add"):
        pair()[1].explain(rows, "smoothgrad")


def test_memory_that_ran_out_closes_the_sessions_that_wait(pair, rows, tight):
    _, there = pair()
    there.explain(rows, "smoothgrad")
    there.explain(rows, "integrated_gradients")
    assert {"noise", "path"} <= set(there._sessions._open)
    set_up, _ = tight
    set_up(lambda number, _: number == 1)
    there.explain(rows, "smoothgrad", targets=1)
    assert "noise" in there._sessions._open
    assert "path" not in there._sessions._open


# Memory that is bounded.


@pytest.mark.parametrize("memory", [None, "1MB"])
def test_under_a_bound_each_run_gives_back_what_it_took(pair, rows, monkeypatch, memory):
    given, run = [], bound_run

    def watched(session, place, inputs, outputs, options=None):
        given.append(options)
        return run(session, place, inputs, outputs, options)

    monkeypatch.setattr(resident, "bound_run", watched)
    pair()[1].explain(rows, "smoothgrad", memory=memory)  # what is added up, too
    assert set(given) == {None if memory is None else shrinking(HERE)}


def test_want_of_memory_does_not_pass_for_an_arena_that_is_unknown(monkeypatch):
    class Full:
        def __init__(self, *_, **__):
            pass

        def run(self, *_):
            raise RuntimeError(OUT_OF_MEMORY)

    monkeypatch.setattr(onnxruntime, "InferenceSession", Full)
    with pytest.raises(RuntimeError, match="Failed to allocate"):
        shrinking(Place(CPU, "cpu", 7))


def test_a_device_whose_arena_is_unknown_is_not_told_to_shrink_it():
    assert shrinking(HERE) is not None
    assert shrinking(Place(CPU, "elsewhere", 3)) is None


# Threads, and calls that end.


def test_threads_share_one_explainer(folder, rows):
    there = moved(Explainer(folder, device="cpu", rows=3))
    expected = {method: there.explain(rows, method).attribution for method in METHODS}
    jobs = [method for method in METHODS for _ in range(4)]
    with ThreadPoolExecutor(8) as pool:
        for method, result in zip(jobs, pool.map(lambda method: there.explain(rows, method), jobs), strict=True):
            assert_array_equal(result.attribution, expected[method])


def test_no_run_begins_once_nobody_wants_it(pair, rows, monkeypatch):
    _, there = pair()
    ended, runs, run = threading.Event(), [], bound_run

    def last(session, place, inputs, outputs, options=None):
        runs.append(outputs)
        ended.set()
        return run(session, place, inputs, outputs, options)

    monkeypatch.setattr(resident, "bound_run", last)
    there.until(ended)
    with pytest.raises(EndedError):
        there.explain(rows, "smoothgrad", 1)
    assert len(runs) == 1


# The graph that adds.

TYPES = [TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.INT64]


@pytest.mark.parametrize("part", TYPES)
def test_the_model_that_adds_is_what_it_says(part):
    nodes = [
        helper.make_node("Cast", ["part"], ["wide"], to=TensorProto.DOUBLE),
        helper.make_node("Add", ["total", "wide"], ["sum"]),
    ]
    inputs = [
        helper.make_tensor_value_info(name, type_, None)
        for name, type_ in (("total", TensorProto.DOUBLE), ("part", part))
    ]
    output = helper.make_tensor_value_info("sum", TensorProto.DOUBLE, None)
    graph = helper.make_graph(nodes, "adding", inputs, [output])
    expected = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    found = onnx.load_model_from_string(ADDING[0] + bytes([part]) + ADDING[1])
    assert found == expected


@pytest.mark.parametrize("part", TYPES)
def test_it_adds_as_numpy_does(part):
    draw = np.random.default_rng(2)
    total = draw.normal(size=(2, 1, 3)) * 10.0 ** draw.integers(-8, 8, (2, 1, 3))
    further = (1000 * draw.normal(size=(1, 4, 3))).astype(helper.tensor_dtype_to_np_dtype(part))
    session = adding(HERE, part)
    found = session.run(None, {"total": total, "part": further})[0]
    assert_array_equal(found, np.add(total, further, dtype=np.float64))


def test_a_sum_begins_with_what_changes_no_number():
    numbers = np.array([0.0, -0.0, 1e-45, -3.5, np.inf], np.float32)
    found = adding(HERE, TensorProto.FLOAT).run(None, {"total": NOTHING_YET, "part": numbers})[0]
    assert_array_equal(found.view(np.uint64), numbers.astype(np.float64).view(np.uint64))


def test_there_is_one_session_for_each_place_and_type():
    assert adding(HERE, TensorProto.FLOAT) is adding(Place(CPU, "cpu"), TensorProto.FLOAT)
    assert adding(HERE, TensorProto.FLOAT) is not adding(HERE, TensorProto.DOUBLE)
