"""What the system lets this process have: memory and processors, within the limits of its control group."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

PROC, CGROUP = Path("/proc"), Path("/sys/fs/cgroup")
FREE_WHERE_UNKNOWN = 2 * 10**9
NO_LIMIT = 2**60
"""Version 1 of control groups writes a number near 2^63 where no memory limit is set, and −1 for processors."""


def free_memory() -> int:
    """Bytes that this process may still take: what the system has available, within the limit of its control group."""
    known = [amount for amount in (_available(), _cgroup_room()) if amount is not None]
    return min(known) if known else FREE_WHERE_UNKNOWN


def cores() -> int:
    """The processors that this process may keep busy, at least 1.

    Less than the machine has where it is bound to some of them, or its control group to a share of their time: a
    container with `--cpus 2.5` has two.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([allowed, *(int(share) for share in _cgroup_shares())]))


def threads_of_a_run(asked: int | None) -> int:
    """Threads for onnxruntime: as many as asked for, 0 for its own choice, which is one for each core of the machine.

    Where this process may use fewer, threads beyond these would only wait for one another.
    """
    if asked is not None:
        return asked
    there = cores()
    return there if there < (os.cpu_count() or 1) else 0


def _available() -> int | None:
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in (PROC / "meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    with contextlib.suppress(OSError, ValueError, AttributeError):  # macOS, other Unix: half of what is installed
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    return None


def _cgroup_room() -> int | None:
    """Room under the memory limits of this process's control group and those above it; None where none is set."""
    rooms = []
    for folder, version in _cgroup_folders("memory"):
        limit, usage = (
            ("memory.max", "memory.current") if version == 2 else ("memory.limit_in_bytes", "memory.usage_in_bytes")
        )
        with contextlib.suppress(OSError, ValueError):  # "max" in version 2
            most = int((folder / limit).read_text())
            if most < NO_LIMIT:
                rooms.append(max(0, most - _in_use(folder, usage)))
    return min(rooms) if rooms else None


def _in_use(folder: Path, usage: str) -> int:
    """Bytes charged to a control group, less the file cache that the kernel drops first."""
    charged = int((folder / usage).read_text())
    for line in (folder / "memory.stat").read_text().splitlines():
        name, _, amount = line.partition(" ")
        if name in ("inactive_file", "total_inactive_file"):
            charged -= int(amount)
            break
    return charged


def _cgroup_shares() -> Iterator[float]:
    """How many processors' time each limited one of this process's control groups has."""
    for folder, version in _cgroup_folders("cpu"):
        with contextlib.suppress(OSError, ValueError):  # "max" in version 2
            if version == 2:
                quota, period = map(int, (folder / "cpu.max").read_text().split())
            else:
                quota, period = (int((folder / f"cpu.cfs_{name}_us").read_text()) for name in ("quota", "period"))
            if quota > 0 < period:
                yield quota / period


def _cgroup_folders(controller: str) -> Iterator[tuple[Path, int]]:
    """The folders of this process's control groups, up to the root, with their version, which names their files."""
    # Inside a container the group's own path isn't mounted, and its limit is at the root.
    yield CGROUP, 2
    yield CGROUP / controller, 1
    try:
        lines = (PROC / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        root, version = (CGROUP, 2) if not controllers else (CGROUP / controller, 1)
        if controllers and controller not in controllers.split(","):
            continue
        folder = root / path.lstrip("/")
        while folder != root:
            yield folder, version
            folder = folder.parent
