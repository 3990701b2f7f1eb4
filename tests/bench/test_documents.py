"""Tables in documents."""

from pathlib import Path

import pytest

from tests.bench.documents import fill


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
