"""Batch jobs as a whole: what is in the folder, what continues, what is refused."""

import json
import subprocess
import sys

import cv2
import numpy as np
import pytest

from onnxplain import Explainer, OutputError, ParameterError, PictureError
from onnxplain.cli import main
from onnxplain.jobs import ExplainBatch, Job, Limits, Output, results, status, verify
from onnxplain.jobs.explaining import halved
from onnxplain.jobs.statistics import planes, statistics
from toy_bundle import LABELS

COUNT = 11
SMALL = Output(shard_size=4)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    drawn = np.random.default_rng(5)
    for number in range(COUNT):
        below = folder / LABELS[number % 2]
        below.mkdir(exist_ok=True)
        cv2.imwrite(str(below / f"{number:02d}.png"), drawn.integers(0, 256, (20 + number, 31, 3), np.uint8))
    return folder


def job(folder, source, out, *arguments, **options):
    return Job(folder, source, out, *arguments, **{"output": SMALL, "device": "cpu", "workers": 1, **options})


def tree(out):
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()}


def test_the_maps_are_those_of_explain(folder, explainer, pictures, tmp_path):
    summary = job(folder, pictures, tmp_path / "out", ["gradient", "integrated_gradients"]).run()
    files = sorted(pictures.rglob("*.png"), key=lambda file: (file.parent.name, file.name))
    assert (summary["explained"], summary["failed"], summary["pictures"]) == (COUNT, 0, COUNT)
    found = list(results(tmp_path / "out"))
    assert [line["name"] for line, _ in found] == [str(file) for file in files]
    for method in ("gradient", "integrated_gradients"):
        expected = explainer.explain(files, method)
        np.testing.assert_allclose(np.stack([maps[method] for _, maps in found]), expected.attribution, atol=2e-6)
        assert [line["target"] for line, _ in found] == expected.targets.tolist()
    line, maps = found[3]
    assert line["gradient.total"] == pytest.approx(float(maps["gradient"].sum()), rel=1e-4)
    assert line["predicted_label"] == LABELS[line["predicted"]]
    assert line["sha256"] == explainer.explain(files[3]).provenance["pictures"][0]["sha256"]


def test_the_folder_has_the_shards_that_its_pages_speak_of(folder, pictures, tmp_path):
    out = tmp_path / "out"
    job(folder, pictures, out, output=Output(shard_size=4, overlays=True)).run()
    names = set(tree(out))
    assert {"job.json", "source.jsonl", "failures.jsonl", "summary.json"} <= names
    shard = "shards/00000001/"
    expected = {
        "index.jsonl",
        "failures.jsonl",
        "gradient.npy",
        "shard.json",
        "thumbnails.jpg",
        "thumbnails.gradient.jpg",
    }
    overlays = {f"overlays/{number:08d}.gradient.png" for number in range(4, 8)}
    assert {name.removeprefix(shard) for name in names if name.startswith(shard)} == expected | overlays
    assert np.load(out / shard / "gradient.npy").shape == (4, 3, 8, 8)
    assert np.load(out / "shards/00000002/gradient.npy").shape == (COUNT - 8, 3, 8, 8)
    assert status(out) == {
        "running": False, "complete": True, "methods": ["gradient"], "pictures": COUNT, "done": COUNT,
        "explained": COUNT, "failed": 0, "shards": 3, "shards_in_all": 3,
    }  # fmt: skip
    assert verify(out) == []


def test_true_classes_and_what_is_right(folder, pictures, tmp_path):
    summary = job(folder, pictures, tmp_path / "out", targets="true", labels="folders").run()
    lines = [line for line, _ in results(tmp_path / "out")]
    assert [line["target_label"] for line in lines] == [line["true_label"] for line in lines]
    assert {line["true_label"] for line in lines} == set(LABELS[:2])
    right = sum(line["predicted"] == line["label"] for line in lines)
    assert (summary["right"], summary["accuracy"]) == (right, right / COUNT)


@pytest.mark.parametrize("kind", ["full", "sum", "magnitude"])
def test_float16_and_reduced_maps(folder, explainer, pictures, tmp_path, kind):
    output = Output(shard_size=4, dtype="float16", maps=kind)
    job(folder, pictures, tmp_path / "out", output=output).run()
    files = sorted(pictures.rglob("*.png"), key=lambda file: (file.parent.name, file.name))
    exact = explainer.explain(files).attribution
    exact = {"full": exact, "sum": exact.sum(axis=1), "magnitude": np.abs(exact).sum(axis=1)}[kind]
    found = np.stack([maps["gradient"] for _, maps in results(tmp_path / "out")])
    assert found.shape == exact.shape
    np.testing.assert_allclose(found, exact, atol=2e-3 * np.abs(exact).max(), rtol=1e-3)
    assert np.load(tmp_path / "out/shards/00000000/gradient.npy").dtype == np.float16


@pytest.mark.parametrize("size", [1e-30, 1e-7, 1.0, 1e30])
def test_halved_maps_neither_overflow_nor_vanish(size):
    values = (np.random.default_rng(0).normal(size=200) * size).astype(np.float32)
    stored, scale = halved(values)
    np.testing.assert_allclose(stored.astype(np.float64) * scale, values, rtol=2e-3, atol=1e-6 * size)
    assert np.log2(scale) == round(np.log2(scale))


def test_statistics_of_maps_by_hand():
    attribution = np.zeros((2, 4, 8))
    attribution[0, 1, 6] = 3.0
    attribution[1, 1, 6] = -1.0
    plane, sizes = planes(attribution, "NCHW")
    found = statistics(plane, sizes)
    assert found["total"] == 2
    assert found["magnitude"] == 4
    assert found["positive"] == 1
    assert found["concentration"] == pytest.approx(1 - 1 / 32)
    assert found["peak"] == found["centre"] == [1.5 / 4, 6.5 / 8]
    even = statistics(*planes(np.ones((1, 4, 4)), "NCHW"))
    assert even["concentration"] == pytest.approx(0)
    assert even["centre"] == [0.5, 0.5]
    nothing = statistics(*planes(np.zeros((1, 4, 4)), "NCHW"))
    assert (nothing["magnitude"], nothing["peak"], nothing["concentration"]) == (0, None, None)


def test_a_job_goes_on_where_it_stopped_and_ends_the_same(folder, pictures, tmp_path, monkeypatch):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    job(folder, pictures, whole).run()
    from onnxplain.jobs.explaining import Shard

    finish = Shard.finish

    def fails(self):
        if self._number == 1:
            raise RuntimeError("the power went")
        finish(self)

    monkeypatch.setattr(Shard, "finish", fails)
    with pytest.raises(RuntimeError, match="power"):
        job(folder, pictures, broken).run()
    monkeypatch.undo()
    assert status(broken)["complete"] is False
    assert status(broken)["done"] == 4
    before = (broken / "shards/00000000/index.jsonl").stat().st_mtime_ns
    job(folder, pictures, broken).run()
    assert tree(broken) == tree(whole)
    assert (broken / "shards/00000000/index.jsonl").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"targets": 2}, "targets"),
        ({"methods": "smoothgrad"}, "methods.gradient"),
        ({"output": Output(shard_size=5)}, "output.shard_size: 4 there, 5 now"),
        ({"labels": "folders"}, "of class 0"),
        ({"limits": Limits(pixels=1000)}, "limits.pixels"),
    ],
)
def test_another_job_in_the_same_folder_is_refused_with_the_difference(folder, pictures, tmp_path, change, said):
    job(folder, pictures, tmp_path / "out").run()
    before = tree(tmp_path / "out")
    with pytest.raises(OutputError, match="holds another job") as error:
        job(folder, pictures, tmp_path / "out", **change).run()
    assert said in str(error.value)
    assert tree(tmp_path / "out") == before


def test_a_source_that_changed_is_refused_with_the_first_picture_that_did(folder, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    for name in "abc":
        cv2.imwrite(str(source / f"{name}.png"), np.zeros((9, 9, 3), np.uint8))
    job(folder, source, tmp_path / "out").run()
    cv2.imwrite(str(source / "bb.png"), np.zeros((9, 9, 3), np.uint8))
    with pytest.raises(OutputError, match=r"picture 2 was .*c\.png .* and is .*bb\.png"):
        job(folder, source, tmp_path / "out").run()


def test_pictures_that_fail_have_a_line_and_no_map(folder, pictures, tmp_path):
    listed = tmp_path / "list.txt"
    bad = tmp_path / "bad.jpg"
    bad.write_bytes(b"\xff\xd8\xff and nothing")
    good = sorted(pictures.rglob("*.png"))
    listed.write_text("\n".join(map(str, [good[0], bad, tmp_path / "missing.png", *good[1:]])))
    summary = job(folder, listed, tmp_path / "out").run()
    assert (summary["explained"], summary["failed"]) == (COUNT, 2)
    failures = [json.loads(line) for line in (tmp_path / "out/failures.jsonl").read_text().splitlines()]
    assert [(line["number"], line["where"]) for line in failures] == [(1, "decoding"), (2, "decoding")]
    assert "bad.jpg" in failures[0]["error"]
    assert "can't be read" in failures[1]["error"]
    maps = np.load(tmp_path / "out/shards/00000000/gradient.npy")
    assert np.isnan(maps[1:3]).all()
    assert np.isfinite(maps[[0, 3]]).all()
    assert verify(tmp_path / "out") == []


def test_too_many_failures_end_the_job_and_more_may_be_allowed_later(folder, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    for number in range(8):
        (source / f"{number}.png").write_bytes(b"nothing")
    cv2.imwrite(str(source / "9.png"), np.zeros((9, 9, 3), np.uint8))
    with pytest.raises(OutputError, match="more than the 2 of max_failures"):
        job(folder, source, tmp_path / "out", max_failures=2).run()
    with pytest.raises(OutputError, match="more than the 4 of max_failures"):
        job(folder, source, tmp_path / "out", max_failures=0.5).run()
    assert job(folder, source, tmp_path / "out").run()["failed"] == 8


@pytest.mark.parametrize("most", [-1, 1.0, True, "many"])
def test_a_bound_on_failures_is_a_count_or_a_share(folder, pictures, tmp_path, most):
    with pytest.raises(ParameterError, match="max_failures"):
        job(folder, pictures, tmp_path / "out", max_failures=most)


def test_arrays_and_mappings_in_memory(folder, explainer, tmp_path):
    drawn = np.random.default_rng(2).integers(0, 256, (6, 12, 12, 3), np.uint8)
    entries = [{"image": picture, "label": number % 4, "id": f"n{number}"} for number, picture in enumerate(drawn)]
    job(folder, entries, tmp_path / "out", targets="true").run()
    found = list(results(tmp_path / "out"))
    expected = explainer.explain(drawn, targets=[0, 1, 2, 3, 0, 1]).attribution
    np.testing.assert_allclose(np.stack([maps["gradient"] for _, maps in found]), expected, atol=2e-6)
    assert [line["name"] for line, _ in found] == [f"n{number}" for number in range(6)]


def test_wrong_asks_are_told_before_anything_is_made(folder, pictures, tmp_path):
    out = tmp_path / "out"
    for change, error, said in (
        ({"targets": "dgo"}, ParameterError, "did you mean 'dog'"),
        ({"methods": "gradcam"}, ParameterError, "gradcam"),
        ({"lanes": 0}, ParameterError, "lanes"),
        ({"engine": "slurm"}, ParameterError, "unknown engine"),
    ):
        with pytest.raises(error, match=said):
            job(folder, pictures, out, **change)
    with pytest.raises(PictureError, match="no such file"):
        job(folder, tmp_path / "nowhere", out).run()
    (tmp_path / "empty").mkdir()
    with pytest.raises(PictureError, match="no pictures"):
        job(folder, tmp_path / "empty", out).run()
    (tmp_path / "full").mkdir()
    (tmp_path / "full/precious.txt").write_text("mine")
    with pytest.raises(OutputError, match="precious"):
        job(folder, pictures, tmp_path / "full").run()


def test_the_command_runs_continues_checks_and_repairs(folder, pictures, tmp_path, capsys):
    command = ["jobs", "run", str(folder), str(pictures), "-o", str(tmp_path / "out"), "--shard-size", "4"]
    assert main([*command, "--method", "smoothgrad", "--set", "samples=3", "--targets", "dog"]) == 0
    assert "11 of 11 pictures explained" in capsys.readouterr().out
    assert main(["jobs", "status", str(tmp_path / "out")]) == 0
    assert json.loads(capsys.readouterr().out)["complete"] is True
    assert main(["jobs", "verify", str(tmp_path / "out")]) == 0
    before = tree(tmp_path / "out")
    damaged = tmp_path / "out/shards/00000001/smoothgrad.npy"
    data = bytearray(damaged.read_bytes())
    data[200] ^= 1
    damaged.write_bytes(data)
    assert main(["jobs", "verify", str(tmp_path / "out")]) == 1
    assert "smoothgrad.npy was altered at picture 4" in capsys.readouterr().err
    assert main([*command, "--method", "smoothgrad", "--set", "samples=3", "--targets", "dog"]) == 0
    assert tree(tmp_path / "out") == before
    assert main([*command, "--method", "smoothgrad", "--targets", "dog"]) == 2
    assert "methods.smoothgrad.parameters.samples" in capsys.readouterr().err


def test_a_batch_for_other_engines(folder, explainer):
    drawn = np.random.default_rng(2).integers(0, 256, (3, 12, 12, 3), np.uint8)
    explain = ExplainBatch(str(folder), ["gradient", "smoothgrad"], device="cpu")
    encoded = cv2.imencode(".png", drawn[1])[1].tobytes()
    batch = {"image": [drawn[0], b"no picture", encoded], "key": np.arange(3)}
    found = explain(batch)
    assert set(found) == {
        "key", "prediction", "probability", "target", "gradient_attribution", "smoothgrad_attribution", "error",
    }  # fmt: skip
    expected = explainer.explain([drawn[0], drawn[1][..., ::-1]])
    np.testing.assert_allclose(found["gradient_attribution"][[0, 2]], expected.attribution, atol=2e-6)
    assert np.isnan(found["gradient_attribution"][1]).all()
    assert found["target"].tolist() == [expected.targets[0], -1, expected.targets[1]]
    assert [bool(error) for error in found["error"]] == [False, True, False]
    nothing = explain({"image": [b"no picture"]})
    assert nothing["smoothgrad_attribution"].shape == (1, 3, 8, 8)
    with pytest.raises(ParameterError, match="no column 'image'"):
        explain({"picture": []})


def test_a_batch_of_a_data_frame_and_of_a_data_set(folder, explainer):
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    datasets = pytest.importorskip("datasets", reason="Hugging Face datasets is not installed")
    drawn = np.random.default_rng(2).integers(0, 256, (5, 12, 12, 3), np.uint8)
    encoded = [cv2.imencode(".png", picture[..., ::-1])[1].tobytes() for picture in drawn]
    expected = explainer.explain(drawn).attribution.reshape(5, -1)
    explain = ExplainBatch(str(folder), device="cpu")
    frame = pandas.DataFrame({"image": encoded, "key": range(5)}, index=range(10, 15))
    (found,) = explain.frames([frame])
    np.testing.assert_allclose(np.array(found["attribution"].tolist()), expected, atol=2e-6)
    assert found.index.tolist() == list(range(10, 15))
    mapped = datasets.Dataset.from_dict({"image": encoded, "key": list(range(5))}).map(
        explain, batched=True, batch_size=2, remove_columns=["image"]
    )
    np.testing.assert_allclose(np.array(mapped["attribution"]).reshape(5, -1), expected, atol=2e-6)
    assert mapped["key"] == list(range(5))


def test_a_script_needs_no_guard_round_its_job(folder, pictures, tmp_path):
    """Workers are programs of their own: they don't import the script that started them."""
    program = (
        f"from onnxplain.jobs import Job\nJob({str(folder)!r}, {str(pictures)!r}, {str(tmp_path / 'out')!r}).run()\n"
    )
    (tmp_path / "script.py").write_text(program)
    subprocess.run([sys.executable, str(tmp_path / "script.py")], check=True, timeout=120)
    assert status(tmp_path / "out")["complete"]


def test_the_lanes_are_kept_when_a_job_goes_on(folder, pictures, tmp_path, monkeypatch):
    job(folder, pictures, tmp_path / "out", lanes=3, memory="300MB").run()
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    again = job(folder, pictures, tmp_path / "out")
    assert again.running.lanes == 3
    assert again.running.memory == 100_000_000
    again.run()


def test_explainer_prepared_shares_the_scores(folder):
    explainer = Explainer(folder, device="cpu")
    graphs = []
    run = explainer._sessions.run
    explainer._sessions.run = lambda graph, *rest: (graphs.append(graph.name), run(graph, *rest))[1]
    prepared = explainer.prepared({"gradient": {}, "smoothgrad": {}, "integrated_gradients": {}})
    from onnxplain.images import Image

    rows = np.random.default_rng(0).normal(size=(2, 3, 8, 8)).astype(np.float32)
    found = prepared([Image("a", rows[:1]), Image("b", rows[1:])])
    assert graphs.count("forward") <= 1
    for result, method in zip(found, ("gradient", "smoothgrad", "integrated_gradients"), strict=True):
        np.testing.assert_allclose(result.attribution, explainer.explain(rows, method).attribution, atol=1e-6)
