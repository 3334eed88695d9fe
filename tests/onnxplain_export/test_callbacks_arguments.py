"""What Watch refuses at once, and what it says would be right."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from onnxplain.errors import DeviceError, OnnxplainError, OutputError, ParameterError
from onnxplain.tracking import InstanceTracker, LabelTracker, SaliencyTracker
from onnxplain_export import callbacks
from onnxplain_export.callbacks import Watch
from watched_training import X, Y, network

LOADER = DataLoader(TensorDataset(torch.tensor(X), torch.tensor(Y)), 8, shuffle=True)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"model": nn.Linear}, "Watch takes a torch module or a Keras model, not the class Linear"),
        ({"model": "net.onnx"}, "Watch takes a torch module or a Keras model, not a str"),
        ({"labels": None}, "nothing to watch with: give saliency=, labels= or instances="),
        ({"labels": "cross_entropy"}, "labels= takes a LabelTracker, not 'cross_entropy'"),
        ({"saliency": 9}, "saliency= takes a SaliencyTracker, not 9"),
        ({"metric": "cross_entropi"}, "unknown metric 'cross_entropi'; did you mean 'cross_entropy'?"),
        ({"metric": "error"}, "labels= follows 'cross_entropy', but metric='error' is what is measured"),
        ({"every": 0}, "every must be a whole number of at least 1, not 0"),
        ({"data": (X, Y[:-1])}, "data= has 60 images and 59 labels; each image needs one"),
        ({"data": X}, r"data= is \(images, labels\), or an iterable of such batches .*, not ndarray"),
        ({"data": [(X, Y), X]}, r"a batch of data= is a pair \(images, labels\), not ndarray"),
        (
            {"data": [{"pixel_values": X}]},
            r'a batch of data= needs "labels" beside its inputs; it has \[\'pixel_values',
        ),
        ({"data": (X, Y.astype(float))}, "data= has labels of floating point; a label is the number of a class"),
        ({"data": (X, Y[:, None])}, r"data= needs the class of each image as its label, \[60\], not \[60, 1\]"),
        ({"data": LOADER.dataset}, r"DataLoader, not TensorDataset: DataLoader\(…\) makes batches of it"),
        ({"data": iter([(X, Y)])}, "an iterator ends: give"),
        ({"data": LOADER, "instances": InstanceTracker("cross_entropy")}, "give one with shuffle=False"),
        ({"sinks": 3}, "int is no sink"),
        ({"device": "cpuu"}, "unknown device 'cpuu'; did you mean 'cpu'?"),
        ({"class_name": ["a"]}, "unknown option 'class_name'"),
        ({"overwrite": True}, "unknown option 'overwrite'"),
        ({"methods": ["gradent"]}, "unknown method 'gradent'; did you mean 'gradient'?"),
        ({"saliency": SaliencyTracker(2, methods=["ig"])}, "unknown method 'ig'"),
        ({"saliency": SaliencyTracker(2), "methods": ["gradient"]}, "methods= lacks 'smoothgrad', which the saliency"),
    ],
)
def test_wrong_arguments_are_errors_at_once(given: dict[str, Any], told: str, tmp_path: Path) -> None:
    usual = {"model": network(), "data": (X, Y), "labels": LabelTracker("cross_entropy")}
    with pytest.raises((ParameterError, DeviceError), match=told):
        Watch(bundle=tmp_path / "n", **{**usual, **given})


def test_folders_that_can_t_be_written_are_errors_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    labels = LabelTracker("loss")
    with pytest.raises(OutputError, match="folder exists and isn't a bundle"):
        Watch(network(), tmp_path / "folder", labels=labels)
    with pytest.raises(OutputError, match="file' can't be made a folder"):
        Watch(network(), tmp_path / "n", labels=labels, state=tmp_path / "file")


@pytest.mark.filterwarnings("ignore:.*was given no values")
def test_a_state_of_other_settings_is_refused(tmp_path: Path) -> None:
    Watch(network(), tmp_path / "n", labels=LabelTracker("loss"), state=tmp_path / "s").epoch_end()
    with pytest.raises(ParameterError, match="of a LabelTracker with metric='loss', not 'error': give the same, or"):
        Watch(network(), tmp_path / "n", labels=LabelTracker("error"), state=tmp_path / "s")
    (tmp_path / "s/watch.npz").write_bytes(b"damaged")
    with pytest.raises(ParameterError, match=r"watch\.npz: no tracker's state, or damaged"):
        Watch(network(), tmp_path / "n", labels=LabelTracker("loss"), state=tmp_path / "s")


def test_wrong_batches_are_errors_at_once(tmp_path: Path) -> None:
    watch = Watch(network(), tmp_path / "n", data=(X, Y), labels=LabelTracker("cross_entropy"))
    with pytest.raises(ParameterError, match="values of mode 'eval' are measured on data=; feed others under another"):
        watch.batch(labels=[1], values=[2.0])
    with pytest.raises(ParameterError, match="values need labels= or indices= that say whose they are"):
        watch.batch(values=[2.0], mode="train")
    with pytest.raises(ParameterError, match="2 labels, but 1 values of 'cross_entropy'"):
        watch.batch(labels=[1, 2], values=[2.0], mode="train")
    with pytest.raises(ParameterError, match="mode='' must be a word"):
        watch.epoch_end(mode="")


def test_what_lacks_for_an_export_is_told(tmp_path: Path) -> None:
    saliency = SaliencyTracker((X[:2], Y[:2]), methods="gradient")
    watch = Watch(None, tmp_path / "n", saliency=saliency)
    with pytest.warns(UserWarning, match="epoch 1: no bundle, but training goes on: .*set watch.model before"):
        watch.epoch_end()
    watch = Watch(network(), tmp_path / "n", saliency=saliency)
    with pytest.warns(UserWarning, match="epoch 1: no bundle, but training goes on: .*needs example="):
        watch.epoch_end()


def test_only_the_framework_that_is_used_has_to_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    for package, name, install in (
        ("keras", "KerasWatch", "keras"),
        ("transformers", "TrainerWatch", "transformers"),
        ("pytorch_lightning", "LightningWatch", "lightning"),
    ):
        monkeypatch.setitem(sys.modules, package, None)
        monkeypatch.setitem(sys.modules, "lightning.pytorch", None)
        monkeypatch.delitem(sys.modules, f"onnxplain_export.callbacks.{callbacks.MODULES[name]}", raising=False)
        with pytest.raises(OnnxplainError, match=f"{name} needs {install}: pip install {install}"):
            getattr(callbacks, name)
    with pytest.raises(AttributeError, match="has no attribute 'Wach'"):
        callbacks.Wach  # noqa: B018
