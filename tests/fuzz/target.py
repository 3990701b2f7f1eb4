"""What is fuzzed: a part of the service, and what its inputs are made from."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import NamedTuple

Try = Callable[[bytes], None]
"""Tries one input; raises for whatever must not be."""


class Broken(AssertionError):
    """Something that must hold does not."""


class Target(NamedTuple):
    """One part of the service."""

    share: float
    """Of all inputs."""
    open: Callable[[], AbstractContextManager[Try]]
    seeds: Callable[[], list[bytes]]
    """What inputs are made from."""
