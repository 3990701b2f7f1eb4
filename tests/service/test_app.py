"""What every process that serves has in common."""

import asyncio
import threading
import time

from service.app import DECODE_THREADS, bound_threads


def test_no_more_images_are_unpacked_at_once_than_there_is_memory_for() -> None:
    running, most, lock = 0, 0, threading.Lock()

    def unpack() -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        time.sleep(0.02)
        with lock:
            running -= 1

    async def unpack_many() -> None:
        bound_threads()
        await asyncio.gather(*(asyncio.to_thread(unpack) for _ in range(4 * DECODE_THREADS)))

    asyncio.run(unpack_many())
    assert most == DECODE_THREADS
