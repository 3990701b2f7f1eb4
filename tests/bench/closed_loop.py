"""Closed loop: a number of connections, each asking again as soon as it is answered (by wrk)."""

import json
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.bench.systems import Running

SCRIPT = Path(__file__).with_name("wrk.lua")


@dataclass(frozen=True)
class Load:
    """What one run of wrk measured."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    errors: int

    @property
    def rate(self) -> float:
        """Requests/s that were answered with success."""
        return (self.requests - self.errors) / self.seconds


def require_wrk() -> None:
    """End the process with a message if wrk is not installed."""
    if shutil.which("wrk") is None:
        raise SystemExit("error: wrk is missing: it makes the load (on Debian: apt install wrk)")


def measure(running: Running, connections: int, seconds: float) -> Load:
    """Load a system for some whole seconds; raises RuntimeError if every request failed."""
    payload = running.system.payload
    with tempfile.NamedTemporaryFile() as body:
        body.write(payload.body)
        body.flush()
        headers = [text for pair in payload.headers.items() for text in pair]
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:.0f}s", "-s", str(SCRIPT)]
        finished = subprocess.run(
            [*command, running.url + payload.path, "--", body.name, *headers],
            capture_output=True,
            text=True,
            check=True,
        )
    (line,) = (line for line in finished.stdout.splitlines() if line.startswith("JSON "))
    load = Load(**json.loads(line.removeprefix("JSON ")))
    if load.errors >= load.requests:
        raise RuntimeError(f"{running.system.name}: {load.errors} of {load.requests} failed")
    return load
