"""Copies of graphs that onnxruntime has made ready, on networks whose weights it reorders."""

from pathlib import Path

import pytest
from numpy.testing import assert_array_equal

from onnxplain import Explainer

METHODS = {
    "gradient": {},
    "smoothgrad": {"samples": 4},
    "integrated_gradients": {"steps": 6},
    "occlusion": {"window": 32, "stride": 32},
}


@pytest.mark.skipif(not Path("/proc/cpuinfo").exists(), reason="this system keeps no copies")
@pytest.mark.parametrize("name", ["honest", "shortcut"])
def test_maps_from_copies_are_the_same_to_the_last_bit(bundles, pictures, name, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    plain = Explainer(bundles[name], device="cpu", cache=False)
    expected = {method: plain.explain(pictures[:3], method, **given) for method, given in METHODS.items()}
    for _ in range(2):  # the first makes the copies
        explainer = Explainer(bundles[name], device="cpu", cache=True)
        for method, given in METHODS.items():
            found = explainer.explain(pictures[:3], method, **given)
            assert_array_equal(found.attribution, expected[method].attribution)
            assert_array_equal(found.scores, expected[method].scores)
    assert len(list((tmp_path / "onnxplain" / "graphs").iterdir())) >= len(METHODS)
