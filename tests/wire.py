"""Connections of a worker in this process: what is answered to bytes, however they are cut."""

import asyncio
import json
from collections.abc import Iterable
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import uvicorn
from uvicorn.server import ServerState

from service.server.app import App
from service.server.connection import Connection
from service.server.front import Front

PATIENCE_S = 20


class Transport(asyncio.Transport):
    """Keeps what is written; tells its protocol, as a socket's would, when it is closed."""

    def __init__(self, protocol: asyncio.BaseProtocol) -> None:
        super().__init__()
        self.written = b""
        self.has_ended = False
        """Whether nothing more can be written."""
        self.too_late = b""
        """What was written after that."""
        self.is_lost = False
        self._protocol = protocol

    def write(self, data: Any) -> None:
        if self.has_ended:
            self.too_late += bytes(data)
        else:
            self.written += bytes(data)

    def get_write_buffer_size(self) -> int:
        return 0

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.has_ended = True

    def is_closing(self) -> bool:
        return self.is_lost

    def close(self) -> None:
        self.has_ended = True
        if not self.is_lost:
            self.is_lost = True
            assert isinstance(self._protocol, asyncio.Protocol)
            asyncio.get_running_loop().call_soon(self._protocol.connection_lost, None)

    def abort(self) -> None:
        self.close()

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def receive(self, data: bytes) -> None:
        """Hand data to the protocol; a closed transport reads nothing."""
        if not self.is_lost:
            assert isinstance(self._protocol, asyncio.Protocol)
            self._protocol.data_received(data)


@dataclass(frozen=True)
class Answer:
    """One answer on a connection."""

    status: int
    headers: dict[bytes, bytes]
    body: bytes

    @property
    def json(self) -> Any:
        """Its body, parsed."""
        return json.loads(self.body)


def answers(written: bytes) -> list[Answer]:
    """All answers in what a server has written; interim ones, too."""
    stream, found = BytesIO(written), []
    while line := stream.readline():
        status, headers = int(line.split()[1]), {}
        while line := stream.readline().strip():
            name, _, value = line.partition(b": ")
            headers[name] = value
        length = int(headers.get(b"content-length", b"0"))
        found.append(Answer(status, headers, stream.read(length)))
    return found


class Wire:
    """Connections to an app in this process."""

    def __init__(self, app: App, timeout_s: float = PATIENCE_S, keep_alive_s: float = 75) -> None:
        self.app = app
        self._timeout_s = timeout_s
        self._config = uvicorn.Config(
            Front(lambda: app),
            http="httptools",
            ws="none",
            lifespan="off",
            log_config=None,
            timeout_keep_alive=keep_alive_s,  # type: ignore[arg-type]  # for call_later
        )
        self.state = ServerState()

    def connect(self) -> tuple[Connection, Transport]:
        """A new connection."""
        connection = self.protocol()
        transport = Transport(connection)
        connection.connection_made(transport)
        return connection, transport

    def protocol(self) -> Connection:
        """A connection without a transport."""
        return Connection(
            self._config, self.state, self.app.dispatcher, self._timeout_s, lambda: None
        )

    async def ask(self, pieces: Iterable[bytes]) -> Transport:
        """A connection on which these pieces have arrived, once all that can be is answered."""
        _, transport = self.connect()
        for piece in pieces:
            transport.receive(piece)
            await asyncio.sleep(0)
        await self.settle()
        return transport

    async def settle(self) -> None:
        """Wait until every task of a request has ended."""
        async with asyncio.timeout(PATIENCE_S):
            while self.state.tasks:
                await asyncio.sleep(0)
        await asyncio.sleep(0)
