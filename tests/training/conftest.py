import importlib.util
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def few_rounds() -> Iterator[None]:
    """Time each engine twice instead of twenty times: tests do not look at the milliseconds."""
    with pytest.MonkeyPatch.context() as patch:
        if importlib.util.find_spec("sklearn"):  # what evaluation, and so measuring, imports
            patch.setattr("training.measure.TIMED_ROUNDS", 2)
        yield
