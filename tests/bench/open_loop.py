"""Open loop: requests arrive when they arrive (Poisson), however long earlier ones take.

A closed loop asks less of a server that falls behind; users do not. Latency counts from the moment
that a request was due, so that nothing is omitted where the generator itself is late.
"""

import selectors
import socket
import time
from dataclasses import dataclass, field

import numpy as np

from tests.bench.servers import Running
from tests.bench.systems import HOST

MAX_CONNECTIONS = 6000
MAX_REQUEST_BYTES = 100_000  # a request is sent in one piece
NAP_S = 300e-6  # longer than the generator is late by itself; shorter naps take CPU from the server
DRAIN_S = 10.0
OK = b"200"
OVERLOADED = b"503"
CUT = b"cut"
"""In place of a status: the connection ended without an answer."""


@dataclass
class Outcome:
    """Latencies in seconds by status."""

    rate: float
    """Requests/s that were asked for."""
    seconds: float
    latencies_s: dict[bytes, list[float]] = field(default_factory=dict)
    unsent: int = 0
    """Requests beyond the most connections, or never answered."""

    def goodput(self) -> float:
        """Requests/s that were answered with 200."""
        return len(self.latencies_s.get(OK, ())) / self.seconds

    def percentile_ms(self, status: bytes, percent: float) -> float | None:
        """Of the requests with one status; None without any."""
        latencies = self.latencies_s.get(status)
        return float(np.percentile(latencies, percent)) * 1000 if latencies else None


class _Connection:
    """One keep-alive connection with at most one request on its way."""

    def __init__(self, address: tuple[str, int], selector: selectors.BaseSelector) -> None:
        self.socket = socket.create_connection(address)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MAX_REQUEST_BYTES)
        self.socket.setblocking(False)
        self.due = 0.0
        self.received = b""
        self.is_closing = False
        """Whether the server has announced that it closes the connection."""
        selector.register(self.socket, selectors.EVENT_READ, self)

    def status(self) -> bytes | None:
        """Read what came; the status once the response is whole, b"" if the connection ended."""
        try:
            data = self.socket.recv(65536)
        except BlockingIOError:
            return None
        except ConnectionError:
            return b""
        if not data:
            return b""
        self.received += data
        head, separator, body = self.received.partition(b"\r\n\r\n")
        if not separator:
            return None
        _, _, length = head.partition(b"content-length: ")
        if len(body) < int(length.partition(b"\r\n")[0]):
            return None
        self.received = b""
        self.is_closing = b"\r\nconnection: close" in head
        return head[9:12]


class Generator:
    """Asks one system, over as many connections as are needed."""

    def __init__(self, running: Running) -> None:
        payload = running.system.payload
        headers = payload.headers | {
            "Host": running.url.removeprefix("http://"),
            "Content-Length": str(len(payload.body)),
        }
        lines = [f"POST {payload.path} HTTP/1.1", *(f"{k}: {v}" for k, v in headers.items())]
        self._request = "\r\n".join([*lines, "", ""]).encode() + payload.body
        self._address = HOST, running.ports[0]
        self._selector = selectors.DefaultSelector()
        self._idle: list[_Connection] = []
        self._busy = 0

    def capacity(self, connections: int, seconds: float) -> float:
        """Requests/s in a closed loop: what the rates of the open loop are shares of."""
        ends = time.perf_counter() + seconds
        answered = 0
        for _ in range(connections):
            self._send(time.perf_counter())
        while time.perf_counter() < ends:
            for _ in self._answers(0.01):
                answered += 1
                self._send(time.perf_counter())
        self._drain()
        return answered / seconds

    def run(self, rate: float, seconds: float, seed: int = 0) -> Outcome:
        """Send requests at a constant mean rate for some seconds; wait for the answers."""
        gaps = np.random.default_rng(seed).exponential(1 / rate, int(rate * seconds))
        begun = time.perf_counter()
        arrivals = (begun + np.cumsum(gaps)).tolist()
        outcome = Outcome(rate, seconds)
        following = 0
        while following < len(arrivals):
            now = time.perf_counter()
            while following < len(arrivals) and arrivals[following] <= now:
                if not self._send(arrivals[following]):
                    outcome.unsent += 1
                following += 1
            until_due_s = max(0.0, arrivals[following] - now) if following < len(arrivals) else 0.0
            self._note(outcome, int(until_due_s * 1000) / 1000)  # select rounds up to a millisecond
            time.sleep(NAP_S)
        self._drain(outcome)
        return outcome

    def close(self) -> None:
        """Close every connection."""
        for key in list(self._selector.get_map().values()):
            self._forget(key.data)
        self._selector.close()

    def _send(self, due: float) -> bool:
        while self._idle:
            connection = self._idle.pop()
            if self._write(connection, due):
                return True
        if self._busy >= MAX_CONNECTIONS:
            return False
        return self._write(_Connection(self._address, self._selector), due)

    def _write(self, connection: _Connection, due: float) -> bool:
        connection.due = due
        try:
            sent = connection.socket.send(self._request)
        except ConnectionError:
            self._forget(connection)
            return False
        assert sent == len(self._request), f"{sent} of {len(self._request)} bytes were sent"
        self._busy += 1
        return True

    def _answers(self, timeout_s: float) -> "list[tuple[bytes, float]]":
        """Status and latency of every response that is whole."""
        answers = []
        for key, _ in self._selector.select(timeout_s):
            connection: _Connection = key.data
            status = connection.status()
            if status is None:
                continue
            if status == b"":
                if connection not in self._idle:
                    self._busy -= 1
                    answers.append((CUT, time.perf_counter() - connection.due))
                else:
                    self._idle.remove(connection)  # closed for having been idle
                self._forget(connection)
                continue
            self._busy -= 1
            if connection.is_closing:
                self._forget(connection)
            else:
                self._idle.append(connection)
            answers.append((status, time.perf_counter() - connection.due))
        return answers

    def _note(self, outcome: Outcome, timeout_s: float) -> None:
        for status, latency_s in self._answers(timeout_s):
            outcome.latencies_s.setdefault(status, []).append(latency_s)

    def _drain(self, outcome: Outcome | None = None) -> None:
        ends = time.perf_counter() + DRAIN_S
        ignored = Outcome(0, 1)
        while self._busy and time.perf_counter() < ends:
            self._note(outcome or ignored, 0.1)
        if outcome is not None:
            outcome.unsent += self._busy

    def _forget(self, connection: _Connection) -> None:
        self._selector.unregister(connection.socket)
        connection.socket.close()
