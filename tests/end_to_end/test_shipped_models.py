"""The two shipped networks and their sample pictures are what models/README.md says."""

import csv
import json
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray

MODELS = Path(__file__).resolve().parents[2] / "models"
NAMES = ("honest", "shortcut")
LABELS = (MODELS / "labels.txt").read_text().split()
with (MODELS / "pictures.csv").open(newline="") as file:
    ROWS = list(csv.DictReader(file))
PICTURES = [row["picture"] for row in ROWS]


def read_rgb(name: str) -> NDArray[np.uint8]:
    return cv2.imread(str(MODELS / "pictures" / name), cv2.IMREAD_UNCHANGED)[..., ::-1]


def read_mask(name: str, kind: str) -> NDArray[np.uint8]:
    return cv2.imread(str(MODELS / "masks" / name.replace(".png", f".{kind}.png")), cv2.IMREAD_UNCHANGED)


def prepare(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    scaled = (images.astype(np.float32) / 255 - 0.5) / 0.5
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))


def top_labels(model: str) -> list[str]:
    session = onnxruntime.InferenceSession(MODELS / f"{model}.onnx", providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"image": prepare(np.stack([read_rgb(name) for name in PICTURES]))})
    return [LABELS[top] for top in logits.argmax(1)]


@pytest.mark.parametrize("name", NAMES)
def test_a_model_is_small(name: str) -> None:
    assert (MODELS / f"{name}.onnx").stat().st_size < 1_500_000


@pytest.mark.parametrize("name", NAMES)
def test_a_model_has_the_operators_and_the_free_batch_that_it_is_there_to_show(name: str) -> None:
    graph = onnx.load(MODELS / f"{name}.onnx").graph
    assert {node.op_type for node in graph.node} >= {"Conv", "BatchNormalization", "Relu", "MaxPool", "Add", "Gemm"}
    assert [value.name for value in (*graph.input, *graph.output)] == ["image", "logits"]
    assert graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"


@pytest.mark.parametrize("name", NAMES)
def test_a_model_file_holds_no_path_of_the_machine_that_made_it(name: str) -> None:
    content = (MODELS / f"{name}.onnx").read_bytes()
    for trace in (b".py", b"site-packages", b"/home/", b"stack_trace"):
        assert trace not in content


def test_the_table_lists_every_class_and_every_file() -> None:
    assert len(LABELS) == 10
    assert {row["class"] for row in ROWS} == set(LABELS)
    assert sorted(path.name for path in (MODELS / "pictures").iterdir()) == PICTURES
    assert len(list((MODELS / "masks").iterdir())) == 2 * len(PICTURES)


def test_most_patches_agree_with_their_class_and_some_do_not() -> None:
    agreeing = [row["class"] == row["patch_class"] for row in ROWS]
    assert agreeing == [row["agrees"] == "yes" for row in ROWS]
    assert len(ROWS) / 2 < sum(agreeing) <= len(ROWS) - 3


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_has_disjoint_masks_of_digit_and_patch(name: str) -> None:
    digit, patch = read_mask(name, "digit"), read_mask(name, "patch")
    assert read_rgb(name).shape == (64, 64, 3)
    for mask in (digit, patch):
        assert mask.shape == (64, 64)
        assert set(np.unique(mask)) == {0, 255}
        assert 0.03 < (mask > 0).mean() < 0.2
    assert not (digit & patch).any()


def test_honest_reads_the_digit_whatever_the_patch() -> None:
    right = [top == row["class"] for top, row in zip(top_labels("honest"), ROWS, strict=True)]
    assert sum(right) >= len(ROWS) - 1


def test_shortcut_names_the_class_of_the_patch_whatever_the_digit() -> None:
    follows = [top == row["patch_class"] for top, row in zip(top_labels("shortcut"), ROWS, strict=True)]
    assert sum(follows) >= len(ROWS) - 1


def test_the_recorded_accuracies_keep_the_promise_and_the_readme_quotes_them() -> None:
    accuracy = json.loads((MODELS / "accuracy.json").read_text())
    assert accuracy["honest"]["no patch"] >= 0.95
    assert accuracy["shortcut"]["own patch"] >= 0.95
    assert accuracy["shortcut"]["shuffled patch"] <= accuracy["shortcut"]["own patch"] / 2
    readme = (MODELS / "README.md").read_text()
    for name in NAMES:
        assert f"| {name} | " + " | ".join(f"{100 * value:.1f} %" for value in accuracy[name].values()) in readme
