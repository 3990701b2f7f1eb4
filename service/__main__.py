"""`python -m service`: serve on workers that share out connections evenly."""

import argparse
import os
from typing import Any


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"expected a port from 0 to 65535, got {text!r}")
    return int(text)


def main() -> None:
    """Read the arguments, then start."""
    parser = argparse.ArgumentParser(prog="python -m service", description=__doc__)
    parser.add_argument("--host", default="0.0.0.0", help="address to listen on (%(default)s)")
    parser.add_argument("--port", type=_port, default=3000, help="0 takes a free one (%(default)s)")
    arguments = parser.parse_args()
    # NumPy is not used for linear algebra here, and its threads would be lost in a fork.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from service.server.app import stop_on_error  # NumPy comes with it
    from service.server.supervisor import serve
    from service.settings import read_settings

    with stop_on_error():
        serve(read_settings(), arguments.host, arguments.port, _bentoml_schema)


def _bentoml_schema() -> dict[str, Any]:
    # Only when it is asked for: BentoML takes longer to import than all that a worker loads.
    from service.service import bentoml_schema

    return bentoml_schema()


if __name__ == "__main__":
    main()
