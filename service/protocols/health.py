"""The routes that are polled: whether this server is alive and ready, and its metrics."""

import asyncio
import contextlib
from collections.abc import Iterator, Mapping
from functools import partial

from service.errors import Unavailable, UnknownRoute
from service.protocols import openapi
from service.protocols.request import Request
from service.protocols.response import Response, json_response
from service.protocols.route import Context, Route
from service.telemetry.metrics import CONTENT_TYPE


async def live(context: Context, _: Request, __: Mapping[str, str]) -> Response:
    """GET /livez."""
    _check_engines(context)
    return json_response({"status": "alive"})


async def ready(context: Context, _: Request, __: Mapping[str, str]) -> Response:
    """GET /readyz; a process that answers at all has proven its models on their samples."""
    _check_engines(context)
    if context.is_draining():
        raise Unavailable("shutting down")
    return json_response({"status": "ready"})


def _check_engines(context: Context) -> None:
    with _reading_metrics():
        failing = context.metrics.failing_engines()
    if failing:
        raise Unavailable(f"the engine of {', '.join(failing)} is failing; see the log")


async def metrics(context: Context, _: Request, __: Mapping[str, str]) -> Response:
    """GET /metrics."""
    if not context.settings.metrics:
        raise UnknownRoute("metrics are turned off (VITRINE_METRICS=false)")
    loop = asyncio.get_running_loop()
    with _reading_metrics():
        text = await loop.run_in_executor(context.scraper, context.metrics.expose)
    return Response(text, CONTENT_TYPE)


_polled = partial(Route, "GET", protocol="page", is_probe=True)


@contextlib.contextmanager
def _reading_metrics() -> Iterator[None]:
    """Raise Unavailable where the files of the workers cannot be read."""
    try:
        yield
    except OSError as error:  # out of file descriptors
        raise Unavailable(f"cannot read the metrics: {error.strerror}") from error


_probe = partial(_polled, scope=None)
ROUTES = (
    _probe(path="/livez", is_health=True, handler=live, describe=openapi.live_operation),
    _probe(  # BentoML's name
        path="/healthz", is_health=True, handler=live, describe=openapi.live_operation
    ),
    _probe(path="/readyz", is_health=True, handler=ready, describe=openapi.ready_operation),
    _polled(path="/metrics", handler=metrics, describe=openapi.metrics_operation, scope="metrics"),
)
