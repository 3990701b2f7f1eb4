"""Who may come in, and what a browser lets other pages do: the same of both servers."""

import contextlib
import hashlib
import http.server
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By

from tests.exposition import parsed, value
from tests.server import Server, bentoml_command, command, running
from tests.service.protocols.test_native import PNG, SAMPLE, upload
from tests.service.protocols.test_pages import GARMENT, execute, press, status

MODEL = "fashion-mnist-mlp"
PREDICT = f"/v1/models/{MODEL}:predict"
# Each may predict once in 100 s: a test takes one that no other takes.
TOKENS = [f"token-{number}" for number in range(20)]
SCRAPER, PREDICTOR = "of-the-scraper", "of-the-predictor"
STRANGER = "https://else.example"
MAX_BYTES = 100_000
REQUEST = """
const [url, token, image, done] = arguments;
const body = new FormData();
body.append("image", new Blob([Uint8Array.from(image)]), "a.png");
const headers = {"Authorization": "Bearer " + token};
const told = async answer =>
  [answer.status, await answer.json(), answer.headers.has("x-request-id")];
fetch(url + "/classify", {method: "POST", headers, body})
  .then(async answer => done(await told(answer)))
  .catch(error => done([0, String(error), false]));
"""


def digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


class Shop(http.server.BaseHTTPRequestHandler):
    """A page of somebody else's."""

    def do_GET(self) -> None:
        """An empty page, whatever the path."""
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(b"<!DOCTYPE html><title>shop</title><link rel=icon href=data:,>")

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def shop() -> Iterator[str]:
    """The origin of another site."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Shop) as site:
        threading.Thread(target=site.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{site.server_address[1]}"
        site.shutdown()


def started(
    start: Callable[[int], list[str]], folder: Path, shop: str
) -> contextlib.AbstractContextManager[Server]:
    """A server that asks for tokens, limits their rate, and lets the shop's pages call it."""
    lines = [f"{digest(token)}  # {token.upper()}" for token in TOKENS]
    lines += [f"{digest(SCRAPER)} metrics", f"{digest(PREDICTOR)} predict"]
    (folder / "tokens").write_text("\n".join(lines))
    return running(
        start,
        folder,
        workers=2,
        models=MODEL,
        api_tokens_file=folder / "tokens",
        rate_limit_per_s=0.01,
        cors_origins=f"https://shop.example,{shop}",
        max_image_bytes=MAX_BYTES,
        log_requests=True,
        log_format="json",
    )


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory, shop: str) -> Iterator[Server]:
    with started(command, tmp_path_factory.mktemp("ours"), shop) as server:
        yield server


@pytest.fixture(scope="module")
def under_bentoml(tmp_path_factory: pytest.TempPathFactory, shop: str) -> Iterator[Server]:
    with started(bentoml_command, tmp_path_factory.mktemp("bentoml"), shop) as server:
        yield server


@pytest.fixture(
    scope="module", params=["ours", pytest.param("under_bentoml", marks=pytest.mark.slow)]
)
def guarded(request: pytest.FixtureRequest) -> Server:
    """Each of the two servers."""
    server: Server = request.getfixturevalue(request.param)
    return server


@dataclass(frozen=True)
class Row:
    """A request, with the token that it shows, and what is answered."""

    status: int
    method: str
    path: str
    token: str | None = None
    body: bytes = b""
    is_cut: bool = False
    """Whether the body comes in pieces, which no fast path takes."""

    def send(self, server: Server, **headers: str) -> httpx.Response:
        sent = PNG | headers | (bearer(self.token) if self.token else {})
        content: Any = iter([self.body[:9], self.body[9:]]) if self.is_cut else self.body
        url = server.url + self.path
        return httpx.request(self.method, url, content=content, headers=sent, timeout=60)


LARGE = SAMPLE + bytes(MAX_BYTES)
TABLE = [
    *(
        Row(401, "POST", path, token, SAMPLE, is_cut)
        for path in (PREDICT, "/classify", f"{PREDICT}?access_token={PREDICTOR}")
        for token in (None, "unknown")
        for is_cut in (False, True)
    ),
    Row(403, "POST", PREDICT, SCRAPER, SAMPLE),
    Row(403, "POST", PREDICT, SCRAPER, SAMPLE, is_cut=True),
    Row(200, "POST", PREDICT, TOKENS[0], SAMPLE),
    Row(200, "POST", PREDICT, TOKENS[1], SAMPLE, is_cut=True),
    Row(415, "POST", PREDICT, TOKENS[2], b"no image"),
    Row(413, "POST", PREDICT, TOKENS[3], LARGE),
    Row(413, "POST", PREDICT, TOKENS[4], LARGE, is_cut=True),
    Row(404, "POST", "/v1/models/nope:predict", TOKENS[5], SAMPLE),
    Row(401, "GET", "/v1/models"),
    Row(403, "GET", "/v1/models", SCRAPER),
    Row(200, "GET", "/v1/models", PREDICTOR),
    Row(401, "GET", "/nope"),
    Row(404, "GET", "/nope", PREDICTOR),
    Row(405, "GET", PREDICT, PREDICTOR),
    Row(401, "GET", "/metrics"),
    Row(403, "GET", "/metrics", PREDICTOR),
    Row(200, "GET", "/metrics", SCRAPER),
    *(
        Row(200, "GET", path)
        for path in ("/livez", "/healthz", "/readyz", "/", "/docs", "/docs.json", "/schema.json")
    ),
]


@pytest.mark.parametrize("row", TABLE, ids=[f"{n} {row.path}" for n, row in enumerate(TABLE)])
def test_door_opens_to_its_token_and_every_answer_to_the_shops_pages(
    guarded: Server, row: Row
) -> None:
    answer = row.send(guarded, Origin="https://shop.example")
    assert answer.status_code == row.status, answer.text
    if row.status >= 400:
        assert list(answer.json()) == ["error"]
    assert answer.headers.get_list("access-control-allow-origin") == ["https://shop.example"]
    assert answer.headers["access-control-expose-headers"] == "X-Request-ID, Retry-After"
    assert answer.headers["vary"] == "Origin"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-store"
    assert not {"server", "access-control-allow-credentials"} & answer.headers.keys()


def test_answer_is_not_for_the_pages_of_others(guarded: Server) -> None:
    for headers in ({"Origin": STRANGER}, {"Origin": "null"}, {}):
        for row in (Row(401, "POST", PREDICT, None, SAMPLE), Row(200, "GET", "/docs.json")):
            answer = row.send(guarded, **headers)
            assert answer.status_code == row.status
            assert answer.headers["vary"] == "Origin"
            assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("path", [PREDICT, "/classify", "/nope"])
def test_preflight_needs_no_token(guarded: Server, path: str) -> None:
    asked = {"Origin": "https://shop.example", "Access-Control-Request-Method": "POST"}
    answer = httpx.options(guarded.url + path, headers=asked)
    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["access-control-allow-origin"] == "https://shop.example"
    assert answer.headers["access-control-max-age"] == "600"
    assert "transfer-encoding" not in answer.headers
    refused = httpx.options(guarded.url + path, headers=asked | {"Origin": STRANGER})
    assert refused.status_code == 401


def test_two_headers_authorization_are_none(guarded: Server) -> None:
    sent = [*PNG.items(), *(("Authorization", f"Bearer {PREDICTOR}") for _ in range(2))]
    for method, path in (("POST", PREDICT), ("GET", "/v1/models")):
        answer = httpx.request(method, guarded.url + path, headers=sent, content=SAMPLE)
        assert answer.status_code == 401
        assert "got 2 of them" in answer.json()["error"]


def test_workers_limit_the_rate_of_a_token_together(guarded: Server) -> None:
    def ask(_: object) -> httpx.Response:
        return Row(200, "POST", PREDICT, TOKENS[6], SAMPLE).send(guarded)

    with ThreadPoolExecutor(12) as pool:  # a connection each, so that both workers get some
        answers = [ask(0), *pool.map(ask, range(12))]
    assert [answer.status_code for answer in answers] == [200, *[429] * 12]
    for answer in answers[1:]:
        assert 40 <= int(answer.headers["retry-after"]) <= 100
        assert list(answer.json()) == ["error"]
    assert Row(200, "GET", "/v1/models", TOKENS[6]).send(guarded).status_code == 200
    series = parsed(Row(200, "GET", "/metrics", SCRAPER).send(guarded).text)
    assert value(series, "vitrine_requests_total", status="429") == 12


def test_log_has_the_name_of_the_token_and_not_the_token(guarded: Server) -> None:
    row = Row(200, "POST", PREDICT, TOKENS[7], SAMPLE)
    row.send(guarded, **{"X-Request-ID": "named"}).raise_for_status()
    httpx.get(f"{guarded.url}/v1/models", headers=bearer("not-known"))
    Row(200, "GET", "/readyz").send(guarded)
    (line,) = [line for line in guarded.log_lines() if line.get("request_id") == "named"]
    assert line["token"] == TOKENS[7].upper()
    written = guarded.log.read_text()
    assert "not-known" not in written
    assert not any(token in written or digest(token) in written for token in TOKENS)


def from_page(browser: webdriver.Chrome, page: str, server: Server, token: str) -> list[Any]:
    """Status, answer, and whether the request id can be read, of a request by a page's script."""
    browser.get(page)
    given = server.url, token, list(SAMPLE)
    told: list[Any] = browser.execute_async_script(REQUEST, *given)
    return told


def test_page_of_the_shop_may_ask_in_a_browser(
    ours: Server, browser: webdriver.Chrome, shop: str
) -> None:
    code, answer, has_id = from_page(browser, shop, ours, TOKENS[8])
    assert (code, answer.get("model"), has_id) == (200, MODEL, True)
    code, answer, has_id = from_page(browser, shop, ours, TOKENS[8])
    assert (code, list(answer), has_id) == (429, ["error"], True)


def test_page_of_another_origin_may_not_ask_in_a_browser(
    ours: Server, server: Server, browser: webdriver.Chrome, shop: str
) -> None:
    other = shop.replace("127.0.0.1", "localhost")
    refused = [0, "TypeError: Failed to fetch", False]
    assert from_page(browser, other, ours, TOKENS[9]) == refused
    assert from_page(browser, shop, server, TOKENS[9]) == refused  # nobody may without the setting


def test_token_can_be_entered_on_the_page(ours: Server, browser: webdriver.Chrome) -> None:
    browser.get(f"{ours.url}/")
    assert status(execute(browser, "post_classify", GARMENT)) == "401"
    browser.get(f"{ours.url}/")
    press(browser.find_element(By.CSS_SELECTOR, ".auth-wrapper"), ".authorize")
    form = browser.find_element(By.CSS_SELECTOR, ".auth-container")
    form.find_element(By.CSS_SELECTOR, "input").send_keys(TOKENS[10])
    press(form, "button.authorize")
    press(browser.find_element(By.CSS_SELECTOR, ".modal-ux"), ".btn-done")
    response = execute(browser, "post_classify", GARMENT)
    assert status(response) == "200", response.text
    assert MODEL in response.text


def test_probes_are_not_logged_with_their_tokens(guarded: Server) -> None:
    paths = [line.get("path") for line in guarded.log_lines()]
    assert "/v1/models" in paths
    assert not {"/livez", "/metrics"} & set(paths)


def test_form_needs_its_token_too(guarded: Server) -> None:
    url = f"{guarded.url}/classify"
    assert httpx.post(url, files=upload(SAMPLE)).status_code == 401
    answer = httpx.post(url, files=upload(SAMPLE), headers=bearer(TOKENS[11]))
    assert answer.json()["model"] == MODEL
