"""How many rows a run takes is measured where that pays, once for each machine."""

import json
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from onnxplain import Explainer, calibration
from onnxplain.calibration import SIZES, Calibration, cache_folder
from onnxplain.planner import Chunk, chunks


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return cache_folder()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the time is."""
    now = [0.0]
    monkeypatch.setattr(calibration, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    return now


def slow_but_at(best: int, tried: list[int], clock: list[float]):
    """A run whose rows cost least in runs of `best` rows."""

    def run(chunk: Chunk) -> None:
        tried.append(chunk.rows)
        clock[0] += chunk.rows * (1 if chunk.rows == best else 2)

    return run


def new(explainer: Explainer, threads: int = 2) -> Calibration:
    return Calibration(explainer.bundle, "CPUExecutionProvider", threads)


def test_the_best_size_is_found_kept_and_known_to_the_next_process(
    cache: Path, explainer: Explainer, clock: list[float]
) -> None:
    graph, tried = explainer.bundle.graphs["gradient"], []
    one = new(explainer)
    assert one.rows(graph) is None
    one.measure(graph, slow_but_at(4, tried, clock), images=100, steps=48, most=16)
    assert tried == [rows for rows in (1, 2, 4, 8, 16) for _ in range(2)]
    assert one.rows(graph) == new(explainer).rows(graph) == 4
    one.measure(graph, slow_but_at(8, tried, clock), images=100, steps=48, most=16)
    assert len(tried) == 10  # once is enough
    assert new(explainer, threads=3).rows(graph) is None  # another machine, in effect
    assert [path.parent.name for path in cache.rglob("*.json")] == ["rows"]


@pytest.mark.usefixtures("cache", "clock")
def test_runs_of_the_shape_that_a_call_will_have_are_tried(explainer: Explainer) -> None:
    for name, shared in (("noise", True), ("path", False)):
        graph, tried = explainer.bundle.graphs[name], []
        assert graph.draws is shared
        new(explainer).measure(graph, tried.append, images=100, steps=50, most=4)
        assert tried == [next(chunks(100, 50, rows, shared=shared)) for rows in (1, 2, 4) for _ in range(2)]
        assert tried[-1].images.stop == (4 if shared else 1)


def test_little_work_is_not_worth_a_measurement(cache: Path, explainer: Explainer, clock: list[float]) -> None:
    tried: list[int] = []
    new(explainer).measure(explainer.bundle.graphs["gradient"], slow_but_at(4, tried, clock), 4, 25, most=16)
    assert not tried
    assert not cache.exists()


@pytest.mark.parametrize("content", ["", "[]", "{", '{"a": 1}'])
def test_a_broken_cache_is_measured_again(cache: Path, explainer: Explainer, clock: list[float], content: str) -> None:
    graph, tried = explainer.bundle.graphs["gradient"], []
    (cache / "rows").mkdir(parents=True)
    file = cache / "rows" / f"{explainer.bundle.sha256[:32]}.json"
    file.write_text(content, "utf-8")
    assert new(explainer).rows(graph) is None
    new(explainer).measure(graph, slow_but_at(2, tried, clock), 1000, 10, most=4)
    assert new(explainer).rows(graph) == 2
    assert json.loads(file.read_text("utf-8"))


def test_a_cache_that_cannot_be_written_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, explainer: Explainer, clock: list[float]
) -> None:
    (tmp_path / "file").write_text("in the way", "utf-8")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    graph, one = explainer.bundle.graphs["gradient"], new(explainer)
    one.measure(graph, slow_but_at(2, [], clock), 1000, 10, most=4)
    assert one.rows(graph) == 2


@pytest.mark.skipif(os.name == "nt", reason="Windows has folders of its own for caches")
def test_a_user_without_a_home_has_a_cache_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: Path, rows: np.ndarray
) -> None:
    def nobody() -> Path:
        raise RuntimeError("Could not determine home directory.")  # as pathlib has it

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", nobody)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert cache_folder() == tmp_path / f"onnxplain-{os.getuid()}"
    assert len(Explainer(folder, device="cpu").explain(rows, "gradient")) == len(rows)


def test_an_explanation_of_many_rows_calibrates_and_gives_the_same_maps(
    cache: Path, folder: Path, rows: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onnxplain.calibration.WORTH", 1)
    fixed = Explainer(folder, device="cpu", rows=3)
    explainer = Explainer(folder, device="cpu")
    expected = fixed.explain(rows, "smoothgrad", samples=30).attribution
    assert not cache.exists()  # who says how many rows gets them
    explainer.explain(rows, "smoothgrad", samples=30, memory="1GB")
    explainer.explain(rows, "smoothgrad", samples=30, targets=[[0, 1]] * len(rows))
    assert not cache.exists()  # what is best under a bound, or for several targets, isn't what is best
    first = explainer.explain(rows, "smoothgrad", samples=30).attribution
    known = explainer._runs.calibration.rows(explainer.bundle.graphs["noise"])
    assert known in SIZES
    assert os.listdir(cache / "rows")
    again = explainer.explain(rows, "smoothgrad", samples=30).attribution
    for maps in (first, again):
        assert np.linalg.norm(maps - expected) < 1e-5 * np.linalg.norm(expected)
