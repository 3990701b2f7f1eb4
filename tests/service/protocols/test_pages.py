"""The page on which every route can be tried: in a browser, as a person would."""

import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

from tests.browser import ELSEWHERE, PATIENCE_S
from tests.server import CHECKOUT, Server

GARMENT = CHECKOUT / "models/fashion-mnist/1/sample.png"
DIGIT = CHECKOUT / "models/denoiser/1/sample.png"


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_page_loads_what_this_server_has(client: httpx.Client, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    loaded = re.findall(r'(?:src|href)="([^"]+)"', answer.text)
    assert len(loaded) == 5
    for link in loaded:
        assert "//" not in link  # nothing comes from elsewhere
        assert client.get(f"/{link}").status_code == 200, link


@pytest.mark.parametrize(
    ("name", "media_type"),
    [
        ("swagger-ui.css", "text/css"),
        ("swagger-ui-bundle.js", "text/javascript"),
        ("favicon-light-32x32.png", "image/png"),
    ],
)
def test_files_of_the_page_have_their_type(
    client: httpx.Client, name: str, media_type: str
) -> None:
    answer = client.get(f"/static_content/{name}")
    assert answer.headers["content-type"] == media_type
    assert answer.content


@pytest.mark.parametrize("name", ["nope.js", "%2e%2e", "%2e%2e%2fapp.py", "..%2f..%2fapp.py"])
def test_no_other_file_is_there(client: httpx.Client, name: str) -> None:
    answer = client.get(f"/static_content/{name}")
    assert answer.status_code == 404
    assert list(answer.json()) == ["error"]


@pytest.fixture
def page(browser: webdriver.Chrome, server: Server) -> Iterator[webdriver.Chrome]:
    """The page; nothing that a test does there may be against its own policy."""
    errors(browser)  # what other tests provoked
    browser.get(f"{server.url}/")
    yield browser
    assert not [error for error in errors(browser) if "Failed to load resource" not in error]


def errors(browser: webdriver.Chrome) -> list[str]:
    """What the browser has logged since it was last asked."""
    return [line["message"] for line in browser.get_log("browser")]  # type: ignore[no-untyped-call]


def press(block: WebElement, selector: str) -> None:
    button = block.find_element(By.CSS_SELECTOR, selector)
    button.parent.execute_script("arguments[0].scrollIntoView({block: 'center'})", button)
    button.click()


def execute(page: webdriver.Chrome, operation: str, image: Path) -> WebElement:
    """Open an operation, press "Try it out", choose a file, press "Execute"; what came back."""
    block = page.find_element(By.ID, f"operations-Models-{operation}")
    press(block, ".opblock-summary-control")
    press(block, ".try-out__btn")
    block.find_element(By.CSS_SELECTOR, "input[type=file]").send_keys(str(image))
    press(block, "button.execute")
    return block.find_element(By.CSS_SELECTOR, ".live-responses-table tbody tr.response")


def status(response: WebElement) -> str:
    return response.find_element(By.CSS_SELECTOR, ".response-col_status").text.split()[0]


def test_classify_can_be_tried(page: webdriver.Chrome) -> None:
    response = execute(page, "post_classify", GARMENT)
    assert status(response) == "200", response.text
    assert '"label": "Trouser"' in response.text
    assert '"model": "fashion-mnist"' in response.text


def test_denoise_can_be_tried(page: webdriver.Chrome) -> None:
    response = execute(page, "post_denoise", DIGIT)
    assert status(response) == "200", response.text
    image = response.find_element(By.CSS_SELECTOR, ".response-col_description img")
    WebDriverWait(page, PATIENCE_S).until(lambda _: image.get_property("naturalWidth"))
    assert (image.get_property("naturalWidth"), image.get_property("naturalHeight")) == (28, 28)


@pytest.mark.parametrize(
    "operation", ["post_v1_models_name_predict", "post_v1_models_name_versions_version_predict"]
)
def test_predict_can_be_tried(page: webdriver.Chrome, operation: str) -> None:
    response = execute(page, operation, GARMENT)
    assert status(response) == "200", response.text
    assert '"label": "Trouser"' in response.text
    assert '"predictions"' in response.text


def test_page_says_what_is_wrong_with_a_file(page: webdriver.Chrome) -> None:
    response = execute(page, "post_classify", Path(__file__))
    assert status(response) == "415", response.text
    assert '"error": "expected an image' in response.text


@pytest.mark.parametrize("host", ["127.0.0.1", ELSEWHERE])
def test_page_has_no_errors(browser: webdriver.Chrome, server: Server, host: str) -> None:
    """Nor on another host's name: there Swagger would show the document to a validator."""
    errors(browser)
    browser.get(f"{server.url.replace('127.0.0.1', host)}/")
    browser.find_element(By.CSS_SELECTOR, ".opblock")
    assert errors(browser) == []
    loaded = browser.execute_script(
        "return performance.getEntriesByType('resource').map(entry => entry.name)"
    )
    assert {httpx.URL(url).host for url in loaded} == {host}


def test_page_may_load_and_be_shown_from_nowhere_else(client: httpx.Client) -> None:
    for path in ("/", "/docs"):
        headers = client.get(path).headers
        policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
        assert policy["default-src"] == policy["frame-ancestors"] == "'none'"
        assert policy["script-src"] == policy["connect-src"] == "'self'"
        assert headers["x-frame-options"] == "DENY"
        assert headers["referrer-policy"] == "no-referrer"
