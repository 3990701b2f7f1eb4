"""A long denoising ends when nobody waits for it, and lets small images through."""

import asyncio
import threading
from collections.abc import Iterator, Mapping

import numpy as np
import pytest
from PIL import Image

from service.artifacts.files import Artifact
from service.artifacts.manifest import Device, EngineName, parse_manifest
from service.call import Call
from service.engines.engine import Tensors
from service.errors import ClientGone, DeadlinePassed, Unavailable
from service.inference.costs import Costs
from service.inference.memory import Memory
from service.inference.model import Model
from service.inference.queue import GONE_CHECK_AFTER_S
from service.pixels.preprocess import Floats
from service.settings import Settings
from service.tasks import TASKS
from service.tasks.denoising import Denoising, split
from tests.conftest import SHIPPED_MODELS
from tests.drawing import noise
from tests.metrics import metrics_of
from tests.service.tasks.test_denoising import fields

pytestmark = pytest.mark.anyio

TILE = 32
HANGS_S = 30  # reached only where a test fails
LARGE = noise(200, 200, 1)
SMALL = noise(16, 16, 1)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def denoiser_of() -> Denoising:
    """A denoiser of small tiles."""
    return Denoising(parse_manifest(fields(), TASKS))


def doubled(batch: Tensors) -> Mapping[str, Floats]:
    return {"clean": 2 * batch["noisy"]}


class SteppedEngine:
    """Computes one tile each time it is let; remembers the sides of each."""

    name: EngineName = "litert"
    device: Device = "cpu"
    fixed_sizes = False

    def __init__(self) -> None:
        self.sides: list[int] = []
        self.begun = threading.Semaphore(0)
        self.allowed = threading.Semaphore(0)

    def predict(self, batch: Tensors) -> dict[str, Floats]:
        (planes,) = batch.values()
        self.sides.append(max(planes.shape[1:3]))
        self.begun.release()
        assert self.allowed.acquire(timeout=HANGS_S)
        return {"clean": planes}

    async def is_computing(self) -> None:
        """Wait until the next tile is begun."""
        assert await asyncio.to_thread(self.begun.acquire, timeout=HANGS_S)

    def let(self, tiles: int) -> None:
        self.allowed.release(tiles)


@pytest.fixture
def engine() -> SteppedEngine:
    return SteppedEngine()


@pytest.fixture
def settings() -> Settings:
    return Settings(workers=1)


@pytest.fixture
def model(engine: SteppedEngine, settings: Settings) -> Iterator[Model]:
    task = denoiser_of()
    artifact = Artifact(SHIPPED_MODELS / "denoiser" / "1", task.manifest)
    memory = Memory(settings, None, 0).share_of_model()
    made = Model(artifact, task, engine, settings, metrics_of(task.manifest), memory=memory)
    yield made
    engine.let(10_000)
    made.close()


def costs_of(model: Model) -> Costs:
    assert model._costs is not None
    return model._costs


def asked(model: Model, image: Image.Image, call: Call | None = None) -> "asyncio.Task[object]":
    call = call or Call("test", timeout_s=HANGS_S)
    return asyncio.create_task(model.infer(image, model.task.default_options, call))


async def test_computation_ends_at_the_next_tile_once_its_client_has_gone(
    model: Model, engine: SteppedEngine
) -> None:
    gone = threading.Event()
    asking = asked(model, LARGE, Call("test", timeout_s=HANGS_S, is_gone=gone.is_set))
    await engine.is_computing()
    gone.set()
    await asyncio.sleep(2 * GONE_CHECK_AFTER_S)
    engine.let(1)
    with pytest.raises(ClientGone):
        await asking
    assert len(engine.sides) == 1


async def test_computation_ends_at_the_next_tile_once_its_deadline_has_passed(
    model: Model, engine: SteppedEngine
) -> None:
    call = Call("test", timeout_s=HANGS_S)
    asking = asked(model, LARGE, call)
    await engine.is_computing()
    call.deadline = call.started
    engine.let(1)
    with pytest.raises(DeadlinePassed):
        await asking
    assert len(engine.sides) == 1


async def test_small_image_is_next_after_two_large_ones_that_were_abandoned(
    model: Model, engine: SteppedEngine
) -> None:
    abandoned = [asked(model, LARGE), asked(model, LARGE)]
    await engine.is_computing()
    for each in abandoned:
        each.cancel()  # as asyncio.timeout does
    await asyncio.wait(abandoned)
    small = asked(model, SMALL)
    engine.let(2)
    await asyncio.wait_for(small, HANGS_S)
    assert engine.sides == [TILE, 16]


async def test_small_image_has_its_turn_while_a_large_one_is_computed(
    model: Model, engine: SteppedEngine
) -> None:
    costs_of(model).unit_s = 1e-4  # 0.1 s for a tile, as on a slow machine
    large = asked(model, LARGE)
    await engine.is_computing()
    small = asked(model, SMALL)
    while model._queue.admission.waiting < 1:
        await asyncio.sleep(0.001)
    engine.let(2)
    await asyncio.wait_for(small, HANGS_S)
    assert not large.done()
    assert engine.sides[:2] == [TILE, 16]
    engine.let(10_000)
    await asyncio.wait_for(large, HANGS_S)
    assert set(engine.sides[2:]) == {TILE}


async def test_what_is_ahead_falls_with_each_tile(model: Model, engine: SteppedEngine) -> None:
    costs_of(model).unit_s = 1e-4
    work, seen = model._admission.work, []
    asking = asked(model, LARGE)
    for _ in range(3):
        await engine.is_computing()
        seen.append(work.ahead_s(9.0))
        engine.let(1)
    assert seen[0] > seen[1] > seen[2] > 0
    engine.let(10_000)
    await asyncio.wait_for(asking, HANGS_S)
    assert work.ahead_s(9.0) == pytest.approx(0)


async def test_answer_is_the_same_in_pieces_and_stages_are_timed(
    model: Model, engine: SteppedEngine
) -> None:
    engine.let(10_000)
    call = Call("test", timeout_s=HANGS_S)
    answer = await model.infer(LARGE, model.task.default_options, call)
    np.testing.assert_array_equal(np.asarray(answer.image()), np.asarray(LARGE))
    assert len(engine.sides) > 9
    assert (call.items, call.batch_size) == (1, 1)
    stages = call.stages_s()
    assert stages["predict"] > 0
    assert stages["queue"] >= 0


async def test_image_that_would_be_too_late_is_refused_before_it_is_decoded(
    model: Model, engine: SteppedEngine
) -> None:
    costs_of(model).unit_s = 1e-4  # 6.5 s for each of these
    first = asked(model, LARGE)
    await engine.is_computing()
    with pytest.raises(
        Unavailable, match=r"overloaded: expected an answer within (9|10)"
    ) as refused:
        await asked(model, LARGE, Call("test", timeout_s=10))
    assert refused.value.retry_after_s >= 1
    engine.let(10_000)
    await asyncio.wait_for(first, HANGS_S)
    again = await asked(model, LARGE, Call("test", timeout_s=10))
    assert again is not None


def test_warming_measures_the_seconds_of_a_pixel(model: Model, engine: SteppedEngine) -> None:
    engine.let(10_000)
    model.warm()
    assert costs_of(model).unit_s > 0
    assert engine.sides[-1] == TILE


async def test_of_many_large_images_at_once_as_many_are_taken_as_are_done_in_time(
    model: Model, engine: SteppedEngine
) -> None:
    costs_of(model).unit_s = 1e-4  # 6.5 s for each of these
    asking = [asked(model, LARGE, Call("test", timeout_s=35)) for _ in range(16)]
    refused = [each for each in asking if isinstance(await settled(each), Unavailable)]
    assert len(refused) == 16 - 4  # before any is computed
    assert len(engine.sides) <= 1
    told = {
        error.retry_after_s
        for each in refused
        if isinstance(error := each.exception(), Unavailable)
    }
    assert told == {5}  # 26.2 s of work, 6.5 s of its own, 28 of 35 s of time
    engine.let(10_000)
    taken = [each for each in asking if each not in refused]
    await asyncio.wait(taken, timeout=HANGS_S)
    assert all(each.exception() is None for each in taken)


async def settled(asking: "asyncio.Task[object]") -> BaseException | None:
    """The error of what is refused; None for what waits."""
    await asyncio.wait([asking], timeout=0.05)
    return asking.exception() if asking.done() else None


async def test_first_tile_tells_how_slow_the_machine_is(
    model: Model, engine: SteppedEngine
) -> None:
    costs_of(model).unit_s = 1e-5  # 0.01 s for a tile
    asking = asked(model, LARGE)
    await engine.is_computing()
    await asyncio.sleep(0.05)
    engine.let(1)
    await engine.is_computing()
    assert model._admission.work.slowdown > 1.5
    engine.let(10_000)
    await asyncio.wait_for(asking, HANGS_S)


async def test_tile_of_a_small_image_tells_nothing(model: Model, engine: SteppedEngine) -> None:
    costs_of(model).unit_s = 1e-6  # 0.07 s for the whole
    asking = asked(model, LARGE)
    await engine.is_computing()
    await asyncio.sleep(0.05)
    engine.let(10_000)
    await asyncio.wait_for(asking, HANGS_S)
    assert model._admission.work.slowdown == 1


async def test_each_second_of_a_denoising_teaches_once(
    model: Model, engine: SteppedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    costs_of(model).unit_s = 1e-3  # 1 s for a tile: the last one teaches, too
    taught: list[tuple[float, float]] = []
    monkeypatch.setattr(model._admission.work, "learn", lambda *seconds: taught.append(seconds))
    engine.let(10_000)
    call = Call("test", timeout_s=HANGS_S)
    await asked(model, LARGE, call)
    assert len(taught) == len(engine.sides)
    predicted, actual = map(sum, zip(*taught, strict=True))
    assert predicted == pytest.approx(costs_of(model).of_item(split(LARGE)))
    assert actual == pytest.approx(call.stages_s()["predict"])


@pytest.mark.parametrize("settings", [Settings(workers=1, decode_memory_bytes=1_600_000)])
async def test_image_that_waits_for_memory_is_refused_once_it_would_be_too_late(
    model: Model, engine: SteppedEngine
) -> None:
    costs_of(model).unit_s = 1e-4  # 6.5 s for each of these
    first = asked(model, LARGE)
    await engine.is_computing()
    waiting = [asked(model, LARGE) for _ in range(2)]
    assert await settled(waiting[0]) is None
    model._admission.work.slowdown = 3.0
    for each in waiting:
        with pytest.raises(Unavailable, match="it would take 39"):
            await asyncio.wait_for(each, HANGS_S)
    assert len(engine.sides) == 1
    engine.let(10_000)
    await asyncio.wait_for(first, HANGS_S)
    assert model._admission.undecoded_s == 0
