"""The size of the next batch, and where it runs: on the event loop or in a thread."""

from collections.abc import Mapping

# What a hand-over to a thread and back costs while other callbacks of the loop take 0.1 ms each, as
# requests do: each way waits for the interpreter lock (tests/bench/handover.py measures it).
HANDOVER_S = 0.00025
# How many times cheaper per item the thread must be to be worth it: where every core is busy, it
# computes nothing that the loop would not have computed.
THREAD_GAIN = 2


def plan(waiting: int, batch_s: Mapping[int, float]) -> tuple[int, bool]:
    """How many of the waiting items to compute now, and whether on the event loop.

    `batch_s` maps batch sizes to measured seconds; the largest size is at least `waiting`. A batch
    runs on the loop only if it takes less than a hand-over, and if all waiting items as one batch
    in the thread would not be much cheaper per item.
    """
    short = [size for size, seconds in batch_s.items() if seconds <= HANDOVER_S]
    if not short:
        return waiting, False

    inline = min(max(short), waiting)
    threaded_s = batch_seconds(waiting, batch_s) + HANDOVER_S
    if batch_seconds(inline, batch_s) / inline > THREAD_GAIN * threaded_s / waiting:
        return waiting, False
    return inline, True


def batch_seconds(size: int, batch_s: Mapping[int, float]) -> float:
    """Seconds of a batch: those of the next larger one that was measured; 0 if none was."""
    return batch_s[min(known for known in batch_s if known >= size)] if batch_s else 0.0
