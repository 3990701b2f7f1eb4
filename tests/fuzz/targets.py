"""What each input is given to, and what must hold whatever the input is."""

import asyncio
import re
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from service.artifacts.manifest import read_manifest
from service.call import Call
from service.errors import ArtifactError, ClientGone, DeadlinePassed, RequestError, Unavailable
from service.protocols.forms import read_form
from service.server.app import App
from service.settings import Settings
from service.tasks import TASKS
from tests.asgi import body_part, request
from tests.fuzz import seeds
from tests.fuzz.broken import KINDS, broken
from tests.fuzz.target import Broken, Target, Try
from tests.wire import Wire

MODELS = ("fashion-mnist", "fashion-mnist", "hand-signs", "hand-signs", "denoiser")
SETTINGS = Settings(
    workers=1,
    models=tuple(set(MODELS)),
    max_image_pixels=500_000,
    max_denoise_pixels=10_000,
    decode_memory_bytes=80_000_000,
    request_timeout_s=20.0,
)
MAX_FORM_BYTES = 1_000_000
TIMEOUT_S = 20.0

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
    """An image's whole way through a model: two classifiers and the denoiser."""
    app = App(SETTINGS)
    models = [app.registry.find(name) for name in MODELS]
    with asyncio.Runner() as runner:

        def answer(data: bytes) -> None:
            model = models[zlib.crc32(data) % len(models)]
            call = Call("v1", timeout_s=TIMEOUT_S)
            with suppress(*ALLOWED):
                runner.run(model.infer(data, model.task.default_options, call))
            held_bytes = sum(sample.value for sample in next(app.memory.metrics()).samples)
            if held_bytes:
                raise Broken(f"{held_bytes} bytes are still held")

        yield answer
    app.close()


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
