import asyncio

import pytest
from starlette.types import Message

from service.errors import BadInput, ClientGone, TooLarge
from service.protocols.request import Request
from tests.asgi import DISCONNECT, body_part, request

pytestmark = pytest.mark.anyio
LIMIT_S = 30.0


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


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
    assert request(query=query).query_params("top_k", "name") == params


@pytest.mark.parametrize(
    ("query", "allowed", "known"),
    [
        ("other=1", ("top_k",), "top_k once"),
        ("top_k=1&top_k=2", ("top_k",), "top_k once"),
        ("top_k=1&other=2", ("top_k",), "top_k once"),
        ("top_k=1", (), "none"),
    ],
)
def test_unknown_and_repeated_parameters_are_named(
    query: str, allowed: tuple[str, ...], known: str
) -> None:
    with pytest.raises(BadInput, match=known) as caught:
        request(query=query).query_params(*allowed)
    assert str(caught.value).endswith(query.rpartition("&")[2].partition("=")[0])


def test_endless_parameter_makes_no_endless_message() -> None:
    with pytest.raises(BadInput) as caught:
        request(query="x" * 10_000).query_params()
    assert len(str(caught.value)) < 200


def test_limit_is_the_timeout_without_a_wish() -> None:
    asking = request()
    assert asking.set_timeout(LIMIT_S) == LIMIT_S
    assert asking.deadline == asking.started + LIMIT_S


@pytest.mark.parametrize(("sent", "seconds"), [("1", 0.001), ("250", 0.25), ("29999", 29.999)])
def test_shorter_timeout_of_the_client_wins(sent: str, seconds: float) -> None:
    asking = within(sent)
    assert asking.deadline == asking.started + seconds


@pytest.mark.parametrize("sent", ["30000", "30001", "999999999", "1000000000", "9" * 5000])
def test_longer_timeout_of_the_client_does_not(sent: str) -> None:
    asking = within(sent)
    assert asking.deadline == asking.started + LIMIT_S


@pytest.mark.parametrize("sent", ["0250", "0000000000000250"])
def test_noughts_before_a_timeout_do_not_count(sent: str) -> None:
    asking = within(sent)
    assert asking.deadline == asking.started + 0.25


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
    assert asked.is_gone()


async def test_client_that_waits_is_not_gone_however_often_one_looks() -> None:
    asked = request(body_part(b"abc"))
    await asked.body(5)
    assert [asked.is_gone() for _ in range(3)] == [False] * 3


async def test_client_that_goes_later_is_found_gone_then() -> None:
    closed = asyncio.Event()

    async def receive() -> Message:
        await closed.wait()
        return DISCONNECT

    asked = request()
    asked.receive = receive
    assert not asked.is_gone()
    closed.set()
    assert asked.is_gone()


async def test_message_that_is_no_goodbye_is_not_taken_for_one() -> None:
    assert not request(body_part(b"")).is_gone()


@pytest.mark.parametrize("sent", ["a", "my-id-1", "x" * 128, "a:b/c;d"])
def test_request_id_of_the_caller_is_kept(sent: str) -> None:
    assert request(headers={"X-Request-ID": sent}).request_id == sent


@pytest.mark.parametrize("sent", [None, "", "x" * 129, "two words", "tab\t", "caf\xe9", "\x7f"])
def test_request_id_is_made_where_none_is_usable(sent: str | None) -> None:
    headers = {} if sent is None else {"X-Request-ID": sent}
    ids = {request(headers=headers).request_id for _ in range(10)}
    assert len(ids) == 10
    assert sent not in ids
    assert all(len(made) == 32 and made.isalnum() for made in ids)


def test_stages_are_summed_over_the_images_of_a_request() -> None:
    asked = request()
    for stage, seconds in (("decode", 1.0), ("queue", 2.0), ("decode", 0.5)):
        asked.stages.append((stage, 0.0, seconds))
    assert asked.stages_s() == {"decode": 1.5, "queue": 2.0}
