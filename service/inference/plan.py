"""How many of the waiting images are computed at once, and where: on the loop or in a thread."""

from collections.abc import Mapping

# What a way to a thread and back costs on a loop whose turns take 0.1 ms, as a request's do: at
# each end the thread waits for the interpreter lock (tests/bench/handover.py measures it).
HANDOVER_S = 0.00025
# What a thread must gain an item to be worth it: where every core is busy it computes nothing that
# the loop would not have computed.
THREAD_GAIN = 2


def plan(waiting: int, batch_s: Mapping[int, float]) -> tuple[int, bool]:
    """How many of the waiting to compute now, and whether on the event loop itself.

    `batch_s` has the measured seconds of a batch of some sizes, the largest at least `waiting`.
    Only what takes less than a hand-over may stay on the loop, and only while the whole batch in
    the thread would not be much cheaper an item.
    """
    short = [size for size, seconds in batch_s.items() if seconds <= HANDOVER_S]
    if not short:
        return waiting, False

    def seconds(size: int) -> float:
        return batch_s[min(known for known in batch_s if known >= size)]

    inline = min(max(short), waiting)
    threaded_s = seconds(waiting) + HANDOVER_S
    if seconds(inline) / inline > THREAD_GAIN * threaded_s / waiting:
        return waiting, False
    return inline, True
