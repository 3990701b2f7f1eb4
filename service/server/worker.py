"""One worker process: uvicorn on the connections that the supervisor hands over."""

import asyncio
import contextlib
import math
import signal
import socket
from collections.abc import Callable
from functools import partial

import uvicorn
from starlette.types import ASGIApp
from uvicorn.server import ServerState

from service.errors import StartError
from service.heap import return_large_blocks
from service.server.app import App, freeze_loaded_objects, limit_decode_threads
from service.server.connection import Connection
from service.server.front import Front, traced
from service.server.heartbeat import beat
from service.server.process import SharedCounts
from service.server.tls import CLOSE_TIMEOUT_S, HANDSHAKE_TIMEOUT_S, Tls
from service.settings import Settings
from service.telemetry import tracing
from service.telemetry.log import logger

READY = b"ready"
OPENING_TIMEOUT_S = 1.0
LINGER_S = 0.05  # uvicorn closes a connection whose first request has arrived but is not read yet
STOP_MARGIN_S = 5  # beyond the longest request, for a client that does not read its answer


class ChannelServer(uvicorn.Server):
    """A uvicorn server that gets its connections over a channel, until that is closed."""

    def __init__(
        self,
        config: uvicorn.Config,
        make_connection: Callable[[uvicorn.Config, ServerState], Connection],
        channel: socket.socket,
        *,
        on_failed: Callable[[], None],
        on_startup: Callable[[], None],
        on_shutdown: Callable[[], None],
        tls: Tls,
    ) -> None:
        super().__init__(config)
        self._tls = tls
        self._on_failed = on_failed
        self._on_startup = on_startup
        self._on_shutdown = on_shutdown
        self._make_connection = make_connection
        self._channel = channel
        self._opening: set[asyncio.Task[None]] = set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Tell the supervisor that the worker is ready, and open connections from now on."""
        assert not sockets
        await super().startup(sockets=[])
        freeze_loaded_objects()
        limit_decode_threads()
        self._on_startup()
        self._channel.setblocking(False)
        asyncio.get_running_loop().add_reader(self._channel, self._receive_connections)
        self._channel.send(READY)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Open the connections that are still in the channel, answer them, then end."""
        self._on_shutdown()  # the supervisor chooses another worker from now on
        self._channel.shutdown(socket.SHUT_RD)
        self._receive_connections()
        asyncio.get_running_loop().remove_reader(self._channel)
        if self._opening:  # whoever has not ended its TLS handshake by then has not asked yet
            await asyncio.wait(self._opening, timeout=OPENING_TIMEOUT_S)
        await asyncio.sleep(LINGER_S)
        await super().shutdown(sockets)

    def _receive_connections(self) -> None:
        """Open every connection that is in the channel; each is one message."""
        loop = asyncio.get_running_loop()
        with contextlib.suppress(BlockingIOError):
            while True:
                data, handles, _, _ = socket.recv_fds(self._channel, 1, 1)
                if not data:  # the supervisor has ended
                    loop.remove_reader(self._channel)
                    self.should_exit = True
                    return
                if not handles:
                    logger.error("no file descriptor is left: a connection is refused")
                    self._on_failed()
                    continue
                connection = socket.socket(fileno=handles[0])
                connection.setblocking(False)
                task = loop.create_task(self._open(connection))
                self._opening.add(task)
                task.add_done_callback(self._opening.discard)

    async def _open(self, connection: socket.socket) -> None:
        context = self._tls.context
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: self._make_connection(self.config, self.server_state),
                connection,
                ssl=context,
                ssl_handshake_timeout=HANDSHAKE_TIMEOUT_S if context else None,
                ssl_shutdown_timeout=CLOSE_TIMEOUT_S if context else None,
            )
        except OSError:  # in a TLS handshake, too
            connection.close()
            self._on_failed()


def run_worker(
    load: Callable[[], App], number: int, channel: socket.socket, counts: SharedCounts
) -> None:
    """Load the models, then serve until SIGTERM; send a start error through the channel."""

    def count_closed() -> None:
        counts.closed[number] += 1

    def reload() -> None:
        app.reload()
        tls.reload()

    def on_startup() -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})  # one may wait
        beat(counts.beats, number)

    def on_shutdown() -> None:
        counts.ending[number] = 1

    # What is read while it loads may be old by the time that SIGHUP comes: the signal waits.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    return_large_blocks()
    try:
        app = load()
        tls = Tls(app.settings)
        asgi = traced(Front(lambda: app))
    except (StartError, OSError) as error:
        message = f"cannot start: {error}" if isinstance(error, OSError) else str(error)
        channel.sendall(message.encode())
        raise SystemExit(1) from error
    make_connection = partial(
        Connection,
        dispatcher=app.dispatcher,
        timeout_s=app.settings.request_timeout_s,
        on_close=count_closed,
    )
    try:
        ChannelServer(
            _config(asgi, app.settings),
            make_connection,
            channel,
            on_failed=count_closed,
            tls=tls,
            on_startup=on_startup,
            on_shutdown=on_shutdown,
        ).run()
    finally:
        app.close()
        tracing.close()


def _config(asgi: ASGIApp, settings: Settings) -> uvicorn.Config:
    """How uvicorn serves: without its logs, its header Server, and WebSockets."""
    return uvicorn.Config(
        asgi,
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=settings.keep_alive_s,  # type: ignore[arg-type]  # for call_later
        timeout_graceful_shutdown=math.ceil(settings.request_timeout_s) + STOP_MARGIN_S,
    )
