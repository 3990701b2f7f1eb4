"""`make load`: load on a service that is started for it, or on a running one."""

import argparse
import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.load.run import run_locust
from tests.load.shapes import SHAPES, STEP
from tests.server import CHECKOUT, serve


def main() -> int:
    """Run, say where the reports are; gives Locust's exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.load",
        description=__doc__,
        epilog="Other options go to Locust: --mix, --images, --think-time, --max-p99-ms, …",
    )
    parser.add_argument("--time-s", type=float, default=120, help="of the run (%(default)s)")
    parser.add_argument("--users", type=int, default=50, help="at the peak (%(default)s)")
    parser.add_argument("--shape", choices=[*SHAPES, STEP], default="ramp", help="(%(default)s)")
    parser.add_argument("--processes", type=int, default=1, help="of Locust (%(default)s)")
    parser.add_argument("--host", help="of a running service (one is started)")
    parser.add_argument("--out", type=Path, default=CHECKOUT / ".load", help="(%(default)s)")
    arguments, others = parser.parse_known_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    with _service(arguments.host, arguments.out) as host:
        result = run_locust(
            host,
            users=arguments.users,
            time_s=arguments.time_s,
            folder=arguments.out.resolve(),
            shape=arguments.shape,
            processes=arguments.processes,
            arguments=tuple(others),
            show=True,
        )
    print(f"{result.requests} requests, {result.failures} failures")
    print(f"Report: {result.report}; CSV files beside it")
    return result.exit_code


@contextlib.contextmanager
def _service(host: str | None, folder: Path) -> Iterator[str]:
    """The address of a running service; without one, of one that ends with the block."""
    if host:
        yield host.rstrip("/")
        return
    with serve(folder) as server:
        yield server.url


if __name__ == "__main__":
    sys.exit(main())
