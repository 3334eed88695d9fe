"""The numbers that MindSpore XAI 2.0 gives, recorded or by its formulas, and that the plain metrics differ."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from metric_subjects import line_subject, linear_subject, mapped_subject
from onnxplain.activations import activate
from onnxplain.metrics import METRICS, find_metric


def value(name, subject, preset="mindspore", **settings):
    return find_metric(name, preset).measure(subject, **settings).values


@pytest.fixture
def recorded():
    """Ones of 4 × 4, weights and map arange(16) / 16, no activation."""
    ramp = (np.arange(16) / 16).astype(np.float32).reshape(1, 1, 4, 4)
    return linear_subject(np.ones_like(ramp), ramp, maps=ramp, reduction="sum", measures="contribution")


@pytest.mark.parametrize(
    ("name", "expected"), [("faithfulness", 1), ("deletion", -0.0078125), ("insertion", 1.5078125)]
)
def test_recorded_faithfulness(name, expected, recorded):
    assert_allclose(value(name, recorded), expected, atol=1e-6)


def test_the_plain_forms_of_the_same_are_the_definitions(recorded):
    scores = np.cumsum(np.arange(16) / 16)  # from the lowest pixel up
    deletion = np.concatenate([[0], scores])[::-1]
    insertion = deletion[0] - deletion
    assert_allclose(value("deletion", recorded, None), np.trapezoid(deletion) / 16, rtol=1e-6)
    assert_allclose(value("insertion", recorded, None, fill=0.0), np.trapezoid(insertion) / 16, rtol=1e-6)
    assert_allclose(value("faithfulness", recorded, None), 1, atol=1e-6)


def test_their_deletion_prefers_the_worse_map():
    random = np.random.default_rng(0)
    good = random.normal(size=64)
    values = good.tolist()
    best, worst = line_subject(values), line_subject(values, (-good).tolist())
    assert value("deletion", best) < value("deletion", worst)  # theirs: higher is better
    assert value("deletion", best, None) < value("deletion", worst, None)  # ours: lower is better
    assert METRICS["deletion"].better == "lower"


def test_their_faithfulness_of_a_constant_map_or_score_is_a_half():
    assert_allclose(value("faithfulness", line_subject([1.0, 2, 3, 4], [1.0, 1, 1, 1])), 0.5)
    assert_allclose(value("faithfulness", line_subject([0.0, 0, 0, 0], [1.0, 2, 3, 4])), 0.5)


def test_their_pointing_game_exchanges_row_and_column():
    maps, masks = np.zeros((2, 64, 64)), np.zeros((2, 64, 64))
    maps[:, 5, 50] = 1
    masks[0, 5, 50], masks[1, 50, 5] = 1, 1
    subject = mapped_subject(maps, masks)
    assert_array_equal(value("pointing_game", subject), [0, 1])
    assert_array_equal(value("pointing_game", subject, None), [1, 0])


def test_their_circle_is_open():
    maps, masks = np.zeros((1, 64, 64)), np.zeros((1, 64, 64))
    maps[0, 20, 20], masks[0, 20, 35] = 1, 1
    assert value("pointing_game", mapped_subject(maps, masks)) == 0
    assert value("pointing_game", mapped_subject(maps, masks), None) == 1


def test_recorded_iosr():
    subject = mapped_subject([[[1, 0.6], [0.5, 0.1]]], [[[1, 0], [1, 1]]])
    assert value("iosr", subject) == 0.5
    assert value("iosr", mapped_subject(-np.ones((1, 2, 2)), np.ones((1, 2, 2)))) == 0


def test_their_saliency_is_the_mean_over_channels():
    maps = np.array([[[[3.0, 0]], [[-3, 1]]]], np.float32)
    subject = linear_subject(np.ones((1, 2, 1, 2)), maps=maps, masks=np.array([[[False, True]]]))
    assert value("iosr", subject) == 1


@pytest.mark.parametrize(("weight", "draw"), [(0.0, 0), (20.0, 2)])
def test_their_robustness_takes_the_first_draw_always_or_the_third(weight, draw):
    """Probabilities of (1/2, 1/2) stay when activated twice; those of (1, 0) become (0.73, 0.27)."""
    row = np.ones((1, 1, 2, 2), np.float32)
    seen = []

    def network(rows, _):
        return np.tile([[weight, -weight]], (len(rows), 1))

    subject = linear_subject(
        row, network=network, activation="softmax", again=lambda r, i, t: seen.append(r) or r, maps=row
    )
    found = value("robustness", subject)
    noise = [np.random.default_rng([0, 3 * i + draw]).uniform(-1, 1, (1, 2, 2)) * 0.2 for i in range(10)]
    assert_allclose(np.concatenate(seen), row + noise, rtol=1e-6)
    assert_allclose(found, np.exp(-max(np.linalg.norm(each) for each in noise) / 2), rtol=1e-6)
    probabilities = activate(network(row, None).astype(np.float32), "softmax")
    near = np.linalg.norm(activate(probabilities, "softmax") - probabilities) <= 0.1
    assert near == (draw == 0)


def test_their_robustness_of_a_map_of_zeros_is_not_a_number():
    still = linear_subject(maps=np.zeros((3, 2, 5, 7)), again=lambda r, i, t: np.zeros((3, 2, 5, 7)))
    assert_array_equal(value("robustness", still), np.nan)
    assert_array_equal(value("robustness", still, None, bound=100), 1)


def test_their_class_sensitivity_of_flat_maps():
    flat = np.ones((1, 1, 2, 2), np.float32)
    ramp = np.arange(4, dtype=np.float32).reshape(flat.shape)

    def subject(first, second):
        return linear_subject(
            flat,
            np.concatenate([flat, -flat]),
            again=lambda r, i, targets: np.concatenate([first if target == 0 else second for target in targets]),
        )

    assert value("class_sensitivity", subject(flat * 0, ramp)) == 0.5
    assert np.isnan(value("class_sensitivity", subject(flat, ramp)))
    assert value("class_sensitivity", subject(flat, ramp), None) == 0.5
    assert_allclose(value("class_sensitivity", subject(ramp, -ramp)), 1)
