"""Tables in documents: written between two markers, by the command that measures."""

from collections.abc import Sequence
from pathlib import Path


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table; the first row is its head."""
    head, *body = (f"| {' | '.join(row)} |" for row in rows)
    rule = "|---" * len(rows[0]) + "|"
    return "\n".join([head, rule, *body])


def fill(document: Path, name: str, content: str) -> None:
    """Replace what a document has between the two markers of a name; ValueError without them."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    head, found, rest = document.read_text().partition(begin)
    _, found_end, tail = rest.partition(end)
    if not found or not found_end:
        raise ValueError(f"{document}: expected the lines {begin} and {end}")
    document.write_text(f"{head}{begin}\n{content}\n{end}{tail}")
