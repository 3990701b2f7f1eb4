"""One worker process: uvicorn on connections that the supervisor hands over."""

import asyncio
import contextlib
import math
import mmap
import socket
from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import uvicorn
from uvicorn.server import ServerState

from service.errors import StartError
from service.server.app import App, bound_threads, settle
from service.server.connection import Connection
from service.server.front import Front, traced
from service.telemetry import tracing

READY = b"ready"
LINGER_S = 0.05  # uvicorn closes a connection whose first request has come but is not read yet
STOP_MARGIN_S = 5  # beyond the longest request, for a client that does not read its answer

Closed: TypeAlias = "memoryview[int]"
"""Shared by all processes: the connections that each worker has closed so far."""


def shared_counts(workers: int) -> Closed:
    """Counts that forked processes share."""
    return memoryview(mmap.mmap(-1, workers * 8)).cast("Q")


class AdoptingServer(uvicorn.Server):
    """Listens on nothing itself; takes connections from a channel until that is closed."""

    def __init__(
        self,
        config: uvicorn.Config,
        make_connection: Callable[[uvicorn.Config, ServerState], Connection],
        channel: socket.socket,
        on_lost: Callable[[], None],
    ) -> None:
        super().__init__(config)
        self._on_lost = on_lost
        self._make_connection = make_connection
        self._channel = channel
        self._adopting: set[asyncio.Task[None]] = set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Say that the app has started, and adopt."""
        assert not sockets
        await super().startup(sockets=[])
        settle()
        bound_threads()
        self._channel.setblocking(False)
        asyncio.get_running_loop().add_reader(self._channel, self._adopt)
        self._channel.send(READY)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Adopt what is still on its way, answer it, then end."""
        self._channel.shutdown(socket.SHUT_RD)  # from now on the supervisor takes another worker
        self._adopt()
        asyncio.get_running_loop().remove_reader(self._channel)
        await asyncio.gather(*self._adopting, return_exceptions=True)
        await asyncio.sleep(LINGER_S)
        await super().shutdown(sockets)

    def _adopt(self) -> None:
        """Take every connection that lies in the channel; they come one a message."""
        loop = asyncio.get_running_loop()
        with contextlib.suppress(BlockingIOError):
            while True:
                data, handles, _, _ = socket.recv_fds(self._channel, 1, 1)
                if not data:  # the supervisor has ended
                    loop.remove_reader(self._channel)
                    self.should_exit = True
                    return
                if not handles:  # this process has no file descriptor left for it
                    self._on_lost()
                    continue
                connection = socket.socket(fileno=handles[0])
                connection.setblocking(False)
                task = loop.create_task(self._take_over(connection))
                self._adopting.add(task)
                task.add_done_callback(self._adopting.discard)

    async def _take_over(self, connection: socket.socket) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: self._make_connection(self.config, self.server_state), connection
            )
        except OSError:
            connection.close()
            self._on_lost()


def run_worker(
    load: Callable[[], App], number: int, channel: socket.socket, closed: Closed
) -> None:
    """Load the models, then serve until SIGTERM; what stops the start goes through the channel."""

    def note_closed() -> None:
        closed[number] += 1

    try:
        app = load()
        asgi = traced(Front(lambda: app))
    except StartError as error:
        channel.sendall(str(error).encode())
        raise SystemExit(1) from error
    config = uvicorn.Config(
        asgi,
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=math.ceil(app.settings.request_timeout_s) + STOP_MARGIN_S,
    )
    make_connection = partial(Connection, dispatcher=app.dispatcher, on_close=note_closed)
    try:
        AdoptingServer(config, make_connection, channel, note_closed).run()
    finally:
        app.close()
        tracing.close()
