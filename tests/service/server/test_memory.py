"""A server under the worst mix of what takes memory, with a limit on what each process may have."""

import asyncio
import contextlib
import resource
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from PIL import Image

from tests.bench.memory import at_once, posted, unfinished
from tests.drawing import encode, gradient, noise
from tests.exposition import parsed, value
from tests.server import Server, come_true, serve

MIB = 2**20
TILE = 512  # the most pixels that the denoiser's engine gets at once, along a side
ANSWERS = {200, 408, 413, 503, 504}
USED = "vitrine_decode_memory_bytes"
# Beside the budget: what of each connection has arrived before there is memory for it, buffers of
# the engines, tiles, and one body for each worker that is put together from its parts.
CONNECTION_BYTES = 400_000
BESIDE_BYTES = 60 * MIB
# Address space is not memory: stacks and pools of threads that start only under load.
ADDRESS_SPACE_BYTES = 200 * MIB
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs RLIMIT_DATA of a process")


@dataclass(frozen=True)
class Mix:
    """How much of each load, and how large each is."""

    budget_bytes: int
    timeout_s: float
    pngs: int
    png_side: int
    bodies: int
    body_bytes: int
    jpegs: int
    jpeg_side: int


SMALL = Mix(64 * MIB, 4, 8, 2000, 40, 1_500_000, 12, 600)
WORST = Mix(512 * MIB, 30, 8, 6000, 150, 9_900_000, 40, 2000)


class Peak:
    """The most memory that the processes of a server have had together, and that they have now."""

    def __init__(self, server: Server) -> None:
        self._server = psutil.Process(server.process.pid)
        self.workers = self._server.children()
        self.highest = 0
        self._ended = threading.Event()

    def now(self) -> int:
        return sum(int(each.memory_full_info().pss) for each in (self._server, *self.workers))

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        watcher = threading.Thread(target=self._watch)
        watcher.start()
        try:
            yield
        finally:
            self._ended.set()
            watcher.join()

    def _watch(self) -> None:
        while not self._ended.wait(0.02):
            with contextlib.suppress(psutil.Error):
                self.highest = max(self.highest, self.now())

    def limit(self, more_bytes: int) -> None:
        """Let each worker have only so much more than it has now."""
        for worker in self.workers:
            has = Path(f"/proc/{worker.pid}/status").read_text().partition("VmData:")[2]
            limit = int(has.split()[0]) * 1024 + more_bytes
            worker.rlimit(resource.RLIMIT_DATA, (limit, limit))


async def load(server: Server, mix: Mix) -> Counter[int]:
    """Everything at once; how often each status came."""
    png = encode(Image.new("RGBA", (mix.png_side, mix.png_side), (200, 30, 90, 120)), "PNG")
    jpeg = encode(gradient(mix.jpeg_side, mix.jpeg_side), "JPEG", quality=50)
    port = int(server.url.rpartition(":")[2])
    return await at_once(
        *(unfinished(port, mix.body_bytes) for _ in range(mix.bodies)),
        *(posted(server.url, "fashion-mnist", png) for _ in range(mix.pngs)),
        *(posted(server.url, "denoiser", jpeg) for _ in range(mix.jpegs)),
    )


@pytest.mark.slow
@pytest.mark.parametrize("mix", [SMALL, WORST], ids=["small", "worst"])
def test_worst_mix_stays_within_the_budget_and_no_worker_dies(mix: Mix, tmp_path: Path) -> None:
    settings = {"models": "fashion-mnist,denoiser", "workers": 2, "device": "cpu"}
    limits = {
        "decode_memory_bytes": mix.budget_bytes,
        "request_timeout_s": mix.timeout_s,
        "max_request_bytes": 20_000_000,
    }
    with serve(tmp_path, **settings, **limits) as server:
        for model in ("fashion-mnist", "denoiser"):  # what grows at first use has grown
            image = encode(noise(TILE, TILE, 1), "PNG")
            for _ in range(4):
                server.post(f"/v1/models/{model}:predict", content=image).raise_for_status()
        peak = Peak(server)
        before, started = peak.now(), metric(server, "vitrine_worker_starts_total")
        peak.limit(mix.budget_bytes + ADDRESS_SPACE_BYTES)
        with peak.watched():
            statuses = asyncio.run(load(server, mix))
        assert set(statuses) <= ANSWERS, statuses
        assert statuses[200] > 0
        beside = BESIDE_BYTES + mix.bodies * CONNECTION_BYTES
        assert peak.highest - before < mix.budget_bytes + beside, statuses
        assert metric(server, "vitrine_worker_starts_total") == started
        assert all(worker.is_running() for worker in peak.workers)
        assert come_true(lambda: metric(server, USED, part="bodies") == 0)
        assert come_true(lambda: metric(server, USED, part="images") == 0)
        assert come_true(lambda: peak.now() < 1.15 * before), (peak.now(), before)


def metric(server: Server, name: str, **labels: str) -> float:
    return value(parsed(server.get("/metrics").text), name, **labels)
