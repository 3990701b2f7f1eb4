"""Figures of a run, shown by `pytest -s`."""


def show(what: str, figure: object) -> None:
    """Print one figure, for tests/faults/README.md."""
    print(f"\n{what}: {figure}", flush=True)  # noqa: T201
