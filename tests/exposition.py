"""Metrics in Prometheus's text format, read back."""

from prometheus_client.parser import text_string_to_metric_families

Series = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def parsed(text: str) -> Series:
    """Every sample by name and sorted labels."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(series: Series, name: str, **labels: str) -> float:
    """The sum of the samples of a name that have these labels, and maybe others."""
    return sum(
        number
        for (found, pairs), number in series.items()
        if found == name and labels.items() <= dict(pairs).items()
    )
