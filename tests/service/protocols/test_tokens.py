"""Bearer tokens: of a file of digests, and asked for by a server."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from service.errors import SettingsError, Unauthorized
from service.protocols.tokens import Tokens, read_tokens
from service.server.app import App
from service.settings import Settings
from tests.asgi import in_process
from tests.exposition import parsed, value
from tests.logs import kept_log
from tests.service.protocols.test_native import PNG, SAMPLE, upload

TOKEN = "a token of ours".replace(" ", "-")
OTHER = "another.token_of~ours+/=="
MODEL = "fashion-mnist-mlp"
PREDICT = f"/v1/models/{MODEL}:predict"
PAGES = ["/", "/docs.json", "/v1/models", "/nope", "/static_content/swagger-ui.css"]
OPEN = ["/livez", "/readyz", "/metrics"]


def digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def identify(tokens: Tokens, header: str) -> str:
    return tokens.identify({b"authorization": header.encode()})


@pytest.fixture(scope="module")
def tokens_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("tokens") / "tokens"
    file.write_text(f"# of the shop\n{digest(TOKEN)}\n\n  {digest(OTHER).upper()}  # of the app\n")
    return file


@pytest.fixture(scope="module")
def guarded(tokens_file: Path) -> Iterator[httpx.Client]:
    """A client of an app that asks for tokens."""
    with in_process(models=(MODEL,), api_tokens_file=tokens_file) as client:
        yield client


def test_without_a_file_everybody_may_ask() -> None:
    assert read_tokens(None).identify({}) == ""


@pytest.mark.parametrize(("token", "name"), [(TOKEN, digest(TOKEN)[:8]), (OTHER, "of the app")])
@pytest.mark.parametrize("scheme", ["Bearer ", "bearer ", "BEARER  "])
def test_token_whose_digest_is_listed_is_taken_and_named(
    tokens_file: Path, scheme: str, token: str, name: str
) -> None:
    assert identify(read_tokens(tokens_file), scheme + token) == name


@pytest.mark.parametrize(
    "header",
    [
        "Bearer",
        "Bearer ",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        f"Bearer {TOKEN} {TOKEN}",
        f"Basic {TOKEN}",
        TOKEN,
        f"Bearer {digest(TOKEN)}",
        "Bearer \xfc",
    ],
)
def test_anything_else_is_denied(tokens_file: Path, header: str) -> None:
    with pytest.raises(Unauthorized):
        identify(read_tokens(tokens_file), header)


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({}, "expected a header Authorization: Bearer TOKEN, got none"),
        (
            {b"authorization": b"Basic c2VjcmV0"},
            "expected a header Authorization: Bearer TOKEN, got another scheme",
        ),
        ({b"authorization": b"Bearer secret"}, "unknown token"),
    ],
)
def test_denial_says_what_came_but_not_the_token(
    tokens_file: Path, headers: dict[bytes, bytes], message: str
) -> None:
    with pytest.raises(Unauthorized) as caught:
        read_tokens(tokens_file).identify(headers)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "expected at least one digest"),
        ("# none yet\n", "expected at least one digest"),
        (
            f"{'0' * 64}\nsecret\n",
            "line 2: expected a SHA-256 of 64 hexadecimal digits, got other text of 6",
        ),
        ("0" * 63, "line 1: expected a SHA-256"),
        (f"{'0' * 64} {'1' * 64}", "line 1: expected a SHA-256"),
        ("\xfc", "it is not ASCII"),
    ],
)
def test_unusable_file_is_refused_without_showing_it(
    tmp_path: Path, content: str, expected: str
) -> None:
    file = tmp_path / "tokens"
    file.write_text(content, "utf-8")
    with pytest.raises(SettingsError, match=expected) as caught:
        read_tokens(file)
    assert "secret" not in str(caught.value)


def test_missing_file_stops_the_start(tmp_path: Path) -> None:
    file = tmp_path / "nowhere"
    expected = f"VITRINE_API_TOKENS_FILE: expected a file of digests at {file}: No such file"
    with pytest.raises(SettingsError, match=expected):
        App(Settings(workers=1, models=(MODEL,), api_tokens_file=file))


@pytest.mark.parametrize("sent", [{}, bearer("unknown")])
def test_image_without_a_known_token_is_denied(guarded: httpx.Client, sent: dict[str, str]) -> None:
    for answer in (
        guarded.post(PREDICT, content=SAMPLE, headers=PNG | sent),
        guarded.post("/classify", files=upload(SAMPLE), headers=sent),
        guarded.post("/classify", content=pieces(), headers=sent),  # not in one read
    ):
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == 'Bearer realm="vitrine"'
        assert list(answer.json()) == ["error"]


def pieces() -> Iterator[bytes]:
    yield SAMPLE[:10]
    yield SAMPLE[10:]


def test_image_with_a_known_token_is_answered(guarded: httpx.Client) -> None:
    answer = guarded.post(PREDICT, content=SAMPLE, headers=PNG | bearer(TOKEN))
    assert answer.status_code == 200
    form = {"model": MODEL}
    answer = guarded.post("/classify", files=upload(SAMPLE), data=form, headers=bearer(OTHER))
    assert answer.json()["model"] == MODEL


@pytest.mark.parametrize("path", PAGES)
def test_pages_are_for_those_with_a_token(guarded: httpx.Client, path: str) -> None:
    denied = guarded.get(path)
    assert denied.status_code == 401
    assert MODEL not in denied.text  # who may not ask is not told what there is
    known = guarded.get(path, headers=bearer(TOKEN)).status_code
    assert known == (404 if path == "/nope" else 200)


@pytest.mark.parametrize(("method", "path"), [("PUT", "/classify"), ("GET", PREDICT)])
def test_unauthenticated_callers_learn_no_methods(
    guarded: httpx.Client, method: str, path: str
) -> None:
    assert guarded.request(method, path).status_code == 401
    assert guarded.request(method, path, headers=bearer(TOKEN)).status_code == 405


@pytest.mark.parametrize("path", OPEN)
def test_health_and_metrics_stay_open(guarded: httpx.Client, path: str) -> None:
    assert guarded.get(path).status_code == 200


def test_denials_are_counted_and_say_nothing_of_models(guarded: httpx.Client) -> None:
    def denied(protocol: str) -> float:
        series = parsed(guarded.get("/metrics").text)
        labels = {"protocol": protocol, "status": "401", "model": "unknown"}
        return value(series, "vitrine_requests_total", **labels)

    before = denied("v1"), denied("page")
    guarded.post(PREDICT, content=SAMPLE, headers=PNG)
    guarded.get("/nope")
    assert (denied("v1"), denied("page")) == (before[0] + 1, before[1] + 1)


def test_log_names_the_token_that_was_shown(tokens_file: Path) -> None:
    settings = {"models": (MODEL,), "api_tokens_file": tokens_file, "log_requests": True}
    with in_process(**settings) as client, kept_log() as log:
        for token in (OTHER, "unknown"):
            client.post(PREDICT, content=SAMPLE, headers=PNG | bearer(token))
    known, unknown = log.fields("request")
    assert known["token"] == "of the app"
    assert "token" not in unknown
    assert OTHER not in str(known)
