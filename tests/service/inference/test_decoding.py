"""An image is decoded once there is memory for it, and holds it until it is answered."""

import asyncio
import math
import threading
from typing import Any

import pytest
from PIL import Image

from service.artifacts.manifest import Manifest, read_manifest
from service.call import Call
from service.errors import BadInput, TooLarge
from service.inference.admission import Admission
from service.inference.decoding import Decoder
from service.inference.memory import Memory
from service.pixels.cost import decode_bytes
from service.settings import Settings
from service.tasks import TASKS
from service.tasks.classification import Classification
from service.tasks.task import ImageLimits
from tests.conftest import SHIPPED_MODELS
from tests.drawing import encode, gradient
from tests.metrics import metrics_of

pytestmark = pytest.mark.anyio

MANIFEST = read_manifest(SHIPPED_MODELS / "fashion-mnist" / "1", TASKS)
SIDE = 300
LARGE = encode(gradient(SIDE, SIDE), "PNG")
SMALL = encode(gradient(), "PNG")
COST = decode_bytes(Image.new("RGB", (SIDE, SIDE)), MANIFEST.input) + 28 * 28 * 4
CLOTHING = read_manifest(SHIPPED_MODELS / "clothing" / "1", TASKS)
HANGS_S = 10


class HeldTask(Classification):
    """Decodes large images once it may."""

    def __init__(self, manifest: Manifest = MANIFEST) -> None:
        super().__init__(manifest)
        self.may_decode = threading.Event()

    def from_image(self, image: Image.Image, limits: ImageLimits) -> Any:
        if image.width == SIDE:
            self.may_decode.wait(HANGS_S)
        return super().from_image(image, limits)


class Decoding:
    """A decoder that has memory for one large image."""

    def __init__(self, task: Classification, budget: int = COST * 4 // 3 + 1) -> None:
        settings = Settings(workers=1, decode_memory_bytes=budget)
        self.share = Memory(settings, None, 0).share_of_model()
        counter = metrics_of(MANIFEST).progressive_jpegs[MANIFEST.name, MANIFEST.version]
        self.decoder = Decoder(task, settings, self.share, counter, None)
        self.admission = Admission(MANIFEST.name, 256, math.inf)

    @property
    def used(self) -> int:
        return self.share.budget.used()

    def start(self, data: bytes) -> "asyncio.Task[Any]":
        call = Call("test")
        place = self.admission.place(call)
        return asyncio.create_task(self.decoder.decode(data, call, place))


async def soon(is_so: Any) -> None:
    async with asyncio.timeout(HANGS_S):
        while not is_so():
            await asyncio.sleep(0.005)


async def test_image_that_does_not_fit_beside_another_waits_for_it() -> None:
    task = HeldTask()
    ours = Decoding(task)
    first, second = ours.start(LARGE), ours.start(LARGE)
    await asyncio.sleep(0.03)
    assert ours.used == COST
    task.may_decode.set()
    for decoding in (first, second):
        item, held = await asyncio.wait_for(decoding, HANGS_S)
        assert item.shape == MANIFEST.input.shape
        assert ours.used == held.count == 28 * 28 * 4  # the item, until it is answered
        held.release()
    assert ours.used == 0


async def test_small_image_does_not_wait_for_large_ones() -> None:
    task = HeldTask(CLOTHING)
    large_bytes = decode_bytes(Image.new("RGB", (SIDE, SIDE)), CLOTHING.input)
    item_bytes = task.item_bytes(Image.new("RGB", (SIDE, SIDE)))
    ours = Decoding(task, budget=(large_bytes + 2 * item_bytes) * 4 // 3 + 1)
    large = [ours.start(LARGE) for _ in range(3)]
    await asyncio.sleep(0.03)
    assert ours.used == large_bytes + item_bytes
    item, held = await asyncio.wait_for(ours.start(SMALL), HANGS_S)
    assert item.shape == CLOTHING.input.shape
    assert held.count == item_bytes
    held.release()
    task.may_decode.set()
    for decoding in large:
        _, held = await asyncio.wait_for(decoding, HANGS_S)
        held.release()
    assert ours.used == 0


async def test_image_that_never_fits_is_refused_before_it_is_unpacked() -> None:
    with pytest.raises(TooLarge, match=f"three quarters of VITRINE_DECODE_MEMORY.*takes {COST} "):
        await Decoding(HeldTask(), budget=COST).start(LARGE)


async def test_broken_image_holds_nothing() -> None:
    ours = Decoding(Classification(MANIFEST))
    with pytest.raises(BadInput):
        await ours.start(LARGE[:-200])
    assert ours.used == 0


async def test_small_image_holds_nothing() -> None:
    ours = Decoding(Classification(MANIFEST))
    _, held = await ours.start(SMALL)
    assert held is None
    assert ours.used == 0


async def test_image_that_nobody_waits_for_any_more_is_held_until_its_thread_ends() -> None:
    task = HeldTask()
    ours = Decoding(task)
    decoding = ours.start(LARGE)
    await asyncio.sleep(0.03)
    decoding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await decoding
    assert ours.used == COST
    task.may_decode.set()
    await soon(lambda: ours.used == 0)


def test_metrics_show_what_is_held_and_the_most_that_may_be() -> None:
    memory = Memory(Settings(workers=1, decode_memory_bytes=1000), None, 0)
    assert memory.share_of_model().take(30, 0.0)
    found = {
        (family.name, sample.labels["part"]): sample.value
        for family in memory.metrics()
        for sample in family.samples
    }
    assert found == {
        ("vitrine_decode_memory_bytes", "bodies"): 0,
        ("vitrine_decode_memory_bytes", "images"): 30,
        ("vitrine_decode_memory_limit_bytes", "bodies"): 250,
        ("vitrine_decode_memory_limit_bytes", "images"): 750,
    }
