"""What Python holds is a source too: any iterable, continued only with the same pictures."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image as Pillow

from job_sources import CLASS_OF, found, names, png
from onnxplain import ParameterError, PictureError
from onnxplain.jobs import Job, Output
from onnxplain.jobs.sources import Finished, find_source

PICTURES = [np.random.default_rng(seed).integers(0, 256, (5, 6, 3), np.uint8) for seed in range(5)]


class Loader:
    """Batches of mappings, as torch's DataLoader gives them: its length is that of its batches."""

    def __init__(self, size):
        self.size = size

    def __len__(self):
        return -(-len(PICTURES) // self.size)

    def __iter__(self):
        for first in range(0, len(PICTURES), self.size):
            some = slice(first, first + self.size)
            yield {"image": np.stack(PICTURES[some]), "label": np.arange(5)[some] % 4, "name": list("abcde")[some]}


class Numbered:
    """As torch's data sets: pairs by number, and no way to go through."""

    def __len__(self):
        return len(PICTURES)

    def __getitem__(self, number):
        if number == 3:
            raise RuntimeError("a bad sector")
        return Pillow.fromarray(PICTURES[number]), number % 4


@pytest.mark.parametrize(
    "given",
    [
        PICTURES,
        np.stack(PICTURES),
        tuple(Pillow.fromarray(picture) for picture in PICTURES),
        ({"image": picture, "label": 1} for picture in PICTURES),
        ((picture, 1) for picture in PICTURES),
        Loader(2),
        iter([PICTURES[:3], PICTURES[3:]]),
        ((np.stack(PICTURES[:4]), [0, 1, 2, 3]), (np.stack(PICTURES[4:]), [0])).__iter__(),
        np.stack(PICTURES)[:, None],
    ],
    ids=["list", "array", "Pillow", "mappings", "pairs", "loader", "lists", "batched pairs", "batches of one"],
)
def test_pictures_come_from_any_iterable(given):
    items = found(given)
    assert len(items) == 5
    for item, picture in zip(items, PICTURES, strict=True):
        np.testing.assert_array_equal(item.content, picture)


def test_entries_may_be_encoded_paths_or_missing():
    entries = [
        png(1),
        {"image": {"bytes": png(2), "path": "p.png"}},
        {"image": "x.png", "cls": 2},
        None,
        {"image": None},
    ]
    items = found(entries)
    assert [item.content for item in items[:3]] == [png(1), png(2), Path("x.png")]
    assert names(items) == ["picture 0", "p.png", "x.png", "picture 3", "picture 4"]
    assert [item.content for item in items[3:]] == [f"picture {number}: there is no picture" for number in (3, 4)]
    assert items[2].label == 2


def test_a_loaders_length_is_not_the_number_of_pictures():
    items = found(Loader(2))
    assert find_source(Loader(2), None, CLASS_OF, {}).count is None
    assert [(item.name, item.label) for item in items] == [("a", 0), ("b", 1), ("c", 2), ("d", 3), ("e", 0)]


def test_what_a_data_set_cannot_give_costs_one_picture():
    items = found(Numbered())
    assert [isinstance(item.content, str) for item in items] == [False, False, False, True, False]
    assert items[3].content == "picture 3: RuntimeError: a bad sector"
    assert [item.label for item in items] == [0, 1, 2, None, 0]


def test_wrong_entries_are_told():
    with pytest.raises(ParameterError, match="picture 0 is a mapping without 'image'; it has photo"):
        found([{"photo": PICTURES[0]}])
    with pytest.raises(ParameterError, match=r"the true class of picture 0: unknown target 'cow'.*labels='none'"):
        found([{"image": PICTURES[0], "label": "cow"}])
    assert found([{"image": PICTURES[0], "label": "cow"}], "none")[0].label is None
    with pytest.raises(ParameterError, match="entry 0 holds 5 pictures"):
        found([np.stack(PICTURES)])
    with pytest.raises(PictureError, match="no pictures"):
        found(iter(()))


def test_descriptions_tell_contents_apart():
    def described(given):
        return find_source(given, None, CLASS_OF, {}).describe()

    changed = [*PICTURES[:4], PICTURES[4] + 1]
    for kind in (list, np.stack):
        assert described(kind(PICTURES)) == described(kind(PICTURES))
        assert described(kind(PICTURES)) != described(kind(changed))
    assert described([b"ab", b"c"]) != described([b"a", b"bc"])
    assert described([{"image": PICTURES[0], "label": 1}]) != described([{"image": PICTURES[0], "label": 2}])
    assert described([Pillow.fromarray(PICTURES[0])])["fingerprint"] is None


# Continued.


@pytest.fixture
def finished(tmp_path):
    """What two shards of two pictures left, and how to say how many are in the second."""
    import hashlib

    def make(numbers=(0, 1), last=2):
        for number in numbers:
            folder = tmp_path / f"shards/{number:08d}"
            folder.mkdir(parents=True)
            rows = range(2 * number, 2 * number + (last if number == max(numbers) else 2))
            hashes = {row: hashlib.sha256(PICTURES[row].tobytes()).hexdigest() for row in rows}
            text = "".join(json.dumps({"number": row, "sha256": sha256}) + "\n" for row, sha256 in hashes.items())
            (folder / "index.jsonl").write_text(text)
            (folder / "failures.jsonl").write_text("")
        return Finished(tmp_path, list(numbers), 2)

    return make


def resumed(given, finished, first):
    source = find_source(given, None, CLASS_OF, {})
    source.recall(finished)
    return list(source.items(first))


@pytest.mark.parametrize("kind", [iter, Loader, list], ids=["generator", "loader", "list"])
def test_the_same_pictures_continue(finished, kind):
    given = Loader(3) if kind is Loader else kind(PICTURES)
    (item,) = resumed(given, finished(), 4)
    np.testing.assert_array_equal(item.content, PICTURES[4])


def test_a_generator_that_is_used_up_or_ends_early_is_an_error(finished):
    there = finished()
    for left in (0, 1, 3):
        with pytest.raises((ParameterError, PictureError), match=r"no pictures|ended after"):
            resumed(iter(PICTURES[:left]), there, 4)
    assert resumed(iter(PICTURES[:4]), there, 4) == []  # there may have been no more


def test_other_pictures_are_an_error(finished):
    there = finished()
    for wrong in range(4):
        changed = [picture + (number == wrong) for number, picture in enumerate(PICTURES)]
        with pytest.raises(ParameterError, match=f"picture {wrong} .* isn't the one that was explained before"):
            resumed(iter(changed), there, 4)
    with pytest.raises(ParameterError, match="picture 3 "):
        resumed([*PICTURES[:3], PICTURES[0], PICTURES[4]], there, 4)


def test_a_source_that_went_on_is_an_error(finished):
    there = finished(last=1)
    assert (there.least, there.most) == (3, 3)
    assert resumed(iter(PICTURES[:3]), there, 4) == []
    with pytest.raises(ParameterError, match="had 3 pictures, and has more now"):
        resumed(iter(PICTURES), there, 4)


def test_a_hole_among_the_shards_is_filled_with_what_was_there(finished):
    there = finished((1,))
    assert len(resumed(iter(PICTURES[:4]), there, 0)) == 4
    with pytest.raises(ParameterError, match="picture 2 "):
        resumed([PICTURES[0], PICTURES[1], PICTURES[1], PICTURES[3]], there, 0)
    with pytest.raises(ParameterError, match="ended after 3 pictures"):
        resumed(iter(PICTURES[:3]), there, 0)


def test_a_job_is_not_continued_with_other_pictures(folder, tmp_path):
    def run(given):
        return Job(folder, given, tmp_path / "out", output=Output(shard_size=2), device="cpu", workers=1).run()

    assert run(iter(PICTURES))["explained"] == 5
    assert run(iter(PICTURES))["explained"] == 5
    for wrong, message in (([], "no pictures"), (PICTURES[:4], "ended after 4"), ([*PICTURES, PICTURES[0]], "had 5")):
        with pytest.raises((ParameterError, PictureError), match=message):
            run(iter(wrong))
    shutil.rmtree(tmp_path / "out/shards/00000001")
    with pytest.raises(ParameterError, match=r"picture 1 .* isn't the one"):
        run(iter([PICTURES[0], *PICTURES[2:], PICTURES[1]]))
    assert run(iter(PICTURES))["explained"] == 5


# Hugging Face.


@pytest.fixture(scope="module")
def datasets():
    return pytest.importorskip("datasets", reason="not among the test extras: it brings a lot")


@pytest.mark.parametrize("decode", [True, False])
def test_a_hugging_face_split_is_taken_as_it_is(datasets, decode, tmp_path):
    features = datasets.Features(
        {"image": datasets.Image(decode=decode), "label": datasets.ClassLabel(names=["dog", "cat"])}
    )
    rows = {"image": [{"bytes": png(row), "path": None} for row in range(4)], "label": [0, 1, 0, -1]}
    split = datasets.Dataset.from_dict(rows, features=features)
    source = find_source(split, None, CLASS_OF, {})
    assert source.describe()["fingerprint"] == split._fingerprint
    for given in (split, split.to_iterable_dataset()):
        items = found(given)
        assert [item.content for item in items] == [png(row) for row in range(4)]  # decoded by the workers
        assert [item.label for item in items] == [1, 0, 1, None]
    split.to_parquet(tmp_path / "t.parquet")
    items = found(tmp_path / "t.parquet")
    assert [item.label for item in items] == [1, 0, 1, None]
    assert [item.content for item in items] == [png(row) for row in range(4)]
    with pytest.raises(ParameterError, match="give one of its entries \\('train'\\)"):
        found(datasets.DatasetDict({"train": split}))
    formatted = found(split.with_format("numpy"))
    np.testing.assert_array_equal(
        formatted[0].content if decode else cv2.imdecode(np.frombuffer(formatted[0].content, np.uint8), 1)[..., ::-1],
        cv2.imdecode(np.frombuffer(png(0), np.uint8), 1)[..., ::-1],
    )
