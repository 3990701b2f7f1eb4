"""One model with an engine of the test's own: which batches reach the engine."""

import asyncio
import contextlib
import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import httpx
import numpy as np
import pytest
from PIL import Image, ImageDraw
from PIL.JpegImagePlugin import JpegImageFile

from service.artifacts.files import Artifact
from service.artifacts.manifest import Device, EngineName, read_manifest
from service.call import Call
from service.engines.engine import Tensors
from service.errors import BadInput, TooLarge, UnsupportedImage
from service.inference.decoding import Source
from service.inference.memory import Memory
from service.inference.model import Model
from service.inference.registry import Registry
from service.pixels.preprocess import Floats
from service.protocols import native
from service.protocols.route import Context
from service.settings import Settings
from service.tasks import TASKS
from service.tasks.classification import Classification
from service.telemetry.metrics import Metrics
from tests.asgi import body_part, request
from tests.conftest import SHIPPED_MODELS
from tests.drawing import encode
from tests.exposition import parsed, value
from tests.metrics import metrics_of

FOLDER = SHIPPED_MODELS / "fashion-mnist" / "1"
MANIFEST = read_manifest(FOLDER, TASKS)
SAMPLE = (FOLDER / "sample.png").read_bytes()
HANGS_S = 60  # only ever waited for in full where a test fails

Make = Callable[..., Model]


class RecordingEngine:
    """Answers every image with its own brightness; computes once it is released."""

    name: EngineName = "litert"
    device: Device = "cpu"

    def __init__(self, *, fixed_sizes: bool = False) -> None:
        self.fixed_sizes = fixed_sizes
        self.sizes: list[int] = []
        self.busy = threading.Event()
        self.released = threading.Event()
        self.released.set()

    def predict(self, batch: Tensors) -> dict[str, Floats]:
        (images,) = batch.values()
        self.sizes.append(len(images))
        if (images.mean(axis=(1, 2, 3)) > 0.9).any():
            raise ValueError("too bright")
        self.busy.set()
        assert self.released.wait(HANGS_S)
        return {"probabilities": np.repeat(images.mean(axis=(1, 2)), 10, axis=1)}


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
        artifact = Artifact(FOLDER, MANIFEST)
        task, chosen = Classification(MANIFEST), Settings.model_validate({"workers": 1, **settings})
        metrics = metrics or metrics_of(MANIFEST)
        memory = Memory(chosen, None, 0).share_of_model()
        made.append(Model(artifact, task, engine, chosen, metrics, memory=memory))
        return made[-1]

    yield make_model
    for model in made:
        model.close()


async def probability(model: Model, source: Source = SAMPLE, call: Call | None = None) -> object:
    """The probability of the best class."""
    call = call or Call("test", timeout_s=HANGS_S)
    answer = await model.infer(source, model.task.default_options, call)
    assert isinstance(answer.content, Mapping)
    return answer.content["probability"]


def test_largest_batch_is_the_best_that_export_measured(make: Make) -> None:
    engine = RecordingEngine()
    make(engine).warm()
    assert max(engine.sizes) == MANIFEST.engines[engine.name].best_batch == 32


@pytest.mark.parametrize("size", [1, 5, 64])
def test_largest_batch_is_the_settings_where_that_says_one(make: Make, size: int) -> None:
    engine = RecordingEngine()
    make(engine, max_batch_size=size).warm()
    assert max(engine.sizes) == size


class GpuEngine(RecordingEngine):
    """The same on a GPU, as far as anybody can tell."""

    name: EngineName = "keras"
    device: Device = "gpu"


@pytest.mark.parametrize(("settings", "size"), [({}, 32), ({"max_batch_size": 3}, 3)])
def test_gpu_takes_batches_that_a_cpu_would_not(
    make: Make, monkeypatch: pytest.MonkeyPatch, settings: dict[str, int], size: int
) -> None:
    engine = GpuEngine(fixed_sizes=True)
    monkeypatch.setattr(type(MANIFEST.engines["keras"]), "best_batch", 1)
    make(engine, **settings).warm()
    assert max(engine.sizes) == size


@pytest.mark.parametrize(("fixed_sizes", "computed"), [(False, 3), (True, 4)])
def test_batch_is_filled_up_only_for_an_engine_of_fixed_sizes(
    make: Make, fixed_sizes: bool, computed: int
) -> None:
    engine = RecordingEngine(fixed_sizes=fixed_sizes)
    model = make(engine)
    engine.released.clear()

    async def one_and_then_three() -> list[object]:
        first = asyncio.create_task(probability(model))
        assert await asyncio.to_thread(engine.busy.wait, HANGS_S)
        others = [asyncio.create_task(probability(model)) for _ in range(3)]
        await asyncio.sleep(0)  # each has reached the queue: so small an image is decoded at once
        engine.released.set()
        return list(await asyncio.gather(first, *others))

    answers = asyncio.run(one_and_then_three())
    assert engine.sizes == [1, computed]
    assert len(set(answers)) == 1  # four times the same image


def posted(model: Model, images: Sequence[bytes]) -> tuple[list[dict[str, object]], str]:
    """The predictions for a form of several images, and the request's ID."""
    files = [("image", ("a.png", data)) for data in images]
    form = httpx.Request("POST", "http://x", files=files)
    content_type = {"Content-Type": form.headers["content-type"]}
    asked = request(body_part(form.read()), headers=content_type)
    with ThreadPoolExecutor(1) as scraper:
        context = Context(
            Settings(workers=1),
            Registry([model], {}),
            metrics_of(MANIFEST),
            native.routes(),
            scraper,
            lambda: False,
            dict,
            Memory(Settings(workers=1), None, 0).share_of_body,
        )
        answer = asyncio.run(native.answer_predict(context, asked, {"name": "fashion-mnist"}))
    predictions: list[dict[str, object]] = json.loads(answer.body)["predictions"]
    return predictions, asked.call.request_id


def test_image_that_the_engine_fails_on_is_an_error_in_its_place(make: Make) -> None:
    predictions, request_id = posted(make(RecordingEngine()), (SAMPLE, BRIGHT, SAMPLE))
    first, failed, last = predictions
    assert first == last
    assert list(failed) == ["error"]
    assert request_id in str(failed["error"])
    assert "bright" not in str(failed["error"])  # what fails inside is for the log alone


def test_engine_that_fails_whatever_it_is_given_is_told_of_until_it_works(make: Make) -> None:
    metrics = metrics_of(MANIFEST)
    model = make(RecordingEngine(), metrics)
    told = []

    def ask(image: bytes) -> None:
        with contextlib.suppress(ValueError):
            asyncio.run(probability(model, image))
        told.append(bool(metrics.failing_engines()))

    for image in (BRIGHT, SAMPLE, BRIGHT, BRIGHT, BRIGHT, BRIGHT, SAMPLE, BRIGHT):
        ask(image)
    assert told == [False, False, False, False, True, True, False, False]


def test_failing_engine_is_told_by_the_name_of_its_model(make: Make) -> None:
    metrics = metrics_of(MANIFEST)
    model = make(RecordingEngine(), metrics)
    for _ in range(3):
        with pytest.raises(ValueError, match="too bright"):
            asyncio.run(probability(model, BRIGHT))
    assert metrics.failing_engines() == ["fashion-mnist"]


class OverflowingEngine(RecordingEngine):
    """Answers what is no number, as half precision may."""

    def predict(self, batch: Tensors) -> dict[str, Floats]:
        outputs = super().predict(batch)
        return {name: output * np.float32(np.nan) for name, output in outputs.items()}


def test_answer_that_is_no_number_is_an_error_and_not_the_devices(make: Make) -> None:
    metrics = metrics_of(MANIFEST)
    model = make(OverflowingEngine(), metrics)
    for _ in range(5):
        with pytest.raises(FloatingPointError, match="litert: probabilities is not finite"):
            asyncio.run(probability(model))
    assert not metrics.failing_engines()


@pytest.mark.parametrize(("progressive", "count"), [(True, 1), (False, 0)])
def test_progressive_jpegs_are_counted(make: Make, progressive: bool, count: int) -> None:
    metrics = metrics_of(MANIFEST)
    model = make(RecordingEngine(), metrics)
    photo = encode(Image.new("RGB", (64, 64), (20, 40, 60)), "JPEG", progressive=progressive)
    asyncio.run(probability(model, photo))
    series = parsed(metrics.expose().decode())
    assert value(series, "vitrine_progressive_jpegs_total", model="fashion-mnist") == count


def test_call_knows_what_each_item_took(make: Make) -> None:
    call = Call("test", timeout_s=HANGS_S)
    model = make(RecordingEngine())
    for items in (1, 2):
        asyncio.run(probability(model, call=call))
        assert (call.items, call.batch_size) == (items, 1)
    assert [stage for stage, _, _ in call.stages] == 2 * ["decode", "queue", "predict", "encode"]
    times = [(started, started + seconds) for _, started, seconds in call.stages[:4]]
    assert times == sorted(times)
    assert set(call.stages_s()) == {"decode", "queue", "predict", "encode"}


def test_stages_and_labels_are_counted(make: Make) -> None:
    metrics = metrics_of(MANIFEST)
    model = make(RecordingEngine(), metrics)
    asyncio.run(probability(model))
    series = parsed(metrics.expose().decode())
    for stage in ("decode", "queue", "predict", "encode"):
        assert value(series, "vitrine_stage_seconds_count", version="1", stage=stage) == 1
    labels = {"model": "fashion-mnist", "version": "1", "label": model.task.labels[0]}
    assert value(series, "vitrine_predictions_total", **labels) == 1
    assert value(series, "vitrine_predictions_total") == 1
    assert value(series, "vitrine_batch_size_count", version="1") == 1


def test_encoded_opened_and_prepared_image_are_answered_alike(make: Make) -> None:
    model = make(RecordingEngine())
    prepared = model.task.decode(SAMPLE, Settings(workers=1))
    sources: list[Source] = [SAMPLE, Image.open(BytesIO(SAMPLE)), {"image": prepared}]
    answers = [asyncio.run(probability(model, source)) for source in sources]
    assert answers[0] == pytest.approx(float(prepared.mean()), abs=1e-6)
    assert len(set(answers)) == 1


@pytest.mark.parametrize("image_format", ["JPEG", "PNG"])
def test_opened_image_of_the_caller_stays_as_it_was(make: Make, image_format: str) -> None:
    model = make(RecordingEngine())
    photo = encode(Image.new("RGB", (1600, 1200), (20, 40, 60)), image_format)
    mine = Image.open(BytesIO(photo))
    answer = asyncio.run(probability(model, mine))
    assert (mine.size, mine.mode, mine.format) == ((1600, 1200), "RGB", image_format)
    assert answer == asyncio.run(probability(model, photo))


@pytest.mark.parametrize(("side", "on_the_loop"), [(128, True), (129, False)])
@pytest.mark.parametrize("is_opened", [False, True])
def test_large_image_is_unpacked_in_a_thread(
    make: Make, monkeypatch: pytest.MonkeyPatch, side: int, on_the_loop: bool, is_opened: bool
) -> None:
    threads = []

    def load(image: JpegImageFile) -> object:
        threads.append(threading.get_ident())
        return unpack(image)

    unpack = JpegImageFile.load
    monkeypatch.setattr(JpegImageFile, "load", load)
    photo = encode(Image.new("RGB", (side, side), (20, 40, 60)), "JPEG")
    source = Image.open(BytesIO(photo)) if is_opened else photo
    asyncio.run(probability(make(RecordingEngine()), source))
    assert {thread == threading.get_ident() for thread in threads} == {on_the_loop}


@pytest.mark.parametrize(
    ("source", "error", "said"),
    [
        (b"no image", UnsupportedImage, "of another type"),
        (Image.new("L", (30, 20)), TooLarge, "at most 500 pixels, got 30x20 = 600 pixels"),
        (Image.new("F", (9, 9)), UnsupportedImage, "got an image of mode F"),
        ({"photo": np.zeros((28, 28, 1), np.float32)}, BadInput, "expected the input image"),
        ({"image": np.zeros((9, 9, 1), np.float32)}, BadInput, r"of shape \(28, 28, 1\), got"),
    ],
    ids=["bytes", "pixels", "mode", "name", "shape"],
)
def test_unusable_source_is_an_error_of_the_caller_and_no_place_is_kept(
    make: Make, source: Source, error: type[Exception], said: str
) -> None:
    engine = RecordingEngine()
    model = make(engine, max_image_pixels=500, queue_limit=1)
    with pytest.raises(error, match=said):
        asyncio.run(probability(model, source))
    assert engine.sizes == []
    model.check_room(1)
