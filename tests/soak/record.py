"""What a soak came to: failures by cause, and figures over time."""

import dataclasses
import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple


class Usage(NamedTuple):
    """What the server's processes use at a moment."""

    at_s: float
    """Since the load began."""
    memory_bytes: int
    """Proportional set size of all processes."""
    descriptors: int
    """Of the supervisor and of the worker that is never killed."""


class Traffic(NamedTuple):
    """What Locust saw over the last seconds before a moment."""

    at_s: float
    requests_per_s: float
    failures_per_s: float
    p99_ms: float


@dataclass(frozen=True)
class Verdict:
    """One thing that was looked at, and whether it is as it should be."""

    what: str
    came: str
    is_kept: bool


@dataclass
class Record:
    """All of a run; times are in seconds since the load began."""

    seconds: float
    users: int
    requests: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    """By cause."""
    killed_at_s: list[float] = field(default_factory=list)
    usage: list[Usage] = field(default_factory=list)
    traffic: list[Traffic] = field(default_factory=list)
    idle_descriptors: tuple[int, int] = (0, 0)
    """Before the load, and after it."""
    exit_status: int = 0
    """Of the server, once it was asked to end."""

    def write(self, file: Path, verdicts: list[Verdict]) -> None:
        """As JSON, with what was found."""
        content = vars(self) | {
            "usage": [each._asdict() for each in self.usage],
            "traffic": [each._asdict() for each in self.traffic],
            "verdicts": [dataclasses.asdict(each) for each in verdicts],
        }
        file.write_text(json.dumps(content, indent=1) + "\n")
