"""Callers beside those with images: probes, scrapes, the catalogue, pages, an oversized body."""

import http.client
from collections import Counter
from urllib.parse import urlsplit

from tests.soak.judge import ENDED

TIMEOUT_S = 60
MODEL = "/v1/models/fashion-mnist"
PATHS = ("/livez", "/healthz", "/readyz", "/metrics", "/v1/models", MODEL, "/docs", "/docs.json")
OVERSIZED = {"Content-Type": "image/png", "Content-Length": "1000000000"}


def ask_others(url: str) -> Counter[str]:
    """Ask each once, on a connection of its own; what was not answered as it should, by cause."""
    failures: Counter[str] = Counter()
    for method, path, status in [
        *(("GET", path, 200) for path in PATHS),
        ("POST", f"{MODEL}:predict", 413),
    ]:
        came = _status(url, method, path)
        if came == 0:
            failures[ENDED] += 1
        elif came != status:
            failures[f"{method} {path}: expected {status}, got {came}"] += 1
    return failures


def _status(url: str, method: str, path: str) -> int:
    """The status of an answer; 0 where the connection ends without one."""
    parts = urlsplit(url)
    assert parts.hostname
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=TIMEOUT_S)
    try:
        connection.request(method, path, headers=OVERSIZED if method == "POST" else {})
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()
