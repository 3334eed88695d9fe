"""`memory=` holds: the highest point of a process's memory, measured in one of its own."""

from pathlib import Path

import pytest

import memory_cap

pytestmark = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux tells the highest point")


def too_large(bundle: Path, memory: str, images: int, targets: int) -> dict[str, dict[str, int]]:
    found = memory_cap.measured(bundle, memory, images, targets)
    assert len(found) > 3
    return {name: sizes for name, sizes in found.items() if sizes["growth"] > memory_cap.TOLERATED * sizes["memory"]}


def test_every_method_of_a_shipped_network_keeps_to_its_memory(all_bundles: dict[str, Path]) -> None:
    assert not too_large(all_bundles["honest"], "20MB", images=5, targets=1)


def test_what_the_error_asks_for_is_enough(bundles: dict[str, Path]) -> None:
    assert not too_large(bundles["honest"], "1KB", images=3, targets=2)


def test_the_measurement_sees_what_a_run_takes(bundles: dict[str, Path]) -> None:
    found = memory_cap.measured(bundles["honest"], "60MB", 16, 1, ["gradient"])
    assert found["gradient"]["growth"] > 5e6
