"""The socket that a server listens on."""

import socket

import pytest

from service.errors import StartError
from service.server.listener import bind, listen


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", "http://127.0.0.1:"), ("localhost", "http://127.0.0.1:")],
)
def test_url_is_where_clients_are_answered(host: str, expected: str) -> None:
    with bind(host, 0) as listener:
        url = listen(listener)
        assert url.startswith(expected)
        with socket.create_connection(("127.0.0.1", int(url.removeprefix(expected)))):
            pass


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
def test_address_of_ipv6_is_in_brackets() -> None:
    with bind("::", 0) as listener:
        assert listen(listener).startswith("http://[::]:")


def test_nobody_is_answered_before_it_listens() -> None:
    with bind("127.0.0.1", 0) as listener, pytest.raises(ConnectionRefusedError):
        socket.create_connection(listener.getsockname())


@pytest.mark.parametrize(
    ("host", "named"),
    [
        ("192.0.2.1", "192.0.2.1:0: Cannot assign requested address"),
        ("no host", "no host:0: "),
        ("x" * 300, "x:0: "),
        ("2001:db8::1", r"\[2001:db8::1\]:0: "),
    ],
    ids=["not of this machine", "not a name", "too long", "IPv6"],
)
def test_unusable_host_is_named(host: str, named: str) -> None:
    with pytest.raises(StartError, match=f"^cannot listen on .*{named}"):
        bind(host, 0)
