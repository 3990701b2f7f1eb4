"""What every process that serves has in common."""

import asyncio
import threading
import time

import httpx

from service.server.app import DECODE_THREADS, App, limit_decode_threads
from service.server.front import Front
from service.settings import Settings


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
        limit_decode_threads()
        await asyncio.gather(*(asyncio.to_thread(unpack) for _ in range(4 * DECODE_THREADS)))

    asyncio.run(unpack_many())
    assert most == DECODE_THREADS


def test_scrape_does_not_wait_for_images_that_are_unpacked() -> None:
    app = App(Settings(workers=1, models=("fashion-mnist-mlp",)))
    is_over = threading.Event()

    async def scrape() -> httpx.Response:
        limit_decode_threads()
        unpacking = [asyncio.create_task(asyncio.to_thread(is_over.wait)) for _ in range(8)]
        transport = httpx.ASGITransport(Front(lambda: app))
        try:
            async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
                return await client.get("/metrics")
        finally:
            is_over.set()
            await asyncio.gather(*unpacking)

    answer = asyncio.run(asyncio.wait_for(scrape(), timeout=30))
    app.close()
    assert answer.status_code == 200
