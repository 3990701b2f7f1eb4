"""Documents show the figures that are kept."""

from pathlib import Path

import pytest

from tests.bench.capacity import DOCUMENTS, fill, measured_table, sizes_table
from tests.bench.pod import read


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


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.parent.name))
def test_document_shows_the_figures_that_are_committed(document: Path) -> None:
    tables = {"measured": measured_table(read()), "sizes": sizes_table(read())}
    for name in DOCUMENTS[document]:
        assert tables[name] in document.read_text()
