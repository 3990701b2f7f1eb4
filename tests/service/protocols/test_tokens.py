"""Bearer tokens: of a file of digests, and asked for by a server."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from service.errors import SettingsError
from service.protocols.tokens import Tokens, read_tokens
from tests.server import Server, serve
from tests.service.protocols.test_native import PNG, SAMPLE, upload

TOKEN = "a token of ours".replace(" ", "-")
OTHER = "another.token_of~ours+/=="
MODEL = "fashion-mnist-mlp"
PREDICT = f"/v1/models/{MODEL}:predict"
PAGES = ["/", "/docs.json", "/v1/models", "/nope", "/static_content/swagger-ui.css"]
OPEN = ["/livez", "/readyz", "/metrics", "/healthz"]


def digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def is_taken(tokens: Tokens, header: str) -> bool:
    return tokens.denial({b"authorization": header.encode()}) is None


@pytest.fixture(scope="module")
def tokens_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("tokens") / "tokens"
    file.write_text(f"# of the shop\n{digest(TOKEN)}\n\n  {digest(OTHER).upper()}  # of the app\n")
    return file


@pytest.fixture(scope="module")
def guarded(tokens_file: Path) -> Iterator[Server]:
    with serve(tokens_file.parent, models=MODEL, workers=1, api_tokens_file=tokens_file) as server:
        yield server


def test_without_a_file_everybody_may_ask() -> None:
    assert read_tokens(None).denial({}) is None


@pytest.mark.parametrize("token", [TOKEN, OTHER])
@pytest.mark.parametrize("scheme", ["Bearer ", "bearer ", "BEARER  "])
def test_token_whose_digest_is_listed_is_taken(tokens_file: Path, scheme: str, token: str) -> None:
    assert is_taken(read_tokens(tokens_file), scheme + token)


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
    assert not is_taken(read_tokens(tokens_file), header)


def test_denial_says_what_came_but_not_the_token(tokens_file: Path) -> None:
    tokens = read_tokens(tokens_file)
    assert "got none" in str(tokens.denial({}))
    assert "got another scheme" in str(tokens.denial({b"authorization": b"Basic c2VjcmV0"}))
    assert "secret" not in str(tokens.denial({b"authorization": b"Bearer secret"}))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "expected at least one digest"),
        ("# none yet\n", "expected at least one digest"),
        (f"{'0' * 64}\nsecret\n", "line 2: expected a SHA-256 of 64 hexadecimal digits, got 6"),
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
    expected = f"error: VITRINE_API_TOKENS_FILE: expected a file of digests at {file}: No such file"
    with (
        pytest.raises(RuntimeError, match=expected),
        serve(tmp_path, models=MODEL, workers=1, api_tokens_file=file),
    ):
        pass


@pytest.mark.parametrize("sent", [{}, bearer("unknown")])
def test_image_without_a_known_token_is_denied(guarded: Server, sent: dict[str, str]) -> None:
    with guarded.client() as client:
        for answer in (
            client.post(PREDICT, content=SAMPLE, headers=PNG | sent),
            client.post("/classify", files=upload(SAMPLE), headers=sent),
            client.post("/classify", content=pieces(), headers=sent),  # not in one read
        ):
            assert answer.status_code == 401
            assert answer.headers["www-authenticate"] == 'Bearer realm="vitrine"'
            assert list(answer.json()) == ["error"]


def pieces() -> Iterator[bytes]:
    yield SAMPLE[:10]
    yield SAMPLE[10:]


def test_image_with_a_known_token_is_answered(guarded: Server) -> None:
    with guarded.client() as client:
        answer = client.post(PREDICT, content=SAMPLE, headers=PNG | bearer(TOKEN))
        assert answer.status_code == 200
        form = {"model": MODEL}
        answer = client.post("/classify", files=upload(SAMPLE), data=form, headers=bearer(OTHER))
        assert answer.json()["model"] == MODEL


@pytest.mark.parametrize("path", PAGES)
def test_pages_are_for_those_with_a_token(guarded: Server, path: str) -> None:
    assert httpx.get(guarded.url + path).status_code == 401
    known = httpx.get(guarded.url + path, headers=bearer(TOKEN)).status_code
    assert known == (404 if path == "/nope" else 200)


@pytest.mark.parametrize("path", OPEN)
def test_health_and_metrics_stay_open(guarded: Server, path: str) -> None:
    assert httpx.get(guarded.url + path).status_code == 200


def test_denials_are_counted(guarded: Server) -> None:
    httpx.post(guarded.url + PREDICT, content=SAMPLE, headers=PNG)
    assert 'protocol="other",status="401"' in httpx.get(guarded.url + "/metrics").text
