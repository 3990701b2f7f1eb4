"""The collector's configuration, as far as it can be checked without the program."""

from tests.observability.files import read_yaml

CONFIG = read_yaml("observability/otel-collector.yml")
KINDS = ("receivers", "processors", "exporters")


def test_every_part_of_a_pipeline_is_configured_and_every_part_is_in_one() -> None:
    pipelines = CONFIG["service"]["pipelines"].values()
    for kind in KINDS:
        used = {name for pipeline in pipelines for name in pipeline[kind]}
        assert used == set(CONFIG[kind])


def test_traces_are_taken_over_otlp() -> None:
    pipeline = CONFIG["service"]["pipelines"]["traces"]
    assert pipeline["receivers"] == ["otlp"]
    assert set(CONFIG["receivers"]["otlp"]["protocols"]) == {"http"}  # what the service speaks


def test_memory_is_limited_before_anything_is_kept() -> None:
    limiter = CONFIG["processors"]["memory_limiter"]
    assert CONFIG["service"]["pipelines"]["traces"]["processors"][0] == "memory_limiter"
    assert limiter["spike_limit_mib"] < limiter["limit_mib"]
