"""How many processors the JavaScript engine finds in Node, and what its sessions ask of onnxruntime."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

import node_engine
import toy_bundle
from node_engine import run_calls
from onnxplain.sessions import session_options
from onnxplain.system import cores, threads_of_a_run

ALL = os.cpu_count() or 1
ALLOWED = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else ALL
SINGLE = pytest.mark.skipif(ALLOWED < 2, reason="this process has a single processor: no limit would show")


@pytest.fixture(scope="module", autouse=True)
def node() -> None:
    reason = node_engine.missing_node()
    if reason is not None:
        pytest.skip(f"no JavaScript engine: {reason}")


@pytest.fixture
def bound() -> Iterator[None]:
    """This process, and what it starts, bound to one of its processors."""
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("the system binds no process to processors")
    every = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(every)})
    yield
    os.sched_setaffinity(0, every)


LIMITS: list[tuple[dict[str, str], int]] = [
    ({}, ALLOWED),
    ({"sys/fs/cgroup/cpu.max": "max 100000\n"}, ALLOWED),
    ({"sys/fs/cgroup/cpu.max": "100000 100000\n"}, 1),
    ({"sys/fs/cgroup/cpu.max": "50000 100000\n"}, 1),
    ({"sys/fs/cgroup/cpu.max": f"{ALL}00000 100000\n"}, ALLOWED),
    ({"sys/fs/cgroup/cpu.max": "nonsense\n"}, ALLOWED),
    ({"sys/fs/cgroup/slice/cpu.max": "150000 100000\n"}, 1),
    ({"sys/fs/cgroup/slice/job/cpu.max": "150000 100000\n"}, 1),
    ({"sys/fs/cgroup/slice/another/cpu.max": "100000 100000\n"}, ALLOWED),
    ({"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"}, ALLOWED),
    ({"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "100000\n", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n"}, 1),
    ({"sys/fs/cgroup/cpu/old/cpu.cfs_quota_us": "60000\n", "sys/fs/cgroup/cpu/old/cpu.cfs_period_us": "50000\n"}, 1),
]


@SINGLE
def test_a_control_groups_share_of_the_processors_counts(tmp_path: Path) -> None:
    calls = []
    for number, (files, _) in enumerate(LIMITS):
        root = tmp_path / str(number)
        for name, content in {"proc/self/cgroup": "0::/slice/job\n3:cpu,cpuacct:/old\n", **files}.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(content)
        calls.append({"what": "processors", "root": f"{root}/"})
    for (files, expected), found in zip(LIMITS, run_calls(tmp_path / "calls", calls), strict=True):
        assert found == {"machine": ALL, "allowed": expected}, files


def settings_in_node(folder: Path, **job: object) -> Mapping[str, Any]:
    """What the JavaScript engine asks of onnxruntime: `threads`, 0 for onnxruntime's own choice, and `entries`."""
    toy_bundle.write_toy_bundle(folder / "toy.explain")
    images = np.zeros((1, *toy_bundle.IMAGE), np.float32)
    calls = [{"what": "settings", "images": list(images)}]
    [[found]] = run_calls(folder / "calls", calls, runtime="node", bundle=folder / "toy.explain", **job)
    return cast(Mapping[str, Any], found)


def test_runs_take_as_many_threads_as_python_takes(tmp_path: Path) -> None:
    assert settings_in_node(tmp_path)["threads"] == threads_of_a_run(None)
    assert settings_in_node(tmp_path / "asked", open={"threads": 3})["threads"] == 3


def test_sessions_have_the_settings_of_python(tmp_path: Path) -> None:
    entries = settings_in_node(tmp_path)["entries"]["session"]
    assert set(entries) == {"force_spinning_stop", "qdq_matmulnbits_accuracy_level"}
    python = session_options()
    assert entries == {name: python.get_session_config_entry(f"session.{name}") for name in entries}


@SINGLE
@pytest.mark.usefixtures("bound")
def test_a_process_that_is_bound_to_one_processor_takes_one_thread(tmp_path: Path) -> None:
    assert settings_in_node(tmp_path)["threads"] == cores() == 1
