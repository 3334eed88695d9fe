import numpy as np
import pytest

from onnxplain import planner
from onnxplain.errors import ParameterError
from onnxplain.planner import (
    BEST_BYTES,
    LEAST_ROWS,
    MOST_ROWS,
    Chunk,
    chunks,
    images_at_once,
    parse_memory,
    room,
    rows_per_run,
    useful_rows,
)

GB = 10**9


@pytest.mark.parametrize("images", [0, 1, 2, 7, 33])
@pytest.mark.parametrize("steps", [1, 3, 25, 100])
@pytest.mark.parametrize("rows", [1, 2, 5, 32])
@pytest.mark.parametrize("shared", [False, True])
def test_every_image_meets_every_step_once_and_no_run_is_too_large(images, steps, rows, shared):
    met = np.zeros((images, steps), int)
    open_images = None
    for chunk in chunks(images, steps, rows, shared=shared):
        part = met[chunk.images, chunk.steps]
        assert 1 <= part.size <= rows
        met[chunk.images, chunk.steps] += 1
        # The sums rest on this order: one group of images at a time, from its first step to its last.
        assert chunk.first == (open_images is None)
        assert open_images in (None, chunk.images)
        open_images = None if chunk.last else chunk.images
        assert chunk.last == (met[chunk.images].min() == 1)
    assert (met == 1).all()
    assert open_images is None


def test_runs_are_of_nearly_equal_size_so_that_memory_is_reused():
    sizes = [chunk.steps.stop - chunk.steps.start for chunk in chunks(1, 50, 32)]
    assert sizes == [25, 25]


def test_no_run_is_larger_than_the_one_before_it_so_that_memory_is_reused():
    """A run of eight rows after one of seven finds no block that is large enough, and takes twice the memory."""
    sizes = [chunk.steps.stop - chunk.steps.start for chunk in chunks(1, 36, 8)]
    assert sizes == [8, 7, 7, 7, 7]


@pytest.mark.parametrize("rows", [1, 2, 3, 16, 64])
def test_what_is_drawn_for_a_step_is_drawn_for_many_images_in_no_more_runs(rows):
    for images in (1, 2, 3, 5, 16, 17, 33):
        for steps in (1, 4, 25, 50):
            usual, shared = list(chunks(images, steps, rows)), list(chunks(images, steps, rows, shared=True))
            sizes = [chunk.rows for chunk in shared]
            assert len(shared) <= len(usual)
            assert max(sizes) == sizes[0]
            assert drawn(shared) <= drawn(usual)
    assert drawn(chunks(2, 8, 2, shared=True)) == 8
    assert drawn(chunks(16, 25, 16, shared=True)) == 25
    assert drawn(chunks(5, 25, 16, shared=True)) == 25


def drawn(runs):
    """How many draws the runs make together."""
    return sum(chunk.steps.stop - chunk.steps.start for chunk in runs)


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_the_halves_of_a_chunk_are_the_chunk(steps):
    chunk = Chunk(slice(2, 5), slice(3, 3 + steps), True, True)
    before, after = chunk.halves()
    assert before.rows + after.rows == chunk.rows == 3 * steps
    if steps > 1:
        assert (before.images, after.images) == (chunk.images, chunk.images)
        assert (before.steps.start, before.steps.stop, after.steps.stop) == (3, after.steps.start, 3 + steps)
        assert (before.first, before.last, after.first, after.last) == (True, False, False, True)
    else:
        assert (before.images, after.images) == (slice(2, 3), slice(3, 5))
        assert (before.first, before.last, after.first, after.last) == (True, True, True, True)


def test_a_run_on_a_cpu_is_as_large_as_its_caches_and_threads_want():
    assert useful_rows(50 * 10**6, threads=2) == LEAST_ROWS
    assert useful_rows(50 * 10**6, threads=8) == 8
    assert useful_rows(50 * 10**6, threads=64) == MOST_ROWS
    assert useful_rows(8 * 10**6, threads=2) == BEST_BYTES // (8 * 10**6)
    assert useful_rows(1000, threads=2) == MOST_ROWS
    assert useful_rows(1000, threads=2, most=5) == 5


def test_what_a_call_holds_is_taken_off_its_memory():
    assert rows_per_run(10**8, "1GB", beside=35 * 10**7) == 6
    with pytest.raises(ParameterError, match=r"needs 450\.0 MB"):
        rows_per_run(10**8, "400MB", beside=35 * 10**7)
    assert rows_per_run(10**8, "450.0 MB", beside=35 * 10**7) == 1


def test_images_are_explained_in_groups_whose_arrays_take_half_of_the_memory():
    assert [part.stop - part.start for part in images_at_once(10, 10**8, 10**7, 2 * 10**7)] == [4, 3, 3]
    assert images_at_once(10, 10**9, 10**7, 0) == [slice(0, 10)]
    assert len(images_at_once(3, 10**6, 10**7, 0)) == 3


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("2GB", 2 * GB),
        ("500MB", 5 * 10**8),
        ("1.5 gb", 15 * 10**8),
        ("1000", 1000),
        (1000, 1000),
        (2e9, 2 * GB),
        ("3kB", 3000),
    ],
)
def test_memory_is_read_in_powers_of_ten(text, size):
    assert parse_memory(text) == size


@pytest.mark.parametrize("text", ["", "lots", "2 GiB", "-1GB", "0", 0, -5, True, 0.5, float("nan")])
def test_what_is_no_amount_of_memory_is_an_error(text):
    with pytest.raises(ParameterError, match="memory="):
        parse_memory(text)


def test_memory_bounds_the_rows_of_a_run():
    assert rows_per_run(10**8, "1GB") == 10
    assert rows_per_run(10**8, "1GB", targets=3) == 3


def test_memory_for_less_than_one_row_is_an_error_that_says_what_is_needed():
    with pytest.raises(ParameterError, match=r"150\.0 MB"):
        rows_per_run(15 * 10**7, "100MB")


def test_more_rows_than_help_are_never_taken():
    assert rows_per_run(1, None) == MOST_ROWS
    assert rows_per_run(1, "100GB") == MOST_ROWS
    assert rows_per_run(1, "100GB", targets=5, most=64) == 12


def test_without_memory_a_share_of_what_is_free_is_used_and_at_least_one_row(monkeypatch):
    monkeypatch.setattr(planner, "free_memory", lambda: GB)
    assert rows_per_run(10**8, None) == 5
    assert rows_per_run(10 * GB, None) == 1


def test_what_is_free_is_asked_once_in_a_while(monkeypatch):
    """Reading it takes as long as a small map."""
    asked, now = [], [50.0]
    monkeypatch.setattr(planner, "free_memory", lambda: asked.append(now[0]) or len(asked) * GB)
    monkeypatch.setattr(planner.time, "monotonic", lambda: now[0])
    found = []
    for seconds in (0, planner.FRESH / 2, planner.FRESH / 4, planner.FRESH / 2, 10):
        now[0] += seconds
        found.append(room(None))
    assert found == [GB // 2, GB // 2, GB // 2, GB, 3 * GB // 2]
    assert len(asked) == 3


@pytest.mark.parametrize("rows", [1, 2, 5, 16, 64])
def test_runs_are_of_one_size_where_that_takes_few_more(rows):
    for images in (1, 3, 4, 7, 10):
        for steps in (1, 25, 50, 113, 225, 500):
            usual, alike = list(chunks(images, steps, rows)), list(chunks(images, steps, rows, alike=True))
            assert sum(chunk.rows for chunk in alike) == images * steps
            assert max(chunk.rows for chunk in alike) <= max(rows, 1)
            assert len(alike) <= 2 * len(usual)
    for steps, most, size in ((225, 64, 45), (500, 64, 50), (96, 64, 48), (64, 64, 64)):
        assert {chunk.rows for chunk in chunks(2, steps, most, alike=True)} == {size}
    assert {chunk.rows for chunk in chunks(1, 113, 64, alike=True)} == {57, 56}  # a prime number has no equal parts


def test_memory_that_is_given_is_not_asked_for(monkeypatch):
    monkeypatch.setattr(planner, "free_memory", lambda: 1 / 0)
    assert room("3MB") == room("3MB", GB) == 3 * 10**6
    assert room(None, GB) == GB // 2
    assert rows_per_run(10**8, None, free=GB) == 5
