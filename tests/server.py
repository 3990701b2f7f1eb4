"""A real server process on a free port, as `make serve` starts one."""

import contextlib
import json
import os
import secrets
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

CHECKOUT = Path(__file__).resolve().parent.parent
START_TIMEOUT_S = 120
STOP_TIMEOUT_S = 60
CLIENT_TIMEOUT_S = 60  # on a busy machine an answer may take longer than the 5 s of httpx


@dataclass
class Server:
    """A running server: where it listens, and what it has written to its standard error."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path
    trust: ssl.SSLContext | bool = True
    """What a client of this server accepts, and the certificate that it shows."""

    def client(self) -> httpx.Client:
        """A client with keep-alive; the caller closes it."""
        return httpx.Client(base_url=self.url, timeout=CLIENT_TIMEOUT_S, verify=self.trust)

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> httpx.Response:
        """The answer to a GET on a connection of its own."""
        return httpx.get(
            self.url + path, headers=headers, timeout=CLIENT_TIMEOUT_S, verify=self.trust
        )

    def post(self, path: str, **request: Any) -> httpx.Response:
        """The answer to a POST on a connection of its own; `request` is what httpx takes."""
        return httpx.post(self.url + path, timeout=CLIENT_TIMEOUT_S, verify=self.trust, **request)

    def log_lines(self) -> list[dict[str, Any]]:
        """The JSON log lines so far."""
        lines = self.log.read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def close(self) -> None:
        """End the server if it still runs."""
        if self.process.poll() is None:
            self.stop()

    def stop(self, how: signal.Signals = signal.SIGINT) -> int:
        """Ask the server to end and wait; returns its exit status."""
        self.process.send_signal(how)
        return self.process.wait(STOP_TIMEOUT_S)


def environment(**settings: object) -> dict[str, str]:
    """This process's environment with the given VITRINE_ settings and no others.

    Nor with what `make test ARGS=…` would hand down to another make.
    """
    dropped = ("VITRINE_", "MAKE", "MFLAGS", "ARGS")
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(dropped)}
    inherited["BENTOML_DO_NOT_TRACK"] = "True"
    return inherited | {f"VITRINE_{name.upper()}": str(value) for name, value in settings.items()}


def command(port: int) -> list[str]:
    """The command that `make serve` runs."""
    return [sys.executable, "-m", "service", "--port", str(port)]


def bentoml_command(port: int) -> list[str]:
    """The same service under BentoML's own server."""
    bentoml = [sys.executable, "-m", "bentoml"]
    return [*bentoml, "serve", "service.service:Vitrine", "--port", str(port)]


def free_port() -> int:
    """A port that nothing listens on.

    It is not one of those that Linux gives to connections: while the server starts, a client that
    runs beside it could get it.
    """
    while True:
        port = 10_000 + secrets.randbelow(20_000)  # other than random's, no test sets its seed
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


@contextlib.contextmanager
def running(
    start: Callable[[int], list[str]], folder: Path, port: int | None = None, /, **settings: object
) -> Iterator[Server]:
    """Start a server, wait until it is ready, and end it; `folder` gets its log.

    With `tls_cert_file` among the settings it speaks TLS, and is trusted by that certificate.
    """
    port = port or free_port()
    log = folder / f"server-{port}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            start(port), cwd=CHECKOUT, env=environment(**settings), stderr=output, stdout=output
        )
    server = Server(f"http://127.0.0.1:{port}", process, log)
    if "tls_cert_file" in settings:
        server.url = f"https://127.0.0.1:{port}"
        server.trust = ssl.create_default_context(cafile=settings["tls_cert_file"])  # type: ignore[arg-type]
        server.trust.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    with contextlib.closing(server):
        wait_until_ready(server)
        yield server


def serve(
    folder: Path, port: int | None = None, /, **settings: object
) -> contextlib.AbstractContextManager[Server]:
    """The server that `make serve` starts, until the end of the block."""
    return running(command, folder, port, **settings)


def come_true(holds: Callable[[], bool], within_s: float = 30) -> bool:
    """Whether a condition holds, now or after a while; the time is reached only in a failure."""
    deadline = time.monotonic() + within_s
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def wait_until_ready(server: Server) -> None:
    """Return once /readyz is 200; raises RuntimeError, with the log, if that does not come."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if server.process.poll() is not None:
            raise RuntimeError(f"the server ended: {server.log.read_text()}")
        with contextlib.suppress(httpx.TransportError):
            if server.get("/readyz").status_code == httpx.codes.OK:
                return
        time.sleep(0.05)
    raise RuntimeError(f"not ready within {START_TIMEOUT_S} s: {server.log.read_text()}")
