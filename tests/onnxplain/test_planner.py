import numpy as np
import pytest

from onnxplain import planner
from onnxplain.errors import ParameterError
from onnxplain.planner import MOST_ROWS, chunks, free_memory, parse_memory, rows_per_run

GB = 10**9


@pytest.mark.parametrize("images", [0, 1, 2, 7, 33])
@pytest.mark.parametrize("steps", [1, 3, 25, 100])
@pytest.mark.parametrize("rows", [1, 2, 5, 32])
def test_every_image_meets_every_step_once_and_no_run_is_too_large(images, steps, rows):
    met = np.zeros((images, steps), int)
    open_images = None
    for chunk in chunks(images, steps, rows):
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
    with pytest.raises(ParameterError, match="150 MB"):
        rows_per_run(15 * 10**7, "100MB")


def test_more_rows_than_help_are_never_taken():
    assert rows_per_run(1, None) == MOST_ROWS
    assert rows_per_run(1, "100GB") == MOST_ROWS
    assert rows_per_run(1, "100GB", targets=5, most=64) == 12


def test_without_memory_a_share_of_what_is_free_is_used_and_at_least_one_row(monkeypatch):
    monkeypatch.setattr(planner, "free_memory", lambda: GB)
    assert rows_per_run(10**8, None) == 5
    assert rows_per_run(10 * GB, None) == 1


def machine(tmp_path, monkeypatch, available=8 * GB, group="0::/slice\n"):
    """A pretended /proc and /sys/fs/cgroup."""
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text(f"MemTotal: 16000000 kB\nMemAvailable: {available // 1024} kB\n")
    (tmp_path / "proc/self/cgroup").write_text(group)
    monkeypatch.setattr(planner, "PROC", tmp_path / "proc")
    monkeypatch.setattr(planner, "CGROUP", tmp_path / "cgroup")
    return tmp_path / "cgroup"


def limited(folder, names, limit, used, cache=0):
    folder.mkdir(parents=True)
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 1\ninactive_file {cache}\n")


TWO, ONE = ("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes")


def test_free_memory_is_what_the_system_has_available(tmp_path, monkeypatch):
    machine(tmp_path, monkeypatch)
    assert free_memory() == pytest.approx(8 * GB, rel=1e-3)


@pytest.mark.parametrize(
    ("names", "folder", "group"),
    [
        (TWO, "", "0::/\n"),
        (TWO, "slice/job", "0::/slice/job\n"),
        (TWO, "slice", "0::/slice/job\n"),
        (ONE, "memory", "4:memory:/\n"),
        (ONE, "memory/slice", "3:cpu:/x\n4:memory:/slice\n"),
    ],
)
def test_a_control_groups_limit_counts_less_what_is_used_without_the_cache(tmp_path, monkeypatch, names, folder, group):
    root = machine(tmp_path, monkeypatch, group=group)
    limited(root / folder, names, 3 * GB, 2 * GB, cache=GB // 2)
    assert free_memory() == 3 * GB // 2


def test_a_group_without_limit_or_over_it_is_understood(tmp_path, monkeypatch):
    root = machine(tmp_path, monkeypatch)
    limited(root, TWO, "max", 2 * GB)
    assert free_memory() == pytest.approx(8 * GB, rel=1e-3)
    limited(root / "slice", TWO, GB, 2 * GB)
    assert free_memory() == 0


def test_a_system_that_tells_nothing_still_gets_an_amount(tmp_path, monkeypatch):
    monkeypatch.setattr(planner, "PROC", tmp_path)
    monkeypatch.setattr(planner, "CGROUP", tmp_path)
    monkeypatch.delattr("os.sysconf")
    assert free_memory() == planner.FREE_WHERE_UNKNOWN
