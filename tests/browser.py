"""A real browser without a window, for what only a browser can tell."""

import contextlib
from collections.abc import Iterator

from selenium import webdriver

from tests.programs import program

PATIENCE_S = 60  # only ever waited for in full where a test fails
ELSEWHERE = "vitrine.test"
"""A name that leads to this machine and does not look like it."""


@contextlib.contextmanager
def opened_browser() -> Iterator[webdriver.Chrome]:
    """A browser until the end of the block; without Chromium the test skips, in CI it fails."""
    options = webdriver.ChromeOptions()
    options.binary_location = program("chromium")
    for argument in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "disable-gpu"):
        options.add_argument(f"--{argument}")
    options.add_argument(f"--host-resolver-rules=MAP {ELSEWHERE} 127.0.0.1")
    browser = webdriver.Chrome(options, webdriver.ChromeService(program("chromedriver")))
    browser.set_window_size(1200, 1600)
    browser.implicitly_wait(PATIENCE_S)
    browser.set_script_timeout(PATIENCE_S)
    try:
        yield browser
    finally:
        browser.quit()
