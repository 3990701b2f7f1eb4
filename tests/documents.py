"""What Markdown documents show: code blocks, sections, tables and links."""

import re
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

from tests.server import CHECKOUT

NOT_RUN = "not-run:"
FROM = "from "
PART = "part"

_FENCE = re.compile(r"^```(\S*) ?([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_HEADING = re.compile(r"^#+ (.*)$", re.MULTILINE)
_PRINTED = re.compile(r"^ *(?:print|console\.log)\(.*\);? +(?:#|//) (.*)$", re.MULTILINE)


class Block(NamedTuple):
    """A code block, its language, and what stands behind that in its first line."""

    document: str
    kind: str
    note: str
    text: str

    @property
    def name(self) -> str:
        """For the names of tests."""
        return f"{self.document}: {self.text.strip().splitlines()[-1][:60]}"

    def printed(self) -> list[str]:
        """What comments say that a program prints."""
        return _PRINTED.findall(self.text)


class Example(NamedTuple):
    """A shell block, and the JSON block that shows its output, if one follows."""

    shell: Block
    shown: Block | None


def read(document: str) -> str:
    return (CHECKOUT / document).read_text()


def blocks(document: str) -> list[Block]:
    return [
        Block(document, match[1], match[2].strip(), match[3])
        for match in _FENCE.finditer(read(document))
    ]


def examples(document: str) -> list[Example]:
    """The shell blocks that are run."""
    found = blocks(document)
    return [
        Example(block, after if after and is_output(after) else None)
        for block, after in zip_longest(found, found[1:])
        if block.kind == "sh" and not block.note
    ]


def is_output(block: Block) -> bool:
    """Whether a JSON block shows what the block before it prints."""
    return block.kind == "json" and block.note in ("", PART)


def section(document: str, heading: str) -> str:
    """What stands under a heading, up to the next one of its level or above."""
    (level, text), *others = re.findall(
        rf"^(#+) {re.escape(heading)}\n(.*)\Z", read(document), re.MULTILINE | re.DOTALL
    )
    assert not others
    body: str = re.split(rf"^#{{1,{len(level)}}} ", text, maxsplit=1, flags=re.MULTILINE)[0]
    return body


def rows(text: str) -> Iterator[list[str]]:
    """The cells of every row of every table, without heads and rules."""
    lines = [*text.splitlines(), ""]
    for before, line, after in zip(["", *lines], lines, lines[1:], strict=False):
        if line.startswith("| ") and not after.startswith("|--") and not before.startswith("```"):
            yield [cell.strip() for cell in line.strip().strip("|").split("|")]


def prose(text: str) -> str:
    """A document without its code blocks."""
    return _FENCE.sub("", text)


def code(cell: str) -> list[str]:
    """What stands in backticks."""
    return re.findall(r"`([^`]+)`", cell)


def links(document: str) -> list[str]:
    """The targets of links and pictures that are no URLs."""
    return re.findall(r"\]\((?!http)([^)]+)\)", prose(read(document)))


def anchors(path: Path) -> set[str]:
    """What a link to a heading may name, as GitHub makes it."""
    text = prose(path.read_text())
    return {
        re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in _HEADING.findall(text)
    }
