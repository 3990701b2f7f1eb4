"""The arithmetic of capacity, what is measured for it, and that documents show what is kept."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.bench import capacity
from tests.bench.capacity import (
    DOCUMENTS,
    JPEG,
    SAMPLE,
    Figure,
    Measured,
    fill,
    images_per_s,
    measure_pod,
    measured_table,
    pods,
    read,
    size,
    sizes_table,
)
from tests.programs import program

MEASURED = Measured(
    "2026-01-01",
    "a machine",
    rounds=1,
    series=1000,
    figures=[
        Figure("small", SAMPLE, 600, 100, images_per_s=300, cpu_ms=6.0, p99_ms=20),
        Figure("large", JPEG, 29_600, 100, images_per_s=100, cpu_ms=19.0, p99_ms=90),
    ],
)
SMALL, LARGE = ("small", SAMPLE), ("large", JPEG)


def test_pods_leave_room_above_the_average() -> None:
    assert pods(1000, images_per_s=100) == 15  # 1000 / (0.7 * 100) = 14.3


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


def test_document_is_filled_between_its_markers_only(tmp_path: Path) -> None:
    document = tmp_path / "document.md"
    document.write_text("before\n<!-- it: begin -->\n<!-- it: end -->\nafter\n")
    for content in ("| old |", "| new |"):
        fill(document, "it", content)
    assert document.read_text() == (
        "before\n<!-- it: begin -->\n| new |\n<!-- it: end -->\nafter\n"
    )


def test_document_without_the_markers_is_refused(tmp_path: Path) -> None:
    document = tmp_path / "document.md"
    document.write_text("no marker")
    with pytest.raises(ValueError, match=r"document\.md: expected the lines <!-- it: begin -->"):
        fill(document, "it", "new")


def test_figures_are_read_as_they_were_written(tmp_path: Path) -> None:
    file = tmp_path / "capacity.json"
    file.write_text(json.dumps(asdict(MEASURED)))
    assert read(file) == MEASURED


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.parent.name))
def test_document_shows_the_figures_that_are_committed(document: Path) -> None:
    tables = {"measured": measured_table(read()), "sizes": sizes_table(read())}
    for name in DOCUMENTS[document]:
        assert tables[name] in document.read_text()


def test_pod_is_measured_with_both_payloads(monkeypatch: pytest.MonkeyPatch) -> None:
    program("wrk")
    monkeypatch.setattr(capacity, "WARM_UP_S", 1)
    measured = measure_pod(["fashion-mnist"], rounds=1, seconds=1)
    sample, jpeg = measured.figures
    assert (sample.model, sample.payload, jpeg.payload) == ("fashion-mnist", SAMPLE, JPEG)
    assert sample.images_per_s > jpeg.images_per_s > 0
    # What two CPUs spend in a second cannot be more than two seconds.
    assert 0 < sample.cpu_ms * sample.images_per_s < 2200
    assert sample.request_bytes < jpeg.request_bytes
    assert sample.answer_bytes > 0
    assert measured.series > 100
