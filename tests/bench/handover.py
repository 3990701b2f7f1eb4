"""What the way to a thread and back costs on an event loop that is idle or busy.

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
    """Some ways there and back, while the loop's turns take `turn_s` each (0: it idles)."""
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


def main() -> None:
    """Print quantiles for turns of several lengths."""
    with ThreadPoolExecutor(1) as thread:
        for turn_us in TURNS_US:
            taken_s = uvloop.run(handovers_s(thread, turn_us / 1e6))
            tenth, median, most = np.percentile(taken_s, [10, 50, 90]) * 1e6
            print(
                f"turns of {turn_us:3d} µs: 10 % below {tenth:.0f} µs, "
                f"half below {median:.0f} µs, 90 % below {most:.0f} µs"
            )


if __name__ == "__main__":
    main()
