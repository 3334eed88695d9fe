"""Copies of graphs are kept within bounds: the least lately used go, and what finds no room isn't copied."""

import logging
import os
import shutil
import time

import pytest

from onnxplain import Explainer, ParameterError, ready_graphs
from onnxplain.ready_graphs import GROWTH, USUAL_SIZE, VARIABLE, allowed_bytes
from ready_copies import copies as copies
from ready_copies import gradient, keeps_copies
from ready_copies import opened as opened

pytestmark = keeps_copies


@pytest.fixture
def used(opened):
    """Opens a graph of an Explainer and gives the name of the folder that it came from."""

    def use(explainer, name):
        opened.clear()
        assert explainer._sessions._create(explainer.bundle.graphs[name])
        time.sleep(0.02)  # a file's time may be that of the system's last tick
        return opened[-1]

    return use


def size_of(folder):
    return sum(file.stat().st_size for file in folder.rglob("*.*"))


def one_byte_short(copies, used, explainer, name):
    """Lets an Explainer have one byte less than a graph's copy takes besides those there are."""
    made = used(explainer, name)
    explainer._sessions._ready._most = size_of(copies) - 1
    shutil.rmtree(copies / made)
    return made


def test_the_least_lately_used_go_when_there_is_no_more_room(copies, folder, linear, used, monkeypatch):
    monkeypatch.setattr(ready_graphs, "GROWTH", 1)
    explainer, other = (Explainer(path, device="cpu", cache=True) for path in (folder, linear.bundle.path))
    first, second = used(other, "gradient"), used(other, "path")
    assert used(other, "gradient") == first
    third = one_byte_short(copies, used, explainer, "noise")
    assert used(explainer, "noise") == third
    assert {copy.name for copy in copies.iterdir()} == {first, third} != {second}


def test_copies_of_the_same_bundle_are_the_last_to_go(copies, folder, linear, used, monkeypatch):
    monkeypatch.setattr(ready_graphs, "GROWTH", 1)
    explainer, other = (Explainer(path, device="cpu", cache=True) for path in (folder, linear.bundle.path))
    first, _ = used(explainer, "gradient"), used(other, "gradient")
    third = one_byte_short(copies, used, explainer, "noise")
    assert used(explainer, "noise") == third
    assert {copy.name for copy in copies.iterdir()} == {first, third}


def test_what_finds_no_room_beside_the_same_bundles_copies_is_not_copied(copies, folder, used, caplog):
    explainer = Explainer(folder, device="cpu", cache=True)
    kept = [used(explainer, "gradient"), used(explainer, "path")]
    room = size_of(copies) + GROWTH * (folder / "weights.data").stat().st_size
    explainer._sessions._ready._most = room - 1
    with caplog.at_level(logging.INFO, ready_graphs.__name__):
        assert used(explainer, "noise") == folder.name
    assert "no copy of noise.onnx is kept" in caplog.text
    assert [used(explainer, name) for name in ("gradient", "path")] == kept
    explainer._sessions._ready._most = room
    kept.append(used(explainer, "noise"))
    assert {copy.name for copy in copies.iterdir()} == set(kept)


def test_weights_that_would_take_more_than_all_may_are_not_copied(copies, folder, rows):
    weights = (folder / "weights.data").stat().st_size
    gradient(folder, rows, cache=f"{GROWTH * weights - 1}B")
    assert not copies.exists()
    gradient(folder, rows, cache=f"{GROWTH * weights}B")
    assert copies.exists()


def test_what_was_never_finished_is_removed_after_a_while(copies, folder, rows):
    gradient(folder, rows)
    shutil.rmtree(next(copies.iterdir()))
    old, new = copies / ".old", copies / ".new"
    for entry in (old, new):
        entry.mkdir()
    os.utime(old, (0, 0))
    gradient(folder, rows)
    assert not old.exists()
    assert new.exists()


@pytest.mark.parametrize(
    ("given", "variable", "expected"),
    [
        (None, None, 0),
        (None, "", 0),
        (None, "0", 0),
        (None, "1", USUAL_SIZE),
        (None, " 2GB ", 2 * 10**9),
        (True, "0", USUAL_SIZE),
        (False, "1", 0),
        (None, "True", USUAL_SIZE),
        (None, "true", USUAL_SIZE),
        ("true", None, USUAL_SIZE),
        (None, "False", 0),
        (None, "false", 0),
        ("500MB", None, 5 * 10**8),
    ],
)
def test_how_much_is_kept(monkeypatch, given, variable, expected):
    monkeypatch.delenv(VARIABLE, raising=False)
    if variable is not None:
        monkeypatch.setenv(VARIABLE, variable)
    assert allowed_bytes(given) == (4 * 10**9 if expected is USUAL_SIZE else expected)


@pytest.mark.parametrize("given", ["yes", "-1GB", "4 TBB"])
def test_what_is_no_size_is_an_error_that_names_both_ways(monkeypatch, folder, given):
    with pytest.raises(ParameterError, match=f"cache='{given}' .or {VARIABLE}. must be True, False or a size"):
        Explainer(folder, cache=given)
    monkeypatch.setenv(VARIABLE, given)
    with pytest.raises(ParameterError, match=given):
        Explainer(folder)
