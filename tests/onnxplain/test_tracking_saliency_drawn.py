"""What the figure of an epoch's maps shows: classes by name, methods with their steps, and pictures as they were."""

import sys

import numpy as np
import pytest
import torch

from onnxplain.errors import OnnxplainError, ParameterError
from onnxplain.pictures import read_picture
from onnxplain.tracking import SaliencyTracker
from onnxplain.tracking.maps import heading, stretched
from tracked_pictures import MAPPING, PICTURES, TRUE, rows_of
from tracked_pictures import bundle as bundle
from tracked_pictures import honest as honest
from tracked_pictures import images as images
from tracked_pictures import quadratic as quadratic


def test_classes_are_shown_by_the_mapping(honest):
    maps = SaliencyTracker((PICTURES, TRUE), methods="gradient", label_mapping=MAPPING).show(honest, 1)
    assert maps.labels == maps.predictions == ("ZERO", "ONE", "TWO", "THREE", "FOUR")


def test_an_unmapped_class_is_an_error_that_names_it(honest):
    mapping = {"ZERO": 0, "ONE": np.int64(1), "TWO": torch.tensor(2)}
    message = r"the class {} isn't in label_mapping, which has ZERO=0, ONE=1, TWO=2"
    with pytest.raises(ParameterError, match=message.format(3)):
        SaliencyTracker((PICTURES, TRUE), label_mapping=mapping)
    tracker = SaliencyTracker(label_mapping=mapping)
    with pytest.raises(ParameterError, match=message.format("'cat'")):
        tracker.collect(np.zeros((2, 3, 4, 4)), ["cat", 1])
    with pytest.raises(ParameterError, match=message.format(4)):  # a prediction
        SaliencyTracker((PICTURES[4:], [2]), methods="gradient", label_mapping=mapping).show(honest, 1)


@pytest.mark.parametrize(
    ("label", "shown"), [(3, "three"), (3.0, "three"), (3.5, "3.5"), (10, "10"), (-1, "-1"), ("a cat", "a cat")]
)
def test_without_a_mapping_the_bundles_names_are_shown(honest, label, shown):
    maps = SaliencyTracker((PICTURES[:1], [label]), methods="gradient").show(honest, 1)
    assert maps.columns()["class"] == [shown]


def test_the_figures_title_says_the_epoch_and_the_mode(honest):
    maps = SaliencyTracker(PICTURES[:1], methods="gradient").show(honest, 7, mode="train")
    assert maps.figure().get_suptitle() == "epoch 7, train"
    assert repr(maps) == "<epoch 7, train of 1 pictures: gradient>"
    assert maps._repr_png_()[:4] == b"\x89PNG"


def test_without_matplotlib_maps_are_made_where_no_film_is_kept(honest, monkeypatch):
    for name in ["matplotlib", *(name for name in sys.modules if name.partition(".")[0] == "matplotlib")]:
        monkeypatch.setitem(sys.modules, name, None)
    tracker = SaliencyTracker(PICTURES[:1], methods="gradient", keep_film=False)
    assert tracker.show(honest, 1).results["gradient"].attribution.any()
    with pytest.raises(ParameterError, match="keep_film is False"):
        tracker.film("film.gif")
    with pytest.raises(OnnxplainError, match=r'pip install "onnxplain\[plots\]"'):
        SaliencyTracker(PICTURES[:1], methods="gradient").show(honest, 1)


def test_floats_are_drawn_on_one_scale_for_the_whole_batch():
    grey = np.array([0.0, 8.0, 16.0]).reshape(3, 1, 1, 1)
    assert [int(each[0, 0, 0]) for each in stretched(grey, "NCHW")] == [0, 128, 255]
    for low, high in ((0, 1), (-0.5, 0.5), (-1, 1), (0, 255)):
        values = np.array([low, (low + high) / 2, high]).reshape(3, 1, 1, 1)
        values = np.trunc(values) if high == 255 else values
        assert [int(each[0, 0, 0]) for each in stretched(values, "NHWC")] == [0, 127 if high == 255 else 128, 255]
    whole = np.array([20.0, 120.0, 200.0]).reshape(3, 1, 1, 1)  # bytes, though not all of them are there
    assert [int(each[0, 0, 0]) for each in stretched(whole, "NCHW")] == [20, 120, 200]
    assert (np.array(stretched(np.zeros((2, 4, 3, 3)), "NCHW")) == 0).all()
    assert (np.array(stretched(np.full((2, 1, 3, 3), 7.5), "NCHW")) == 0).all()
    assert [each.shape for each in stretched(np.random.default_rng(0).random((2, 4, 3, 5)), "NCHW")] == [(3, 5, 3)] * 2


def test_floats_are_taken_back_through_preprocessing_that_is_known_and_no_other(honest, quadratic, images):
    bright = [read_picture(path) // 2 + 128 for path in PICTURES[:2]]  # 0..1 for the network, which isn't their scale
    known = SaliencyTracker(rows_of(bright), methods="gradient", keep_film=False).show(honest, 1)
    np.testing.assert_array_equal(known.pictures, bright)
    assert quadratic.bundle.assumed
    unit = np.clip(images, 0, 1)
    assumed = SaliencyTracker(unit, methods="gradient", keep_film=False).show(quadratic, 1)
    np.testing.assert_array_equal(assumed.pictures, np.rint(np.moveaxis(unit, 1, -1).astype(np.float64) * 255))


def test_normalised_floats_are_taken_back_to_the_picture():
    pictures = np.stack([read_picture(path) for path in PICTURES])
    rows = (pictures / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    found = np.array(stretched(rows.transpose(0, 3, 1, 2), "NCHW")).astype(int)
    missing = 255 - np.ptp(pictures.reshape(-1, 3), axis=0).min()  # what no picture has of the scale
    assert np.abs(found - pictures).max() <= missing + 1
    assert missing < 10


def test_heads_name_the_method_and_its_steps():
    assert heading("gradient", {}) == "gradient"
    assert heading("rise", {"masks": 4000, "cells": 7}) == "rise, 4000\u00a0masks"
    assert heading("expected_gradients", {"samples": 9}) == "expected gradients, 9\u00a0samples"
