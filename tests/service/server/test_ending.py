"""How a connection ends: in order, with the last answer read, and never later than a bound."""

import asyncio
import hashlib
import itertools
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import uvloop

from service.errors import Unavailable
from service.inference.admission import Admission
from service.inference.model import Model
from service.protocols import pace
from service.server import ending, linger
from service.server.app import App
from service.settings import Settings
from tests.service.server.test_framing import CHUNKED, FAST, MODEL, NEXT, SAMPLE, SLOW, head
from tests.wire import Answer, Wire, answers

TIMEOUT_S = 0.3
PATIENCE_S = 20
LONG = 1_000_000
TOKEN = "Authorization: Bearer open-sesame"
LENGTH = f"Content-Length: {len(SAMPLE)}"
PATHS = pytest.mark.parametrize("target", [FAST, SLOW], ids=["fast", "ASGI"])

Run = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    tokens = tmp_path_factory.mktemp("ending") / "tokens"
    tokens.write_text(hashlib.sha256(b"open-sesame").hexdigest())
    app = App(Settings(workers=1, models=(MODEL,), api_tokens_file=tokens))
    yield app
    app.close()


@pytest.fixture
def wire(app: App) -> Wire:
    return Wire(app, TIMEOUT_S, TIMEOUT_S)


@pytest.fixture(autouse=True)
def short_linger(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not wait as long as for real clients."""
    monkeypatch.setattr(linger, "LINGER_S", TIMEOUT_S)


@pytest.fixture(params=[asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a coroutine on each kind of event loop."""
    runner: Run = request.param
    return runner


@asynccontextmanager
async def client(wire: Wire) -> AsyncIterator[socket.socket]:
    """A client's socket; the other end is a connection, which has to end, too."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours:
        loop = asyncio.get_running_loop()
        await loop.connect_accepted_socket(wire.protocol, theirs)
        async with asyncio.timeout(PATIENCE_S):
            yield ours
    async with asyncio.timeout(PATIENCE_S):
        while wire.state.connections or wire.state.tasks:
            await asyncio.sleep(0.01)


async def send(client: socket.socket, data: bytes) -> None:
    await asyncio.get_running_loop().sock_sendall(client, data)


async def read_all(client: socket.socket) -> list[Answer]:
    """All answers until the connection ends."""
    loop, came = asyncio.get_running_loop(), b""
    with suppress(ConnectionResetError):
        while piece := await loop.sock_recv(client, 1_000_000):
            came += piece
    return answers(came)


async def dribble(client: socket.socket, pieces: Iterator[bytes]) -> None:
    """Send for ever, a little at a time; ends when the server does not take it any more."""
    with suppress(ConnectionError):
        for piece in pieces:
            await send(client, piece)
            await asyncio.sleep(0.02)


def refuse(_: Admission, count: int) -> None:
    raise Unavailable(f"no room for {count} more")


def fill(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave no place in any queue."""
    monkeypatch.setattr(Admission, "check_room", refuse)


def statuses(came: list[Answer]) -> list[int]:
    return [answer.status for answer in came]


@pytest.mark.parametrize("sent", [b"", b"\r\n", NEXT], ids=["nothing", "empty lines", "requests"])
def test_connection_on_which_nothing_comes_is_closed(run: Run, wire: Wire, sent: bytes) -> None:
    async def main() -> None:
        async with client(wire) as ours:
            await send(ours, sent)
            came = await read_all(ours)
            assert statuses(came) == ([200] if sent == NEXT else [])

    run(main())


def test_empty_lines_do_not_keep_a_connection_open(run: Run, wire: Wire) -> None:
    async def main() -> None:
        async with client(wire) as ours, asyncio.TaskGroup() as group:
            group.create_task(dribble(ours, itertools.repeat(b"\r\n")))
            assert await read_all(ours) == []

    run(main())


@pytest.mark.parametrize("first", [b"", NEXT], ids=["first", "second"])
def test_headers_that_dribble_in_are_408(run: Run, app: App, first: bytes) -> None:
    async def main() -> None:
        wire = Wire(app, TIMEOUT_S, keep_alive_s=2 * PATIENCE_S)
        async with client(wire) as ours, asyncio.TaskGroup() as group:
            group.create_task(dribble(ours, iter([first + NEXT[:-2], *[b"x"] * 10_000])))
            came = await read_all(ours)
            assert statuses(came) == ([200] if first else []) + [408]
            assert came[-1].json == {"error": "expected whole headers within 0.3 s"}
            assert came[-1].headers[b"connection"] == b"close"

    run(main())


@PATHS
@pytest.mark.parametrize("is_chunked", [False, True])
def test_body_that_dribbles_in_is_504(run: Run, wire: Wire, target: str, is_chunked: bool) -> None:
    async def main() -> None:
        async with client(wire) as ours, asyncio.TaskGroup() as group:
            fields = (TOKEN, CHUNKED if is_chunked else LENGTH, "X-Request-Timeout-Ms: 300")
            await send(ours, head(*fields, target=target))
            piece = b"1\r\nx\r\n" if is_chunked else b"x"
            group.create_task(dribble(ours, itertools.repeat(piece)))
            (came,) = await read_all(ours)
            assert came.status == 504
            assert came.headers[b"connection"] == b"close"

    run(main())


@PATHS
@pytest.mark.parametrize("pieces", [0, 10_000], ids=["stops", "dribbles"])
def test_long_body_that_stops_or_dribbles_is_408(
    run: Run, wire: Wire, target: str, pieces: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pace, "PERIOD_S", TIMEOUT_S)

    async def main() -> None:
        async with client(wire) as ours, asyncio.TaskGroup() as group:
            await send(ours, head(TOKEN, f"Content-Length: {LONG}", target=target) + bytes(1000))
            group.create_task(dribble(ours, itertools.repeat(bytes(1000), pieces)))
            (came,) = await read_all(ours)
            assert (came.status, came.headers[b"connection"]) == (408, b"close")
            assert "expected 65536 bytes of the body" in came.json["error"]
            assert wire.app.memory.share_of_body(LONG).budget.used() == 0

    run(main())


@pytest.mark.parametrize("target", ["/livez", "/v1/models"])
def test_body_that_nobody_reads_does_not_hold_a_connection(
    run: Run, wire: Wire, target: str
) -> None:
    async def main() -> None:
        async with client(wire) as ours, asyncio.TaskGroup() as group:
            await send(ours, head(TOKEN, LENGTH, method="GET", target=target))
            group.create_task(dribble(ours, itertools.repeat(b"x")))
            assert statuses(await read_all(ours)) == [200]

    run(main())


def test_trailers_without_end_are_refused(wire: Wire) -> None:
    async def main() -> None:
        async with client(wire) as ours:
            await send(ours, head(TOKEN, CHUNKED, target=FAST) + b"1\r\nx\r\n0\r\n")
            with suppress(ConnectionError):
                for _ in range(100):
                    await send(ours, b"X: " + b"y" * 1000)
                    await asyncio.sleep(0)
            (came,) = await read_all(ours)
            assert came.status == 431

    asyncio.run(main())


def early(target: str, *fields: str) -> bytes:
    return head(f"Content-Length: {20_000_000}", *fields, target=target)


EARLY = {
    "too large": (early(FAST, TOKEN), 413),
    "too large, ASGI": (early(SLOW, TOKEN), 413),
    "no token": (early(FAST), 401),
    "no token, ASGI": (early(SLOW), 401),
    "no such route": (early("/nope", TOKEN), 404),
    "chunks without a token": (head(CHUNKED, target=FAST) + b"10000\r\n", 401),
}


@pytest.mark.parametrize(("sent", "status"), EARLY.values(), ids=EARLY)
def test_answer_before_a_long_body_is_read_by_a_client_that_sends_on(
    run: Run, wire: Wire, sent: bytes, status: int
) -> None:
    async def main() -> None:
        async with client(wire) as ours:
            await send(ours, sent + bytes(1000))
            await asyncio.sleep(0.01)
            await send(ours, bytes(LONG))
            (came,) = await read_all(ours)
            assert (came.status, came.headers[b"connection"]) == (status, b"close")
            assert list(came.json) == ["error"]

    run(main())


def test_client_that_sends_on_for_ever_is_cut_off(
    run: Run, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linger, "LINGER_BYTES", 1000)

    async def main() -> None:
        async with client(wire) as ours:
            await send(ours, early(FAST))
            while wire.state.connections:
                with suppress(ConnectionError):
                    await send(ours, bytes(1000))
                await asyncio.sleep(0)

    monkeypatch.setattr(linger, "LINGER_S", PATIENCE_S * 2)
    run(main())


def test_client_that_does_not_end_is_cut_off(run: Run, wire: Wire) -> None:
    async def main() -> None:
        async with client(wire) as ours:
            await send(ours, b"nonsense\r\n\r\n")
            assert statuses(await read_all(ours)) == [400]
            while wire.state.connections:
                await asyncio.sleep(0.01)

    run(main())


@PATHS
@pytest.mark.parametrize("status", [401, 404, 503])
def test_connection_goes_on_after_a_short_body_that_nobody_read(
    wire: Wire, target: str, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if status == 503:
        fill(monkeypatch)
    fields = [LENGTH] if status == 401 else [LENGTH, TOKEN]
    whole = head(*fields, target="/nope" if status == 404 else target) + SAMPLE + NEXT

    async def main() -> None:
        for cut in (0, 1, len(SAMPLE) + len(NEXT), len(NEXT) + 1, len(NEXT)):
            at = len(whole) - cut
            transport = await wire.ask([whole[:at], whole[at:]])
            assert statuses(answers(transport.written)) == [status, 200], cut
            transport.close()

    asyncio.run(main())


def test_refusal_waits_neither_for_the_body_nor_for_a_task(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(monkeypatch)

    async def main() -> None:
        _, transport = wire.connect()
        transport.receive(head(TOKEN, LENGTH, target=FAST))
        assert statuses(answers(transport.written)) == [503]
        assert not wire.state.tasks
        transport.close()
        await wire.settle()

    asyncio.run(main())


def test_nothing_is_answered_behind_a_refusal_that_ends_the_connection(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(monkeypatch)

    async def main() -> None:
        long = head(TOKEN, "Content-Length: 70000", target=FAST) + bytes(70_000)
        transport = await wire.ask([long[:1000], long[1000:] + NEXT])
        (came,) = answers(transport.written)
        assert (came.status, came.headers[b"connection"]) == (503, b"close")
        assert transport.too_late == b""
        transport.close()
        await wire.settle()

    asyncio.run(main())


def test_client_that_was_not_told_to_send_its_body_is_told_of_the_end(wire: Wire) -> None:
    async def main() -> None:
        expecting = head(LENGTH, "Expect: 100-continue", target=FAST)
        transport = await wire.ask([expecting, NEXT])
        (came,) = answers(transport.written)
        assert (came.status, came.headers[b"connection"]) == (401, b"close")
        assert transport.has_ended
        transport.close()

    asyncio.run(main())


@PATHS
@pytest.mark.parametrize("body", [b"nonsense\r\n", b"1\r\nxnonsense\r\n"])
@pytest.mark.parametrize("is_cut", [False, True])
def test_broken_body_is_counted_once(
    app: App, wire: Wire, target: str, body: bytes, is_cut: bool
) -> None:
    counted: list[int] = []

    async def main() -> None:
        sent = head(TOKEN, CHUNKED, target=target)
        transport = await wire.ask([sent, body] if is_cut else [sent + body])
        assert statuses(answers(transport.written)) == [400]
        transport.close()

    conclude = app.dispatcher.conclude
    app.dispatcher.conclude = lambda call, status, *rest: counted.append(status)  # type: ignore[method-assign]
    try:
        asyncio.run(main())
    finally:
        app.dispatcher.conclude = conclude  # type: ignore[method-assign]
    assert counted == [400]


@PATHS
def test_client_that_has_ended_its_side_gets_its_answers(
    run: Run, wire: Wire, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ending, "HALF_CLOSED_S", PATIENCE_S)

    async def main() -> None:
        async with client(wire) as ours:
            await send(ours, (head(TOKEN, LENGTH, target=target) + SAMPLE) * 2)
            ours.shutdown(socket.SHUT_WR)
            assert statuses(await read_all(ours)) == [200, 200]

    run(main())


@PATHS
@pytest.mark.parametrize("kept", [0, 10, -10])
def test_client_that_ends_within_its_request_is_not_waited_for(
    run: Run, wire: Wire, target: str, kept: int
) -> None:
    async def main() -> None:
        async with client(wire) as ours:
            await send(ours, (head(TOKEN, LENGTH, target=target) + SAMPLE)[: kept or 0])
            ours.shutdown(socket.SHUT_WR)
            assert await read_all(ours) == []

    run(main())


def test_client_that_has_ended_its_side_counts_as_gone_after_a_moment(
    run: Run, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ending, "HALF_CLOSED_S", 0.01)
    gone: list[bool] = []

    async def wait(model: Model, source: Any, options: Any, call: Any) -> Any:
        while not call.is_gone():
            await asyncio.sleep(0)
        gone.append(True)
        raise Unavailable("never read")

    monkeypatch.setattr(Model, "infer", wait)

    async def main() -> None:
        async with client(wire) as ours:
            await send(ours, head(TOKEN, LENGTH, target=FAST) + SAMPLE)
            ours.shutdown(socket.SHUT_WR)
            assert await read_all(ours) == []

    run(main())
    assert gone == [True]


def test_reader_that_does_not_read_is_cut_off(run: Run, wire: Wire) -> None:
    async def main() -> None:
        async with client(wire) as ours:
            asked = head(TOKEN, method="GET", target="/docs.json") * 200
            await send(ours, asked)
            while wire.state.connections:
                await asyncio.sleep(0.01)

    run(main())


def test_slow_reader_gets_all(run: Run, wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ending, "MIN_READ_BYTES", 1)

    async def main() -> None:
        async with client(wire) as ours:
            asked = head(TOKEN, method="GET", target="/docs.json") * 40
            await send(ours, asked)
            loop, came = asyncio.get_running_loop(), b""
            while piece := await loop.sock_recv(ours, 50_000):
                came += piece
                await asyncio.sleep(0.01)
            assert statuses(answers(came)) == [200] * 40

    run(main())
