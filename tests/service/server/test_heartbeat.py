"""Heartbeats of a worker, as counts that two processes share."""

import asyncio

import pytest

from service.server.heartbeat import BEAT_S, LOOK_S, Pulse, beat
from service.server.process import SharedCounts, shared_counts


@pytest.fixture
def counts() -> SharedCounts:
    return shared_counts(2)


def test_worker_that_beats_is_not_silent(counts: SharedCounts) -> None:
    pulse = Pulse(counts.beats, 1)
    for _ in range(20):
        counts.beats[1] += 1
        pulse.look()
        assert pulse.silent_s == 0


def test_silence_is_counted_in_looks_however_long_they_lie_apart(counts: SharedCounts) -> None:
    pulse = Pulse(counts.beats, 1)
    counts.beats[0] += 1  # another worker's
    pulse.look()
    pulse.look()
    assert pulse.silent_s == 2 * LOOK_S
    counts.beats[1] += 1
    pulse.look()
    assert pulse.silent_s == 0


@pytest.mark.anyio
async def test_event_loop_beats_until_it_is_blocked(counts: SharedCounts) -> None:
    beat(counts.beats, 1)
    deadline = asyncio.get_running_loop().time() + 30
    while counts.beats[1] < 3:
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(BEAT_S)
    assert counts.beats[0] == 0


def test_looks_are_rarer_than_beats() -> None:
    assert LOOK_S >= 2 * BEAT_S
