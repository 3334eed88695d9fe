"""The checkpoints of a training: their order, and the bundle of each."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.testing import assert_allclose
from onnx import numpy_helper

from onnxplain import Explainer
from onnxplain.errors import BundleError, ModelError, ParameterError
from onnxplain_export import checkpoints as module
from onnxplain_export import export, export_single
from onnxplain_export.checkpoints import bundles, checkpoints
from small_models import IMAGE, SCORES, WEIGHTS, classifier, conv, head, images, model, node, run

INPUT, IMAGE_SIZE = IMAGE[0], IMAGE[2][1:]
OWN_STEPS = [
    {"step": "colour", "order": "RGB"},
    {"step": "scale", "factor": 0.125},
    {"step": "layout", "order": "NCHW"},
]


@pytest.mark.parametrize(
    ("names", "steps"),
    [
        (["net_epoch_2.onnx", "net_epoch_10.onnx", "net_epoch_1.onnx"], [2, 10, 1]),
        (["resnet18-1.onnx", "resnet18-2.onnx"], [1, 2]),
        (["epoch=03-loss=0.45.onnx", "epoch=04-loss=0.45.onnx"], [3, 4]),
        (["Step 500 of 9.onnx", "Step 600 of 9.onnx"], [500, 600]),
        (["1/model.onnx", "2/model.onnx"], [1, 2]),
        (["run7/epoch_3/resnet18.onnx", "run7/epoch_5/resnet18.onnx"], [3, 5]),
        (["first.onnx", "second.onnx"], [1, 2]),
        (["a1.onnx", "b1.onnx", "c.onnx"], [1, 2, 3]),
        (["5.explain", "6.onnx"], [5, 6]),
        (["only.onnx"], [1]),
        (["only_40.onnx"], [40]),
    ],
)
def test_a_step_is_what_tells_the_names_apart(tmp_path, names, steps):
    assert module._steps([tmp_path / name for name in names]) == steps


def test_checkpoints_come_in_the_order_of_their_steps_patterns_too(tmp_path):
    for step in (10, 2, 1):
        (tmp_path / f"e{step}.onnx").write_bytes(b"")
    found = checkpoints([str(tmp_path / "e*.onnx")])
    assert [(each.step, each.path.name, each.is_model) for each in found] == [
        (1, "e1.onnx", True),
        (2, "e2.onnx", True),
        (10, "e10.onnx", True),
    ]


def test_what_is_no_checkpoint_is_refused(tmp_path):
    (tmp_path / "a.onnx").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    for given, kind, told in (
        ([], ModelError, "no checkpoints were named"),
        (["b.onnx"], ModelError, "b.onnx: no such checkpoint"),
        (["*.pt"], ModelError, "no such checkpoint"),
        (["folder"], BundleError, "folder has no explainer.json, so it is no bundle"),
        (["a.onnx", "folder/../a.onnx"], ParameterError, "a.onnx is named twice"),
    ):
        with pytest.raises(kind) as error:
            checkpoints([tmp_path / name for name in given])
        assert told in str(error.value)


def _other_weights(source, seed):
    """The same network, trained on."""
    changed = onnx.ModelProto()
    changed.CopyFrom(source)
    random = np.random.default_rng(seed)
    for tensor in changed.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.dtype == np.float32:
            tensor.CopyFrom(
                numpy_helper.from_array((array + 0.1 * random.normal(size=array.shape)).astype(np.float32), tensor.name)
            )
    return changed


def _save(network, path):
    onnx.save(network, path)
    return path


@pytest.fixture
def counted(monkeypatch):
    """How often models are exported and bundles refreshed."""
    calls = []

    def note(name):
        real = getattr(module, name)

        def counting(*arguments, **options):
            calls.append(name)
            return real(*arguments, **options)

        monkeypatch.setattr(module, name, counting)

    note("export")
    note("refresh")
    return calls


def _export(path: Path, target: Path) -> None:
    module.export(path, target, methods=["gradient"], preprocessing="unit", labels=list("abcde")[: _classes(path)])


def _classes(path: Path) -> int:
    return onnx.load(path).graph.output[0].type.tensor_type.shape.dim[1].dim_value


def test_the_first_model_is_exported_and_each_later_one_refreshes_its_bundle(tmp_path, counted):
    models = {step: _other_weights(classifier(), step) for step in (1, 2, 3)}
    found = checkpoints([_save(each, tmp_path / f"epoch_{step}.onnx") for step, each in models.items()])
    rows = images(*IMAGE_SIZE)
    working = tmp_path / "working"
    working.mkdir()
    for checkpoint, bundle in bundles(found, working, _export):
        assert_allclose(
            Explainer(bundle, device="cpu").scores(rows),
            run(models[checkpoint.step], {INPUT: rows}),
            rtol=1e-4,
            atol=1e-5,
        )
    assert counted == ["export", "refresh", "refresh"]


def test_a_bundle_says_how_the_models_after_it_are_read_and_stays_as_it_is(tmp_path, counted):
    first, later = (_other_weights(classifier(), seed) for seed in (1, 2))
    own = export(
        first, tmp_path / "epoch_1.explain", methods=["gradient"], preprocessing=OWN_STEPS, labels=list("vwxyz")
    )
    before = {path.name: path.read_bytes() for path in own.iterdir()}
    found = checkpoints([own, _save(later, tmp_path / "epoch_2.onnx"), _save(first, tmp_path / "epoch_3.onnx")])
    rows = images(*IMAGE_SIZE)
    for (checkpoint, bundle), each in zip(bundles(found, tmp_path, _export), (first, later, first), strict=True):
        explainer = Explainer(bundle, device="cpu")
        assert explainer.bundle.steps[1]["factor"] == 0.125
        assert explainer.bundle.scores.labels == tuple("vwxyz")
        assert_allclose(explainer.scores(rows), run(each, {INPUT: rows}), rtol=1e-4, atol=1e-5)
        assert (checkpoint.step == 1) == (bundle == own)
    assert counted == ["refresh", "refresh"]
    assert {path.name: path.read_bytes() for path in own.iterdir()} == before


def test_a_single_file_says_it_too(tmp_path, capsys):
    one, two = (_other_weights(classifier(), seed) for seed in (1, 2))
    bundle = export(one, tmp_path / "b.explain", methods=["gradient"], preprocessing=OWN_STEPS, labels=list("vwxyz"))
    export_single(bundle, tmp_path / "epoch_1.onnx", "gradient")
    found = checkpoints([tmp_path / "epoch_1.onnx", _save(two, tmp_path / "epoch_2.onnx")])
    assert [each.is_model for each in found] == [False, True]
    rows = images(*IMAGE_SIZE)
    for (_, place), each in zip(bundles(found, tmp_path, _export), (one, two), strict=True):
        explainer = Explainer(place, device="cpu")
        assert (explainer.bundle.steps[1]["factor"], explainer.bundle.scores.labels) == (0.125, tuple("vwxyz"))
        assert_allclose(explainer.scores(rows), run(each, {INPUT: rows}), rtol=1e-4, atol=1e-5)
    assert "epoch_2.onnx: the bundle of the checkpoint before can't be refreshed" in capsys.readouterr().err


def test_another_architecture_with_the_same_classes_is_exported_anew_and_this_is_said(tmp_path, counted, capsys):
    plain = classifier()
    deeper = model([conv(), node("Relu", ["c"], ["r"]), node("Tanh", ["r"], ["t"]), *head("t")])
    found = checkpoints([_save(each, tmp_path / f"{at}.onnx") for at, each in enumerate((plain, deeper, deeper), 1)])
    rows = images(*IMAGE_SIZE)
    for (_, bundle), each in zip(bundles(found, tmp_path, _export), (plain, deeper, deeper), strict=True):
        explainer = Explainer(bundle, device="cpu")
        assert_allclose(explainer.scores(rows), run(each, {INPUT: rows}), rtol=1e-4, atol=1e-5)
        assert list(explainer.bundle.methods) == ["gradient"]
        assert explainer.bundle.scores.labels == tuple("abcde")
    assert counted == ["export", "refresh", "export", "refresh"]
    (said,) = capsys.readouterr().err.splitlines()
    assert "2.onnx: the bundle of the checkpoint before can't be refreshed, a new one was made: " in said


def test_checkpoints_that_tell_other_classes_apart_are_refused(tmp_path, capsys):
    one = _save(classifier(), tmp_path / "epoch_1.onnx")
    weights = {"fw": WEIGHTS["fw"][:, :4], "fb": WEIGHTS["fb"][:4]}
    fewer = model([conv(), *head("c")], weights, outputs=[(SCORES[0], SCORES[1], ["N", 4])])
    two = _save(fewer, tmp_path / "epoch_2.onnx")
    named = export(one, tmp_path / "epoch_3.explain", methods=["gradient"], labels=list("abxde"))
    unnamed = export(one, tmp_path / "epoch_4.explain", methods=["gradient"])
    with pytest.raises(ParameterError, match=r"epoch_2.onnx has 4 classes and the checkpoint before it has 5; checkpo"):
        list(bundles(checkpoints([one, two]), tmp_path, _export))
    with pytest.raises(ParameterError, match=r"class 2 is 'x' in .*epoch_3.explain and 'c' in .*epoch_1.onnx"):
        list(bundles(checkpoints([one, named]), tmp_path / "w", _export))
    assert len(list(bundles(checkpoints([one, unnamed]), tmp_path / "v", _export))) == 2
    capsys.readouterr()


def test_a_checkpoint_that_is_no_model_ends_the_run_in_one_line(tmp_path, capsys):
    one = _save(classifier(), tmp_path / "epoch_1.onnx")
    (tmp_path / "epoch_2.onnx").write_bytes(b"no network")
    with pytest.raises(ModelError, match=r"epoch_2.onnx"):
        list(bundles(checkpoints([one, tmp_path / "epoch_2.onnx"]), tmp_path, _export))
    capsys.readouterr()
