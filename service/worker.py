"""One worker process: uvicorn on connections that the supervisor hands over."""

import asyncio
import contextlib
import mmap
import socket
from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import uvicorn
from uvicorn.server import ServerState

from service.app import App, settle
from service.connection import Connection
from service.errors import StartError
from service.front import fronted
from service.pages import LazyPages
from service.settings import Settings

READY = b"ready"

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
    ) -> None:
        super().__init__(config)
        self._make_connection = make_connection
        self._channel = channel
        self._adopting: set[asyncio.Task[None]] = set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Say that the app has started, and adopt."""
        assert not sockets
        await super().startup(sockets=[])
        settle()
        self._channel.setblocking(False)
        asyncio.get_running_loop().add_reader(self._channel, self._adopt)
        self._channel.send(READY)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Adopt what is still on its way, answer it, then end."""
        self._adopt()
        asyncio.get_running_loop().remove_reader(self._channel)
        await asyncio.gather(*self._adopting)
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
                connection = socket.socket(fileno=handles[0])
                connection.setblocking(False)
                task = loop.create_task(self._take_over(connection))
                self._adopting.add(task)
                task.add_done_callback(self._adopting.discard)

    async def _take_over(self, connection: socket.socket) -> None:
        await asyncio.get_running_loop().connect_accepted_socket(
            lambda: self._make_connection(self.config, self.server_state), connection
        )


def run_worker(settings: Settings, number: int, channel: socket.socket, closed: Closed) -> None:
    """Load the models, then serve until SIGTERM; what stops the start goes through the channel."""

    def note_closed() -> None:
        closed[number] += 1

    try:
        app = App(settings, number)
    except StartError as error:
        channel.sendall(str(error).encode())
        raise SystemExit(1) from error
    config = uvicorn.Config(
        fronted(LazyPages(settings), lambda: app),
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
    )
    with contextlib.closing(app):
        make_connection = partial(Connection, app=app, on_close=note_closed)
        AdoptingServer(config, make_connection, channel).run()
