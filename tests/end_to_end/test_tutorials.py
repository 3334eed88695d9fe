"""The tutorials run from beginning to end in their short form, and what they say is so."""

import io
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

TUTORIALS = Path(__file__).parents[2] / "tools" / "tutorials"
NAMES = sorted(path.stem for path in TUTORIALS.glob("*.py") if path.stem != "classroom")
HEAD = re.compile(r"^# %%( \[markdown\])?$")


@dataclass(frozen=True)
class Run:
    """What a tutorial left: its variables, what it printed, in one line, and its folder."""

    names: dict[str, Any]
    said: str
    out: Path

    def __getattr__(self, name: str) -> Any:
        return self.names[name]

    def picture(self, name: str) -> np.ndarray:
        """A figure that it wrote."""
        pixels = cv2.imread(str(self.out / name))
        assert pixels is not None, name
        return pixels


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Run]:
    """Runs a tutorial's short form."""
    return lambda name: _run(name, tmp_path_factory.mktemp(name))


def _run(name: str, out: Path) -> Run:
    threads = torch.get_num_threads()
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng(), redirect_stdout(printed):
        patch.syspath_prepend(str(TUTORIALS))
        patch.setattr(sys, "argv", [f"{name}.py", "--short", "--out", str(out)])
        patch.setenv("KERAS_BACKEND", "torch")
        patch.setenv("KERAS_HOME", str(out / "keras"))
        try:
            names = runpy.run_path(str(TUTORIALS / f"{name}.py"))
        finally:
            torch.set_num_threads(threads)
    return Run(names, " ".join(printed.getvalue().split()), out)


def cells(text: str) -> list[tuple[str, list[str]]]:
    """The cells of a script in percent format: "markdown" or "code", and the lines of each."""
    found: list[tuple[str, list[str]]] = []
    for line in text.splitlines():
        head = HEAD.match(line)
        if head is not None:
            found.append(("markdown" if head[1] else "code", []))
        else:
            assert found, "a cell begins with # %%"
            assert not line.startswith("# %"), f"no head of a cell: {line}"
            found[-1][1].append(line)
    return found


@pytest.mark.parametrize("name", NAMES)
def test_it_opens_as_a_notebook(name: str) -> None:
    found = cells((TUTORIALS / f"{name}.py").read_text("utf-8"))
    assert found[0][0] == "markdown"
    assert found[0][1][0].startswith("# # ")
    assert {kind for kind, _ in found} == {"markdown", "code"}
    for kind, lines in found:
        written = [line for line in lines if line]
        assert written
        if kind == "markdown":
            assert all(line == "#" or line.startswith("# ") for line in written)
        else:
            compile("\n".join(lines), name, "exec")


def test_every_tutorial_is_in_the_table_and_tested_here() -> None:
    table = (TUTORIALS / "README.md").read_text("utf-8")
    assert re.findall(r"^\| `(\w+)\.py`", table, re.M)[:-1] == [
        "saliency_while_training",
        "saliency_without_tracker",
        "label_tracking",
        "instance_tracking",
        "plain_gradient",
    ]
    assert len(NAMES) == 5


def test_a_tutorial_runs_by_its_own(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", str(TUTORIALS / "label_tracking.py"), "--short", "--out", str(tmp_path)]
    root = TUTORIALS.parents[1]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(root / "runtime"), str(root / "export")])}
    finished = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=tmp_path)
    assert finished.returncode == 0, finished.stderr
    assert "->" in finished.stdout


def test_saliency_while_training(run: Callable[[str], Run]) -> None:
    found = run("saliency_while_training")
    epochs = list(found.measured)
    assert epochs[0] == 1
    assert epochs[-1] == found.EPOCHS
    assert found.tracker.shown == {"eval": epochs}
    for epoch in epochs:
        assert found.picture(f"saliency/eval/epoch_{epoch:04d}.png").std() > 20
    assert len(cv2.imreadanimation(str(found.out / "film.gif"))[1].frames) == len(epochs)
    assert "Each time, 326 gradients are taken" in found.said
    (_, first), (right, last) = found.measured[1], found.measured[found.EPOCHS]
    assert right > 0.4
    assert last > first > found.covered
    assert last > 2 * found.covered
    assert f"After the first epoch {first:.1%} of a map lie there, after the last {last:.1%}." in found.said
    assert ("found the digit before" in found.said) == (found.looking < found.reading)


def test_saliency_without_tracker(run: Callable[[str], Run]) -> None:
    found = run("saliency_without_tracker")
    assert found.accuracy > 0.9
    assert found.alike["smoothed"] > found.alike["gradient"]
    assert min(found.alike, key=found.alike.get) == "gradient"
    assert [int(each.steps[0]) for each in found.results.values()] == [1, 25, 50, 250]
    assert found.missing < 0.02
    assert found.sure > 0.5
    assert "It is the sky that the network knows" in found.said
    assert all(found.own)
    assert "Of the two classes, 2 get more from their own half" in found.said
    assert found.picture("four_maps.png").shape[0] > found.picture("two_classes.png").shape[0]


def test_label_tracking(run: Callable[[str], Run]) -> None:
    found = run("label_tracking")
    assert found.everything.labels.steps() == found.starved.labels.steps() == list(range(1, found.EPOCHS + 1))
    values, labels = found.everything.followed.values, found.everything.followed.labels
    assert found.end == pytest.approx({digit: values[labels == digit].mean() for digit in range(10)})
    assert found.worst == max(found.end, key=found.end.get)
    assert found.throughout[found.late] == max(found.throughout.values())
    assert found.together > 0.5
    assert "are learned last" in found.said
    assert found.lagging == found.best
    assert found.then[found.best] > 5 * found.end[found.best]
    assert found.kept.sum() == len(found.y_train) - (found.y_train == found.best).sum() + found.few
    assert found.picture("labels.png").shape == found.picture("labels_starved.png").shape


def test_instance_tracking(run: Callable[[str], Run]) -> None:
    found = run("instance_tracking")
    assert found.tracker.steps() == list(range(1, found.EPOCHS + 1))
    assert found.names["said"].values.argmax() == found.one
    assert found.share > 12 / len(found.x_test) * 10
    assert found.called != found.true
    assert found.explainer.scores(found.x_test[found.one][None]).argmax() == found.called
    assert found.answers[0] == found.called
    assert found.answers[found.astray] != found.called
    assert found.by_chance < 0.5
    assert ("stands among its own" in found.said) == ((found.ten == found.true).sum() > 5)
    assert (f"it is called {found.true}, as it should be" in found.said) == (found.true in found.answers)
    for name in ("instances.png", "hardest.png", "hardest_one.png"):
        assert found.picture(name).std() > 20


def test_plain_gradient(run: Callable[[str], Run]) -> None:
    found = run("plain_gradient")
    assert "The network says motorcycle" in found.said
    assert list(found.apart) == ["torch", "Keras", "bundle of torch's", "bundle of Keras'"]
    assert found.scale > 0
    assert max(found.apart.values()) <= 1e-5
    assert max(found.heats_apart.values()) <= 1e-5
    assert 0 <= found.windowed.min() < found.windowed.max() == 1
    assert (found.windowed >= found.normalised).all()
    assert found.picture("by_hand.png").std() > 20
    assert found.picture("compared.png").std() > 20
