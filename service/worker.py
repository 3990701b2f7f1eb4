"""One worker process: uvicorn on connections that the supervisor hands over."""

import asyncio
import mmap
import socket
from typing import TypeAlias, cast

import uvicorn
from bentoml._internal.context import server_context
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.service import Vitrine, VitrineService

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
        """Start the app, then say so, then adopt."""
        assert not sockets
        await super().startup(sockets=[])
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


def run_worker(number: int, channel: socket.socket, closed: Closed) -> None:
    """Load the models, then serve until SIGTERM; what stops the start goes through the channel."""

    class CountingProtocol(HttpToolsProtocol):
        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            closed[number] += 1

    server_context.worker_index = number + 1
    vitrine = cast(VitrineService, Vitrine)  # what BentoML's decorator makes of the class
    app = vitrine.to_asgi()
    try:
        vitrine()  # the app's own start finds it there
    except SystemExit as error:
        channel.sendall(str(error).encode())
        raise SystemExit(1) from error
    config = uvicorn.Config(
        app,
        http=CountingProtocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
    )
    AdoptingServer(config, CountingProtocol, channel).run()
