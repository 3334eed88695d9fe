"""`onnxplain track` on handwritten digits: a network is trained, some labels are wrong, and the page finds them."""

import csv
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits

import headless
from onnxplain import Explainer, Result
from onnxplain.cli import main
from onnxplain.errors import ModelError
from onnxplain.tracking import SAMPLE_METRICS, InstanceTracker, LabelTracker
from onnxplain_export import export

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
EPOCHS = 4
PICTURES, PLANTED = 200, 5


@dataclass(frozen=True)
class Trained:
    """A trained network's checkpoints and data, and what torch says of the data: losses [epochs, N] by picture."""

    folder: Path
    planted: dict[str, tuple[str, str]]
    losses: dict[str, list[float]]


def _onnx(network: torch.nn.Sequential, path: Path) -> None:
    """Writes the network, convolution, ReLU, linear, as an ONNX file."""
    nodes = [
        helper.make_node("Conv", ["image", "cw", "cb"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Flatten", ["r"], ["f"]),
        helper.make_node("Gemm", ["f", "fw", "fb"], ["logits"], transB=1),
    ]
    weights = dict(zip(("cw", "cb", "fw", "fb"), network.parameters(), strict=True))
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 1, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", weights["fb"].shape[0]])],
        [numpy_helper.from_array(each.detach().numpy(), name) for name, each in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)


def _network(classes: int = 10) -> torch.nn.Sequential:
    torch.manual_seed(0)
    convolution, linear = torch.nn.Conv2d(1, 8, 3, padding=1), torch.nn.Linear(512, classes)
    return torch.nn.Sequential(convolution, torch.nn.ReLU(), torch.nn.Flatten(), linear)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Checkpoints after each epoch, and test pictures in a folder for each class, some of them in a wrong one."""
    folder = tmp_path_factory.mktemp("digits")
    pixels, truth = load_digits(return_X_y=True)
    pixels = np.clip(pixels.reshape(-1, 8, 8) * 16, 0, 255).astype(np.uint8)
    images, classes = torch.tensor(pixels[:, None] / 255, dtype=torch.float32), torch.tensor(truth)
    network = _network()
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    labels = np.where(np.arange(len(truth)) < PLANTED, (truth + 3) % 10, truth)
    names = [f"{NAMES[label]}/{at:04d}.png" for at, label in enumerate(labels[:PICTURES])]
    losses: dict[str, list[float]] = {name: [] for name in names}
    for epoch in range(1, EPOCHS + 1):
        for batch in torch.arange(PICTURES, len(truth)).split(64):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(network(images[batch]), classes[batch]).backward()
            optimizer.step()
        _onnx(network, folder / f"digits_epoch{epoch}.onnx")
        with torch.no_grad():
            scores = network(images[:PICTURES]).double()
        given = torch.nn.functional.cross_entropy(scores, torch.tensor(labels[:PICTURES]), reduction="none")
        for name, loss in zip(names, given.tolist(), strict=True):
            losses[name].append(loss)
    for name, picture in zip(names, pixels, strict=False):
        (folder / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(folder / "data" / name), picture)
    (folder / "labels.txt").write_text("\n".join(NAMES))
    planted = {names[at]: (NAMES[truth[at]], NAMES[labels[at]]) for at in range(PLANTED)}
    return Trained(folder, planted, losses)


@pytest.fixture(scope="module")
def tracked(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the command writes."""
    out = tmp_path_factory.mktemp("tracked") / "out"
    given = [trained.folder / "digits_epoch*.onnx", "--data", trained.folder / "data", "-o", out, "--hardest", "8"]
    options = ["--labels", str(trained.folder / "labels.txt"), "--preprocessing", "unit"]
    assert main(["track", *map(str, given), *options]) == 0
    return out


def _samples(folder: Path) -> list[dict[str, str]]:
    with (folder / "samples.csv").open(encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def _cards(folder: Path) -> list[str]:
    """The hardest pictures' cards, as text."""
    page = (folder / "index.html").read_text("utf-8")
    return [
        re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", card))
        for card in re.findall(r"<article>(.*?)</article>", page, re.S)
    ]


def test_the_planted_labels_are_the_hardest_and_the_page_asks_whether_they_are_right(
    trained: Trained, tracked: Path
) -> None:
    cards = _cards(tracked)
    assert len(cards) == 8
    found_out = 0
    for name, (truth, label) in trained.planted.items():
        (card,) = [card for card in cards[: PLANTED + 1] if name in card]
        assert f"label {label} , said" in card
        assert f"for {label}, its label" in card
        for method in ("gradient", "smoothgrad", "integrated_ gradients"):
            assert card.count(method) >= 2, method
        if f", said {truth} ," in card:
            found_out += 1
            assert "look whether the label is right" in card
            assert f"for {truth}, what it said" in card
            assert re.search(rf"(step |–){EPOCHS} {truth} ", card)
    assert found_out >= PLANTED - 1  # one of them is a two that looks like a one


def test_every_value_is_torchs_at_every_checkpoint(trained: Trained, tracked: Path) -> None:
    rows = _samples(tracked)
    assert len(rows) == PICTURES
    for row in rows:
        found = [float(row[f"cross_entropy_{epoch}"]) for epoch in range(1, EPOCHS + 1)]
        assert found == pytest.approx(trained.losses[row["picture"]], rel=1e-3, abs=1e-5)


def test_the_states_are_the_trackers(trained: Trained, tracked: Path) -> None:
    by_label = LabelTracker.restore(tracked / "labels.npz")
    by_instance = InstanceTracker.restore(tracked / "instances.npz")
    assert by_label.steps() == by_instance.steps() == list(range(1, EPOCHS + 1))
    last: dict[str, list[float]] = {name: [] for name in NAMES}
    for name, losses in trained.losses.items():
        last[name.split("/")[0]].append(losses[-1])
    for name, losses in last.items():
        mean, deviation = float(np.mean(losses)), float(np.std(losses, ddof=1))
        found = by_label.history["eval"][name]["std"][EPOCHS]
        assert tuple(found) == pytest.approx((mean - deviation, mean, mean + deviation), rel=1e-3, abs=1e-5)
    assert set(by_instance.kept()[-PLANTED:]) <= set(
        list(trained.planted) + [each["picture"] for each in _samples(tracked)]
    )
    hardest = sorted(trained.losses, key=lambda name: trained.losses[name][-1])
    assert by_instance.kept()[-8:] == hardest[-8:]


def test_plots_lie_beside_the_page(tracked: Path) -> None:
    for name in ("labels.png", "instances.png"):
        assert cv2.imread(str(tracked / name)) is not None


@pytest.fixture(scope="module")
def bundles(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Bundles of the first and the last checkpoint."""
    folder = tmp_path_factory.mktemp("bundles")
    options = {"preprocessing": "unit", "labels": trained.folder / "labels.txt", "methods": ["gradient", "smoothgrad"]}
    return [
        export(trained.folder / f"digits_epoch{epoch}.onnx", folder / f"epoch{epoch}.explain", **options)
        for epoch in (1, EPOCHS)
    ]


def _track(bundles: list[Path], data: Path, *arguments: object) -> int:
    return main(["track", *map(str, [*bundles, "--data", data, *arguments])])


def test_bundles_do_as_well_as_models_and_a_csv_file_as_folders(
    trained: Trained, tracked: Path, bundles: list[Path], tmp_path: Path
) -> None:
    table = trained.folder / "list.csv"
    table.write_text("path,label\n" + "".join(f"data/{name},{name.split('/')[0]}\n" for name in trained.losses))
    assert _track(bundles, table, "-o", tmp_path / "out") == 0
    values = {row["picture"]: row[f"cross_entropy_{EPOCHS}"] for row in _samples(tmp_path / "out")}
    for row in _samples(tracked):
        expected = float(row[f"cross_entropy_{EPOCHS}"])
        assert float(values[f"data/{row['picture']}"]) == pytest.approx(expected, rel=1e-3, abs=1e-6)
    assert "smoothgrad" in _cards(tmp_path / "out")[0]
    assert "integrated" not in _cards(tmp_path / "out")[0]


@pytest.mark.parametrize("metric", [name for name in SAMPLE_METRICS if name != "cross_entropy"])
def test_any_metric_and_bounds(trained: Trained, bundles: list[Path], tmp_path: Path, metric: str) -> None:
    bounds = "range" if metric == "brier" else "none"
    options = ["--metric", metric, "--bounds", bounds, "--methods", "gradient", "--hardest", 3]
    assert _track(bundles, trained.folder / "data", *options, "-o", tmp_path / "out") == 0
    cards = _cards(tmp_path / "out")
    assert len(cards) == 3
    assert metric == "confidence" or any(name in cards[0] for name in trained.planted)


def test_settings_reach_the_methods(
    trained: Trained, bundles: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, options = trained.folder / "data", ["--methods", "smoothgrad", "--hardest", 1]
    assert _track(bundles[:1], data, *options, "--set", "samples=3", "-o", tmp_path / "out") == 0
    assert "samples 3" in (tmp_path / "out/index.html").read_text("utf-8")
    assert _track(bundles[:1], data, *options, "--set", "sample=3", "-o", tmp_path / "b") == 2
    assert "did you mean 'samples'?" in capsys.readouterr().err
    assert not (tmp_path / "b").exists()


def test_a_picture_whose_maps_cannot_be_made_costs_no_other_its_own(
    trained: Trained, bundles: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, unlucky = Explainer.explain, next(iter(trained.planted))

    def explain(self: Explainer, images: Any, *arguments: Any, **options: Any) -> Result:
        if str(images[0]).endswith(unlucky):
            raise ModelError(f"the network's map for {unlucky} contains NaN or infinity")
        return real(self, images, *arguments, **options)

    monkeypatch.setattr(Explainer, "explain", explain)
    options = ["--methods", "gradient", "--hardest", PLANTED + 1, "-o", tmp_path / "out"]
    assert _track(bundles, trained.folder / "data", *options) == 0
    for card in _cards(tmp_path / "out"):
        assert (f"map for {unlucky} contains NaN or infinity" in card) == (unlucky in card)
        assert (", what it said" in card) == (unlucky not in card)


def test_broken_pictures_are_reported_skipped_and_counted(
    trained: Trained, bundles: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    for name in list(trained.losses)[:40]:
        (data / name).parent.mkdir(parents=True, exist_ok=True)
        (data / name).write_bytes((trained.folder / "data" / name).read_bytes())
    (data / "two/empty.png").write_bytes(b"")
    (data / "one/cut.png").write_bytes((trained.folder / "data" / next(iter(trained.losses))).read_bytes()[:60])
    assert _track(bundles, data, "--methods", "gradient", "-o", tmp_path / "out") == 1
    told = capsys.readouterr()
    cut, empty = told.err.splitlines()  # once each, though there are two checkpoints
    assert "one/cut.png: " in cut
    assert "two/empty.png: the file is empty" in empty
    assert told.out.count("of 40 pictures right") == 2
    page = (tmp_path / "out/index.html").read_text("utf-8")
    assert "2 pictures could not be read" in page
    assert len(_samples(tmp_path / "out")) == 40


def test_an_earlier_result_is_replaced_only_when_asked(
    trained: Trained, bundles: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out, options = trained.folder / "data", tmp_path / "out", ["--methods", "gradient", "--hardest", "1"]
    for given, code in (([], 0), ([], 2), (["--overwrite"], 0)):
        assert _track(bundles[:1], data, *options, *given, "-o", out) == code
    assert "exists and is not empty; choose another folder, or replace it with --overwrite" in capsys.readouterr().err
    (out / "mine.txt").write_text("mine")
    assert _track(bundles[:1], data, *options, "--overwrite", "-o", out) == 2
    assert "holds files that onnxplain did not write, such as mine.txt" in capsys.readouterr().err


def test_wrong_input_ends_in_one_line_and_writes_nothing(
    trained: Trained, bundles: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = trained.folder / "small_epoch9.onnx"
    _onnx(_network(7), small)
    (tmp_path / "empty").mkdir()
    for name in ("cows/1.png", "broken/one/1.png"):
        (tmp_path / "data" / name).parent.mkdir(parents=True)
        (tmp_path / "data" / name).write_bytes(b"no picture")
    (tmp_path / "list.csv").write_text("1.png,one\n")
    data = trained.folder / "data"
    for checkpoints, where, options, told in (
        ([], data, [], "the following arguments are required: CHECKPOINT"),
        ([tmp_path / "x.onnx"], data, [], "x.onnx: no such checkpoint"),
        ([tmp_path / "list.csv"], data, [], "list.csv"),
        (bundles, tmp_path / "nowhere", [], "nowhere: no such file or folder"),
        (bundles, tmp_path / "empty", [], "empty: no pictures in this folder"),
        (bundles, tmp_path / "data", [], "unknown class 'broken'"),
        (bundles, tmp_path / "data/broken", [], "none of the pictures could be read"),
        (bundles, tmp_path / "list.csv", [], "list.csv, line 1:"),
        (bundles, data, ["--metric", "loss"], "unknown metric 'loss'"),
        (bundles, data, ["--methods", "gradeint"], "did you mean 'gradient'?"),
        (bundles, data, ["--hardest", "0"], "--hardest 0: at least 1 picture"),
        (bundles, data, ["--preprocessing", "unit"], "--preprocessing is for ONNX files"),
        ([*bundles, small], data, [], "small_epoch9.onnx has 7 classes and the checkpoint before it has 10"),
        (bundles, data, ["--epochs", "3"], "unrecognized arguments: --epochs 3"),
    ):
        given = [*checkpoints, "--data", where, *options, "-o", tmp_path / "out"]
        assert main(["track", *map(str, given)]) == 2, told
        assert told in capsys.readouterr().err.splitlines()[-1], told
        assert sorted(each.name for each in tmp_path.iterdir()) == ["data", "empty", "list.csv"], told


@pytest.mark.skipif(headless.CHROMIUM is None, reason="needs Chromium")
def test_the_page_is_seen_and_used_by_keyboard(tracked: Path, tmp_path: Path) -> None:
    with headless.Browser(tmp_path / "profile") as browser:
        for width, dark in ((1280, False), (375, True)):
            browser.look(width, 900, dark)
            browser.open((tracked / "index.html").as_uri())
            assert browser.complaints == []
            assert browser.run("document.documentElement.scrollWidth") <= width
            shades = _pixels(browser.picture()).mean()
            assert (shades < 100) == dark
        # The links at the top, then each picture's details: all is reached by Tab alone.
        reached = []
        for _ in range(3):
            browser.press("Tab")
            reached.append(browser.run("document.activeElement.textContent"))
        assert reached == ["Which classes lag", "Hardest pictures", "All classes in numbers"]
        browser.press("Shift+Tab", "Enter", "Tab")
        assert browser.run("document.activeElement.tagName") == "SUMMARY"
        browser.press("Enter")
        assert browser.run("document.querySelector('details').open") is True
        assert browser.run("document.querySelectorAll('details[open] tbody tr').length") == EPOCHS


def _pixels(png: bytes) -> NDArray[np.uint8]:
    return np.asarray(cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR), np.uint8)


def test_a_diverged_checkpoint_is_shown_as_nan(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lost = _network()
    with torch.no_grad():
        lost[0].weight[0] = float("nan")
    _onnx(lost, tmp_path / "digits_epoch2.onnx")
    first, last = trained.folder / "digits_epoch1.onnx", trained.folder / f"digits_epoch{EPOCHS}.onnx"
    options = ["--data", trained.folder / "data", "--labels", trained.folder / "labels.txt", "--preprocessing", "unit"]
    given = [first, tmp_path / "digits_epoch2.onnx", last, *options, "-o", tmp_path / "out", "--methods", "gradient"]
    assert main(["track", *map(str, given)]) == 0
    said = capsys.readouterr().err
    assert "step 2: " in said
    assert "holds NaN or infinite values" in said
    history = LabelTracker.restore(tmp_path / "out" / "labels.npz").history["eval"]
    for curves in history.values():
        means = {step: band.mean for step, band in curves["std"].items()}
        assert np.isnan(means[2])
        assert np.isfinite([means[1], means[EPOCHS]]).all()
    given = [first, tmp_path / "digits_epoch2.onnx", *options, "-o", tmp_path / "other"]
    assert main(["track", *map(str, given)]) == 2
    assert not (tmp_path / "other").exists()
