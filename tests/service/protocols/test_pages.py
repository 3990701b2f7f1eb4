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

from tests.programs import program
from tests.server import CHECKOUT, Server

PATIENCE_S = 60  # only ever waited for in full where a test fails
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


@pytest.fixture(scope="module")
def browser() -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = program("chromium")
    for argument in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "disable-gpu"):
        options.add_argument(f"--{argument}")
    service = webdriver.ChromeService(program("chromedriver"))
    browser = webdriver.Chrome(options, service)
    browser.set_window_size(1200, 1600)
    browser.implicitly_wait(PATIENCE_S)
    yield browser
    browser.quit()


@pytest.fixture
def page(browser: webdriver.Chrome, server: Server) -> webdriver.Chrome:
    browser.get(f"{server.url}/")
    return browser


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


def test_page_has_no_errors(browser: webdriver.Chrome, server: Server) -> None:
    browser.get_log("browser")  # type: ignore[no-untyped-call]  # what other tests provoked
    browser.get(f"{server.url}/")
    browser.find_element(By.CSS_SELECTOR, ".opblock")
    assert browser.get_log("browser") == []  # type: ignore[no-untyped-call]
