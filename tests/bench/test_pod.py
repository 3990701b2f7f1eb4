"""What is measured of a pod, and kept."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.bench import pod
from tests.bench.pod import JPEG, SAMPLE, Figure, Measured, measure_pod, read
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


def test_figures_are_read_as_they_were_written(tmp_path: Path) -> None:
    file = tmp_path / "capacity.json"
    file.write_text(json.dumps(asdict(MEASURED)))
    assert read(file) == MEASURED


@pytest.mark.slow
def test_pod_is_measured_with_both_payloads(monkeypatch: pytest.MonkeyPatch) -> None:
    program("wrk")
    monkeypatch.setattr(pod, "WARM_UP_S", 1)
    measured = measure_pod(["fashion-mnist"], rounds=1, seconds=1)
    sample, jpeg = measured.figures
    assert (sample.model, sample.payload, jpeg.payload) == ("fashion-mnist", SAMPLE, JPEG)
    assert sample.images_per_s > jpeg.images_per_s > 0
    # What two CPUs spend in a second cannot be more than two seconds.
    assert 0 < sample.cpu_ms * sample.images_per_s < 2200
    assert sample.request_bytes < jpeg.request_bytes
    assert sample.answer_bytes > 0
    assert measured.series > 100
