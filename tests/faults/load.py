"""Clients that keep their connections open, take servers in turn, and try nothing again."""

import contextlib
import http.client
import itertools
import select
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias
from urllib.parse import urlsplit

from tests.server import CHECKOUT

MODEL = "fashion-mnist-mlp"
PATH = f"/v1/models/{MODEL}:predict"
SAMPLE = (CHECKOUT / "models" / MODEL / "1" / "sample.png").read_bytes()
PNG = {"Content-Type": "image/png"}
TIMEOUT_S = 60
READY_POLL_S = 0.05

Connections: TypeAlias = dict[str, http.client.HTTPConnection]


@dataclass(frozen=True)
class Outcome:
    """One request: when it was sent and ended, in seconds of time.monotonic, and what came."""

    sent: float
    ended: float
    status: int
    """0 where the connection ended without an answer."""
    text: str
    """The answer, or the connection's error."""


@dataclass
class Load:
    """What a load is, and what came of it so far."""

    urls: Sequence[str]
    path: str = PATH
    body: bytes = SAMPLE
    headers: Mapping[str, str] = field(default_factory=lambda: PNG)
    pause_s: float = 0.005
    """Between two requests of a client."""
    outcomes: list[Outcome] = field(default_factory=list)
    left: set[str] = field(default_factory=set)
    """Servers that said that they are not ready, or not there."""
    is_over: bool = False

    def failures(self) -> list[Outcome]:
        """The requests that were not answered with 200."""
        return [each for each in self.outcomes if each.status != 200]

    def target(self, turn: int) -> str:
        """The server to ask, in turn."""
        ready = [url for url in self.urls if url not in self.left]
        return ready[turn % len(ready)]


@contextlib.contextmanager
def running_load(load: Load, clients: int = 8, *, polls: bool = False) -> Iterator[Load]:
    """Send until the end of the block; `polls` leaves out servers that are not ready."""
    act = [threading.Thread(target=_send, args=(load, number)) for number in range(clients)]
    if polls:
        act += [threading.Thread(target=_poll, args=(load, url)) for url in load.urls]
    for thread in act:
        thread.start()
    try:
        yield load
    finally:
        load.is_over = True
        for thread in act:
            thread.join(TIMEOUT_S)


def _send(load: Load, first: int) -> None:
    connections: Connections = {}
    with contextlib.ExitStack() as stack:
        stack.callback(_close, connections)
        for turn in itertools.count(first):
            if load.is_over:
                return
            load.outcomes.append(_ask(load, connections, load.target(turn)))
            time.sleep(load.pause_s)


def _close(connections: Connections) -> None:
    for connection in connections.values():
        connection.close()


def _ask(load: Load, connections: Connections, url: str) -> Outcome:
    connection = connections.get(url) or _connection(url)
    connections[url] = connection  # http.client opens it again once it was closed
    if connection.sock is not None and select.select([connection.sock], [], [], 0)[0]:
        connection.close()  # the server has closed it while nothing was asked
    sent = time.monotonic()
    try:
        connection.request("POST", load.path, load.body, dict(load.headers))
        answer = connection.getresponse()
        text = answer.read().decode(errors="replace")
        return Outcome(sent, time.monotonic(), answer.status, text)
    except (OSError, http.client.HTTPException) as error:
        connection.close()
        return Outcome(sent, time.monotonic(), 0, repr(error))


def _connection(url: str) -> http.client.HTTPConnection:
    parts = urlsplit(url)
    assert parts.hostname
    return http.client.HTTPConnection(parts.hostname, parts.port, timeout=TIMEOUT_S)


def _poll(load: Load, url: str) -> None:
    while not load.is_over:
        probe = _connection(url)
        try:
            probe.request("GET", "/readyz")
            is_ready = probe.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            is_ready = False
        finally:
            probe.close()
        (load.left.discard if is_ready else load.left.add)(url)
        time.sleep(READY_POLL_S)
