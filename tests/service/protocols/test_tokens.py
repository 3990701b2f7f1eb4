"""Bearer tokens: of a file of digests, and asked for by a server."""

import hashlib
import hmac
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from service.errors import Forbidden, SettingsError, Unauthorized
from service.protocols import tokens as module
from service.protocols.tokens import SCOPES, Tokens, read_tokens
from service.server.app import App
from service.settings import Settings
from tests.asgi import client_of, in_process
from tests.exposition import parsed, value
from tests.logs import kept_log
from tests.service.protocols.test_native import PNG, SAMPLE, upload

TOKEN = "a token of ours".replace(" ", "-")
OTHER = "another.token_of~ours+/=="
SCRAPER, PREDICTOR, OPERATOR = "of-the-scraper", "of-the-predictor", "of-the-operator"
SCOPED = {"metrics": SCRAPER, "predict": PREDICTOR, "admin": OPERATOR}
MODEL = "fashion-mnist-mlp"
PREDICT = f"/v1/models/{MODEL}:predict"
PAGE = ["/", "/docs", "/docs.json", "/schema.json", "/static_content/swagger-ui.css"]
PROBES = ["/livez", "/healthz", "/readyz"]


def digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def identify(tokens: Tokens, *headers: str | bytes) -> str:
    """The name of the token in headers Authorization."""
    sent = [value.encode() if isinstance(value, str) else value for value in headers]
    return tokens.identify([(b"authorization", value) for value in sent]).name


@pytest.fixture(scope="module")
def tokens_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("tokens") / "tokens"
    lines = ["# of the shop", digest(TOKEN), "", f"  {digest(OTHER).upper()}  # of the app"]
    scoped = [f"{digest(token)} {scope} # only {scope}" for scope, token in SCOPED.items()]
    file.write_text("\n".join([*lines, *scoped]))
    return file


@pytest.fixture(scope="module")
def guarded(tokens_file: Path) -> Iterator[httpx.Client]:
    """A client of an app that asks for tokens."""
    with in_process(models=(MODEL,), api_tokens_file=tokens_file) as client:
        yield client


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
        f"Bearer{TOKEN}",
        f"Bearer\t{TOKEN}",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        f"Bearer {TOKEN.upper()}",
        f"Bearer {TOKEN} {TOKEN}",
        f"Bearer {TOKEN}, Bearer {TOKEN}",
        f"Bearer {TOKEN}\xa0",
        f"Basic {TOKEN}",
        TOKEN,
        f"Bearer {digest(TOKEN)}",
        "Bearer \xfc",
        b"Bearer \xff\xfe",
        b"Bearer \0",
    ],
)
def test_anything_else_is_denied(tokens_file: Path, header: str | bytes) -> None:
    with pytest.raises(Unauthorized):
        identify(read_tokens(tokens_file), header)


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ((), "expected a header Authorization: Bearer TOKEN, got none"),
        (
            ("Basic c2VjcmV0",),
            "expected a header Authorization: Bearer TOKEN, got another scheme",
        ),
        (
            (f"Bearer {TOKEN}", f"Bearer {TOKEN}"),
            "expected a header Authorization: Bearer TOKEN, got 2 of them",
        ),
        (("Bearer secret",), "unknown token"),
    ],
)
def test_denial_says_what_came_but_not_the_token(
    tokens_file: Path, headers: tuple[str, ...], message: str
) -> None:
    with pytest.raises(Unauthorized) as caught:
        identify(read_tokens(tokens_file), *headers)
    assert str(caught.value) == message


def test_every_known_digest_is_compared_in_constant_time(
    tokens_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the standard library's comparison, whichever token comes: no early end to be timed."""
    compared: list[bytes] = []

    def compare(sent: bytes, known: bytes) -> bool:
        compared.append(known)
        return hmac.compare_digest(sent, known)

    tokens = read_tokens(tokens_file)
    fake = type("hmac", (), {"compare_digest": staticmethod(compare)})
    monkeypatch.setattr(module, "hmac", fake)
    for token in (TOKEN, OTHER):
        compared.clear()
        identify(tokens, f"Bearer {token}")
        assert compared == [known.digest for known in tokens.known]


@pytest.mark.parametrize(
    ("text", "scopes"),
    [
        ("", ("predict", "metrics")),
        ("  # robot", ("predict", "metrics")),
        (" predict", ("predict",)),
        ("\tpredict,metrics  # robot", ("predict", "metrics")),
        (" predict, admin # robot", ("predict", "admin")),
        (" admin", ("admin",)),
        (" " + ",".join(SCOPES), SCOPES),
    ],
)
def test_line_names_the_scopes_of_its_token(
    tmp_path: Path, text: str, scopes: tuple[str, ...]
) -> None:
    file = tmp_path / "tokens"
    file.write_text(digest(TOKEN) + text + "\n")
    (token,) = read_tokens(file).known
    assert token.scopes == scopes
    for scope in scopes:
        token.check_scope(scope)
    for scope in set(SCOPES) - set(scopes):
        with pytest.raises(Forbidden):
            token.check_scope(scope)


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
        (
            f"{'0' * 64} {'1' * 64}",
            "line 1: expected scopes of predict, metrics, admin, separated by commas, "
            "got other text of 64",
        ),
        (f"{'0' * 64} predict,secret", "line 1: expected scopes"),
        (f"{'0' * 64} predict metrics", "line 1: expected scopes"),
        (f"{'0' * 64} predict,", "line 1: expected scopes"),
        (f"{'a' * 64}\n\n{'A' * 64} admin", "line 3: expected each digest once"),
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


@pytest.mark.parametrize(
    "sent",
    [
        {},
        bearer("unknown"),
        [("Authorization", f"Bearer {TOKEN}"), ("Authorization", f"Bearer {TOKEN}")],
        [("Authorization", "Basic eDp5"), ("Authorization", f"Bearer {TOKEN}")],
        {"X-Api-Key": TOKEN},
        {"Proxy-Authorization": f"Bearer {TOKEN}"},
        {"Cookie": f"token={TOKEN}"},
    ],
)
def test_image_without_a_known_token_is_denied(
    guarded: httpx.Client, sent: dict[str, str] | list[tuple[str, str]]
) -> None:
    headers = httpx.Headers(sent)
    for answer in (
        guarded.post(PREDICT, content=SAMPLE, headers=headers),
        guarded.post("/classify", files=upload(SAMPLE), headers=headers),
        guarded.post("/classify", content=pieces(), headers=headers),  # not in one read
    ):
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == 'Bearer realm="vitrine"'
        assert list(answer.json()) == ["error"]


def pieces() -> Iterator[bytes]:
    yield SAMPLE[:10]
    yield SAMPLE[10:]


@pytest.mark.parametrize("name", ["access_token", "token", "authorization", "Authorization"])
def test_token_in_the_query_does_not_count(guarded: httpx.Client, name: str) -> None:
    params = {name: TOKEN}
    assert guarded.post(PREDICT, content=SAMPLE, headers=PNG, params=params).status_code == 401
    assert guarded.get("/metrics", params=params).status_code == 401


def test_token_in_the_form_does_not_count(guarded: httpx.Client) -> None:
    fields = {"access_token": TOKEN, "token": TOKEN}
    assert guarded.post("/classify", files=upload(SAMPLE), data=fields).status_code == 401


def test_image_with_a_known_token_is_answered(guarded: httpx.Client) -> None:
    answer = guarded.post(PREDICT, content=SAMPLE, headers=PNG | bearer(TOKEN))
    assert answer.status_code == 200
    form = {"model": MODEL}
    answer = guarded.post("/classify", files=upload(SAMPLE), data=form, headers=bearer(OTHER))
    assert answer.json()["model"] == MODEL


@pytest.mark.parametrize("path", ["/v1/models", f"/v1/models/{MODEL}", "/nope", "/v1/models/nope"])
def test_who_has_no_token_is_not_told_what_there_is(guarded: httpx.Client, path: str) -> None:
    denied = guarded.get(path)
    assert denied.status_code == 401
    assert MODEL not in denied.text
    known = guarded.get(path, headers=bearer(TOKEN)).status_code
    assert known == (404 if "nope" in path else 200)


@pytest.mark.parametrize(("method", "path"), [("PUT", "/classify"), ("GET", PREDICT)])
def test_unauthenticated_callers_learn_no_methods(
    guarded: httpx.Client, method: str, path: str
) -> None:
    assert guarded.request(method, path).status_code == 401
    assert guarded.request(method, path, headers=bearer(TOKEN)).status_code == 405


@pytest.mark.parametrize("path", [*PROBES, *PAGE])
@pytest.mark.parametrize("sent", [{}, bearer("unknown"), bearer(SCRAPER)])
def test_probes_and_the_page_are_open(
    guarded: httpx.Client, path: str, sent: dict[str, str]
) -> None:
    assert guarded.get(path, headers=sent).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [
        ("POST", PREDICT, "predict"),
        ("POST", "/classify", "predict"),
        ("GET", "/v1/models", "predict"),
        ("GET", f"/v1/models/{MODEL}", "predict"),
        ("GET", "/metrics", "metrics"),
    ],
)
def test_route_asks_for_its_scope(
    guarded: httpx.Client, method: str, path: str, scope: str
) -> None:
    statuses = {
        held: guarded.request(method, path, headers=bearer(token)).status_code
        for held, token in SCOPED.items()
    }
    assert statuses.pop(scope) not in (401, 403)
    assert set(statuses.values()) == {403}
    assert guarded.request(method, path).status_code == 401


def test_token_without_the_scope_is_told_which_it_needs(guarded: httpx.Client) -> None:
    answer = guarded.get("/metrics", headers=bearer(PREDICTOR))
    error = "expected a token with the scope metrics, got one with predict"
    assert answer.json() == {"error": error}
    assert 'error="insufficient_scope", scope="metrics"' in answer.headers["www-authenticate"]


def test_denials_are_counted_and_say_nothing_of_models(guarded: httpx.Client) -> None:
    def denied(protocol: str, status: str) -> float:
        series = parsed(guarded.get("/metrics", headers=bearer(SCRAPER)).text)
        labels = {"protocol": protocol, "status": status, "model": "unknown"}
        return value(series, "vitrine_requests_total", **labels)

    kinds = ("v1", "401"), ("page", "401"), ("v1", "403")
    before = [denied(*kind) for kind in kinds]
    guarded.post(PREDICT, content=SAMPLE, headers=PNG)
    guarded.get("/nope")
    guarded.post(PREDICT, content=SAMPLE, headers=PNG | bearer(SCRAPER))
    assert [denied(*kind) for kind in kinds] == [number + 1 for number in before]


def test_log_names_the_token_that_was_shown_and_never_shows_it(tokens_file: Path) -> None:
    settings = {"models": (MODEL,), "api_tokens_file": tokens_file, "log_requests": True}
    with in_process(**settings) as client, kept_log() as log:
        for token in (OTHER, SCRAPER, "unknown-token"):
            client.post(PREDICT, content=SAMPLE, headers=PNG | bearer(token))
        client.get("/nope", headers=bearer(OTHER))
    known, forbidden, unknown, lost = log.fields("request")
    assert known["token"] == lost["token"] == "of the app"
    assert (forbidden["token"], forbidden["status"]) == ("only metrics", 403)
    assert "token" not in unknown
    written = str([record.__dict__ for record in log.records])
    for token in (OTHER, SCRAPER, "unknown-token"):
        assert token not in written
        assert digest(token) not in written


@pytest.fixture
def app(tokens_file: Path, tmp_path: Path) -> Iterator[App]:
    """An app whose file of tokens a test may change."""
    file = tmp_path / "tokens"
    shutil.copy(tokens_file, file)
    app = App(Settings(workers=1, models=(MODEL,), api_tokens_file=file, rate_limit_per_s=0.01))
    yield app
    app.close()


def status(client: httpx.Client, token: str) -> int:
    return client.get("/v1/models", headers=bearer(token)).status_code


def test_tokens_that_are_read_again_replace_the_ones_before(app: App) -> None:
    file = app.settings.api_tokens_file
    assert file is not None
    with client_of(app) as client, kept_log() as log:
        assert (status(client, TOKEN), status(client, "new")) == (200, 401)
        file.write_text(f"{digest('new')} predict # new\n{digest(SCRAPER)}\n")
        assert (status(client, TOKEN), status(client, "new")) == (200, 401)
        app.reload()
        assert (status(client, TOKEN), status(client, "new")) == (401, 200)
        assert status(client, SCRAPER) == 200  # its scopes have changed
    assert log.fields("tokens read again") == [{"tokens": 2}]


@pytest.mark.parametrize("content", ["secret\n", "", f"{'0' * 64} secret", None])
def test_unusable_file_leaves_the_tokens_as_they_were(app: App, content: str | None) -> None:
    file = app.settings.api_tokens_file
    assert file is not None
    file.unlink()
    if content is not None:
        file.write_text(content)
    with client_of(app) as client, kept_log() as log:
        app.reload()
        assert (status(client, TOKEN), status(client, "0"), status(client, "")) == (200, 401, 401)
    (line,) = log.records
    assert line.levelname == "ERROR"
    assert line.getMessage().startswith("the tokens stay as they were: VITRINE_API_TOKENS_FILE: ")
    assert "secret" not in line.getMessage()


def test_server_without_tokens_has_none_to_read_again() -> None:
    app = App(Settings(workers=1, models=(MODEL,)))
    with client_of(app) as client, kept_log() as log:
        app.reload()
        assert client.get("/v1/models").status_code == 200
    app.close()
    assert log.records == []


def test_only_inference_counts_and_each_token_for_itself(app: App) -> None:
    def ask(token: str) -> httpx.Response:
        return client.post(PREDICT, content=SAMPLE, headers=PNG | bearer(token))

    with client_of(app) as client:
        assert {status(client, TOKEN) for _ in range(3)} == {200}
        assert ask(TOKEN).status_code == 200
        refused = [
            ask(TOKEN),
            client.post("/classify", files=upload(SAMPLE), headers=bearer(TOKEN)),
        ]
        assert ask(OTHER).status_code == 200
        assert status(client, TOKEN) == 200
        app.reload()
        assert ask(TOKEN).status_code == 429  # its rate goes on
        text = client.get("/metrics", headers=bearer(SCRAPER)).text
    for answer in refused:
        assert answer.status_code == 429
        assert 90 <= int(answer.headers["retry-after"]) <= 100
        error = "expected at most 0.01 requests a second with this token, got more"
        assert answer.json() == {"error": error}
    assert value(parsed(text), "vitrine_requests_total", status="429", protocol="v1") == 2
    assert value(parsed(text), "vitrine_requests_total", status="429", protocol="classify") == 1
