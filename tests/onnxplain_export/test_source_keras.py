"""Keras models, here on the torch backend, are exported by Keras itself; the gradient is autograd's."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch

import small_models
from onnxplain.errors import ModelError
from onnxplain_export import export, refresh
from onnxplain_export.graphs.gradient import gradient
from onnxplain_export.normalize import normalize
from onnxplain_export.sources import read_source, torch_source

IMAGES = small_models.images(12, 11, 3)


@pytest.fixture(scope="module")
def keras(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Keras on torch, with its settings in a folder of the test's own."""
    given = {"KERAS_BACKEND": "torch", "KERAS_HOME": str(tmp_path_factory.mktemp("keras"))}
    before = {name: os.environ.get(name) for name in given}
    os.environ.update(given)
    try:
        import keras  # reads both when it is imported

        keras.utils.set_random_seed(0)
        yield keras
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def sequential(keras: Any) -> Any:
    layers = keras.layers
    return keras.Sequential(
        [
            layers.Input((12, 11, 3)),
            layers.Conv2D(6, 3, strides=2, padding="same", activation="relu"),
            layers.BatchNormalization(),
            layers.DepthwiseConv2D(3, padding="same"),
            layers.MaxPooling2D(3, 2, padding="same"),
            layers.Flatten(),
            layers.Dense(5, activation="softmax"),
        ]
    )


def functional(keras: Any) -> Any:
    layers = keras.layers
    picture = layers.Input((12, 11, 3), name="picture")
    first = layers.Conv2D(6, 3, strides=2, activation="gelu")(picture)
    joined = layers.Add()([first, layers.Conv2D(6, 3, padding="same")(first)])
    pooled = layers.GlobalAveragePooling2D()(layers.LayerNormalization()(joined))
    return keras.Model(picture, layers.Dense(4, name="logits")(layers.Dropout(0.5)(pooled)))


def subclassed(keras: Any) -> Any:
    class Network(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.features, self.dropout = keras.layers.Conv2D(4, 3), keras.layers.Dropout(0.5)
            self.head = keras.layers.Dense(3)

        def call(self, x: Any, training: bool = False) -> Any:
            pooled = keras.ops.mean(keras.ops.tanh(self.features(x)), (1, 2))
            return self.head(self.dropout(pooled, training=training))

    return Network()


@pytest.fixture(params=["torch's exporter", "Keras' exporter"])
def exporter(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to ONNX; the second is the only one on other backends."""

    def refuse(*_: Any) -> None:
        raise ModelError("torch can't")

    if request.param != "torch's exporter":
        monkeypatch.setattr(torch_source, "model_from_torch", refuse)
    return str(request.param)


@pytest.mark.parametrize("make", [sequential, functional, subclassed], ids=lambda make: make.__name__)
def test_the_gradient_is_autograds(make: Any, keras: Any, exporter: str) -> None:
    if make is functional and exporter == "Keras' exporter":
        pytest.skip("Keras' exporter has no LayerNormalization on torch")
    model = make(keras)
    found = normalize(read_source(model, IMAGES[:1] if make is subclassed else None))
    assert (found.layout, found.image_shape, found.baked) == ("NHWC", (12, 11, 3), None)
    targets = np.array([[0, 1]] * len(IMAGES))
    graph = ir.to_proto(gradient(found))
    ours = small_models.run(graph, {found.image: IMAGES, "target": targets}, "total")
    rows = torch.tensor(IMAGES, requires_grad=True)
    scores = model(rows, training=False)
    scores = torch.log(scores) if make is sequential else scores
    (truth,) = torch.autograd.grad((scores[:, 0] - scores[:, 1]).sum(), rows)
    np.testing.assert_allclose(ours[:, 0] - ours[:, 1], truth.numpy(), rtol=0, atol=1e-5 * float(truth.abs().max()))


def test_names_are_the_models_own(keras: Any) -> None:
    graph = read_source(functional(keras)).model.graph
    assert ([value.name for value in graph.inputs], [value.name for value in graph.outputs]) == (
        ["picture"],
        ["logits"],
    )
    assert [value.name for value in read_source(sequential(keras)).model.graph.outputs] == ["output"]


def test_several_inputs_keep_their_names(keras: Any) -> None:
    layers = keras.layers
    pair = [layers.Input((4,), name="left"), layers.Input((3,), name="right")]
    scores = layers.Dense(2)(layers.Concatenate()(pair))
    for model in (keras.Model(pair, scores), keras.Model({"left": pair[0], "right": pair[1]}, scores)):
        assert [value.name for value in read_source(model).model.graph.inputs] == ["left", "right"]
    arrays = [np.zeros((1, 4), np.float32), np.zeros((1, 3), np.float32)]
    assert [value.name for value in read_source(keras.Model(pair, scores), arrays).model.graph.inputs] == [
        "left",
        "right",
    ]


def test_a_model_of_any_size_takes_that_of_its_example(keras: Any) -> None:
    layers = keras.layers
    model = keras.Sequential([layers.Input((None, None, 3)), layers.Conv2D(2, 3), layers.GlobalMaxPooling2D()])
    with pytest.raises(ModelError, match="leaves axes of its input free; give example="):
        read_source(model)
    (value,) = read_source(model, IMAGES[:1]).model.graph.inputs
    assert value.shape is not None
    assert list(value.shape)[1:] == [12, 11, 3]


def test_a_model_that_was_never_called_asks_for_an_example(keras: Any) -> None:
    with pytest.raises(ModelError, match="Network doesn't say the shape of its input; give example="):
        read_source(subclassed(keras))


def test_the_model_stays_in_the_mode_that_it_was_in(keras: Any) -> None:
    model = functional(keras)
    read_source(model)
    parts = list(model.modules())
    parts[1].training = False
    before = [part.training for part in parts]
    read_source(model)
    assert [part.training for part in parts] == before


def test_a_package_that_keras_needs_is_named(keras: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def export(*_: Any, **__: Any) -> None:
        raise ImportError("no module named onnxscript")

    def refuse(*_: Any) -> None:
        raise ModelError("torch's exporter needs onnxscript")

    model = functional(keras)
    monkeypatch.setattr(torch_source, "model_from_torch", refuse)
    monkeypatch.setattr(type(model), "export", export)
    with pytest.raises(ModelError, match="Keras model on the torch backend needs onnxscript: pip install onnxscript"):
        read_source(model)


def test_new_weights_reach_a_bundle_without_another_export(
    keras: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = sequential(keras)
    bundle = export(network, tmp_path / "net.explain")
    for variable in network.variables:
        if "float" in variable.dtype:
            variable.assign(variable * 1.2 + 0.01)
    fresh = export(network, tmp_path / "fresh.explain")
    monkeypatch.setattr(torch.onnx, "export", lambda *_, **__: pytest.fail("it was exported again"))
    refresh(bundle, network)
    for path in fresh.glob("*.[!j]*"):
        assert (bundle / path.name).read_bytes() == path.read_bytes(), path.name
