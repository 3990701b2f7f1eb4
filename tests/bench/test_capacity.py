"""Documents show the figures that are kept."""

from pathlib import Path

import pytest

from tests.bench.capacity import DOCUMENTS, measured_table, sizes_table
from tests.bench.pod import read


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.parent.name))
def test_document_shows_the_figures_that_are_committed(document: Path) -> None:
    tables = {"measured": measured_table(read()), "sizes": sizes_table(read())}
    for name in DOCUMENTS[document]:
        assert tables[name] in document.read_text()
