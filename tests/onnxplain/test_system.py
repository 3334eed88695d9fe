"""What the system lets a process have is found on Linux, in containers and elsewhere."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import onnxplain
from onnxplain import system
from onnxplain.sessions import session_options
from onnxplain.system import cores, free_memory, threads_of_a_run

GB = 10**9


def machine(tmp_path, monkeypatch, available=8 * GB, group="0::/slice\n"):
    """A pretended /proc and /sys/fs/cgroup."""
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text(f"MemTotal: 16000000 kB\nMemAvailable: {available // 1024} kB\n")
    (tmp_path / "proc/self/cgroup").write_text(group)
    monkeypatch.setattr(system, "PROC", tmp_path / "proc")
    monkeypatch.setattr(system, "CGROUP", tmp_path / "cgroup")
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
    monkeypatch.setattr(system, "PROC", tmp_path)
    monkeypatch.setattr(system, "CGROUP", tmp_path)
    monkeypatch.delattr("os.sysconf")
    assert free_memory() == system.FREE_WHERE_UNKNOWN


@pytest.fixture
def eight(tmp_path, monkeypatch):
    """A machine of eight processors: the root of its control groups."""
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)), raising=False)
    root = machine(tmp_path, monkeypatch, group="0::/slice/job\n3:cpu,cpuacct:/old\n")
    root.mkdir()
    return root


def shared(folder, *quota):
    folder.mkdir(parents=True, exist_ok=True)
    if len(quota) == 1:
        (folder / "cpu.max").write_text(f"{quota[0]} 100000\n")
    else:
        for name, value in zip(("quota", "period"), quota, strict=True):
            (folder / f"cpu.cfs_{name}_us").write_text(f"{value}\n")


@pytest.mark.usefixtures("eight")
def test_a_machine_without_limits_is_used_whole_in_onnxruntimes_own_way():
    assert cores() == 8
    assert threads_of_a_run(None) == session_options().intra_op_num_threads == 0
    assert threads_of_a_run(3) == 3


@pytest.mark.usefixtures("eight")
def test_a_process_bound_to_some_processors_uses_these(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {1, 5, 6}, raising=False)
    assert cores() == threads_of_a_run(None) == session_options().intra_op_num_threads == 3
    assert session_options(5).intra_op_num_threads == 5


@pytest.mark.parametrize(
    ("folder", "quota", "expected"),
    [
        ("", ["max"], 8),
        ("", [200000], 2),
        ("", [250000], 2),
        ("slice", [300000], 3),
        ("slice/job", [50000], 1),
        ("slice/another", [50000], 8),
        ("", [1600000], 8),
        ("cpu", [-1, 100000], 8),
        ("cpu", [400000, 100000], 4),
        ("cpu/old", [100000, 50000], 2),
        ("", ["nonsense"], 8),
    ],
)
def test_a_control_groups_share_of_the_processors_counts(eight, folder, quota, expected):
    shared(eight / folder, *quota)
    assert cores() == expected
    assert threads_of_a_run(None) == (0 if expected == 8 else expected)


def test_the_smallest_of_several_shares_counts(eight):
    shared(eight, 500000)
    shared(eight / "slice", 300000)
    shared(eight / "slice/job", 400000)
    assert cores() == 3


@pytest.mark.usefixtures("eight")
def test_a_system_without_affinity_has_its_processors(monkeypatch):
    monkeypatch.delattr("os.sched_getaffinity", raising=False)
    assert cores() == 8
    monkeypatch.setattr("os.cpu_count", lambda: None)
    assert cores() == 1


@pytest.mark.skipif(not shutil.which("taskset"), reason="there is no taskset (util-linux)")
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="the machine has a single processor")
def test_a_process_bound_to_one_processor_starts_no_other_thread_for_its_runs():
    first = min(os.sched_getaffinity(0))
    program = "from onnxplain.sessions import session_options; print(session_options().intra_op_num_threads)"
    command = ["taskset", "-c", str(first), sys.executable, "-c", program]
    environment = {**os.environ, "PYTHONPATH": str(Path(onnxplain.__file__).parent.parent)}
    assert subprocess.run(command, capture_output=True, text=True, env=environment).stdout == "1\n"
