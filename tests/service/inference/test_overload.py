"""What a slow engine does to those who wait: 503, 504, and nothing for those who have gone."""

import asyncio
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPResponse
from pathlib import Path

import httpx
import numpy as np
import pytest

from service.artifacts.files import Artifact
from service.artifacts.manifest import Device, EngineName, read_manifest
from service.call import Call
from service.engines.engine import Tensors
from service.errors import Unavailable
from service.inference.memory import Memory
from service.inference.model import Model
from service.inference.registry import Registry
from service.pixels.preprocess import Floats
from service.server.app import App
from service.server.front import Front
from service.settings import Settings
from service.tasks import TASKS
from service.tasks.classification import Classification, ClassificationOptions
from service.tasks.task import Answer
from service.telemetry.metrics import Metrics
from tests.conftest import SHIPPED_MODELS
from tests.drawing import encode, gradient
from tests.exposition import Series, parsed, value
from tests.metrics import metrics_of
from tests.server import Server, serve

FOLDER = SHIPPED_MODELS / "fashion-mnist" / "1"
SAMPLE = (FOLDER / "sample.png").read_bytes()
PNG = {"Content-Type": "image/png"}
DENOISER = "/v1/models/denoiser:predict"
SLOW = encode(gradient(1400, 1400).convert("L"), "PNG")
QUICK = encode(gradient(16, 16).convert("L"), "PNG")
HEAD = f"POST {DENOISER} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(QUICK)}\r\n"
SLOW_HEAD = HEAD.replace(str(len(QUICK)), str(len(SLOW)))
HANGS_S = 60  # only ever waited for in full where a test fails
EIGHT = 8


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def post(server: Server, data: bytes, **headers: str) -> httpx.Response:
    return httpx.post(
        f"{server.url}{DENOISER}", content=data, headers=PNG | headers, timeout=HANGS_S
    )


def connected(server: Server) -> socket.socket:
    """A connection of its own."""
    url = httpx.URL(server.url)
    return socket.create_connection((url.host, url.port), timeout=HANGS_S)


def status(connection: socket.socket) -> int:
    """The status of the next answer on a connection, once it is whole."""
    answer = HTTPResponse(connection)
    answer.begin()
    answer.read()
    return answer.status


def metrics(server: Server) -> Series:
    return parsed(httpx.get(f"{server.url}/metrics").text)


def wait_until(server: Server, holds: Callable[[Series], bool]) -> None:
    """Wait until the metrics say so."""
    deadline = time.monotonic() + HANGS_S
    while not holds(metrics(server)):
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of one worker in which one image may wait."""
    folder = tmp_path_factory.mktemp("narrow")
    with serve(folder, models="denoiser", workers=1, queue_limit=1) as server:
        yield server


@pytest.fixture
def idle(narrow: Server) -> Series:
    """The metrics of the narrow server once all before is computed."""
    assert post(narrow, QUICK).status_code == 200
    return metrics(narrow)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(EIGHT) as threads:
        yield threads


@pytest.fixture
def computing(
    narrow: Server, idle: Series, pool: ThreadPoolExecutor
) -> Iterator["Future[httpx.Response]"]:
    """A slow answer that the narrow server is at work on; nothing waits behind it yet."""
    accepted = value(idle, "vitrine_stage_seconds_count", stage="decode") + 1
    answer = pool.submit(post, narrow, SLOW)
    wait_until(
        narrow,
        lambda now: (
            value(now, "vitrine_stage_seconds_count", stage="decode") == accepted
            and value(now, "vitrine_queue_depth") == 0
        ),
    )
    yield answer
    assert answer.result().status_code == 200


def computed(before: Series, after: Series) -> float:
    """How many batches were computed in between."""
    return value(after, "vitrine_batch_size_count") - value(before, "vitrine_batch_size_count")


def check_overload(answer: httpx.Response) -> None:
    assert list(answer.json()) == ["error"]
    assert "overloaded" in answer.json()["error"]
    assert int(answer.headers["retry-after"]) >= 1


def test_overload_is_503_and_the_others_are_answered(
    narrow: Server, idle: Series, pool: ThreadPoolExecutor
) -> None:
    answers = list(pool.map(lambda _: post(narrow, SLOW), range(EIGHT)))
    refused = [answer for answer in answers if answer.status_code != 200]
    # One is computed; one more may wait, if it comes when the first has left the queue.
    assert 1 <= len(refused) < EIGHT
    for answer in refused:
        assert answer.status_code == 503
        check_overload(answer)
    after = metrics(narrow)
    requests = "vitrine_requests_total"
    counted = value(after, requests, status="503") - value(idle, requests, status="503")
    assert counted == len(refused)
    assert computed(idle, after) == EIGHT - len(refused)
    assert value(after, "vitrine_queue_depth") == 0


def test_deadline_that_passes_while_an_image_is_computed_is_504(
    narrow: Server, idle: Series
) -> None:
    late = post(narrow, SLOW, **{"X-Request-Timeout-Ms": "30"})
    assert late.status_code == 504
    assert late.json() == {"error": "no answer within 0.03 s"}
    assert post(narrow, QUICK).status_code == 200
    after = metrics(narrow)
    requests = "vitrine_requests_total"
    assert value(after, requests, status="504") == value(idle, requests, status="504") + 1


def test_image_that_would_be_too_late_is_refused_at_once(
    narrow: Server, idle: Series, computing: "Future[httpx.Response]"
) -> None:
    refused = post(narrow, SLOW, **{"X-Request-Timeout-Ms": "30"})
    assert refused.status_code == 503
    check_overload(refused)
    assert not computing.done()
    assert post(narrow, QUICK).status_code == 200  # its place in the queue is free at once
    assert computing.result().status_code == 200
    assert computed(idle, metrics(narrow)) == 2


def test_small_image_does_not_wait_for_a_large_one_to_end(
    narrow: Server, computing: "Future[httpx.Response]"
) -> None:
    assert post(narrow, QUICK).status_code == 200
    assert not computing.done()


def test_image_whose_client_has_gone_is_not_computed_to_its_end(
    narrow: Server, idle: Series
) -> None:
    accepted = value(idle, "vitrine_stage_seconds_count", stage="decode") + 1
    with connected(narrow) as connection:
        connection.sendall(f"{SLOW_HEAD}\r\n".encode() + SLOW)
        wait_until(
            narrow,
            lambda now: value(now, "vitrine_stage_seconds_count", stage="decode") == accepted,
        )
    assert post(narrow, QUICK).status_code == 200
    requests = "vitrine_requests_total"
    gone = value(idle, requests, model="denoiser", status="499") + 1
    wait_until(narrow, lambda now: value(now, requests, model="denoiser", status="499") == gone)
    assert computed(idle, metrics(narrow)) == 1


def test_image_whose_client_has_gone_while_it_waits_is_not_computed(
    narrow: Server, idle: Series, computing: "Future[httpx.Response]"
) -> None:
    with connected(narrow) as connection:
        connection.sendall(f"{SLOW_HEAD}\r\n".encode() + SLOW)
        wait_until(narrow, lambda now: value(now, "vitrine_queue_depth") == 1)
    requests = "vitrine_requests_total"
    gone = value(idle, requests, model="denoiser", status="499") + 1
    wait_until(narrow, lambda now: value(now, requests, model="denoiser", status="499") == gone)
    assert computing.result().status_code == 200
    assert computed(idle, metrics(narrow)) == 1


@pytest.fixture
def full(
    narrow: Server, computing: "Future[httpx.Response]", pool: ThreadPoolExecutor
) -> Iterator["Future[httpx.Response]"]:
    """The answer that waits and so fills the queue of the narrow server."""
    waiting = pool.submit(post, narrow, SLOW)
    wait_until(narrow, lambda now: value(now, "vitrine_queue_depth") == 1)
    yield waiting
    assert waiting.result().status_code == 200


def test_refused_client_keeps_its_connection_and_its_request_id(
    narrow: Server, full: "Future[httpx.Response]"
) -> None:
    with narrow.client() as client:
        for body in (QUICK, SLOW, b"", b"no image"):
            mine = PNG | {"X-Request-ID": f"refused-{len(body)}"}
            refused = client.post(f"{DENOISER}?top_k=1", content=body, headers=mine)
            assert refused.status_code == 503
            check_overload(refused)
            assert refused.headers["x-request-id"] == mine["X-Request-ID"]
        assert refused.headers["content-type"] == "application/json"
        assert client.get("/livez").status_code == 200
        connection = client.post(DENOISER, content=QUICK, headers={"Connection": "close"})
        assert connection.status_code == 503
        assert connection.headers["connection"] == "close"
    assert not full.done()


def test_request_that_never_becomes_whole_is_504_at_its_deadline(
    narrow: Server, idle: Series
) -> None:
    with connected(narrow) as connection:
        connection.sendall(f"{HEAD}X-Request-Timeout-Ms: 50\r\n\r\n".encode() + QUICK[:10])
        assert status(connection) == 504


def test_full_queue_refuses_a_request_before_it_is_whole_and_keeps_the_connection(
    narrow: Server, full: "Future[httpx.Response]"
) -> None:
    with connected(narrow) as connection:
        connection.sendall(f"{HEAD}\r\n".encode() + QUICK[:10])
        assert status(connection) == 503
        assert not full.done()
        connection.sendall(QUICK[10:] + b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        assert status(connection) == 200


def test_full_queue_refuses_nothing_else(narrow: Server, full: "Future[httpx.Response]") -> None:
    assert httpx.get(f"{narrow.url}{DENOISER}").status_code == 405
    assert httpx.post(f"{narrow.url}/v1/models/nope:predict", content=QUICK).status_code == 404
    assert httpx.post(f"{narrow.url}/v1/models/denoiser:explain").status_code == 404
    assert not full.done()


def test_health_and_metrics_are_answered_while_the_engine_is_busy(
    narrow: Server, computing: "Future[httpx.Response]"
) -> None:
    for path in ("/livez", "/readyz", "/metrics", "/v1/models"):
        assert httpx.get(f"{narrow.url}{path}").status_code == 200
    assert not computing.done()


def test_server_that_ends_answers_all_that_it_has_accepted(
    tmp_path: Path, pool: ThreadPoolExecutor
) -> None:
    with serve(tmp_path, models="denoiser", workers=1, queue_limit=4) as server:
        answers = [pool.submit(post, server, SLOW) for _ in range(4)]
        wait_until(
            server,
            lambda now: (
                value(now, "vitrine_stage_seconds_count", stage="decode") == 4
                and value(now, "vitrine_queue_depth") > 0
            ),
        )
        assert server.stop(signal.SIGTERM) == 0
        assert [answer.result().status_code for answer in answers] == [200] * 4
        assert "Traceback" not in server.log.read_text()


class HeldEngine:
    """A classifier that takes its time: until it is released."""

    name: EngineName = "litert"
    device: Device = "cpu"
    fixed_sizes = False

    def __init__(self) -> None:
        self.busy = threading.Event()
        self.released = threading.Event()

    def predict(self, batch: Tensors) -> dict[str, Floats]:
        (images,) = batch.values()
        self.busy.set()
        assert self.released.wait(HANGS_S)
        rows = np.tile(np.linspace(0, 1, 10, dtype=np.float32), (len(images), 1))
        return {"probabilities": rows}


@dataclass
class Slow:
    """A registry of one classifier, before whose engine four images may wait."""

    engine: HeldEngine
    registry: Registry
    metrics: Metrics

    async def answer(self, images: int) -> list[Answer | Exception]:
        call, options = Call("test", timeout_s=HANGS_S), ClassificationOptions()
        return await self.registry.infer_each(
            "fashion-mnist", None, [SAMPLE] * images, call, options
        )

    def waiting(self) -> float:
        return value(parsed(self.metrics.expose().decode()), "vitrine_queue_depth")


@pytest.fixture
def slow() -> Iterator[Slow]:
    manifest = read_manifest(FOLDER, TASKS)
    settings = Settings(queue_limit=4, workers=1)
    metrics, engine = metrics_of(manifest), HeldEngine()
    task = Classification(manifest)
    memory = Memory(settings, None, 0).share_of_model()
    model = Model(Artifact(FOLDER, manifest), task, engine, settings, metrics, memory=memory)
    registry = Registry([model], {})
    yield Slow(engine, registry, metrics)
    engine.released.set()
    registry.close()


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(HANGS_S):
        while not holds():
            await asyncio.sleep(0.001)


@pytest.mark.anyio
async def test_more_images_than_may_wait_now_are_refused_as_a_whole(slow: Slow) -> None:
    calls = [asyncio.create_task(slow.answer(1))]
    await until(slow.engine.busy.is_set)
    calls.append(asyncio.create_task(slow.answer(2)))
    await until(lambda: slow.waiting() == 2)
    with pytest.raises(Unavailable, match="at most 4 waiting images, got 5"):
        await slow.answer(3)
    assert slow.waiting() == 2
    calls.append(asyncio.create_task(slow.answer(2)))
    await until(lambda: slow.waiting() == 4)
    slow.engine.released.set()
    answers = [await each for each in calls]
    assert [len(each) for each in answers] == [1, 2, 2]
    assert all(isinstance(answer, Answer) for each in answers for answer in each)


@pytest.mark.anyio
async def test_form_of_more_images_than_may_ever_wait_is_413() -> None:
    app = App(Settings(models=("fashion-mnist-mlp",), workers=1, queue_limit=4))
    transport = httpx.ASGITransport(Front(lambda: app))
    path = "/v1/models/fashion-mnist-mlp:predict"
    image = ("image", ("a.png", SAMPLE))
    async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
        assert (await client.post(path, files=[image] * 4)).status_code == 200
        refused = await client.post(path, files=[image] * 5)
    app.close()
    assert refused.status_code == 413
    assert refused.json() == {"error": "expected at most 4 images at once, got 5"}
