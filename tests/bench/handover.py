"""What a thread hand-over costs (to a thread and back) on an event loop that is idle or busy.

`python -m tests.bench.handover`: the figures behind HANDOVER_S of service/inference/plan.py.
"""

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import uvloop

SAMPLES = 200
TURNS_US = (0, 20, 50, 100)


async def handovers_s(thread: ThreadPoolExecutor, turn_s: float) -> list[float]:
    """Seconds of some hand-overs, while the loop's turns take `turn_s` each (0: it idles)."""
    loop = asyncio.get_running_loop()
    is_measured = False

    def keep_busy() -> None:
        turn_ends = time.perf_counter() + turn_s
        while time.perf_counter() < turn_ends:
            pass
        if not is_measured:
            loop.call_soon(keep_busy)

    if turn_s:
        loop.call_soon(keep_busy)
    taken = []
    for _ in range(SAMPLES):
        started = time.perf_counter()
        await loop.run_in_executor(thread, time.perf_counter)
        taken.append(time.perf_counter() - started)
    is_measured = True
    return taken


def measure() -> dict[int, tuple[float, float, float]]:
    """Microseconds that 10, 50 and 90 % stay below, by microseconds of the loop's turns."""
    measured = {}
    with ThreadPoolExecutor(1) as thread:
        for turn_us in TURNS_US:
            taken_s = uvloop.run(handovers_s(thread, turn_us / 1e6))
            tenth, half, most = np.percentile(taken_s, [10, 50, 90]) * 1e6
            measured[turn_us] = (float(tenth), float(half), float(most))
    return measured


if __name__ == "__main__":
    for turn_us, (tenth, half, most) in measure().items():
        print(
            f"turns of {turn_us:3d} µs: 10 % below {tenth:.0f} µs, "
            f"half below {half:.0f} µs, 90 % below {most:.0f} µs"
        )
