"""What TLS costs: the same server in plain text, with a key on an elliptic curve and with RSA.

`python -m tests.bench.tls`: the figures of service/README.md, "TLS". All three are loaded in turn.
"""

import argparse
import contextlib
import socket
import ssl
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import trustme
from tqdm import tqdm

from tests.bench.closed_loop import measure, require_wrk
from tests.bench.documents import markdown
from tests.bench.servers import Running, started
from tests.bench.systems import HOST, VITRINE, System, cores
from tests.certificates import trust, write_files

KEYS = {"elliptic curve": trustme.KeyType.ECDSA, "RSA 2,048": trustme.KeyType.RSA}
KEPT_CONNECTIONS = 16
PROBE = b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


@dataclass(frozen=True)
class Cost:
    """Of connections or of requests."""

    rate: float
    """Per second."""
    cpu_ms: float
    """Of all processes of the server, for each."""


def new_connections(running: Running, seconds: float) -> Cost:
    """Connections one after the other, each for one small request; none resumes a session."""
    count, before_s, begun = 0, running.cpu_s(), time.perf_counter()
    while time.perf_counter() < begun + seconds:
        _probe(running)
        count += 1
    taken_s = time.perf_counter() - begun
    return Cost(count / taken_s, (running.cpu_s() - before_s) / count * 1000)


def _probe(running: Running) -> None:
    trusted = running.system.trust
    with contextlib.ExitStack() as opened:
        channel = opened.enter_context(socket.create_connection((HOST, running.ports[0])))
        if trusted:
            channel = opened.enter_context(trusted.wrap_socket(channel, server_hostname=HOST))
        channel.sendall(PROBE)
        answer = b""
        while part := channel.recv(65536):
            answer += part
    if not answer.startswith(b"HTTP/1.1 200 "):
        raise RuntimeError(f"expected 200 of /livez, got {answer[:100]!r}")


def kept_connections(running: Running, seconds: float) -> Cost:
    """Small images on connections that stay."""
    load = measure(running, KEPT_CONNECTIONS, seconds)
    return Cost(load.rate, load.cpu_ms)


MEASURES: dict[tuple[str, str], Callable[[Running, float], Cost]] = {
    ("new connections/s, one at a time", "CPU ms a connection"): new_connections,
    (f"requests/s on {KEPT_CONNECTIONS} connections", "CPU ms a request"): kept_connections,
}


def systems(folder: Path) -> dict[str, System]:
    """The server in plain text, and with each kind of key; `folder` gets their files."""
    ca = trustme.CA()
    made = {"plain": VITRINE}
    for name, key_type in KEYS.items():
        place = folder / key_type.name
        place.mkdir()
        files = write_files(place, ca, key_type=key_type)
        settings = files.settings_without_clients()
        made[name] = replace(VITRINE, settings=settings, trust=trust(ca))
    return made


def compare(sides: dict[str, System], rounds: int, seconds: float) -> list[dict[str, list[Cost]]]:
    """By measure, then by side: a cost a round; who is not loaded is paused."""
    costs: list[dict[str, list[Cost]]] = [{name: [] for name in sides} for _ in MEASURES]
    with contextlib.ExitStack() as until_measured:
        running = {
            name: until_measured.enter_context(started(system, cores()))
            for name, system in sides.items()
        }
        order = [*running]
        for number in tqdm(range(rounds + 1), desc="rounds"):
            for of_measure, ask in zip(costs, MEASURES.values(), strict=True):
                for name in order:
                    with contextlib.ExitStack() as paused:
                        for other in order:
                            if other != name:
                                paused.enter_context(running[other].paused())
                        cost = ask(running[name], seconds)
                    if number:  # the first round warms up
                        of_measure[name].append(cost)
            order.reverse()
    return costs


def table(costs: list[dict[str, list[Cost]]]) -> str:
    """Medians, and the median of the ratios of each round, as Markdown."""
    rows = [["", "plain text", *KEYS]]
    for (rate, cpu), of_measure in zip(MEASURES, costs, strict=True):
        for title, figure in ((rate, "rate"), (cpu, "cpu_ms")):
            values = {
                name: [float(getattr(cost, figure)) for cost in measured]
                for name, measured in of_measure.items()
            }
            cells = [f"{median(values['plain']):,.4g}"]
            for name in KEYS:
                pairs = zip(values[name], values["plain"], strict=True)
                ratio = median(one / other for one, other in pairs)
                cells.append(f"{median(values[name]):,.4g} ({ratio:.2f}x)")
            rows.append([title, *cells])
    return markdown(rows)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.tls", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="(%(default)s)")
    parser.add_argument("--seconds", type=int, default=3, help="of each load (%(default)s)")
    arguments = parser.parse_args()
    require_wrk()
    with tempfile.TemporaryDirectory(prefix="vitrine-tls-") as folder:
        print(table(compare(systems(Path(folder)), arguments.rounds, arguments.seconds)))
    print(f"\n{ssl.OPENSSL_VERSION}; {arguments.rounds} rounds of {arguments.seconds} s")


if __name__ == "__main__":
    main()
