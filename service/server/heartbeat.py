"""Whether the event loop of each worker goes on: it counts beats in memory that it shares."""

import asyncio
from typing import TypeAlias

Counts: TypeAlias = "memoryview[int]"
"""A number for each worker number; all processes share them."""

BEAT_S = 0.1
LOOK_S = 0.25


def beat(beats: Counts, number: int) -> None:
    """Count a beat of a worker, now and from now on; call it on the running event loop."""
    beats[number] += 1
    asyncio.get_running_loop().call_later(BEAT_S, beat, beats, number)


class Pulse:
    """The beats of one worker, as the supervisor sees them; it looks every LOOK_S.

    Looks are counted, not seconds: where the whole machine was suspended, or the supervisor got no
    CPU time either, a long silence is one look.
    """

    def __init__(self, beats: Counts, number: int) -> None:
        self._beats = beats
        self._number = number
        self._seen = beats[number]
        self._missed = 0

    def look(self) -> None:
        """See whether there was a beat since the last look."""
        beats = self._beats[self._number]
        self._missed = self._missed + 1 if beats == self._seen else 0
        self._seen = beats

    @property
    def silent_s(self) -> float:
        """For how long there was no beat."""
        return self._missed * LOOK_S
