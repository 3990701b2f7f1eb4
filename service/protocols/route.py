"""The type of a route, and the router. Each protocol's module declares its own `ROUTES`.

Metrics, log and API document are derived from them.
"""

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

from service.errors import UnknownRoute, WrongMethod
from service.inference.budget import Share
from service.inference.registry import Registry
from service.protocols.request import Request
from service.protocols.response import Response
from service.settings import Settings
from service.telemetry.metrics import Metrics

Json = dict[str, Any]
CACHED_PATHS = 1024
# A longer path is nobody's model, and is not to be kept: URLs may have 64 KB.
MAX_CACHED_PATH = 256


@dataclass(frozen=True)
class Context:
    """What handlers answer from."""

    settings: Settings
    registry: Registry
    metrics: Metrics
    routes: "tuple[Route, ...]"
    scraper: Executor
    """Writes the metrics' text: the threads that decode images may be busy."""
    is_draining: Callable[[], bool]
    bentoml_schema: Callable[[], Json]
    """What BentoML's client reads; imports BentoML."""
    share_of_body: Callable[[int | None], Share]
    """The memory for a request body of a size; of None where it was not declared."""


Handler = Callable[[Context, Request, Mapping[str, str]], Awaitable[Response]]


@dataclass(frozen=True)
class Route:
    """One route; `{name}` in its path stands for one segment."""

    method: str
    path: str
    protocol: str
    """Its value of the metrics' label."""
    handler: Handler
    describe: Callable[[Context], Json] | None
    """The OpenAPI operation; None leaves the route out of the document."""
    is_inference: bool = False
    """Whether a model answers: such a request has a deadline, and is refused under overload."""
    task: str = ""
    """The one task whose models answer it; empty for any."""
    is_health: bool = False
    """Whether orchestrators ask it, which have no client certificate."""
    is_probe: bool = False
    """Whether it is polled: neither logged nor traced."""
    scope: str | None = "predict"
    """What a token has to be for, where tokens are needed; None leaves the route open."""


class Match(NamedTuple):
    """A route, and the path segment for each name in its path."""

    route: Route
    params: Mapping[str, str]


class Router:
    """Finds the route of a method and a path."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._by_path: dict[str, dict[str, Route]] = {}
        for route in routes:
            self._by_path.setdefault(route.path, {})[route.method] = route
        self._patterns = {path: _pattern(path) for path in self._by_path}
        self.cached = lru_cache(CACHED_PATHS)(self._find)

    def find(self, method: str, path: str) -> Match:
        """The route of a request; raises UnknownRoute or WrongMethod."""
        find = self.cached if len(path) <= MAX_CACHED_PATH else self._find
        return find(method, path)

    def _find(self, method: str, path: str) -> Match:
        for known, pattern in self._patterns.items():
            found = pattern.fullmatch(path)
            if found is None:
                continue
            methods = self._by_path[known]
            route = methods.get("GET" if method == "HEAD" else method)
            if route is None:
                allowed = [name for one in methods for name in _with_head(one)]
                raise WrongMethod(f"{path}: expected {allowed[0]}, got {method}", allowed)
            return Match(route, found.groupdict())
        raise UnknownRoute(
            f"no route {path!r:.200}: expected one of {', '.join(self._by_path)}; "
            "/docs describes them"
        )


def _pattern(path: str) -> re.Pattern[str]:
    return re.compile(re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/:]+)", re.escape(path)))


def _with_head(method: str) -> tuple[str, ...]:
    return ("GET", "HEAD") if method == "GET" else (method,)
