"""A system's processes: started, asked whether they are ready, measured, paused and ended."""

import contextlib
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import psutil

from tests.bench.systems import ENVIRONMENTS, HOST, System
from tests.server import environment, free_port

START_TIMEOUT_S = 120
STOP_TIMEOUT_S = 30


@dataclass
class Running:
    """A started system."""

    system: System
    ports: list[int]
    """One, or one for each worker of a system whose load is split evenly."""
    roots: list[subprocess.Popen[bytes]]
    start_s: float
    """Seconds until all of it was ready."""

    @property
    def url(self) -> str:
        """Of the first port."""
        return f"{_scheme(self.system)}://{HOST}:{self.ports[0]}"

    def processes(self) -> list[psutil.Process]:
        """All of them, parents before their children."""
        parents = [psutil.Process(root.pid) for root in self.roots]
        return [
            process for parent in parents for process in (parent, *parent.children(recursive=True))
        ]

    def memory_bytes(self) -> int:
        """Proportional set size of all its processes."""
        return sum(process.memory_full_info().pss for process in self.processes())

    def cpu_s(self) -> float:
        """CPU seconds of all its processes so far."""
        times = [process.cpu_times() for process in self.processes()]
        return float(sum(of_one.user + of_one.system for of_one in times))

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Let none of its processes run meanwhile: some poll even when nobody asks them."""
        processes = self.processes() if self.system.survives_a_pause else []
        for process in processes:
            process.suspend()
        try:
            yield
        finally:
            for process in reversed(processes):
                process.resume()

    def check(self) -> None:
        """Raise RuntimeError unless it answers a payload with success."""
        payload = self.system.payload
        answer = httpx.post(
            self.url + payload.path,
            content=payload.body,
            headers=payload.headers,
            timeout=60,
            verify=self.system.trust or True,
        )
        if answer.status_code != httpx.codes.OK:
            raise RuntimeError(f"{self.system.name}: expected 200, got {answer}: {answer.text}")


@contextlib.contextmanager
def started(system: System, workers: int, **settings: object) -> Iterator[Running]:
    """Start a system, wait until it is ready, end it with all its processes."""
    servers = workers if system.is_even else 1
    each = workers // servers if servers else workers
    variables = environment(**{"workers": max(1, each), **system.settings, **settings})
    variables |= {"CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "3"}
    # Its default is a folder in the home, which a start empties under other servers' feet.
    variables["BENTOML_HOME"] = str(ENVIRONMENTS / "bentoml")
    begun = time.perf_counter()
    with contextlib.ExitStack() as until_ended:
        ports = [free_port() for _ in range(servers)]
        roots = [
            until_ended.enter_context(_process(system, port, each, variables)) for port in ports
        ]
        for port, root in zip(ports, roots, strict=True):
            _wait_until_ready(system, port, root)
        running = Running(system, ports, roots, time.perf_counter() - begun)
        running.check()
        yield running


@contextlib.contextmanager
def _process(
    system: System, port: int, workers: int, variables: dict[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        system.command(port, workers),
        cwd=system.checkout,
        env=variables,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        _end(process)


def _scheme(system: System) -> str:
    return "https" if system.trust else "http"


def _wait_until_ready(system: System, port: int, process: subprocess.Popen[bytes]) -> None:
    ends = time.perf_counter() + START_TIMEOUT_S
    url = f"{_scheme(system)}://{HOST}:{port}{system.ready_path}"
    with httpx.Client(verify=system.trust or True) as client:
        while time.perf_counter() < ends:
            if process.poll() is not None:
                raise RuntimeError(f"{process.args!r} ended with {process.returncode}")
            with contextlib.suppress(httpx.TransportError):
                if client.get(url).status_code == httpx.codes.OK:
                    return
            time.sleep(0.01)
    raise RuntimeError(f"{process.args!r} was not ready within {START_TIMEOUT_S} s")


def _end(process: subprocess.Popen[bytes]) -> None:
    children = (
        psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    )
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for child in children:  # what a server did not end itself
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
