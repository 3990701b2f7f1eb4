"""What is measured inside one process: metrics on and off, what batching gains.

`python -m tests.bench.inside` measures these alone.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import uvloop
from starlette.types import ASGIApp, Message, Scope

from service.inference.queue import BatchQueue
from service.server.app import App
from service.server.front import Front
from service.settings import Settings
from tests.bench.payloads import Payload, raw
from tests.bench.systems import PREDICT

ROUNDS = 60
REQUESTS_A_ROUND = 320
CONCURRENCY = 16
FIXED_COST_S = 0.001
ITEM_COST_S = 0.00001
ITEMS = 2000


def local_app(*, metrics: bool) -> ASGIApp:
    """Vitrine without a server around it."""
    app = App(Settings(workers=1, models=("fashion-mnist",), metrics=metrics))
    return Front(lambda: app)


async def _send_nowhere(_message: Message) -> None:
    pass


async def post(app: ASGIApp, payload: Payload) -> None:
    """One request, straight into the app."""
    headers = {name.lower().encode(): value.encode() for name, value in payload.headers.items()}
    scope: Scope = {
        "type": "http",
        "method": "POST",
        "path": payload.path,
        "query_string": b"",
        "headers": list(headers.items()),
    }

    async def receive() -> Message:
        return {"type": "http.request", "body": payload.body, "more_body": False}

    await app(scope, receive, _send_nowhere)


async def seconds_of(app: ASGIApp, requests: int) -> float:
    """The time of some requests, a few at once."""
    payload = raw(PREDICT)

    async def ask() -> None:
        for _ in range(requests // CONCURRENCY):
            await post(app, payload)

    started = time.perf_counter()
    await asyncio.gather(*(ask() for _ in range(CONCURRENCY)))
    return time.perf_counter() - started


def metrics_cost() -> float:
    """The part of a request's time that metrics take: median over rounds, on and off in turn."""
    silent, counting = (local_app(metrics=on) for on in (False, True))

    async def ratio() -> float:
        off_s = await seconds_of(silent, REQUESTS_A_ROUND)
        return 1 - off_s / await seconds_of(counting, REQUESTS_A_ROUND)

    return median(uvloop.run(ratio()) for _ in range(ROUNDS))


@dataclass
class _Unhurried:
    """A request without an end."""

    deadline: float = float("inf")

    def is_gone(self) -> bool:
        return False


class _Ignored:
    """Takes the queue's numbers."""

    def set(self, value: float, /) -> None:
        """Ignore it."""

    def observe(self, value: float, /) -> None:
        """Ignore it."""


def batching_gain() -> float:
    """Items/s with batches of up to 32 over items/s one by one, for an engine of a fixed cost."""

    def compute(items: Sequence[int]) -> Sequence[int]:
        time.sleep(FIXED_COST_S + ITEM_COST_S * len(items))  # as an engine: without the lock
        return items

    async def seconds(max_batch_size: int) -> float:
        queue = BatchQueue[int, int](
            "fixed-cost",
            compute,
            max_batch_size=max_batch_size,
            limit=ITEMS,
            depth=_Ignored(),
            batch_sizes=_Ignored(),
        )
        request = _Unhurried()
        started = time.perf_counter()
        await asyncio.gather(*(queue.submit(item, request) for item in range(ITEMS)))
        queue.close()
        return time.perf_counter() - started

    return uvloop.run(seconds(1)) / uvloop.run(seconds(32))


def measure() -> dict[str, float]:
    """All of them."""
    return {
        "metrics' part of a request's time in the app": metrics_cost(),
        "batched to unbatched, for an engine of 1 ms a call and 0.01 ms an image": batching_gain(),
    }


if __name__ == "__main__":
    for name, value in measure().items():
        print(f"{name}: {value:.3f}")
