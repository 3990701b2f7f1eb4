import re
from collections.abc import Iterator

import pytest

from service import errors
from service.errors import (
    Forbidden,
    RequestError,
    StartError,
    TooManyRequests,
    TooSlow,
    Unauthorized,
    Unavailable,
    UnsupportedCoding,
    VitrineError,
    WrongMethod,
)

CONTRACT = {
    "BadInput": 400,
    "Unauthorized": 401,
    "Forbidden": 403,
    "UnknownModel": 404,
    "UnknownRoute": 404,
    "WrongMethod": 405,
    "TooSlow": 408,
    "TooLarge": 413,
    "UnsupportedImage": 415,
    "UnsupportedCoding": 415,
    "TooManyRequests": 429,
    "HeadTooLarge": 431,
    "NotSupported": 501,
    "Unavailable": 503,
    "DeadlinePassed": 504,
}
UNANSWERED = {"ClientGone": 499}


def subclasses(base: type[VitrineError]) -> Iterator[type[VitrineError]]:
    for child in base.__subclasses__():
        yield child
        yield from subclasses(child)


ALL = list(subclasses(VitrineError))
ANSWERS = [error for error in ALL if not issubclass(error, StartError) and error != RequestError]


def tree() -> list[tuple[str, str]]:
    """Name and status (or nothing) of each branch of the tree in the module's docstring."""
    return re.findall(r"^[│ ]*[├└]── (\w+) *(\d{3})?", errors.__doc__ or "", re.MULTILINE)


def test_every_answer_has_the_status_of_the_contract() -> None:
    assert {error.__name__: error.status for error in ANSWERS} == CONTRACT | UNANSWERED


def test_tree_in_the_docstring_lists_every_class() -> None:
    assert sorted(name for name, _ in tree()) == sorted(error.__name__ for error in ALL)


def test_tree_in_the_docstring_shows_the_status_of_every_answer() -> None:
    assert {name: int(status) for name, status in tree() if status} == CONTRACT | UNANSWERED


@pytest.mark.parametrize("error", [e for e in ALL if issubclass(e, RequestError)])
def test_mistake_of_the_caller_is_never_a_server_error(error: type[VitrineError]) -> None:
    assert 400 <= error.status < 500


@pytest.mark.parametrize("error", [e for e in ALL if issubclass(e, StartError)])
def test_error_at_the_start_is_not_an_answer_of_the_contract(error: type[VitrineError]) -> None:
    assert error.status not in CONTRACT.values()


@pytest.mark.parametrize(("seconds", "header"), [(1, "1"), (60, "60")])
def test_overload_says_when_to_come_back(seconds: int, header: str) -> None:
    assert Unavailable("overloaded", seconds).headers == {"Retry-After": header}
    assert TooManyRequests("too many", seconds).headers == {"Retry-After": header}


def test_unauthenticated_caller_learns_the_scheme() -> None:
    assert Unauthorized("no token").headers == {"WWW-Authenticate": 'Bearer realm="vitrine"'}


def test_token_without_a_scope_learns_which_one_it_needs() -> None:
    error = Forbidden("metrics", ("predict", "admin"))
    assert str(error) == "expected a token with the scope metrics, got one with predict, admin"
    assert error.headers == {
        "WWW-Authenticate": ('Bearer realm="vitrine", error="insufficient_scope", scope="metrics"')
    }


def test_wrong_method_names_the_allowed_ones() -> None:
    assert WrongMethod("expected GET", ["GET", "HEAD"]).headers == {"Allow": "GET, HEAD"}


def test_unsupported_coding_names_those_that_are() -> None:
    error = UnsupportedCoding("expected gzip", ["gzip", "identity"])
    assert error.headers == {"Accept-Encoding": "gzip, identity"}


def test_connection_ends_where_a_request_did_not_arrive_in_time() -> None:
    assert TooSlow("so").headers == {"Connection": "close"}


def test_no_other_error_sets_headers() -> None:
    special = (
        Unauthorized, Forbidden, WrongMethod, TooSlow, UnsupportedCoding, TooManyRequests,
        Unavailable,
    )  # fmt: skip
    others = [error for error in ALL if error not in special]
    assert others
    assert not any(error("so").headers for error in others)
