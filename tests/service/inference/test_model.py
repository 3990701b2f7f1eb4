"""One model with an engine of the test's own: which batches reach the engine."""

import asyncio
import contextlib
import json
import threading
from collections.abc import Callable, Iterator

import httpx
import numpy as np
import pytest
from PIL import Image, ImageDraw

from service.artifacts.files import Artifact
from service.artifacts.manifest import Device, EngineName, read_manifest
from service.inference.model import Model
from service.inference.registry import Models
from service.pixels.preprocess import Floats
from service.protocols.native import Handlers
from service.settings import Settings
from service.telemetry.metrics import Metrics
from tests.asgi import body_part, request
from tests.drawing import encode
from tests.exposition import parsed, value
from tests.metrics import metrics_of
from tests.server import CHECKOUT
from tests.service.protocols.test_native import SAMPLE

FOLDER = CHECKOUT / "models/fashion-mnist/1"
HANGS_S = 60  # only ever waited for in full where a test fails

Make = Callable[..., Model]


class RecordingEngine:
    """Answers every image with its own brightness; computes once it is released."""

    name: EngineName = "litert"
    device: Device = "cpu"

    def __init__(self, *, fixed_sizes: bool) -> None:
        self.fixed_sizes = fixed_sizes
        self.sizes: list[int] = []
        self.busy = threading.Event()
        self.released = threading.Event()
        self.released.set()

    def predict(self, batch: Floats) -> Floats:
        self.sizes.append(len(batch))
        if (batch.mean(axis=(1, 2, 3)) > 0.9).any():
            raise ValueError("too bright")
        self.busy.set()
        assert self.released.wait(HANGS_S)
        return np.repeat(batch.mean(axis=(1, 2)), 10, axis=1)


def bright() -> bytes:
    """An image that the recording engine fails on."""
    white = Image.new("L", (28, 28), 255)
    ImageDraw.Draw(white).point([(0, 0), (27, 0), (0, 27), (27, 27)], 0)  # no photo: stays as it is
    return encode(white, "PNG")


BRIGHT = bright()


@pytest.fixture
def make() -> Iterator[Make]:
    made: list[Model] = []

    def make_model(
        engine: RecordingEngine, metrics: Metrics | None = None, **settings: object
    ) -> Model:
        artifact = Artifact(FOLDER, read_manifest(FOLDER))
        chosen = Settings.model_validate({"workers": 1, **settings})
        made.append(Model(artifact, engine, chosen, metrics or metrics_of(artifact.manifest)))
        return made[-1]

    yield make_model
    for model in made:
        model.close()


def test_largest_batch_is_the_best_that_export_measured(make: Make) -> None:
    engine = RecordingEngine(fixed_sizes=False)
    make(engine).warm()
    assert max(engine.sizes) == read_manifest(FOLDER).engines[engine.name].best_batch == 32


@pytest.mark.parametrize("size", [1, 5, 64])
def test_largest_batch_is_the_settings_where_that_says_one(make: Make, size: int) -> None:
    engine = RecordingEngine(fixed_sizes=False)
    make(engine, max_batch_size=size).warm()
    assert max(engine.sizes) == size


@pytest.mark.parametrize(("fixed_sizes", "computed"), [(False, 3), (True, 4)])
def test_batch_is_filled_up_only_for_an_engine_of_fixed_sizes(
    make: Make, fixed_sizes: bool, computed: int
) -> None:
    engine = RecordingEngine(fixed_sizes=fixed_sizes)
    model = make(engine)
    engine.released.clear()

    async def classify() -> float:
        asked = request()
        asked.set_timeout(HANGS_S)
        return (await model.classify(SAMPLE, 1, asked))["probability"]

    async def one_and_then_three() -> list[float]:
        first = asyncio.create_task(classify())
        assert await asyncio.to_thread(engine.busy.wait, HANGS_S)
        others = [asyncio.create_task(classify()) for _ in range(3)]
        await asyncio.sleep(0)  # each has reached the queue: so small an image is decoded at once
        engine.released.set()
        return list(await asyncio.gather(first, *others))

    answers = asyncio.run(one_and_then_three())
    assert engine.sizes == [1, computed]
    assert len(set(answers)) == 1  # four times the same image


def test_image_that_the_engine_fails_on_is_an_error_in_its_place(make: Make) -> None:
    model = make(RecordingEngine(fixed_sizes=False))
    files = [("image", ("a.png", data)) for data in (SAMPLE, BRIGHT, SAMPLE)]
    form = httpx.Request("POST", "http://x", files=files)
    content_type = {"Content-Type": form.headers["content-type"]}
    asked = request(body_part(form.read()), headers=content_type)
    asked.set_timeout(HANGS_S)
    handlers = Handlers(Models([model]), Settings(workers=1))
    answer = asyncio.run(handlers.predict(asked, "fashion-mnist", None))
    first, failed, last = json.loads(answer.body)["predictions"]
    assert first == last
    assert list(failed) == ["error"]
    assert asked.request_id in failed["error"]


def test_engine_that_fails_whatever_it_is_given_is_told_of_until_it_works(make: Make) -> None:
    metrics = metrics_of(read_manifest(FOLDER))
    engine = RecordingEngine(fixed_sizes=False)
    model = make(engine, metrics)
    told = []

    def ask(image: bytes) -> None:
        asked = request()
        asked.set_timeout(HANGS_S)
        with contextlib.suppress(ValueError):
            asyncio.run(model.classify(image, 1, asked))
        told.append(metrics.is_any_engine_failing())

    for image in (BRIGHT, SAMPLE, BRIGHT, BRIGHT, BRIGHT, BRIGHT, SAMPLE, BRIGHT):
        ask(image)
    assert told == [False, False, False, False, True, True, False, False]


class OverflowingEngine(RecordingEngine):
    """Answers what is no number, as half precision may."""

    def predict(self, batch: Floats) -> Floats:
        return super().predict(batch) * np.float32(np.nan)


def test_answer_that_is_no_number_is_an_error_and_not_the_devices(make: Make) -> None:
    metrics = metrics_of(read_manifest(FOLDER))
    model = make(OverflowingEngine(fixed_sizes=False), metrics)
    for _ in range(5):
        asked = request()
        asked.set_timeout(HANGS_S)
        with pytest.raises(FloatingPointError, match="litert answered what is no number"):
            asyncio.run(model.classify(SAMPLE, 1, asked))
    assert not metrics.is_any_engine_failing()


@pytest.mark.parametrize(("progressive", "count"), [(True, 1), (False, 0)])
def test_progressive_jpegs_are_counted(make: Make, progressive: bool, count: int) -> None:
    metrics = metrics_of(read_manifest(FOLDER))
    model = make(RecordingEngine(fixed_sizes=False), metrics)
    asked = request()
    asked.set_timeout(HANGS_S)
    photo = encode(Image.new("RGB", (64, 64), (20, 40, 60)), "JPEG", progressive=progressive)
    asyncio.run(model.classify(photo, 1, asked))
    series = parsed(metrics.expose().decode())
    assert value(series, "vitrine_progressive_jpegs_total", model="fashion-mnist") == count
