"""From a request to its response: route, token, rate, overload, deadline, errors, log, metrics.

Each is here once, for the fast path and for ASGI.
"""

import asyncio
import time
from collections.abc import Callable, Iterator

from service.call import Call
from service.errors import DeadlinePassed, RequestError, Unauthorized, VitrineError
from service.protocols.cors import Cors
from service.protocols.rates import RateLimit
from service.protocols.request import Request
from service.protocols.response import Response, error_response
from service.protocols.route import Context, Match, Router
from service.protocols.tokens import Tokens
from service.telemetry.log import log_call, unexpected_error
from service.telemetry.metrics import UNKNOWN_MODEL


class Dispatcher:
    """Answers requests from a context; `on_answer` sees each call before its answer is sent.

    Everybody is let in until `require` is called.
    """

    def __init__(self, context: Context, rate: RateLimit | None = None) -> None:
        origins = context.settings.cors_origins
        self.router = Router(context.routes)
        self._context = context
        self._tokens: Tokens | None = None
        self._needs_certificate = context.settings.tls_client_ca_file is not None
        self._rate = rate
        self._cors = Cors(origins) if origins else None
        self._probes = {route.path for route in context.routes if route.is_probe}
        self.inference_paths = {
            path.encode(): self.router.find("POST", path) for path in _paths(context)
        }
        """The routes of the paths of all served models, as they come over the wire."""
        self.on_answer: Callable[[Call], None] | None = None

    def require(self, tokens: Tokens) -> None:
        """From now on let in these tokens and no others; raises OSError and changes nothing."""
        if self._rate is not None:
            self._rate.watch(tokens)
        self._tokens = tokens

    async def respond(self, request: Request) -> Response:
        """The response; every error becomes one."""
        preflight = self._cors.preflight(request) if self._cors else None
        if preflight is not None:
            return self._finished(request, preflight)
        try:
            match = self.admit(request)
        except VitrineError as error:
            return self.refuse(request, error)
        return await self.answer(match, request)

    def admit(self, request: Request, match: Match | None = None) -> Match:
        """The route of a request, checked as far as is possible before the body is read.

        `match` is its route where that is known already. Raises Unauthorized, Forbidden,
        UnknownRoute, WrongMethod, UnknownModel or Unavailable.
        """
        call = request.call
        match = match or self._find(request)
        route, params = match
        call.protocol = route.protocol
        if self._needs_certificate and not route.is_health:
            call.token = _certified(request)
        if self._tokens is not None and route.scope is not None:
            request.token = self._tokens.identify(request.raw_headers)
            call.token = request.token.name
            request.token.check_scope(route.scope)
        if route.is_inference and "name" in params:
            registry = self._context.registry
            registry.select(params["name"], params.get("version"), call).check_room(1)
        return match

    def _find(self, request: Request) -> Match:
        request.call.protocol = "page"
        try:
            return self.router.find(request.method, request.path)
        except RequestError:
            # Callers without a certificate or a token do not learn the routes.
            if self._needs_certificate:
                _certified(request)
            if self._tokens is not None:
                request.call.token = self._tokens.identify(request.raw_headers).name
            raise

    async def answer(self, match: Match, request: Request) -> Response:
        """The handler's response; every error becomes its HTTP status and `{"error": …}` here.

        The rate of a token counts a request here, not in `admit`, which may be called again.
        """
        timeout_s: float | None = None
        try:
            if match.route.is_inference:
                if self._rate is not None and request.token is not None:
                    self._rate.take(request.token, time.monotonic())
                request.share_of_body = self._context.share_of_body
                timeout_s = request.set_timeout(self._context.settings.request_timeout_s)
            async with asyncio.timeout(timeout_s):
                response = await match.route.handler(self._context, request, match.params)
        except (TimeoutError, DeadlinePassed):
            response = error_response(DeadlinePassed(f"no answer within {timeout_s:g} s"))
        except VitrineError as error:
            response = error_response(error)
        except Exception as error:
            response = error_response(unexpected_error(request.call, error))
        finally:
            request.release()
        return self._finished(request, response)

    def refuse(self, request: Request, error: VitrineError) -> Response:
        """The response to a request that is not admitted."""
        return self._finished(request, error_response(error))

    def _finished(self, request: Request, response: Response) -> Response:
        if self.on_answer is not None:
            self.on_answer(request.call)
        if self._cors is not None:
            response = self._cors.allow(request, response)
        return response.closing() if self._context.is_draining() else response

    def conclude(self, call: Call, status: int, method: str = "", path: str = "") -> None:
        """Count and log a call that has ended."""
        metrics = self._context.metrics
        seconds = time.perf_counter() - call.started
        model = call.model or UNKNOWN_MODEL
        metrics.requests[model, call.version, call.protocol, str(status)].inc()
        metrics.request_seconds[model, call.version, call.protocol].observe(seconds)
        if self._context.settings.log_requests and path not in self._probes:
            log_call(call, status, seconds, method=method, path=path)


def _certified(request: Request) -> str:
    """The name in the client's certificate; raises Unauthorized without one.

    There is no scheme of HTTP for it (RFC 9110, section 11): the one in the answer is ours.
    """
    if not request.client_name:
        raise Unauthorized("expected a client certificate, got none", scheme="Certificate")
    return request.client_name


def _paths(context: Context) -> Iterator[str]:
    """Every path on which a served model answers."""
    registry = context.registry
    for route in context.routes:
        if route.is_inference and "{name}" not in route.path:
            yield route.path
        elif route.is_inference:
            for model in (model for name in registry.names() for model in registry.versions(name)):
                name, version = model.manifest.name, model.manifest.version
                yield route.path.replace("{name}", name).replace("{version}", version)
