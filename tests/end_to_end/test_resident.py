"""Every method of a shipped network, its sums kept on a device ("cpu" as that): the usual maps to the last bit."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from onnxplain import Explainer
from onnxplain.planner import chunks
from onnxplain.providers import CPU, Place

FEW = {"samples": 5, "steps": 7, "masks": 10, "designs": 2, "cells": 2}
"""Steps that runs of four rows don't divide."""
SOLVED = {"samples": 20, "cells": 2}
SIDE = 64


@pytest.mark.parametrize("targets", [None, [[0, 4]] * 3])
def test_every_method_of_a_bundle_has_the_same_map_to_the_last_bit(all_bundles, targets, monkeypatch):
    # A device's runs are of one size, where others are as large as they may be: the usual path gets the same ones.
    monkeypatch.setattr("onnxplain.work.chunks", lambda *given, **how: chunks(*given, **{**how, "alike": True}))
    images = np.random.default_rng(0).normal(size=(3, 3, SIDE, SIDE)).astype(np.float32)
    usual, there = (Explainer(all_bundles["honest"], device="cpu", threads=1, rows=4) for _ in range(2))
    there._sessions.place = Place(CPU, "cpu")
    for method in usual.bundle.methods.values():
        few = FEW | (SOLVED if method.loop == "solve" else {})
        given = {name: value for name, value in few.items() if name in method.parameters}
        expected, found = (each.explain(images, method.name, targets=targets, **given) for each in (usual, there))
        # Of zeros, the signs too.
        assert_array_equal(found.attribution.view(np.uint32), expected.attribution.view(np.uint32), method.name)
        assert_array_equal(found.scores, expected.scores, method.name)
