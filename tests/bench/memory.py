"""`python -m tests.bench.memory`: a server's memory under the loads that take the most of it.

`--write` puts the table into tests/faults/README.md.
"""

import argparse
import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace
from typing import Any

import httpx
from PIL import Image

from tests.bench.documents import fill, markdown
from tests.bench.overload import DOCUMENT
from tests.bench.servers import Running, started
from tests.bench.systems import HOST, VITRINE, cores
from tests.bench.watching import watching
from tests.drawing import encode, gradient, noise

MIB = 2**20
MODELS = ("fashion-mnist", "denoiser")
SYSTEM = replace(
    VITRINE,
    settings={"models": ",".join(MODELS), "decode_memory_bytes": 512 * MIB, "device": "cpu"},
)
TILE = 512
"""A side of what the denoiser's engine gets at once."""
WARM_UPS = 4
PATIENCE_S = 90
LOOK_EVERY_S = 0.02
AFTER_S = 2.0
PNGS, PNG_SIDE = 8, 6000
BODIES, BODY_BYTES = 150, 9_900_000
JPEGS, JPEG_SIDE = 40, 2000
PIECE_BYTES = 100_000


def measure() -> list[list[str]]:
    """One server under one load after the other."""
    png = encode(Image.new("RGBA", (PNG_SIDE, PNG_SIDE), (200, 30, 90, 120)), "PNG")
    jpeg = encode(gradient(JPEG_SIDE, JPEG_SIDE), "JPEG", quality=50)
    rows = [["load", "answers", "before", "peak", f"{AFTER_S:g} s after"]]
    with started(SYSTEM, cores()) as running:
        warm_up(running)
        port = running.ports[0]
        loads: dict[str, Callable[[], Coroutine[Any, Any, Counter[int]]]] = {
            f"{PNGS} PNGs of {PNG_SIDE**2 // 10**6} megapixels in RGBA": lambda: at_once(
                *(posted(running.url, "fashion-mnist", png) for _ in range(PNGS))
            ),
            f"{BODIES} bodies of {BODY_BYTES / 1e6:g} MB that lack their last byte": lambda: (
                at_once(*(unfinished(port, BODY_BYTES) for _ in range(BODIES)))
            ),
            f"{JPEGS} JPEGs of {JPEG_SIDE}x{JPEG_SIDE} to the denoiser": lambda: at_once(
                *(posted(running.url, "denoiser", jpeg) for _ in range(JPEGS))
            ),
        }
        for name, load in loads.items():
            before = running.memory_bytes()
            with watched(running) as seen:
                statuses = asyncio.run(load())
            time.sleep(AFTER_S)
            answers = ", ".join(f"{count} x {status}" for status, count in sorted(statuses.items()))
            memory = (before, max(seen), running.memory_bytes())
            rows.append([name, answers, *(f"{each / MIB:,.0f} MiB" for each in memory)])
    return rows


def warm_up(running: Running) -> None:
    """Let grow what grows at first use."""
    image = encode(noise(TILE, TILE, 1), "PNG")
    for model in MODELS:
        for _ in range(WARM_UPS):
            httpx.post(predict(running.url, model), content=image).raise_for_status()


@contextlib.contextmanager
def watched(running: Running) -> Iterator[list[int]]:
    """Bytes of memory, looked at again and again until the end of the block."""
    seen = [running.memory_bytes()]
    with watching(lambda: seen.append(running.memory_bytes()), LOOK_EVERY_S):
        yield seen


async def at_once(*asking: Coroutine[Any, Any, int]) -> Counter[int]:
    """How often each status came."""
    async with asyncio.timeout(PATIENCE_S):
        return Counter(await asyncio.gather(*asking))


def predict(url: str, model: str) -> str:
    """Where images for a model go."""
    return f"{url}/v1/models/{model}:predict"


async def posted(url: str, model: str, image: bytes) -> int:
    """The status of the answer to an image, on a connection of its own."""
    async with httpx.AsyncClient(timeout=PATIENCE_S) as client:
        return (await client.post(predict(url, model), content=image)).status_code


async def unfinished(port: int, size: int) -> int:
    """The status of the answer to a body that lacks its last byte."""
    reader, writer = await asyncio.open_connection(HOST, port)
    head = (
        f"POST /v1/models/fashion-mnist:predict HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n"
    )
    writer.write(head.encode() + b"\r\n")
    sending = asyncio.create_task(_send(writer, size - 1))
    try:
        return int((await reader.readline()).split()[1])
    finally:
        sending.cancel()
        writer.transport.abort()


async def _send(writer: asyncio.StreamWriter, size: int) -> None:
    piece = b"\x89" * PIECE_BYTES
    with contextlib.suppress(ConnectionError):
        for start in range(0, size, len(piece)):
            writer.write(piece[: size - start])
            await writer.drain()


def main() -> None:
    """Measure, print the table, write it where that is asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.memory", description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"write the table into {DOCUMENT}")
    arguments = parser.parse_args()
    table = markdown(measure())
    print(table)
    if arguments.write:
        fill(DOCUMENT, "memory", table)


if __name__ == "__main__":
    main()
