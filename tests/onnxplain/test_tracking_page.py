"""The page of a training: what it says of checkpoints, classes and pictures, and how it stands what is unusual."""

import csv
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from onnxplain.report import ReportMap
from onnxplain.tracking import InstanceTracker, LabelTracker
from onnxplain.tracking.following import Followed
from onnxplain.tracking.page import Told, training_page
from onnxplain.tracking.page_charts import Scale, apart, band, dots, line, number, scale_of, step_labels, ticks
from onnxplain.tracking.page_pictures import HardPicture
from onnxplain.tracking.scoring import find_sample_metric
from onnxplain.tracking.training import NOTHING, Training, bands_of

PIXELS = np.full((8, 8, 3), 90, np.uint8)


def _training(values, labels, predicted, steps=None, metric="cross_entropy", names=None, indices=None, **options):
    """A training of these values [S, N], true classes [N] and answers [S, N], with its bands (mean ± deviation)."""
    values, labels, predicted = np.asarray(values, np.float64), np.asarray(labels), np.asarray(predicted)
    steps = steps or list(range(1, len(values) + 1))
    which = [np.arange(len(labels))] * len(values) if indices is None else [np.asarray(each) for each in indices]
    classes = names or {each: f"class {each}" for each in range(int(labels.max()) + 1)}
    tracker = LabelTracker(metric, "std", {name: each for each, name in classes.items()})
    followed = []
    for place, step in enumerate(steps):
        at = which[place]
        sure = np.full(len(at), 0.9, np.float32)
        columns = (at, labels[at], values[place, at], predicted[place, at], sure, 1 - sure)
        followed.append(Followed(step, metric, "eval", *columns))
        tracker.update(labels[at], values[place, at])
        tracker.epoch_end(step)
    pictures = [f"{classes[int(each)]}/{at}.png" for at, each in enumerate(labels)]
    checkpoints = [f"{step}.onnx" for step in steps]
    training = Training(find_sample_metric(metric), classes, pictures, labels, checkpoints, followed, **options)
    return training, bands_of(tracker.history["eval"], "std", training)


def _page(training, bands, hard=None, **told):
    if hard is None:
        hard = [
            HardPicture(number, PIXELS, [("why", [ReportMap("gradient", PIXELS)])]) for number in training.hardest(3)
        ]
    return training_page(training, bands, hard, Told("A training", **told))


VALUES = [[1.0, 2.0, 3.0, 4.0], [0.5, 2.5, 0.1, 3.0], [0.2, 3.5, 0.1, 1.0]]
LABELS = [0, 0, 1, 2]
SAID = [[1, 1, 1, 1], [0, 1, 1, 1], [0, 1, 1, 2]]


class _Tags(HTMLParser):
    """What opens and closes, and the text."""

    EMPTY = frozenset({"meta", "img", "wbr", "br"})

    def __init__(self, page):
        super().__init__()
        self.open, self.links, self.ids, self.seen = [], [], [], []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        self.ids += [value for name, value in attrs if name == "id"]
        self.links += [value for name, value in attrs if name in ("href", "src", "srcset", "action")]
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def _text(page):
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page.split("</style>")[1]))


def test_what_is_hard_for_the_last_checkpoint_and_what_it_took_for_what():
    training, _ = _training(VALUES, LABELS, SAID)
    assert training.steps == [1, 2, 3]
    assert training.hardest(2) == [1, 3]
    assert training.present == [0, 2, 1]
    assert training.taken_for(0) == (1, 1)
    assert training.taken_for(1) is None
    assert training.runs_of(3) == [(0, 1, 1), (2, 2, 2)]
    assert training.runs_of(2) == [(0, 2, 1)]


def test_pictures_that_are_equally_hard_come_by_the_probability_of_their_class():
    labels = np.zeros(3, np.int64)
    probability = np.array([0.3, 0.1, 0.2], np.float32)
    wrong = Followed(1, "error", "eval", np.arange(3), labels, np.ones(3), labels + 1, probability, probability)
    training = Training(find_sample_metric("error"), {0: "a", 1: "b"}, list("xyz"), labels, ["1"], [wrong])
    assert training.hardest(3) == [1, 2, 0]


def test_the_page_says_classes_pictures_answers_and_numbers():
    page = _page(*_training(VALUES, LABELS, SAID), introduction=["Of a test."], bounds="mean ± standard deviation")
    said = _text(page)
    for expected in (
        "Of a test.",
        "2.5 → 1.2",  # the mean of all
        "25 % → 75 %",
        "1 of 2 right, 1 taken for class 1",
        "The 3 hardest pictures",
        "label class 0 , said class 1 , 90 %",
        "No checkpoint ever said its label",
        "steps 1–3 class 1 90 %",
        "steps 1–2 class 1 90 % step 3 class 2 90 %",
        "Cross entropy 3.5 mean of its class 1.85",
        "with its mean ± standard deviation",
        "class 0 2 1.5 1.85 50 % class 1 (1)",
    ):
        assert expected in said, expected
    assert said.index("class 0/1.png") < said.index("class 2/3.png")


def test_the_page_stands_alone_and_is_well_formed():
    tags = _Tags(_page(*_training(VALUES, LABELS, SAID)))
    assert tags.open == []
    assert all(link.startswith(("data:image/png;base64,", "#")) for link in tags.links)
    assert {link[1:] for link in tags.links if link.startswith("#")} <= set(tags.ids)
    assert "script" not in {tag for tag, _ in tags.seen}
    assert all(attributes.get("alt") for tag, attributes in tags.seen if tag == "img")
    assert all(attributes.get("aria-label") for tag, attributes in tags.seen if tag == "svg")


def test_names_are_text_never_markup():
    evil = "<script>alert('x')</script>\"'&\x07"
    names = {0: evil, 1: f"{evil} too", 2: "c"}
    training, bands = _training(VALUES, LABELS, SAID, names=names, bad={9: f"{evil}: is broken"})
    told = {"introduction": [evil], "warnings": [evil], "bounds": evil, "provenance": {evil: evil}}
    page = _page(training, bands, **told)
    assert "<script" not in page
    assert "\x07" not in page
    assert _Tags(page).open == []
    assert "1 picture could not be read" in page


def test_numbers_that_are_none_are_shown_as_such():
    values = [[1.0, 2.0], [np.nan, np.inf], [np.nan, 0.5]]
    training, bands = _training(values, [0, 1], [[0, 1], [NOTHING, 1], [NOTHING, 1]])
    assert training.hardest(2) == [0, 1]
    assert training.present == [0, 1]
    said = _text(_page(training, bands))
    assert "said nothing" in said
    assert "label class 0" in said
    assert "not a number" in said
    assert "∞" in said
    assert "1.5 → not a number" in said
    page = _page(training, bands, [HardPicture(0, None, note="No map.")])
    assert "nan" not in re.sub(r"[a-z]nan|nan[a-z]", "", page.split("</style>")[1].lower())
    assert "inf" not in "".join(re.findall(r' d="[^"]*"', page))
    assert "No map." in page


def test_everything_that_is_nan_still_makes_a_page():
    page = _page(*_training(np.full((2, 2), np.nan), [0, 1], np.full((2, 2), NOTHING)))
    assert "not a number → not a number" in _text(page)


def test_one_checkpoint_and_one_picture_are_enough():
    said = _text(_page(*_training([[0.25]], [0], [[0]], steps=[700])))
    assert "The 1 hardest pictures" not in said
    assert "The hardest picture" in said
    assert "700" in said
    assert "label class 0 , said class 0" in said


def test_a_thousand_classes_stay_readable():
    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(1000), 2)
    page = _page(*_training(random.random((5, 2000)), labels, np.tile(labels, (5, 1))))
    assert "The 12 classes that lag most, each for itself" in page
    assert "Above are the 60 hardest of 1000 classes." in page
    assert "800 classes that are easier are not shown" in page
    assert page.count('<li class="card">') == 12
    assert page.count('class="line other"') <= 60
    assert len(page) < 500_000


def test_a_picture_that_was_lost_on_the_way_counts_nowhere():
    training, bands = _training(
        VALUES, LABELS, SAID, indices=[[0, 1, 2, 3], [0, 2, 3], [0, 2, 3]], bad={1: "1.png: gone"}
    )
    assert training.hardest(9) == [3, 0, 2]
    assert training.of_class(0).tolist() == [0]
    assert "1.png: gone" in _page(training, bands)
    lines = list(csv.reader(io.StringIO(training.as_csv())))
    assert [row[0] for row in lines] == ["index", "0", "2", "3"]


def test_a_metric_whose_low_values_are_hard():
    training, bands = _training(-np.asarray(VALUES), LABELS, SAID, metric="margin")
    assert training.hardest(1) == [1]
    said = _text(_page(training, bands))
    assert "lower is harder" in said
    assert "Margin −3.5" in said


def test_scores_without_an_activation_are_no_percentages():
    training, bands = _training(VALUES, LABELS, SAID, softens=False)
    said = _text(_page(training, bands))
    assert "said class 1 , 0.9 " in said
    assert "90 %" not in said


def test_the_table_of_samples_reads_back():
    training, _ = _training(VALUES, LABELS, SAID)
    rows = list(csv.DictReader(io.StringIO(training.as_csv())))
    assert [float(row["cross_entropy_3"]) for row in rows] == VALUES[2]
    assert [row["said_1"] for row in rows] == ["class 1"] * 4
    assert [(row["index"], row["picture"], row["label"]) for row in rows][3] == ("3", "class 2/3.png", "class 2")


SCALE = Scale(0, 10, 0, 2)


def test_curves_break_where_there_is_no_number():
    assert line(SCALE, [0, 5, 10], [0, 1, 2], "own").count("M") == 1
    assert 'd="M0.00 100.00L50.00 50.00L100.00 0.00"' in line(SCALE, [0, 5, 10], [0, 1, 2], "own")
    assert 'd="M0.00 100.00h0M100.00 0.00h0"' in line(SCALE, [0, 5, 10], [0, np.nan, 2], "own")
    assert 'd=""' in line(SCALE, [0, 5], [np.nan, np.inf], "own")
    assert 'd="M0.00 50.00L50.00 0.00L50.00 100.00L0.00 100.00Z"' in band(
        SCALE, [0, 5, 10], [0, 0, 0], [1, 2, np.nan], "own"
    )
    assert 'd="M50.00 0.00h0"' in dots(SCALE, [5], [np.nan], ["wrong"])


@pytest.mark.parametrize(
    ("values", "floor", "expected"),
    [
        ([0.0, 2.0], 0.0, (0.0, 2.08)),
        ([1.0, 2.0], 0.0, (0.0, 2.08)),
        ([-1.0, 1.0], 0.0, (-1.08, 1.08)),
        ([3.0], None, (1.5, 4.5)),
        ([0.0], None, (-0.5, 0.5)),
        ([np.nan, np.inf], 0.0, (0.0, 1.04)),
        ([], None, (-0.04, 1.04)),
    ],
)
def test_scales_hold_all_that_is_finite(values, floor, expected):
    scale = scale_of([1, 2], [values], floor)
    assert (scale.low, scale.high) == pytest.approx(expected)


def test_ticks_are_round_and_few():
    assert ticks(Scale(0, 1, 0, 2.6)) == [0, 1, 2]
    assert ticks(Scale(0, 1, 0, 1.04)) == pytest.approx([0, 0.5, 1])
    for high in np.geomspace(1e-6, 1e6, 200):
        found = ticks(Scale(0, 1, 0, high), 3)
        assert 2 <= len(found) <= 4
        assert found[-1] <= high * 1.001


def test_steps_at_the_foot_do_not_run_into_each_other():
    def steps(*given):
        return [int(each) for each in re.findall(r">(\d+)<", step_labels(scale_of(given, []), given))]

    assert steps(7) == [7]
    assert steps(*range(1, 9)) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert steps(*range(1, 101)) == [1, 20, 40, 60, 80, 100]
    assert steps(1000, 1001, 20000) == [1000, 20000]
    assert steps(*range(937, 937 * 6, 937)) == [937, 1874, 2811, 3748, 4685]


def test_names_are_moved_apart_and_stay_inside():
    assert apart([10, 50, 90], 7) == [10, 50, 90]
    found = apart([99, 98, 97, 0, 1], 8)
    assert sorted(found, reverse=True)[:3] == [found[0], found[1], found[2]]
    assert np.diff(sorted(found)).min() >= 8 - 1e-9
    assert min(found) >= 0
    assert max(found) <= 100


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.0, "0"),
        (1.23456, "1.23"),
        (-2.5, "−2.5"),
        (0.00012, "1e−4"),
        (1e9, "1.00e+09"),
        (np.inf, "∞"),
        (-np.inf, "−∞"),
    ],
)
def test_numbers_are_short(value, expected):
    assert number(value) == expected


def test_trackers_follow_what_the_page_shows():
    """InstanceTracker's hardest are the page's."""
    training, _ = _training(VALUES, LABELS, SAID)
    tracker = InstanceTracker("cross_entropy", 2, 0)
    for each in training.followed:
        tracker.update(each.indices, each.values)
        tracker.epoch_end(each.step)
    assert tracker.kept()[::-1] == training.hardest(2)


HINT, BEFORE = "look whether the label is right", "It was right before"


@pytest.mark.parametrize(
    ("labels", "said", "expected"),
    [
        ([0, 0, 1], [[1, 0, 1], [1, 0, 1]], HINT),
        ([0, 0, 1], [[0, 0, 1], [1, 0, 1]], BEFORE),
        ([0, 0, 1], [[1, 0, 1], [0, 0, 1]], ""),  # right in the end
        ([0, 0, 1], [[1, 1, 1], [1, 1, 1]], ""),  # the class isn't learned
        ([0, 0, 0, 1], [[1, 0, 1, 1], [1, 0, 1, 1]], HINT),  # half of the others is enough
        ([0, 1, 1], [[1, 1, 1], [1, 1, 1]], ""),  # there is no other picture of its class
        ([0, 0, 1], [[NOTHING, 0, 1], [NOTHING, 0, 1]], ""),
    ],
)
def test_a_label_is_doubted_only_where_its_class_is_learned_and_it_never_was(labels, said, expected):
    values = np.full((2, len(labels)), 0.1)
    training, bands = _training(values, labels, said)
    found = _text(_page(training, bands, [HardPicture(0, PIXELS)]))
    assert (HINT in found) == (expected == HINT)
    assert (BEFORE in found) == (expected == BEFORE)


def test_a_label_is_not_doubted_by_a_network_that_is_not_sure_itself():
    training, bands = _training([[3.0, 1.0], [4.0, 0.1]], [0, 0], [[1, 0], [1, 0]])
    training.confidence[-1, 0] = 0.79
    assert HINT not in _page(training, bands, [HardPicture(0, PIXELS)])
