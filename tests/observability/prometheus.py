"""A real Prometheus with the shipped configuration, against a running service under load."""

import contextlib
import json
import math
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.drawing import encode, gradient
from tests.observability.files import OBSERVABILITY, RULES
from tests.programs import program
from tests.server import CHECKOUT, Server, free_port

START_TIMEOUT_S = 120
PATIENCE_S = 300  # only ever waited for in full where a test fails
INTERVAL = "2s"  # also how long a scrape may take
PAUSE_S = 0.1
IMAGES_PER_FORM = 64
# So that what needs a day, a week or hours of history has enough after seconds.
SHORTENED = {"offset 7d": "offset 3s", "offset 6h": "offset 3s", "> 7 * 3600": "> 3"}
CREDENTIALS_FILE = "/etc/prometheus/vitrine-token"
_COMMENTED_TOKEN = re.compile(
    r"^( +)# ( *(?:authorization:|type: Bearer|credentials_file: ).*)$", re.MULTILINE
)


@dataclass
class Prometheus:
    """Prometheus's HTTP API."""

    client: httpx.Client

    def get(self, path: str, **parameters: str) -> Any:
        """What lies under `data` in the answer."""
        body = self.client.get(f"/api/v1/{path}", params=parameters).json()
        assert body["status"] == "success", f"{parameters}: {body['error']}"
        return body["data"]

    def has_number(self, query: str) -> bool:
        """Whether a query has a result that is more than NaN."""
        found = self.get("query", query=query)["result"]
        return any(not math.isnan(float(series["value"][1])) for series in found)

    def unanswered(self, queries: set[str]) -> set[str]:
        """Those of the queries that have no number even after some time."""
        deadline = time.monotonic() + PATIENCE_S
        while queries and time.monotonic() < deadline:
            queries = {query for query in queries if not self.has_number(query)}
            time.sleep(PAUSE_S)
        return queries


@contextlib.contextmanager
def watching(
    server: Server,
    folder: Path,
    place: dict[str, str] | None = None,
    token_file: Path | None = None,
) -> Iterator[Prometheus]:
    """Run Prometheus with other addresses, intervals and spans than configured.

    `place` replaces the labels of the service: where it would run. With a token the comment of the
    configuration that shows how to send one is no comment.
    """
    port = free_port()
    text = (OBSERVABILITY / "prometheus.yml").read_text()
    if token_file is not None:
        text = _COMMENTED_TOKEN.sub(r"\1\2", text).replace(CREDENTIALS_FILE, str(token_file))
    config = yaml.safe_load(text)
    config["global"] = dict.fromkeys(config["global"], INTERVAL)
    addresses = {"vitrine": server.url, "prometheus": f"http://127.0.0.1:{port}"}
    for job in config["scrape_configs"]:
        address = addresses[job["job_name"]].removeprefix("http://")
        job["static_configs"][0]["targets"] = [address]
        if place is not None and job["job_name"] == "vitrine":
            job["static_configs"][0]["labels"] = place
    (folder / "rules").mkdir()
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    for file in RULES.glob("*.yml"):
        (folder / "rules" / file.name).write_text(_shortened(file.read_text()))
    command = [
        program("prometheus"),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    ]
    log = folder / "prometheus.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        with httpx.Client(base_url=addresses["prometheus"], timeout=START_TIMEOUT_S) as client:
            _wait_until_ready(client, process, log)
            yield Prometheus(client)
    finally:
        process.terminate()
        process.wait(START_TIMEOUT_S)


def _shortened(text: str) -> str:
    for span, short in SHORTENED.items():
        text = text.replace(span, short)
    groups = yaml.safe_load(text)["groups"]
    return yaml.safe_dump({"groups": [group | {"interval": INTERVAL} for group in groups]})


def _wait_until_ready(client: httpx.Client, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(httpx.TransportError):
            if client.get("/-/ready").status_code == httpx.codes.OK:
                return
        time.sleep(PAUSE_S)
    raise RuntimeError(f"Prometheus is not ready: {log.read_text()}")


@contextlib.contextmanager
def load(server: Server) -> Iterator[None]:
    """Until the end of the block, ask every model in every way, and for what cannot be answered."""
    stop = threading.Event()
    statuses: set[int] = set()

    def ask() -> None:
        with server.client() as client:
            while not stop.wait(PAUSE_S):
                statuses.update(_ask_everything(client))

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    assert statuses >= {200, 400, 404, 415, 504}


def _ask_everything(client: httpx.Client) -> Iterator[int]:
    samples = {file.parents[1].name: file for file in CHECKOUT.glob("models/*/*/sample.png")}
    shirt = samples["fashion-mnist"].read_bytes()
    photo = encode(gradient(200, 150).convert("RGB"), "JPEG", progressive=True)
    for model, sample in samples.items():
        yield _predict(client, model, sample.read_bytes())
    yield _predict(client, "clothing", photo)
    yield client.post("/classify", files={"image": shirt}).status_code
    yield client.post("/denoise", files={"image": samples["denoiser"].read_bytes()}).status_code
    # The drift of labels needs a hundred images a label.
    many = [("image", shirt)] * IMAGES_PER_FORM
    yield client.post("/v1/models/fashion-mnist:predict", files=many).status_code
    yield _predict(client, "fashion-mnist", shirt[: len(shirt) // 2])
    yield _predict(client, "fashion-mnist", json.dumps("no image").encode())
    yield _predict(client, "no-such-model", shirt)
    yield _predict(client, "vgg16-base", photo, {"X-Request-Timeout-Ms": "1"})


def _predict(
    client: httpx.Client, model: str, image: bytes, headers: dict[str, str] | None = None
) -> int:
    url = f"/v1/models/{model}:predict"
    return client.post(url, content=image, headers=headers).status_code
