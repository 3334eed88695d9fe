"""A refreshed bundle takes the old one's place at once, or another that is free; the command does the same."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from onnxplain import Explainer
from onnxplain.cli import main
from onnxplain.errors import OutputError
from onnxplain_export import refresh
from refreshing import proto, quick


def test_an_output_that_exists_is_refused_unless_told(tmp_path: Path) -> None:
    bundle = quick(proto(0), tmp_path / "net.explain")
    other = refresh(bundle, proto(10), tmp_path / "other.explain")
    with pytest.raises(OutputError, match="exists; choose another name"):
        refresh(bundle, proto(20), other)
    refresh(bundle, proto(20), other, overwrite=True)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems can't exchange two names at once")
def test_there_is_no_moment_without_a_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = quick(proto(0), tmp_path / "net.explain")
    monkeypatch.setattr(Path, "rename", lambda *_: pytest.fail("the old bundle was moved away first"))
    refresh(bundle, proto(10))
    assert [path.name for path in tmp_path.iterdir()] == ["net.explain"]


READER = """
import sys, numpy as np
from onnxplain import Explainer
from onnxplain.errors import BundleError
images = np.random.default_rng(0).standard_normal((1, 3, 9, 9)).astype(np.float32)
wanted = np.load(sys.argv[2])
read = refused = 0
print("ready", flush=True)
while sys.stdin.readable() and read < 60:
    try:
        explainer = Explainer(sys.argv[1], device="cpu")
        scores, maps = explainer.scores(images), explainer.explain(images, "gradient", targets=1).attribution
    except BundleError as error:
        assert "was replaced" in str(error), error
        refused += 1
        continue
    pairs = [(wanted["scores_0"], wanted["maps_0"]), (wanted["scores_1"], wanted["maps_1"])]
    assert any(np.array_equal(scores, s) and np.array_equal(maps, m) for s, m in pairs), "neither of the two"
    read += 1
print(read, refused)
"""


def test_whoever_reads_meanwhile_has_the_old_or_the_new_bundle(tmp_path: Path) -> None:
    bundle = quick(proto(0), tmp_path / "net.explain")
    images = np.random.default_rng(0).standard_normal((1, 3, 9, 9)).astype(np.float32)
    answers = {}
    for number, seed in enumerate((10, 0)):
        refresh(bundle, proto(seed))
        explainer = Explainer(bundle, device="cpu")
        answers[f"scores_{number}"] = explainer.scores(images)
        answers[f"maps_{number}"] = explainer.explain(images, "gradient", targets=1).attribution
    np.savez(tmp_path / "wanted.npz", **answers)
    command = [sys.executable, "-c", READER, str(bundle), str(tmp_path / "wanted.npz")]
    reader = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert reader.stdout is not None
        assert reader.stdout.readline() == "ready\n"
        count = 0
        while reader.poll() is None:
            refresh(bundle, proto(10 * (count % 2)))
            count += 1
        out, error = reader.communicate(timeout=60)
    finally:
        reader.kill()
    assert reader.returncode == 0, error
    assert out.split()[0] == "60"
    assert count > 3


def test_the_command_refreshes_and_says_what_it_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = quick(proto(0), tmp_path / "net.explain")
    onnx.save(proto(10), tmp_path / "later.onnx")
    assert main(["refresh", str(bundle), str(tmp_path / "later.onnx"), "-o", str(tmp_path / "out.explain")]) == 0
    printed = capsys.readouterr().out
    assert "has the weights of" in printed
    assert "forward: differs by" in printed
    assert "gradient: differs by" in printed
    assert main(["info", str(tmp_path / "out.explain")]) == 0
    assert "verified when it was refreshed:" in capsys.readouterr().out
    onnx.save(proto(10, activation="Relu"), tmp_path / "other.onnx")
    assert main(["refresh", str(bundle), str(tmp_path / "other.onnx")]) == 2
    assert "Tanh (node 'squash') has become Relu" in capsys.readouterr().err
