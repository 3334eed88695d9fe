import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from metric_subjects import images, line_subject, linear_subject, mapped_subject, weights
from onnxplain import ParameterError
from onnxplain.metrics import METRICS, find_metric
from onnxplain.metrics.places import ranking
from onnxplain.metrics.registry import check_settings
from onnxplain.metrics.subject import check_needs


def value(name, subject, preset=None, **settings):
    entry = find_metric(name, preset)
    check_needs(entry, subject)
    return entry.measure(subject, **check_settings(entry, settings)).values


# Faithfulness.


def test_a_linear_network_is_explained_faithfully_by_its_contributions():
    subject = linear_subject(measures="contribution")
    assert_allclose(value("faithfulness", subject, steps=12), 1, atol=1e-6)
    assert_allclose(value("faithfulness", linear_subject(measures="contribution", maps=-subject.maps)), -1, atol=1e-6)


def test_faithfulness_of_a_wrong_map_is_lower():
    subject = linear_subject(measures="contribution", maps=images()[::-1])
    assert (value("faithfulness", subject, steps=12) < 0.7).all()


def test_deletion_is_the_trapezoid_under_the_score_from_the_image_to_nothing():
    # Scores 10, 6, 3, 1, 0 as the highest pixel goes first.
    assert_allclose(value("deletion", line_subject([2, 4, 1, 3])), (8 + 4.5 + 2 + 0.5) / 4)
    assert_allclose(value("deletion", line_subject([2, 4, 1, 3]), share=0.5), (8 + 4.5) / 2)
    assert_allclose(value("deletion", line_subject([2, 4, 1, 3]), steps=2), (6.5 + 1.5) / 2)
    # Pixels become 1: 10, 7, 5, 4, 4.
    assert_allclose(value("deletion", line_subject([2, 4, 1, 3]), fill=1.0), (8.5 + 6 + 4.5 + 4) / 4)


def test_insertion_is_the_trapezoid_from_nothing_to_the_image():
    # Scores 0, 4, 7, 9, 10.
    assert_allclose(value("insertion", line_subject([2, 4, 1, 3]), fill=0.0), (2 + 5.5 + 8 + 9.5) / 4)


def test_the_better_map_has_the_lower_deletion_and_the_higher_insertion():
    good, bad = line_subject([2, 4, 1, 3]), line_subject([2, 4, 1, 3], [-2, -4, -1, -3])
    assert value("deletion", good) < value("deletion", bad)
    assert value("insertion", good, fill=0.0) > value("insertion", bad, fill=0.0)
    assert (METRICS["deletion"].better, METRICS["insertion"].better) == ("lower", "higher")


def test_curves_begin_and_end_with_the_image_and_with_nothing():
    subject = linear_subject(activation="softmax")
    found = METRICS["deletion"].measure(subject, steps=5)
    assert_allclose(found.curves[:, 0], subject.own_scores())
    assert_allclose(found.curves[:, -1], 0.25, atol=1e-6)
    assert_allclose(found.at, [0, 0.2, 0.4, 0.6, 0.8, 1])
    assert found.curves.shape == (3, 6)


def test_all_channels_of_a_pixel_go_together():
    seen = []
    subject = linear_subject()
    watched = linear_subject(network=lambda rows, images: seen.append(rows) or subject.network(rows, images))
    value("deletion", watched, steps=5, fill=9.0)
    gone = np.concatenate(seen) == 9
    assert_array_equal(gone[:, 0], gone[:, 1])
    assert_array_equal(np.unique(gone[:, 0].sum(axis=(1, 2))), [0, 7, 14, 21, 28, 35])


def test_channels_may_come_last():
    first = linear_subject(measures="contribution", activation="softmax")
    last = linear_subject(
        first.rows.transpose(0, 2, 3, 1),
        weights().transpose(0, 2, 3, 1),
        measures="contribution",
        activation="softmax",
        layout="NHWC",
        map_layout="NHWC",
    )
    for name in ("faithfulness", "deletion", "sparseness"):
        assert_allclose(value(name, last), value(name, first), rtol=1e-5)


def test_what_is_no_picture_is_ranked_element_by_element():
    rows = images(2, (6,))
    subject = linear_subject(rows, layout=None, map_layout=None, measures="contribution")
    assert_allclose(value("faithfulness", subject), 1, atol=1e-6)
    with pytest.raises(ParameterError, match="pointing_game needs a network whose input is a picture"):
        value("pointing_game", subject)


def test_of_equal_pixels_the_first_ranks_first():
    assert_array_equal(ranking(np.array([[1.0, 3, 1, 3]])), [[2, 0, 3, 1]])
    ties = np.repeat([1.0, 0.0], 500)[None]
    assert_array_equal(ranking(ties)[0], np.arange(1000))
    assert_array_equal(ranking(ties[:, ::-1])[0], np.roll(np.arange(1000), 500))


def test_memory_is_bounded(monkeypatch):
    sizes = []
    subject = linear_subject()
    watched = linear_subject(network=lambda rows, images: sizes.append(len(rows)) or subject.network(rows, images))
    expected = value("deletion", subject, steps=20)
    monkeypatch.setattr("onnxplain.metrics.subject.MOST_BYTES", 4 * subject.rows[0].nbytes)
    assert_allclose(value("deletion", watched, steps=20), expected)
    assert max(sizes) == 4


# Localization.


def test_pointing_game_counts_the_circle_around_the_mask():
    maps, masks = np.zeros((1, 40, 90)), np.zeros((1, 40, 90))
    maps[0, 5, 60] = 1
    masks[0, 5, 75] = 1
    assert value("pointing_game", mapped_subject(maps, masks), radius=15) == 1
    assert value("pointing_game", mapped_subject(maps, masks), radius=14.9) == 0
    masks = np.roll(masks, (9, -3), (1, 2))  # 12 columns and 9 rows away: 15 pixels
    assert value("pointing_game", mapped_subject(maps, masks)) == 1
    assert value("pointing_game", mapped_subject(maps, masks), radius=14) == 0


def test_iosr_is_the_share_of_the_salient_region_in_the_mask():
    maps, masks = [[[1, 0.6], [0.5, 0.1]]], [[[1, 0], [1, 1]]]
    assert value("iosr", mapped_subject(maps, masks)) == 0.5
    assert_allclose(value("iosr", mapped_subject(maps, masks), threshold=0.4), 2 / 3)


def test_relevance_rank_is_the_share_of_the_highest_in_the_mask():
    maps, masks = [[[9, 8, 7], [1, 2, 3]]], [[[1, 0, 1], [0, 0, 1]]]
    assert_allclose(value("relevance_rank", mapped_subject(maps, masks)), 2 / 3)
    # The second and third place are shared by four pixels, of which two are inside.
    maps = [[[9, 5, 5], [5, 5, 3]]]
    assert_allclose(value("relevance_rank", mapped_subject(maps, [[[1, 1, 1], [0, 0, 0]]])), (1 + 2 * 2 / 4) / 3)


def test_relevance_mass_is_the_share_of_the_positive_values_in_the_mask():
    assert_allclose(value("relevance_mass", mapped_subject([[[3, -5], [1, 4]]], [[[1, 1], [1, 0]]])), 4 / 8)


def test_a_mask_that_does_not_fit_or_is_empty_names_its_picture():
    maps = np.ones((2, 4, 6))
    with pytest.raises(ParameterError, match=r"mask of picture 0 has 6x4 pixels; the network's pictures have 4x6"):
        value("iosr", mapped_subject(maps, np.ones((2, 6, 4))))
    masks = np.ones((2, 4, 6))
    masks[1] = 0
    with pytest.raises(ParameterError, match="mask of picture 1 is empty"):
        value("iosr", mapped_subject(maps, masks))
    with pytest.raises(ParameterError, match="iosr needs masks"):
        value("iosr", mapped_subject(maps))


# Robustness.


def test_the_gradient_of_a_linear_network_is_stable():
    assert_array_equal(value("max_sensitivity", linear_subject()), 0)
    assert_array_equal(value("robustness", linear_subject(), bound=100), 1)


def test_max_sensitivity_is_the_longest_change_of_the_map():
    subject = linear_subject(measures="contribution")
    near = value("max_sensitivity", subject, radius=0.01, unit="input", relative=False)
    assert_allclose(value("max_sensitivity", subject, radius=0.02, unit="input", relative=False), 2 * near, rtol=1e-4)
    assert (near > 0).all()
    lengths = np.linalg.norm(subject.maps.reshape(3, -1), axis=1)
    assert_allclose(value("max_sensitivity", subject, radius=0.01, unit="input"), near / lengths, rtol=1e-6)
    spans = np.ptp(subject.rows.reshape(3, -1), axis=1)
    by_range = value("max_sensitivity", subject, radius=0.01, relative=False)
    assert_allclose(by_range, near * spans, rtol=1e-4)  # here the change is as long as the radius is wide
    # No element moves further than the radius.
    assert (near <= 0.01 * np.abs(weights()[:3]).reshape(3, -1).max(axis=1) * np.sqrt(70)).all()
    assert (value("max_sensitivity", subject, samples=20) >= value("max_sensitivity", subject, samples=3)).all()


def test_robustness_draws_again_until_the_perturbed_scores_are_near():
    row = np.full((1, 1, 2, 2), 0.5, np.float32)
    seen = []

    def network(rows, _):  # a step: half of all draws change the answer
        low = rows[:, 0, 0, 0] < 0.5
        return np.stack([np.where(low, -9.0, 9.0), np.zeros(len(rows))], axis=1)

    subject = linear_subject(
        row, network=network, activation="softmax", again=lambda rows, i, t: seen.append(rows) or rows, maps=row
    )
    found = value("robustness", subject, radius=0.1, unit="input", samples=12, tries=30)
    assert all((rows[:, 0, 0, 0] >= 0.5).all() for rows in seen)
    assert len(seen) == 12
    changes = [np.linalg.norm(rows - row) / np.linalg.norm(row) for rows in seen]
    assert_allclose(found, np.exp(-max(changes)), rtol=1e-6)
    seen.clear()
    value("robustness", subject, preset="mindspore")
    assert not all((rows[:, 0, 0, 0] >= 0.5).all() for rows in seen)  # theirs takes any


def test_robustness_without_a_picture_that_looks_the_same_has_no_value():
    assert_array_equal(value("robustness", linear_subject(), bound=0), np.nan)


# Agreement with the score.


@pytest.mark.parametrize("change", ["squares", "noise"])
def test_infidelity_of_a_linear_network_is_zero(change):
    assert_allclose(value("infidelity", linear_subject(), change=change, fill=0.3), 0, atol=1e-9)
    wrong = linear_subject(maps=-weights()[:3])
    assert (value("infidelity", wrong, change=change) > 1).all()


def test_infidelity_of_contributions_adds_them_up_in_the_square():
    assert_allclose(value("infidelity", linear_subject(measures="contribution")), 0, atol=1e-9)
    maps = linear_subject(measures="contribution").maps.sum(axis=1, keepdims=True)
    assert_allclose(value("infidelity", linear_subject(measures="contribution", maps=maps)), 0, atol=1e-9)


def test_infidelity_of_an_empty_map_is_the_mean_squared_change_of_the_score():
    subject = linear_subject(maps=np.zeros((3, 2, 5, 7)))
    drawn = []
    watched = linear_subject(maps=subject.maps, network=lambda r, i: drawn.append(subject.network(r, i)) or drawn[-1])
    found = value("infidelity", watched, samples=30)
    own, changed = drawn
    drops = (own[np.repeat(np.arange(3), 30)] - changed)[np.arange(90), np.repeat(np.arange(3), 30)]
    assert_allclose(found, (drops.reshape(3, 30) ** 2).mean(axis=1))


def test_a_scaled_map_may_have_any_length():
    subject = linear_subject(maps=7 * weights()[:3])
    assert (value("infidelity", subject) > 1).all()
    assert_allclose(value("infidelity", subject, scaled=True), 0, atol=1e-9)


def test_contributions_say_nothing_of_noise():
    with pytest.raises(ParameterError, match="use change='squares'"):
        value("infidelity", linear_subject(measures="contribution"), change="noise")
    one_channel = linear_subject(maps=np.zeros((3, 1, 5, 7)))
    with pytest.raises(ParameterError, match="infidelity needs maps of contributions, or of sensitivities with all"):
        value("infidelity", one_channel)


def test_completeness_is_what_the_map_leaves_out():
    subject = linear_subject(measures="contribution")
    assert_allclose(value("completeness", subject), 0, atol=1e-5)
    short = linear_subject(measures="contribution", maps=subject.maps * 0.75)
    scores = np.abs(subject.own_scores("logits"))
    assert_allclose(value("completeness", short), scores / 4, rtol=1e-4)
    assert_allclose(value("completeness", short, relative=True), 0.25, rtol=1e-4)
    # From another baseline the same map leaves the baseline's score out.
    score = weights()[:3].reshape(3, -1).sum(axis=1)
    assert_allclose(value("completeness", subject, baseline=2.0), np.abs(2 * score), rtol=1e-4)
    own = linear_subject(measures="contribution", parameters={"baseline": 2.0})
    assert_allclose(value("completeness", own), np.abs(2 * score), rtol=1e-4)
    with pytest.raises(ParameterError, match="completeness needs maps of contributions"):
        value("completeness", linear_subject())


# Specificity.


def test_class_sensitivity_compares_the_best_and_the_worst_class():
    weight = weights(2)
    weight[1] = -weight[0]
    assert_allclose(value("class_sensitivity", linear_subject(weight=weight)), 1, atol=1e-6)
    weight[1] = weight[0] * 0.5
    assert_allclose(value("class_sensitivity", linear_subject(weight=weight)), 0, atol=1e-6)
    subject = linear_subject()
    scores = subject.network(subject.rows, None)
    best, worst = (weights()[picked].reshape(3, -1) for picked in (scores.argmax(axis=1), scores.argmin(axis=1)))
    expected = [(1 - np.corrcoef(a, b)[0, 1]) / 2 for a, b in zip(best, worst, strict=True)]
    assert_allclose(value("class_sensitivity", subject), expected, rtol=1e-6)


def test_sparseness_is_the_gini_index():
    maps = [[[0, 0], [0, 1]], [[1, 1], [1, 1]], [[4, -1], [-2, 3]]]
    assert_allclose(value("sparseness", mapped_subject(maps, reduction="absolute")), [0.75, 0, 0.25], atol=1e-12)


# What every metric must do.

DEGENERATE = {
    # metric: (map of zeros, constant map, network of one class), with a mask of one pixel in 4 × 6
    "faithfulness": (0, 0, 0),
    "deletion": (None, None, 1),
    "insertion": (None, None, 1),
    "pointing_game": (4 / 24, 4 / 24, None),
    "iosr": (0, 1 / 24, None),
    "relevance_rank": (1 / 24, 1 / 24, None),
    "relevance_mass": (0, 1 / 24, None),
    "robustness": (1, 1, 1),
    "max_sensitivity": (0, 0, 0),
    "infidelity": (None, None, 0),
    "class_sensitivity": (0, 0, 0),
    "completeness": (None, None, 0),
    "sparseness": (0, 0, None),
    "randomisation": (None, None, None),  # in test_metrics_reweighting.py
}
SETTINGS = {"insertion": {"fill": 0.0}, "pointing_game": {"radius": 1}, "robustness": {"bound": 10}}


@pytest.mark.parametrize("name", METRICS)
def test_values_are_defined_where_a_map_or_a_network_says_nothing(name):
    if name == "randomisation":
        return
    masks = np.zeros((2, 4, 6), bool)
    masks[0, 1, 1], masks[1, 0, 5] = True, True
    shape = (2, 1, 4, 6)
    for constant, expected in zip((0.0, 2.0), DEGENERATE[name], strict=False):
        maps = np.full(shape, constant, np.float32)
        measures = "contribution" if name == "completeness" else "sensitivity"
        subject = linear_subject(
            images(2, shape[1:]), maps=maps, masks=masks, again=lambda r, i, t, maps=maps: maps, measures=measures
        )
        found = value(name, subject, **SETTINGS.get(name, {}))
        assert np.isfinite(found).all()
        if expected is not None:
            assert_allclose(found[0], expected + (1 / 24 if name == "pointing_game" else 0), atol=1e-12)
    rows = images(2, shape[1:])
    measures = "contribution" if name == "completeness" else "sensitivity"
    single = linear_subject(
        rows,
        weights(1, shape[1:]),
        maps=np.zeros(shape, np.float32),
        targets=np.zeros(2, int),
        activation="softmax",
        masks=masks,
        measures=measures,
        explains="probabilities",
        again=lambda r, i, t: np.zeros(shape, np.float32),
    )
    found = value(name, single, **SETTINGS.get(name, {}))
    assert np.isfinite(found).all()
    if DEGENERATE[name][2] is not None:
        assert_allclose(found, DEGENERATE[name][2], atol=1e-12)


@pytest.mark.parametrize("preset", [None, "mindspore"])
@pytest.mark.parametrize("name", METRICS)
def test_a_picture_has_the_same_value_alone_and_in_a_batch(name, preset):
    if name == "randomisation" or (preset and preset not in METRICS[name].variants):
        return
    masks = np.random.default_rng(5).random((3, 5, 7)) < 0.3
    how = {"measures": "contribution", "activation": "softmax"}
    together = linear_subject(masks=masks, **how)
    alone = linear_subject(images()[1:2], masks=masks[1:2], **how)
    alone = linear_subject(
        images()[1:2],
        weights(),
        masks=masks[1:2],
        targets=together.targets[1:2],
        maps=together.maps[1:2],
        again=together.again,
        **how,
    )
    settings = {} if preset else SETTINGS.get(name, {})
    assert_allclose(value(name, alone, preset, **settings), value(name, together, preset, **settings)[1:2], rtol=1e-5)


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_says_what_it_is_and_where_it_comes_from(name):
    entry = METRICS[name]
    text = entry.measure.__doc__
    assert entry.better in ("higher", "lower")
    assert "arXiv:" in text or "MindSpore" in text
    assert entry.summary.endswith((".", "1", "best", "has"))
    assert set(entry.limits) >= {key for key, given in entry.defaults.items() if type(given) in (int, float)} - {"fill"}
