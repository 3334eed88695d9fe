import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from onnxplain import BundleError, Explainer, OutputError, ParameterError
from onnxplain.bundle_files import read_bundle
from onnxplain.metrics import METRICS, layers_of, measure, reweighted, subjects_of
from toy_bundle import BIAS, A, B, write_toy_bundle

SIZE = A.nbytes


def listed(folder, **changes):
    """The toy's bundle with the table of its weights, as export writes it."""
    description = json.loads((folder / "explainer.json").read_text())
    tensors = [
        {"name": "first.weight", "offset": 0, "shape": list(A.shape), "dtype": "float32"},
        {"name": "second/kernel", "offset": SIZE, "shape": list(B.shape), "dtype": "float32"},
        {"name": "first.flat", "offset": 2 * SIZE, "shape": [192, 4], "dtype": "float32"},
        {"name": "bias", "offset": 4 * SIZE, "shape": [4], "dtype": "float32"},
    ]
    description["weights"]["tensors"] = changes.get("tensors", tensors)
    (folder / "explainer.json").write_text(json.dumps(description))
    return folder


@pytest.fixture
def bundle(tmp_path):
    return listed(write_toy_bundle(tmp_path / "toy.explain"))


def weights_of(folder):
    values = np.fromfile(folder / "weights.data", np.float32)
    ends = np.cumsum([A.size, B.size, A.size, B.size, BIAS.size])
    return dict(zip(("A", "B", "A_flat", "B_flat", "bias"), np.split(values, ends[:-1]), strict=True))


def test_layers_are_the_tensors_names_before_their_last_part_in_order(bundle):
    assert layers_of(bundle) == ["first", "second", "bias"]


def test_the_chosen_layers_keep_their_values_in_another_order(bundle, tmp_path):
    before = weights_of(bundle)
    after = weights_of(reweighted(bundle, tmp_path / "copy", layers=["first"]))
    for name in ("A", "A_flat"):
        assert_array_equal(np.sort(after[name]), np.sort(before[name]))
        assert (after[name] != before[name]).mean() > 0.9
    for name in ("B", "B_flat", "bias"):
        assert_array_equal(after[name], before[name])


def test_the_copy_is_a_sound_bundle_that_says_what_was_done(bundle, tmp_path):
    copy = reweighted(bundle, tmp_path / "copy", layers=["second"], seed=3)
    description = read_bundle(copy)  # checks every hash
    assert description.source["changes"] == ["weights of second permuted (seed 3)"]
    assert description.verification == {}
    assert read_bundle(bundle).verification
    rows = np.random.default_rng(1).normal(size=(2, 3, 8, 8)).astype(np.float32)
    expected = A[1] + weights_of(copy)["B"].reshape(B.shape)[1] * rows
    found = Explainer(copy, device="cpu").explain(rows, "gradient", 1).attribution
    assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_the_draw_depends_on_the_seed_and_on_no_other_layer(bundle, tmp_path):
    some = weights_of(reweighted(bundle, tmp_path / "1", layers=["first"], seed=5))
    everything = weights_of(reweighted(bundle, tmp_path / "2", seed=5))
    other = weights_of(reweighted(bundle, tmp_path / "3", layers=["first"], seed=6))
    assert_array_equal(some["A"], everything["A"])
    assert (some["A"] != other["A"]).any()
    assert (everything["bias"] != BIAS).any()


def test_whole_numbers_and_single_values_are_left_alone(tmp_path):
    tensors = [
        {"name": "shape", "offset": 0, "shape": [8], "dtype": "int64"},
        {"name": "scale", "offset": 64, "shape": [1], "dtype": "float32"},
        {"name": "half.weight", "offset": 80, "shape": [40], "dtype": "float16"},
    ]
    bundle = listed(write_toy_bundle(tmp_path / "toy.explain"), tensors=tensors)
    before, copy = np.fromfile(bundle / "weights.data", np.uint16), reweighted(bundle, tmp_path / "copy")
    after = np.fromfile(copy / "weights.data", np.uint16)
    assert layers_of(bundle) == ["half"]
    assert_array_equal(np.delete(after, np.s_[40:80]), np.delete(before, np.s_[40:80]))
    assert_array_equal(np.sort(after[40:80]), np.sort(before[40:80]))
    assert (after[40:80] != before[40:80]).any()


def test_what_cannot_be_re_drawn_is_an_error(bundle, tmp_path):
    with pytest.raises(ParameterError, match="unknown layer 'frist'; did you mean 'first'"):
        reweighted(bundle, tmp_path / "copy", layers=["frist"])
    assert not (tmp_path / "copy").exists()
    reweighted(bundle, tmp_path / "copy")
    with pytest.raises(OutputError, match="exists"):
        reweighted(bundle, tmp_path / "copy")
    with pytest.raises(BundleError, match="lists no weights"):
        reweighted(write_toy_bundle(tmp_path / "plain"), tmp_path / "other")
    with pytest.raises(BundleError, match="does not exist"):
        reweighted(tmp_path / "nothing", tmp_path / "other")
    tensors = [{"name": "long", "offset": 0, "shape": [10**6], "dtype": "float32"}]
    with pytest.raises(BundleError, match="ends before long"):
        reweighted(listed(write_toy_bundle(tmp_path / "short"), tensors=tensors), tmp_path / "other")


# The metric.


@pytest.fixture
def rows():
    return np.random.default_rng(3).normal(size=(3, 3, 8, 8)).astype(np.float32)


def test_a_map_of_the_weights_forgets_them_when_they_are_re_drawn(bundle, rows):
    explainer = Explainer(bundle, device="cpu")
    result = explainer.explain(rows, "gradient", 1)
    assert (measure(explainer, result, "randomisation") < 0.6).all()
    first = measure(explainer, result, "randomisation", stages=1)
    assert (np.abs(first) < 0.3).all()  # all layers at once


def test_a_map_that_ignores_the_weights_stays(bundle, rows):
    explainer = Explainer(bundle, device="cpu")
    result = explainer.explain(rows, "gradient", 1)

    def edges(changed, _):
        return np.abs(np.diff(changed, axis=3, append=0))

    # An explain of the caller's own can't be asked about another network.
    with pytest.raises(ParameterError, match="weights can be re-drawn"):
        measure(explainer, result, "randomisation", explain=edges)
    shutil.copytree(bundle, bundle.with_name("still"))
    bias = {"name": "bias", "offset": 4 * SIZE, "shape": [4], "dtype": "float32"}
    still = listed(bundle.with_name("still"), tensors=[bias])
    explainer = Explainer(still, device="cpu")
    result = explainer.explain(rows, "gradient", 1)
    assert_allclose(measure(explainer, result, "randomisation"), 1)


def test_layers_are_re_drawn_from_the_output_down(bundle, rows, monkeypatch):
    asked = []

    def watched(source, target, layers, seed):
        asked.append(list(layers))
        return reweighted(source, target, layers, seed)

    monkeypatch.setattr("onnxplain.metrics.specificity.reweighted", watched)
    explainer = Explainer(bundle, device="cpu")
    result = explainer.explain(rows, "gradient", 1)
    measure(explainer, result, "randomisation")
    assert asked == [["bias"], ["bias", "second"], ["bias", "second", "first"]]
    asked.clear()
    measure(explainer, result, "randomisation", order="independent", stages=2)
    assert asked == [["bias", "second"], ["first"]]
    assert not list(bundle.parent.glob("onnxplain.*"))


def test_each_picture_is_compared_with_itself(bundle, rows):
    explainer = Explainer(bundle, device="cpu")
    results = [explainer.explain(each, "integrated_gradients", 1) for each in (rows, rows[2:])]
    together, alone = (measure(explainer, result, "randomisation", similarity="pearson") for result in results)
    assert_allclose(together[2:], alone, rtol=1e-5)
    assert len(set(together)) == 3


def test_the_value_is_the_mean_size_of_the_curves_correlations(bundle, rows):
    explainer = Explainer(bundle, device="cpu")
    (subject,) = subjects_of(explainer, explainer.explain(rows, "integrated_gradients", 1))
    subject = replace(subject, maps=-subject.maps, reduction="sum")  # the opposite of a map is no other map
    found = METRICS["randomisation"].measure(subject)
    assert found.curves.shape == (3, 3)
    assert_allclose(found.curves[:, 0], -1)  # no gradient depends on the bias
    assert_allclose(found.values, np.abs(found.curves).mean(axis=1))
    assert_allclose(found.at, [1 / 3, 2 / 3, 1])
    signless = METRICS["randomisation"].measure(subject, absolute=True)
    assert (signless.curves != found.curves).any()
