"""`python -m service`: serve every model over HTTP, with one worker process per CPU core or GPU."""

import argparse
import os
from functools import cache
from typing import Any

EPILOG = "Everything else is set in the environment, by variables that begin with VITRINE_."


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"expected a port from 0 to 65535, got {text!r}")
    return int(text)


def main() -> None:
    """Read the arguments, then start."""
    parser = argparse.ArgumentParser(prog="python -m service", description=__doc__, epilog=EPILOG)
    parser.add_argument(
        "--host",
        default="0.0.0.0",
        help="name or address to listen on; 127.0.0.1 takes connections from this machine only, "
        "0.0.0.0 from everywhere over IPv4, :: over IPv6 too (default: %(default)s)",
    )
    parser.add_argument(
        "--port", type=_port, default=3000, help="0 takes a free one (default: %(default)s)"
    )
    arguments = parser.parse_args()
    # NumPy is not used for linear algebra here, and its threads would be lost in a fork.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from service.server.supervisor import serve  # NumPy comes with it
    from service.settings import asked_log_format, read_settings
    from service.telemetry.log import stop_on_error

    with stop_on_error(asked_log_format()):
        serve(read_settings(), arguments.host, arguments.port, _bentoml_schema)


@cache
def _bentoml_schema() -> dict[str, Any]:
    # Only when it is asked for: BentoML takes longer to import than all that a worker loads.
    from service.server.app import freeze_loaded_objects
    from service.service import SETTINGS, bentoml_schema
    from service.telemetry.log import configure_logging

    configure_logging(SETTINGS.log_format)  # BentoML has configured its own
    schema = bentoml_schema()
    freeze_loaded_objects()  # BentoML's modules stay, too
    return schema


if __name__ == "__main__":
    main()
