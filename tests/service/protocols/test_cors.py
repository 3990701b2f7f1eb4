"""Headers for pages of other origins; tests/service/test_doors.py has a browser look at them."""

import pytest

from service.protocols.cors import Cors
from service.protocols.response import Response
from tests.asgi import request

SHOP, APP, STRANGER = "https://shop.example", "http://localhost:8080", "https://else.example"
CORS = Cors([SHOP, APP])
PREFLIGHT = {"Access-Control-Request-Method": "POST"}


def headers(cors: Cors, origin: str | None) -> dict[str, str]:
    asked = request(headers={} if origin is None else {"Origin": origin})
    return dict(cors.allow(asked, Response(b"{}", headers={"Allow": "POST"})).headers)


@pytest.mark.parametrize("origin", [SHOP, APP])
def test_listed_origin_may_read_the_answer(origin: str) -> None:
    assert headers(CORS, origin) == {
        "Allow": "POST",
        "Access-Control-Allow-Origin": origin,
        "Access-Control-Expose-Headers": "X-Request-ID, Retry-After",
        "Vary": "Origin",
    }


@pytest.mark.parametrize(
    "origin", [STRANGER, None, "null", "*", f"{SHOP}:8443", f"{SHOP}.else.example", "\xfc"]
)
def test_any_other_may_not_and_caches_are_told(origin: str | None) -> None:
    assert headers(CORS, origin) == {"Allow": "POST", "Vary": "Origin"}


@pytest.mark.parametrize("origin", [STRANGER, None, "null"])
def test_every_origin_may_where_that_is_set(origin: str | None) -> None:
    assert headers(Cors(["*"]), origin) == {
        "Allow": "POST",
        "Access-Control-Allow-Origin": "*",
        "Access-Control-Expose-Headers": "X-Request-ID, Retry-After",
    }


@pytest.mark.parametrize("origins", [[SHOP], ["*"]])
def test_preflight_names_what_a_page_may_send(origins: list[str]) -> None:
    cors = Cors(origins)
    asked = request(method="OPTIONS", path="/nope", headers={"Origin": SHOP} | PREFLIGHT)
    answer = cors.preflight(asked)
    assert answer is not None
    assert (answer.status, answer.body) == (204, b"")
    assert answer.headers == {
        "Access-Control-Allow-Methods": "GET, POST",
        "Access-Control-Allow-Headers": (
            "Authorization, Content-Encoding, Content-Type, X-Request-ID, X-Request-Timeout-Ms"
        ),
        "Access-Control-Max-Age": "600",
    }
    names = {name for name, _ in answer.header_list("id")}
    assert not {b"content-length", b"content-type"} & names  # RFC 9110, 8.6


@pytest.mark.parametrize(
    ("method", "sent"),
    [
        ("OPTIONS", {"Origin": SHOP}),
        ("OPTIONS", PREFLIGHT),
        ("OPTIONS", {"Origin": STRANGER} | PREFLIGHT),
        ("GET", {"Origin": SHOP} | PREFLIGHT),
        ("POST", {"Origin": SHOP} | PREFLIGHT),
    ],
)
def test_anything_else_is_no_preflight(method: str, sent: dict[str, str]) -> None:
    assert CORS.preflight(request(method=method, headers=sent)) is None


def test_credentials_are_never_allowed() -> None:
    for cors in (CORS, Cors(["*"])):
        assert "Access-Control-Allow-Credentials" not in headers(cors, SHOP)
