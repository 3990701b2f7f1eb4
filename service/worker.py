"""One worker process: uvicorn on connections that the supervisor hands over."""

import asyncio
import contextlib
import mmap
import socket
from typing import TypeAlias

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.app import App, settle
from service.errors import StartError
from service.front import fronted
from service.pages import LazyPages
from service.settings import Settings

READY = b"ready"
HANDOVER_BATCH = 64

Closed: TypeAlias = "memoryview[int]"
"""Shared by all processes: the connections that each worker has closed so far."""


def shared_counts(workers: int) -> Closed:
    """Counts that forked processes share."""
    return memoryview(mmap.mmap(-1, workers * 8)).cast("Q")


class AdoptingServer(uvicorn.Server):
    """Listens on nothing itself; takes connections from a channel until that is closed."""

    def __init__(
        self, config: uvicorn.Config, protocol: type[HttpToolsProtocol], channel: socket.socket
    ) -> None:
        super().__init__(config)
        self._protocol = protocol
        self._channel = channel

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
        await super().shutdown(sockets)

    def _adopt(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            data, handles, _, _ = socket.recv_fds(self._channel, HANDOVER_BATCH, HANDOVER_BATCH)
        except BlockingIOError:
            return
        if not data:  # the supervisor has ended
            loop.remove_reader(self._channel)
            self.should_exit = True
        for handle in handles:
            connection = socket.socket(fileno=handle)
            connection.setblocking(False)
            task = loop.create_task(self._take_over(connection))
            self.server_state.tasks.add(task)
            task.add_done_callback(self.server_state.tasks.discard)

    async def _take_over(self, connection: socket.socket) -> None:
        loop = asyncio.get_running_loop()

        await loop.connect_accepted_socket(
            lambda: self._protocol(self.config, self.server_state, self.lifespan.state),
            connection,
        )


def run_worker(settings: Settings, number: int, channel: socket.socket, closed: Closed) -> None:
    """Load the models, then serve until SIGTERM; what stops the start goes through the channel."""

    class CountingProtocol(HttpToolsProtocol):
        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            closed[number] += 1

    try:
        app = App(settings, number)
    except StartError as error:
        channel.sendall(str(error).encode())
        raise SystemExit(1) from error
    config = uvicorn.Config(
        fronted(LazyPages(settings), lambda: app),
        http=CountingProtocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
    )
    with contextlib.closing(app):
        AdoptingServer(config, CountingProtocol, channel).run()
