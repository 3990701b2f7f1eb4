"""The arithmetic from images/s to pods, nodes and cost."""

import pytest

from tests.bench.pod import JPEG, SAMPLE
from tests.bench.sizing import images_per_s, pods, size
from tests.bench.test_pod import MEASURED

SMALL, LARGE = ("small", SAMPLE), ("large", JPEG)


def test_pods_leave_room_above_the_average() -> None:
    assert pods(1000, images_per_s=100) == 15  # 1000 / (0.7 * 100) = 14.3


def test_one_of_the_pods_may_always_go() -> None:
    assert pods(1, images_per_s=100) == 2


def test_images_per_second_of_a_mix_follow_its_seconds() -> None:
    assert images_per_s(MEASURED, {SMALL: 1.0}) == pytest.approx(300)
    # Half of 1/300 s and half of 1/100 s are 1/150 s, which is not the mean of 300 and 100.
    assert images_per_s(MEASURED, {SMALL: 0.5, LARGE: 0.5}) == pytest.approx(150)


def test_size_of_a_hundred_thousand_photos_a_second() -> None:
    needs = size(MEASURED, {LARGE: 1.0}, 100_000)
    assert needs.pods == 1429
    assert needs.nodes == 205  # 7 pods of 2 CPUs in the 15 CPUs that a node has left
    assert needs.clusters == 1
    assert needs.usd_an_hour == pytest.approx(164.0)
    assert needs.usd_a_million == pytest.approx(164 / 360)  # 360 million images an hour
    assert needs.gbit_in == pytest.approx(24.0)  # 30,000 bytes a request
    assert needs.gbit_out == pytest.approx(0.4)
    assert needs.rollout_h == pytest.approx(1429 * 15 / 3600)
    assert needs.conntrack == pytest.approx(100_000 * 120 / 205)
    assert needs.series == 1_429_000


def test_size_of_ten_million_photos_a_second_is_of_several_clusters() -> None:
    assert size(MEASURED, {LARGE: 1.0}, 10_000_000).clusters == 21
