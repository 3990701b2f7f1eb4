"""What each input is given to, and what must hold whatever the input is."""

import asyncio
import re
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from service.artifacts.manifest import read_manifest
from service.call import Call
from service.errors import ArtifactError, ClientGone, DeadlinePassed, RequestError, Unavailable
from service.inference.budget import Budget, Share
from service.inference.decoding import Decoder
from service.protocols.forms import read_form
from service.server.app import App
from service.settings import Settings
from service.tasks import TASKS
from service.telemetry.counters import Counter
from tests.asgi import body_part, request
from tests.fuzz import seeds
from tests.fuzz.broken import KINDS, broken
from tests.fuzz.target import Broken, Target, Try
from tests.server import CHECKOUT
from tests.wire import Wire

MODELS = ("fashion-mnist", "hand-signs", "denoiser")
LIMITS = Settings(max_image_pixels=500_000, max_denoise_pixels=300_000)
BUDGET_BYTES = 64_000_000
MAX_FORM_BYTES = 1_000_000
TIMEOUT_S = 20.0
MAX_PIXEL = 300.0
"""However a network wants its pixels scaled."""

ALLOWED = (RequestError, Unavailable, DeadlinePassed, ClientGone)
"""What may leave: all else is a bug."""
STATUS = re.compile(rb"^HTTP/1\.1 (5\d\d) [\w -]*\r$", re.MULTILINE)
REFUSALS = (501, 503, 504)
"""Statuses from 500 on that are no bug."""


def _pieces(data: bytes) -> list[bytes]:
    """The input cut into one to a few pieces; its own bytes decide where."""
    size = (len(data) or 1, 1000, 97, max(1, len(data) // 2 + 1))[zlib.crc32(data) % 4]
    return [data[at : at + size] for at in range(0, len(data), size)] or [b""]


@contextmanager
def images() -> Iterator[Try]:
    """Decoding for two classifiers and the denoiser, as a worker does it."""
    budget = Budget(BUDGET_BYTES, "the budget", memoryview(bytearray(8)).cast("d"), 0)
    progressive = Counter(memoryview(bytearray(8)).cast("d"), 0)
    decoders = []
    for name in MODELS:
        manifest = read_manifest(CHECKOUT / "models" / name / "1", TASKS)
        share = Share(budget, BUDGET_BYTES)
        decoders.append(Decoder(TASKS[manifest.task.type](manifest), LIMITS, share, progressive))
    with asyncio.Runner() as runner:

        def decode(data: bytes) -> None:
            decoder = decoders[zlib.crc32(data) % len(decoders)]
            with suppress(*ALLOWED):
                item, held = runner.run(decoder.decode(data, Call("v1", timeout_s=TIMEOUT_S)))
                if held is not None:
                    held.release()
                _check_item(item)
            if budget.used():
                raise Broken(f"{budget.used()} bytes are still held")

        yield decode


def _check_item(item: Any) -> None:
    colors = item if isinstance(item, np.ndarray) else item.colors
    if not np.isfinite(colors).all() or np.abs(colors).max() > MAX_PIXEL:
        raise Broken(f"pixels from {colors.min()} to {colors.max()}")


@contextmanager
def forms() -> Iterator[Try]:
    """The reader of forms, and of compressed bodies."""
    with asyncio.Runner() as runner:

        def read(data: bytes) -> None:
            kind, coding, body = (*data.split(b"\n", 2), b"", b"")[:3]
            headers = {"Content-Type": kind.decode("latin-1")}
            if coding:
                headers["Content-Encoding"] = coding.decode("latin-1")
            parts = [body_part(piece, more=True) for piece in _pieces(body)]
            asked = request(*parts, body_part(b""), headers=headers)
            with suppress(*ALLOWED):
                form = runner.run(read_form(asked, ("model", "top_k"), 3, MAX_FORM_BYTES))
                if not 1 <= len(form.images) <= 3 or sum(map(len, form.images)) > MAX_FORM_BYTES:
                    raise Broken(f"{len(form.images)} images")
            asked.close()

        yield read


@contextmanager
def connections() -> Iterator[Try]:
    """Bytes on a connection of a worker, through to the answers of a model."""
    app = App(Settings(workers=1, models=("fashion-mnist-mlp",), request_timeout_s=TIMEOUT_S))
    wire = Wire(app)
    with asyncio.Runner() as runner:

        async def ask(data: bytes) -> bytes:
            connection, transport = wire.connect()
            for piece in _pieces(data):
                transport.receive(piece)
                await asyncio.sleep(0)
            await asyncio.sleep(0)
            if not transport.is_lost:
                # The client goes: what has not arrived whole is not waited for.
                transport.is_lost = True
                connection.connection_lost(None)
            await wire.settle()
            return transport.written

        def receive(data: bytes) -> None:
            written = runner.run(ask(data))
            # Without the lengths of the answers: that to a HEAD has no body.
            bad = {int(status) for status in STATUS.findall(written)} - set(REFUSALS)
            if bad:
                raise Broken(f"answered {bad}: {written[:500]!r}")

        yield receive
    app.close()


@contextmanager
def manifests() -> Iterator[Try]:
    """A manifest in an artifact's folder."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "manifest.json"

        def read(data: bytes) -> None:
            path.write_bytes(data)
            with suppress(ArtifactError):
                read_manifest(path.parent, TASKS)

        yield read


TARGETS: Mapping[str, Target] = {
    "images": Target(0.68, images, seeds.images),
    "forms": Target(0.1, forms, seeds.forms),
    "connections": Target(0.17, connections, seeds.requests),
    "manifests": Target(0.05, manifests, seeds.manifests),
    "broken": Target(0.0, broken, lambda: [*KINDS]),
}
SERVED = ("images", "forms", "connections", "manifests")
"""Those that are a part of the service."""
