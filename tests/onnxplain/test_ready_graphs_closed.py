"""Copies of graphs that can't be written, opened or trusted leave maps as they are; those only to be read are used."""

import errno
import os
import stat
import sys
from pathlib import Path

import pytest
from numpy.testing import assert_array_equal

from onnxplain import Explainer, ready_graphs, sessions
from onnxplain.ready_graphs import GRAPH, RECORD, WEIGHTS
from ready_copies import copies as copies
from ready_copies import gradient, keeps_copies, run_gradient
from ready_copies import opened as opened

pytestmark = keeps_copies


@pytest.mark.parametrize("obstacle", ["a file is in the way", "onnxruntime can't write it"])
def test_where_no_copy_can_be_written_the_map_is_the_same(copies, folder, rows, monkeypatch, obstacle):
    expected = gradient(folder, rows, cache=False)
    if obstacle.startswith("a file"):
        copies.parent.mkdir()
        copies.write_text("")
    else:
        monkeypatch.setattr(ready_graphs, "GRAPH", "missing/graph.onnx")
    assert_array_equal(gradient(folder, rows), expected)
    assert not copies.is_dir() or list(copies.iterdir()) == []


@pytest.mark.parametrize("copied", [False, True])
def test_a_folder_that_may_not_be_searched_leaves_the_map_the_same(copies, folder, rows, monkeypatch, copied):
    expected = gradient(folder, rows, cache=copied)

    def refused(real):
        def ask(path, *rest, **named):
            if copies in (path, *path.parents):
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
            return real(path, *rest, **named)

        return ask

    for name in ("stat", "lstat", "iterdir", "mkdir", "open"):
        monkeypatch.setattr(Path, name, refused(getattr(Path, name)))
    assert_array_equal(gradient(folder, rows), expected)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="nothing is closed to this user")
@pytest.mark.parametrize("level", ["around", "folder", "copy"])
def test_what_is_closed_to_this_user_leaves_the_map_the_same(copies, folder, rows, level):
    expected = gradient(folder, rows)
    closed = {"around": copies.parent, "folder": copies, "copy": next(copies.iterdir())}[level]
    closed.chmod(0)
    try:
        assert_array_equal(gradient(folder, rows), expected)
    finally:
        closed.chmod(0o700)


posix = pytest.mark.skipif(sys.platform == "win32", reason="a user's cache folder is closed to others there")


def writable_by(bits):
    return lambda path, monkeypatch: path.chmod(stat.S_IMODE(path.stat().st_mode) | bits)


def linked(path, _):
    path.rename(path.with_name("elsewhere"))
    path.symlink_to(path.with_name("elsewhere"))


def of_another_user(path, monkeypatch):
    real = os.stat_result

    def another(found):
        return real((*found[:4], found.st_uid + 1, *found[5:]))

    for name in ("stat", "lstat"):
        ask = getattr(Path, name)
        given = lambda one, ask=ask, **named: another(ask(one, **named)) if one == path else ask(one, **named)  # noqa: E731
        monkeypatch.setattr(Path, name, given)


FOREIGN = [
    (change, level)
    for change in (writable_by(0o020), writable_by(0o002), linked, of_another_user)
    for level in ("folder", "copy", GRAPH, WEIGHTS, RECORD)
]


@posix
@pytest.mark.parametrize(("change", "level"), [*FOREIGN, (writable_by(0o002), "around"), (of_another_user, "around")])
def test_a_copy_that_others_may_have_written_is_not_used(copies, folder, rows, opened, monkeypatch, change, level):
    expected = gradient(folder, rows)
    (copy,) = copies.iterdir()
    change({"around": copies.parent, "folder": copies, "copy": copy}.get(level, copy / level), monkeypatch)
    opened.clear()
    assert_array_equal(gradient(folder, rows), expected)
    assert opened == [folder.name]
    assert copy.exists()


@posix
@pytest.mark.parametrize("change", [writable_by(0o002), linked, of_another_user])
def test_no_copy_is_written_where_others_may_write(copies, folder, rows, opened, monkeypatch, change):
    copies.mkdir(0o700, parents=True)
    change(copies, monkeypatch)
    gradient(folder, rows)
    assert opened == [folder.name]
    assert list(copies.iterdir()) == []


@posix
def test_copies_are_closed_to_others_whatever_is_usual(copies, folder, rows, opened):
    usual = os.umask(0)
    try:
        gradient(folder, rows)
    finally:
        os.umask(usual)
    (copy,) = copies.iterdir()
    assert {stat.S_IMODE(path.stat().st_mode) for path in (copies.parent, copies, copy)} == {0o700}
    assert {stat.S_IMODE(file.stat().st_mode) for file in copy.iterdir()} == {0o600}
    opened.clear()
    gradient(folder, rows)
    assert opened == [copy.name]


def fails(error):
    def call(*_rest, **_named):
        raise error

    return call


TRANSIENT = {
    "files": ("_hashes", OSError(errno.EMFILE, "Too many open files")),
    "threads": ("ThreadPoolExecutor", RuntimeError("cannot schedule new futures after shutdown")),
}


@pytest.mark.parametrize("lack", ["memory", *TRANSIENT])
def test_a_whole_copy_stays_where_it_could_not_be_opened_once(copies, folder, rows, opened, monkeypatch, lack):
    expected = gradient(folder, rows)
    (copy,) = copies.iterdir()
    explainer = Explainer(folder, device="cpu", cache=True)
    with monkeypatch.context() as context:
        if lack == "memory":
            real = sessions.onnxruntime.InferenceSession

            def session(file, *rest, **named):
                if Path(file).parent == copy:
                    raise RuntimeError("[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : std::bad_alloc")
                return real(file, *rest, **named)

            context.setattr(sessions.onnxruntime, "InferenceSession", session)
        else:
            context.setattr(ready_graphs, TRANSIENT[lack][0], fails(TRANSIENT[lack][1]))
        assert_array_equal(run_gradient(explainer, rows), expected)
    assert list(copies.iterdir()) == [copy]
    opened.clear()
    gradient(folder, rows)
    assert opened == [copy.name]


def test_copies_that_may_only_be_read_are_used(copies, folder, rows, opened, monkeypatch):
    gradient(folder, rows)
    (copy,) = copies.iterdir()
    opened.clear()
    monkeypatch.setattr(ready_graphs.os, "utime", fails(OSError(errno.EROFS, "Read-only file system")))
    gradient(folder, rows)
    assert opened == [copy.name]
