"""From a request to its response: route, token, overload, deadline, errors, the log and metrics.

Each is here once, for the fast path and for ASGI.
"""

import asyncio
import time
from collections.abc import Callable

from service.call import Call
from service.errors import DeadlinePassed, RequestError, VitrineError
from service.protocols.request import Request
from service.protocols.response import Response, error_response
from service.protocols.route import Context, Match, Router
from service.protocols.tokens import Tokens
from service.telemetry.log import log_call, unexpected_error
from service.telemetry.metrics import UNKNOWN_MODEL


class Dispatcher:
    """Answers requests from a context; `on_answer` sees each call before its answer is sent."""

    def __init__(self, context: Context, tokens: Tokens) -> None:
        self.router = Router(context.routes)
        self._context = context
        self._tokens = tokens
        self._probes = {route.path for route in context.routes if route.is_probe}
        self.on_answer: Callable[[Call], None] | None = None

    async def respond(self, request: Request) -> Response:
        """The response; every error becomes one."""
        try:
            match = self.admit(request)
        except VitrineError as error:
            return self.refuse(request, error)
        return await self.answer(match, request)

    def admit(self, request: Request) -> Match:
        """The route of a request, checked as far as is possible before the body is read.

        Raises Unauthorized, UnknownRoute, WrongMethod, UnknownModel or Unavailable.
        """
        call = request.call
        call.protocol = "page"
        try:
            match = self.router.find(request.method, request.path)
        except RequestError:
            self._tokens.identify(
                request.headers
            )  # unauthenticated callers do not learn the routes
            raise
        call.protocol = match.route.protocol
        if not match.route.is_probe:
            call.token = self._tokens.identify(request.headers)
        if match.route.is_inference and "name" in match.params:
            registry, params = self._context.registry, match.params
            registry.select(params["name"], params.get("version"), call).check_room(1)
        return match

    async def answer(self, match: Match, request: Request) -> Response:
        """The handler's response; every error becomes its HTTP status and `{"error": …}` here."""
        try:
            if match.route.is_inference:
                response = await self._in_time(match, request)
            else:
                response = await match.route.handler(self._context, request, match.params)
        except VitrineError as error:
            response = error_response(error)
        except Exception as error:
            response = error_response(unexpected_error(request.call, error))
        return self._finished(request, response)

    async def _in_time(self, match: Match, request: Request) -> Response:
        timeout_s = request.set_timeout(self._context.settings.request_timeout_s)
        try:
            async with asyncio.timeout(timeout_s):
                return await match.route.handler(self._context, request, match.params)
        except (TimeoutError, DeadlinePassed) as error:
            raise DeadlinePassed(f"no answer within {timeout_s:g} s") from error

    def refuse(self, request: Request, error: VitrineError) -> Response:
        """The response to a request that is not admitted."""
        return self._finished(request, error_response(error))

    def _finished(self, request: Request, response: Response) -> Response:
        if self.on_answer is not None:
            self.on_answer(request.call)
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
