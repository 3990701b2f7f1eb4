"""What follows a connection's last answer: the client may still send, and is to read it."""

import asyncio

# Data that come for a closed socket make the kernel drop what the client has not read yet.
LINGER_S = 5.0
LINGER_BYTES = 16_000_000


class Linger(asyncio.Protocol):
    """Ends the writing side, drops what still comes, and closes: at the client's end or a limit."""

    def __init__(self, connection: asyncio.Protocol, transport: asyncio.Transport) -> None:
        """Take the transport over from `connection`, which is told when it is lost."""
        self._connection = connection
        self._transport = transport
        self._room = LINGER_BYTES
        self._timer = asyncio.get_running_loop().call_later(LINGER_S, transport.abort)
        transport.set_protocol(self)
        if transport.can_write_eof():  # TLS cannot
            transport.write_eof()

    def data_received(self, data: bytes) -> None:
        """Drop what came."""
        self._room -= len(data)
        if self._room < 0:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the connection."""
        self._timer.cancel()
        self._connection.connection_lost(exc)

    def pause_writing(self) -> None:
        """Nothing more is written."""

    def resume_writing(self) -> None:
        """Nothing more is written."""
