import io
import json
import os
import sys
from types import ModuleType

import cv2
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from onnxplain import Explainer
from onnxplain.cli import main
from onnxplain.pictures import read_picture
from toy_bundle import write_toy_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return write_toy_bundle(tmp_path_factory.mktemp("toy") / "toy.explain")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A working folder with two good pictures in `pictures`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures").mkdir()
    random = np.random.default_rng(6)
    for name, size in (("a", (20, 31)), ("b", (40, 16))):
        cv2.imwrite(f"pictures/{name}.png", random.integers(0, 256, (*size, 3), np.uint8))
    return tmp_path


def onnxplain(*arguments):
    return main([str(argument) for argument in arguments])


def index_of(out):
    return [json.loads(line) for line in (out / "index.jsonl").read_text().splitlines()]


def error_of(capsys):
    """The one line on stderr."""
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_explain_writes_map_overlay_index_and_report(bundle, folder):
    assert onnxplain("explain", bundle, "pictures", "--method", "smoothgrad", "--samples", 3, "-o", "out") == 0
    assert sorted(os.listdir("out")) == sorted(
        ["a.smoothgrad.npy", "a.smoothgrad.png", "b.smoothgrad.npy", "b.smoothgrad.png", "index.jsonl", "report.html"]
    )
    expected = Explainer(bundle, device="cpu").explain("pictures/b.png", "smoothgrad", samples=3)
    assert_array_equal(np.load("out/b.smoothgrad.npy"), expected.attribution[0])
    assert_array_equal(read_picture("out/b.smoothgrad.png"), expected.overlay()[0])
    line = index_of(folder / "out")[1]
    assert line["picture"] == "pictures/b.png"
    assert line["targets"] == expected.targets.tolist()
    assert line["files"] == {"map": "b.smoothgrad.npy", "overlay": "b.smoothgrad.png"}
    assert line["provenance"] == expected.provenance
    assert [each["probability"] for each in line["predictions"]] == sorted(expected.probabilities[0].tolist())[:0:-1]
    assert "a.png" in (folder / "out/report.html").read_text()


def test_several_methods_share_a_report_and_each_takes_its_own_parameters(bundle, folder):
    arguments = ("--method", "gradient,occlusion,integrated_gradients", "--set", "window=4", "--steps=3")
    assert onnxplain("explain", bundle, "pictures/a.png", *arguments, "--baseline", "white", "-o", "out") == 0
    parameters = {line["method"]: line["provenance"]["parameters"] for line in index_of(folder / "out")}
    assert parameters == {
        "gradient": {},
        "occlusion": {"window": 4, "stride": 0, "fill": 0.0},
        "integrated_gradients": {"steps": 3, "baseline": "white"},
    }
    report = (folder / "out/report.html").read_text()
    assert report.count("<article>") == 1
    assert all(method in report for method in parameters)


def test_a_parameter_of_one_method_holds_against_that_of_all(bundle, folder):
    given = ("--method", "smoothgrad,smoothgrad_integrated", "--set", "smoothgrad.samples=3", "--samples", 2)
    assert onnxplain("explain", bundle, "pictures/a.png", *given, "-o", "out") == 0
    samples = {line["method"]: line["provenance"]["parameters"]["samples"] for line in index_of(folder / "out")}
    assert samples == {"smoothgrad": 3, "smoothgrad_integrated": 2}


def test_a_negative_number_is_a_value(bundle, folder):
    given = ("--method", "integrated_gradients", "--baseline", "-1", "--steps", "3")
    assert onnxplain("explain", bundle, "pictures/a.png", *given, "-o", "out") == 0
    assert index_of(folder / "out")[0]["provenance"]["parameters"]["baseline"] == -1


def test_the_comparison_says_how_many_methods_it_shows(bundle, folder):
    for methods, title in (("all", "by every method"), ("gradient,occlusion", "by 2 methods")):
        given = ("--method", methods, "-o", "out", "--overwrite")
        assert onnxplain("explain", bundle, "pictures/a.png", *given) == 0
        assert title in (folder / "out/comparison.html").read_text()


@pytest.fixture
def segmenting(tmp_path, monkeypatch):
    """A bundle whose gradient is called xrai and segments pictures, where scikit-image is missing."""
    folder = write_toy_bundle(tmp_path / "segmenting.explain")
    description = json.loads((folder / "explainer.json").read_text())
    parameters = {"segments": {"kind": "array", "default": None}}
    description["methods"]["xrai"] = {**description["methods"]["gradient"], "loop": "xrai", "parameters": parameters}
    (folder / "explainer.json").write_text(json.dumps(description))
    monkeypatch.setitem(sys.modules, "skimage", None)
    return folder


@pytest.mark.parametrize("command", ["explain", "evaluate"])
def test_of_all_methods_those_that_need_a_missing_package_are_left_out(segmenting, capsys, command):
    given = ("pictures/a.png", "--method", "all", *(("-o", "out") if command == "explain" else ()))
    if command == "evaluate":
        given = (*given, "--metric", "sparseness")
    assert onnxplain(command, segmenting, *given) == 0
    line = error_of(capsys)
    assert "xrai is left out: it needs scikit-image" in line
    assert 'pip install "onnxplain[segments]"' in line


@pytest.mark.parametrize("command", ["explain", "evaluate"])
def test_a_named_method_without_its_package_is_refused_before_anything_runs(segmenting, capsys, monkeypatch, command):
    monkeypatch.setattr(Explainer, "_explain", lambda *_: 1 / 0)
    assert onnxplain(command, segmenting, "pictures", "--method", "gradient,xrai", "-o", "out") == 2
    assert error_of(capsys).startswith("onnxplain: xrai needs scikit-image to segment pictures: pip install")


@pytest.mark.parametrize("command", ["evaluate", "compare"])
def test_parameters_that_go_in_set_are_said_to(bundle, capsys, command):
    bundles = (bundle, bundle) if command == "compare" else (bundle,)
    assert onnxplain(command, *bundles, "pictures", "--samples", "3", "-o", "out") == 2
    assert "--samples 3; parameters of methods go in --set NAME=VALUE" in error_of(capsys)


@pytest.mark.parametrize("arguments", [[], ["explian"], ["explain"], ["info", "a", "--nothing"]])
def test_a_wrong_command_line_is_one_line(arguments, capsys):
    assert onnxplain(*arguments) == 2
    assert "--help" in error_of(capsys)


def test_all_methods_are_those_of_the_bundle(bundle, folder):
    assert onnxplain("explain", bundle, "pictures/a.png", "--method", "all", "-o", "out") == 0
    assert len(index_of(folder / "out")) == 5


def test_targets_are_names_numbers_and_top(bundle, folder):
    assert onnxplain("explain", bundle, "pictures/a.png", "--target", "dog", "--target", 3, "-o", "out") == 0
    (line,) = index_of(folder / "out")
    assert line["targets"] == [1, 3]
    assert line["labels"] == ["dog", "crane"]
    assert np.load("out/a.gradient.npy").shape == (2, 3, 8, 8)
    assert read_picture("out/a.gradient.png").shape == (8, 16, 3)


def test_overlays_can_be_of_the_whole_picture(bundle):
    assert onnxplain("explain", bundle, "pictures/a.png", "--original", "-o", "out") == 0
    assert read_picture("out/a.gradient.png").shape == (20, 31, 3)


def test_score_reaches_the_methods_that_take_one(bundle, folder):
    assert onnxplain("explain", bundle, "pictures/a.png", "--method", "all", "--score", "logits", "-o", "out") == 0
    assert {line["provenance"]["explains"] for line in index_of(folder / "out")} == {"logits"}


def test_a_bad_picture_among_good_ones_is_reported_and_the_others_explained(bundle, folder, capsys):
    (folder / "pictures/empty.png").write_bytes(b"")
    (folder / "pictures/cut.png").write_bytes((folder / "pictures/a.png").read_bytes()[:200])
    assert onnxplain("explain", bundle, "pictures", "--method", "gradient,occlusion", "-o", "out") == 1
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 2
    assert all(error.startswith("onnxplain: pictures/") for error in errors)
    explained = [line["picture"] for line in index_of(folder / "out") if "error" not in line]
    assert explained == ["pictures/a.png", "pictures/b.png"] * 2
    failed = {line["picture"] for line in index_of(folder / "out") if "error" in line}
    assert failed == {"pictures/empty.png", "pictures/cut.png"}
    assert "empty.png" in (folder / "out/report.html").read_text()


def test_only_bad_pictures_leave_nothing(bundle, folder, capsys):
    (folder / "empty.png").write_bytes(b"")
    assert onnxplain("explain", bundle, "empty.png", "-o", "out") == 2
    assert "none of the 1 pictures" in capsys.readouterr().err
    assert sorted(os.listdir(".")) == ["empty.png", "pictures"]


def test_pictures_of_one_name_get_files_of_their_own(bundle, folder):
    (folder / "other").mkdir()
    for name in ("A.png", "a.jpg"):
        cv2.imwrite(f"other/{name}", read_picture("pictures/b.png"))
    assert onnxplain("explain", bundle, "pictures", "other", "-o", "out") == 0
    maps = [line["files"]["map"] for line in index_of(folder / "out")]
    assert maps == ["a.gradient.npy", "b.gradient.npy", "A-2.gradient.npy", "a-3.gradient.npy"]


# Errors: one line, exit code 2, nothing left.


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method", "smothgrad"], "unknown method 'smothgrad'; did you mean 'smoothgrad'?"),
        (["--sampels", "3"], "unknown option or parameter of gradient 'sampels'; did you mean 'samples'?"),
        (["--memroy", "2GB"], "did you mean 'memory'?"),
        (["--samples", "3"], "gradient has no parameter 'samples'; smoothgrad, smoothgrad_integrated have"),
        (["--method", "smoothgrad", "--samples", "few"], "samples='few' is no whole number"),
        (["--method", "smoothgrad", "--samples", "0"], "out of range: 1 to 1000000"),
        (["--method", "smoothgrad", "--samples"], "--samples needs a value"),
        (["--method", "smoothgrad", "--samples", "--overwrite"], "--samples needs a value"),
        (["--method", "occlusion", "--window", "-3"], "window=-3 is out of range"),
        (["--method", "lime"], "Which methods a bundle has is chosen at export (--methods)"),
        (["--method", "rise_plus"], "rise_plus needs a detector; train one: onnxplain detector"),
        (["--set", "occlusion.window=4"], "unknown method of this explanation 'occlusion'; known: gradient"),
        (["--set", "gradient.window=4"], "gradient has no parameter 'window'; occlusion has"),
        (["--method", "gradient,occlusion", "--samples", "3"], "gradient, occlusion have no parameter 'samples'"),
        (["--top", "few"], "argument --top: invalid int value: 'few'; see onnxplain explain --help"),
        (["--method", ","], "names no method"),
        (["--set", "samples"], "write NAME=VALUE"),
        (["--target", "dgo"], "did you mean 'dog'?"),
        (["--target", "4"], "target 4 is out of range"),
        (["--target", "-1"], "target -1 is out of range"),
        (["--memory", "2 GiB"], "is no amount of memory"),
        (["--top", "0"], "must be a whole number from 1 to 4"),
        (["--threads", "0"], "threads=0"),
        (["--score", "logits"], "--score is for perturbation methods, not for gradient"),
    ],
)
def test_a_wrong_argument_is_one_line_and_leaves_nothing(bundle, capsys, arguments, message):
    assert onnxplain("explain", bundle, "pictures", "-o", "out", *arguments) == 2
    line = error_of(capsys)
    assert line.startswith("onnxplain: ")
    assert message in line
    assert os.listdir(".") == ["pictures"]


def test_a_picture_that_is_not_there_is_one_line(bundle, capsys):
    assert onnxplain("explain", bundle, "pictures", "lost.png", "-o", "out") == 2
    assert "lost.png: no such file" in error_of(capsys)


def test_a_bundle_that_is_none_is_one_line(capsys):
    assert onnxplain("explain", "lost.explain", "pictures", "-o", "out") == 2
    assert "lost.explain does not exist" in error_of(capsys)


def test_an_error_in_the_middle_leaves_nothing(bundle, monkeypatch):
    def fail(*_, **__):
        raise MemoryError

    monkeypatch.setattr("onnxplain.commands.explain.write_report", fail)
    with pytest.raises(MemoryError):
        onnxplain("explain", bundle, "pictures", "-o", "out")
    assert os.listdir(".") == ["pictures"]


def test_an_interrupt_leaves_nothing_and_is_one_line(bundle, capsys, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("onnxplain.commands.explain.write_png", interrupt)
    assert onnxplain("explain", bundle, "pictures", "-o", "out") == 130
    assert "interrupted" in error_of(capsys)
    assert os.listdir(".") == ["pictures"]


# The output folder.


def test_a_folder_with_something_in_it_is_refused_without_overwrite(bundle, folder, capsys):
    (folder / "out").mkdir()
    assert onnxplain("explain", bundle, "pictures", "-o", "out") == 0
    assert onnxplain("explain", bundle, "pictures", "--method", "occlusion", "-o", "out") == 2
    assert "--overwrite" in error_of(capsys)
    assert onnxplain("explain", bundle, "pictures", "--method", "occlusion", "-o", "out", "--overwrite") == 0
    assert "a.gradient.npy" not in os.listdir("out")
    assert "a.occlusion.npy" in os.listdir("out")
    assert sorted(os.listdir(".")) == ["out", "pictures"]


def test_overwrite_never_deletes_what_is_not_ours(bundle, folder, capsys):
    assert onnxplain("explain", bundle, "pictures", "-o", "out") == 0
    (folder / "out/thesis.txt").write_text("years of work")
    for target in ("out", "pictures", "."):
        assert onnxplain("explain", bundle, "pictures", "-o", target, "--overwrite") == 2
        assert "did not write" in error_of(capsys) or target == "out"
    assert (folder / "out/thesis.txt").read_text() == "years of work"
    assert (folder / "pictures/a.png").exists()


def test_a_file_in_the_way_is_an_error(bundle, folder, capsys):
    (folder / "out").write_text("")
    assert onnxplain("explain", bundle, "pictures", "-o", "out") == 2
    assert "out is a file" in error_of(capsys)


def test_an_unwritable_place_is_an_error_before_any_work(bundle, capsys, monkeypatch):
    monkeypatch.setattr(Explainer, "stream", lambda *_, **__: 1 / 0)
    assert onnxplain("explain", bundle, "pictures", "-o", "/proc/onnxplain-out") == 2
    assert "can't write in /proc" in error_of(capsys)


def test_folders_above_the_output_are_made(bundle, folder):
    assert onnxplain("explain", bundle, "pictures", "-o", "new/deep/out") == 0
    assert (folder / "new/deep/out/report.html").exists()
    assert os.listdir("new") == ["deep"]


# info


def test_info_prints_model_inputs_preprocessing_methods_and_verification(bundle, capsys):
    assert onnxplain("info", bundle) == 0
    out = capsys.readouterr().out
    for part in ("toy", "image [N, 3, 8, 8]", "cat, dog", "resize", "--samples 25", "smoothgrad", "error 1e-07"):
        assert part in out


def test_info_as_json_is_the_description(bundle, capsys):
    assert onnxplain("info", bundle, "--json") == 0
    assert json.loads(capsys.readouterr().out) == json.loads((bundle / "explainer.json").read_text())


def test_info_try_writes_what_the_network_sees_and_compares_presets(bundle, capsys):
    assert onnxplain("info", bundle, "--try", "pictures/a.png", "-o", "seen.png") == 0
    expected = Explainer(bundle, device="cpu").explain("pictures/a.png")
    assert_array_equal(read_picture("seen.png"), expected.images[0].seen)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split()[:2] == ["this", "bundle"]
    assert lines[1].split("  ")[-1].startswith(expected.labels[0])
    assert {line.split()[0] for line in lines[2:]} >= {"torchvision", "caffe", "unit", "raw"}


def test_info_of_a_bad_picture_is_one_line(bundle, folder, capsys):
    (folder / "empty.png").write_bytes(b"")
    assert onnxplain("info", bundle, "--try", "empty.png") == 2
    assert "the file is empty" in error_of(capsys)


# The commands of the other package, and the program itself.


def test_commands_of_the_other_package_are_loaded_by_name(monkeypatch):
    called = []

    def add_commands(commands):
        parser = commands.add_parser("export")
        parser.add_argument("model")
        parser.set_defaults(run=lambda arguments: called.append(arguments.model))

    module = ModuleType("onnxplain_export.commands")
    module.add_commands = add_commands
    monkeypatch.setitem(sys.modules, "onnxplain_export", ModuleType("onnxplain_export"))
    monkeypatch.setitem(sys.modules, "onnxplain_export.commands", module)
    assert onnxplain("export", "m.onnx") == 0
    assert called == ["m.onnx"]


@pytest.mark.parametrize("arguments", [["--help"], ["explain", "--help"], ["info", "--help"], ["--version"]])
def test_help_and_version_need_no_bundle(arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 0
    assert "onnxplain" in capsys.readouterr().out


def test_a_progress_bar_on_a_terminal(bundle, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.delenv("TQDM_DISABLE", raising=False)
    monkeypatch.setattr("onnxplain.progress.SECONDS_BEFORE_SHOWING", 0)
    monkeypatch.setattr("sys.stderr", Terminal())
    assert onnxplain("explain", bundle, "pictures", "--method", "occlusion", "-o", "out") == 0
    assert "occlusion:" in sys.stderr.getvalue()
    assert "2 of 2" not in sys.stderr.getvalue()


def test_no_progress_bar_where_stderr_is_no_terminal(bundle, capsys, monkeypatch):
    monkeypatch.setattr("onnxplain.progress.SECONDS_BEFORE_SHOWING", 0)
    assert onnxplain("explain", bundle, "pictures", "--method", "all", "-o", "out") == 0
    assert capsys.readouterr().err == ""
