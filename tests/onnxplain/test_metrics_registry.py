import numpy as np
import pytest
import scipy.stats
from numpy.testing import assert_allclose, assert_array_equal

from metric_subjects import mapped_subject
from onnxplain import ParameterError
from onnxplain.metrics import METRICS, Measurement, find_metric, metric
from onnxplain.metrics.correlation import pearson, spearman
from onnxplain.metrics.places import to_places
from onnxplain.metrics.registry import check_settings


def test_unknown_names_suggest_the_nearest():
    with pytest.raises(ParameterError, match="unknown metric 'deltion'; did you mean 'deletion'"):
        find_metric("deltion")
    with pytest.raises(ParameterError, match="unknown setting of deletion 'step'; did you mean 'steps'"):
        check_settings(find_metric("deletion"), {"step": 3})
    with pytest.raises(ParameterError, match="did you mean 'mindspore'"):
        find_metric("deletion", "mindspor")
    with pytest.raises(ParameterError, match="sparseness has no mindspore form; mindspore has faithfulness"):
        find_metric("sparseness", "mindspore")


@pytest.mark.parametrize(
    ("name", "setting", "given", "message"),
    [
        ("deletion", "steps", 0, "steps=0 is out of range: at least 1|1 to"),
        ("deletion", "steps", 2.5, "whole number"),
        ("deletion", "share", 1.5, "out of range"),
        ("deletion", "score", "odds", "unknown score"),
        ("deletion", "fill", "pink", "unknown fill"),
        ("pointing_game", "radius", "far", "no number"),
        ("max_sensitivity", "relative", 3, "True or False"),
    ],
)
def test_wrong_settings_are_errors(name, setting, given, message):
    subject = mapped_subject(np.ones((1, 4, 6)), np.ones((1, 4, 6)))
    with pytest.raises(ParameterError, match=message):
        METRICS[name].measure(subject, **check_settings(METRICS[name], {setting: given}))


def test_a_second_registration_of_a_name_is_an_error():
    with pytest.raises(ValueError, match="registered twice"):
        metric("deletion", better="lower")(METRICS["deletion"].measure)
    with pytest.raises(ValueError, match="needs a direction"):
        metric("new", better="sideways")(lambda subject: Measurement(np.zeros(0)))


# Correlations and reductions.


def test_correlations_agree_with_scipy():
    random = np.random.default_rng(2)
    first, second = random.integers(0, 6, (4, 50)).astype(float), random.normal(size=(4, 50))
    for ours, theirs in ((pearson, scipy.stats.pearsonr), (spearman, scipy.stats.spearmanr)):
        expected = [theirs(a, b).statistic for a, b in zip(first, second, strict=True)]
        assert_allclose(ours(first, second), expected, rtol=1e-9)
        assert_allclose(ours(first * 1e-200, second), expected, rtol=1e-9)


def test_correlations_of_constant_rows_are_defined():
    rows = np.array([[1.0, 1, 1], [1, 2, 3], [1, 1, 1]])
    others = np.array([[1.0, 2, 3], [1, 2, 3], [1, 1, 1]])
    for correlation in (pearson, spearman):
        assert_allclose(correlation(rows, others), [0, 1, 1])


def test_channels_become_one_number():
    maps = np.array([[[[1.0, -2]], [[3, 1]]]])
    assert_array_equal(to_places(maps, "NCHW", "sum"), [[[4, -1]]])
    assert_array_equal(to_places(maps, "NCHW", "absolute"), [[[4, 3]]])
    assert_array_equal(to_places(maps, "NCHW", "mean"), [[[2, -0.5]]])
    assert_array_equal(to_places(maps.transpose(0, 2, 3, 1), "NHWC", "sum"), [[[4, -1]]])
    with pytest.raises(ParameterError, match="unknown reduction"):
        to_places(maps, "NCHW", "max")
