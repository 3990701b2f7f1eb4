import asyncio
import time

import pytest
from starlette.types import Message, Receive

from service.errors import BadInput, ClientGone, TooLarge
from service.protocols.request import Request
from tests.asgi import DISCONNECT, body_part, request

pytestmark = pytest.mark.anyio
LIMIT_S = 30.0
SCOPE = {"method": "POST", "path": "/", "query_string": b"", "headers": []}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def coming(first: Message, closed: asyncio.Event) -> Receive:
    """One message, and a client that goes once `closed` is set."""
    messages = iter([first])

    async def receive() -> Message:
        for message in messages:
            return message
        await closed.wait()
        return DISCONNECT

    return receive


async def let_watch() -> None:
    """Let what waits for the client to go take all messages that are there."""
    for _ in range(5):
        await asyncio.sleep(0)


def within(milliseconds: str, limit_s: float = LIMIT_S) -> Request:
    """A request whose client asks for an answer within that time."""
    asking = request(headers={"X-Request-Timeout-Ms": milliseconds})
    asking.set_timeout(limit_s)
    return asking


@pytest.mark.parametrize(
    ("query", "params"),
    [
        ("", {}),
        ("top_k=5", {"top_k": "5"}),
        ("top_k=", {"top_k": ""}),
        ("top_k=5&name=a%20b", {"top_k": "5", "name": "a b"}),
    ],
)
def test_query_becomes_parameters(query: str, params: dict[str, str]) -> None:
    assert request(query=query).query_params() == params


def test_very_many_parameters_take_no_time_to_speak_of() -> None:
    query = "".join(f"{number:x}&" for number in range(13_000)) + "32c7=2&32c7="  # 64 KB
    began = time.process_time()
    with pytest.raises(BadInput, match="expected query parameter '32c7' once, got it twice"):
        request(query=query).query_params()
    assert time.process_time() - began < 1


@pytest.mark.parametrize("query", ["top_k=1&top_k=2", "other=1&top_k=1&top_k=1", "top_k=&top_k"])
def test_repeated_parameter_is_named(query: str) -> None:
    with pytest.raises(BadInput, match="expected query parameter 'top_k' once, got it twice"):
        request(query=query).query_params()


def test_endless_parameter_makes_no_endless_message() -> None:
    name = "x" * 10_000
    with pytest.raises(BadInput) as caught:
        request(query=f"{name}=1&{name}=2").query_params()
    assert len(str(caught.value)) < 200


def test_limit_is_the_timeout_without_a_wish() -> None:
    asking = request()
    assert asking.set_timeout(LIMIT_S) == LIMIT_S
    assert asking.call.deadline == asking.call.started + LIMIT_S


@pytest.mark.parametrize(("sent", "seconds"), [("1", 0.001), ("250", 0.25), ("29999", 29.999)])
def test_shorter_timeout_of_the_client_wins(sent: str, seconds: float) -> None:
    asking = within(sent)
    assert asking.call.deadline == asking.call.started + seconds


@pytest.mark.parametrize("sent", ["30000", "30001", "999999999", "1000000000", "9" * 5000])
def test_longer_timeout_of_the_client_does_not(sent: str) -> None:
    asking = within(sent)
    assert asking.call.deadline == asking.call.started + LIMIT_S


@pytest.mark.parametrize("sent", ["0250", "0000000000000250"])
def test_noughts_before_a_timeout_do_not_count(sent: str) -> None:
    asking = within(sent)
    assert asking.call.deadline == asking.call.started + 0.25


@pytest.mark.parametrize(
    "sent", ["0", "000", "-1", "+1", "1.5", "", " ", "soon", "1e3", "0x10", "1 000", "\xb2"]
)
def test_timeout_that_is_no_whole_number_from_1_is_refused(sent: str) -> None:
    with pytest.raises(BadInput, match="X-Request-Timeout-Ms as a whole number of at least 1"):
        within(sent)


@pytest.mark.parametrize(
    ("sent", "kind"),
    [
        ("image/png", "image/png"),
        ("Image/PNG; a=b", "image/png"),
        ("multipart/form-data; boundary=X", "multipart/form-data"),
        ("", ""),
        (None, ""),
    ],
)
def test_content_type_is_without_parameters_and_in_lower_case(sent: str | None, kind: str) -> None:
    headers = {} if sent is None else {"Content-Type": sent}
    assert request(headers=headers).content_type == kind


async def test_body_in_one_message_is_read() -> None:
    assert await request(body_part(b"whole")).body(5) == b"whole"


async def test_body_in_several_messages_is_put_together() -> None:
    parts = [body_part(b"ab", more=True), body_part(b"", more=True), body_part(b"cde")]
    assert await request(*parts).body(5) == b"abcde"


async def test_empty_body_is_empty() -> None:
    assert await request(body_part(b"")).body(5) == b""


async def test_body_that_is_declared_too_large_is_not_read() -> None:
    declared = request(headers={"Content-Length": "6"})
    with pytest.raises(TooLarge, match="at most 5 bytes, got 6 bytes"):
        await declared.body(5)


@pytest.mark.parametrize("last", [body_part(b"def"), body_part(b"def", more=True)])
async def test_body_that_grows_too_large_is_not_read_further(last: Message) -> None:
    with pytest.raises(TooLarge, match="at most 5 bytes, got more"):
        await request(body_part(b"abc", more=True), last).body(5)


async def test_stream_gives_every_part() -> None:
    parts = [body_part(b"abc", more=True), body_part(b"de")]
    assert [part async for part in request(*parts).stream(5)] == [b"abc", b"de"]


async def test_stream_that_grows_too_large_ends() -> None:
    stream = request(body_part(b"abc", more=True), body_part(b"def")).stream(5)
    assert await anext(stream) == b"abc"
    with pytest.raises(TooLarge, match="at most 5 bytes, got more"):
        await anext(stream)


@pytest.mark.parametrize("before", [(), (body_part(b"abc", more=True),)])
async def test_client_that_goes_while_its_body_is_read_is_gone(before: tuple[Message]) -> None:
    with pytest.raises(ClientGone):
        await request(*before, DISCONNECT).body(5)
    stream = request(*before, DISCONNECT).stream(5)
    assert [await anext(stream) for _ in before] == [b"abc"] * len(before)
    with pytest.raises(ClientGone):
        await anext(stream)


async def test_client_that_has_closed_its_connection_is_gone() -> None:
    asked = request(body_part(b"abc"), DISCONNECT)
    await asked.body(5)
    await let_watch()
    assert asked.call.is_gone()


async def test_client_that_waits_is_not_gone_however_often_one_looks() -> None:
    asked = request(body_part(b"abc"))
    await asked.body(5)
    assert [asked.call.is_gone() for _ in range(3)] == [False] * 3


async def test_client_that_goes_later_is_found_gone_then() -> None:
    closed = asyncio.Event()
    asked = Request(SCOPE, coming(body_part(b"abc"), closed))
    await asked.body(5)
    await let_watch()
    assert not asked.call.is_gone()
    closed.set()
    await let_watch()
    assert asked.call.is_gone()


async def test_message_that_is_no_goodbye_is_not_taken_for_one() -> None:
    asked = request(body_part(b"abc"), body_part(b""), body_part(b""))
    await asked.body(5)
    await let_watch()
    assert not asked.call.is_gone()


async def test_client_that_goes_after_its_form_is_found_gone_then() -> None:
    asked = request(body_part(b"abc"), DISCONNECT)
    assert [part async for part in asked.stream(5)] == [b"abc"]
    await let_watch()
    assert asked.call.is_gone()


async def test_client_is_not_waited_for_once_its_request_is_closed() -> None:
    before = asyncio.all_tasks()
    asked = request(body_part(b"abc"))
    await asked.body(5)
    assert asyncio.all_tasks() > before
    asked.close()
    await let_watch()
    assert asyncio.all_tasks() == before


async def test_server_that_knows_whether_the_client_has_gone_is_asked() -> None:
    before = asyncio.all_tasks()
    asked = Request(SCOPE, coming(body_part(b"abc"), asyncio.Event()), is_gone=lambda: True)
    await asked.body(5)
    assert asked.call.is_gone()
    assert asyncio.all_tasks() == before


@pytest.mark.parametrize("sent", ["a", "my-id-1", "x" * 128, "a:b/c;d"])
def test_request_id_of_the_caller_is_kept(sent: str) -> None:
    assert request(headers={"X-Request-ID": sent}).call.request_id == sent


@pytest.mark.parametrize("sent", [None, "", "x" * 129, "two words", "tab\t", "caf\xe9", "\x7f"])
def test_request_id_is_made_where_none_is_usable(sent: str | None) -> None:
    headers = {} if sent is None else {"X-Request-ID": sent}
    ids = {request(headers=headers).call.request_id for _ in range(10)}
    assert len(ids) == 10
    assert sent not in ids
    assert all(len(made) == 32 and made.isalnum() for made in ids)
