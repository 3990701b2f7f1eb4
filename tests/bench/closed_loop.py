"""Closed loop: a number of connections, each asking again as soon as it is answered (by wrk)."""

import json
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.bench.servers import Running
from tests.bench.systems import cores

SCRIPT = Path(__file__).with_name("wrk.lua")


@dataclass(frozen=True)
class Load:
    """What one run of wrk measured."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    errors: int
    cpu_ms: float
    """Of all processes of the server, a request."""

    @property
    def rate(self) -> float:
        """Requests/s that were answered with success."""
        return (self.requests - self.errors) / self.seconds


def require_wrk() -> None:
    """End the process with a message if wrk is not installed."""
    if shutil.which("wrk") is None:
        raise SystemExit("error: wrk is missing: it makes the load (on Debian: apt install wrk)")


def measure(running: Running, connections: int, seconds: float) -> Load:
    """Load a system for some whole seconds; raises RuntimeError if none succeeds."""
    payload = running.system.payload
    with tempfile.NamedTemporaryFile() as body:
        body.write(payload.body)
        body.flush()
        headers = [text for pair in payload.headers.items() for text in pair]
        threads = min(max(cores(), len(running.ports)), connections)
        command = ["wrk", f"-t{threads}", f"-c{connections}", f"-d{seconds:.0f}s"]
        ports = ",".join(str(port) for port in running.ports)
        before_s = running.cpu_s()
        finished = subprocess.run(
            [*command, "-s", str(SCRIPT), running.url + payload.path, "--", body.name, *headers],
            env=os.environ | {"PORTS": ports},
            capture_output=True,
            text=True,
            check=True,
        )
        cpu_s = running.cpu_s() - before_s
    (line,) = (line for line in finished.stdout.splitlines() if line.startswith("JSON "))
    counts = json.loads(line.removeprefix("JSON "))
    load = Load(**counts, cpu_ms=cpu_s / max(1, counts["requests"]) * 1000)
    if load.errors >= load.requests:
        raise RuntimeError(
            f"no request of {load.requests} was answered with success in {seconds} s"
        )
    return load
