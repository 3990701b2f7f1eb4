"""Batches of photos: weighed, shuffled, and samples of all classes."""

import numpy as np
import pytest

pytest.importorskip("keras", reason="batches are Keras's")

from service.pixels.spec import Cover, Input
from training.batches import Batches, some_of_each
from training.photos import Photos

INPUT = Input(shape=(4, 4, 3), color="rgb", resize=Cover())


def photos(counts: tuple[int, ...]) -> Photos:
    labels = np.repeat(np.arange(len(counts)), counts)
    every = np.arange(len(labels))
    pixels = np.repeat(labels.astype(np.uint8), 4 * 4 * 3).reshape(-1, 4, 4, 3)
    names = tuple(f"class {label}" for label in range(len(counts)))
    return Photos(names, pixels, labels, every, every, every, "0" * 64)


def test_rare_class_weighs_as_much_as_a_common_one() -> None:
    few = photos((90, 10))
    totals = np.zeros(2)
    batches = Batches(few, few.training, INPUT, seed=1)
    for index in range(len(batches)):
        _, truth, weights = batches[index]
        totals += (truth * weights[:, np.newaxis]).sum(axis=0)
    np.testing.assert_allclose(totals, [50, 50], rtol=1e-5)


def test_every_photo_is_seen_once_an_epoch_in_another_order() -> None:
    some = photos((1,) * 50)
    batches = Batches(some, some.training, INPUT, seed=1)

    def order() -> list[int]:
        return [int(row.argmax()) for i in range(len(batches)) for row in batches[i][1]]

    first = order()
    batches.on_epoch_end()
    assert sorted(first) == sorted(order()) == list(range(50))
    assert first != order()


def test_some_of_each_are_of_all_classes_alike() -> None:
    many = photos((100, 3, 50))
    some = some_of_each(many, many.training, 21)
    assert np.bincount(many.labels[some]).tolist() == [9, 3, 9]
    assert len(set(some)) == 21


def test_all_are_taken_where_there_are_no_more() -> None:
    few = photos((4, 2))
    assert sorted(some_of_each(few, few.training, 100)) == list(range(6))
