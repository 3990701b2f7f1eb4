"""How quickly a body that holds memory has to come: a slow one keeps that memory from others."""

import asyncio

from starlette.types import Message, Receive

from service.errors import TooSlow

PERIOD_S = 5.0
MIN_BYTES = 65_536
"""In each period of waiting for the client; less may come only at the body's end."""


class Pace:
    """Receives the messages of a body, as long as they come quickly enough."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._left_s: float | None = PERIOD_S
        """Of the period; None once the body is whole."""
        self._came = 0
        """Bytes in the period."""

    async def receive(self) -> Message:
        """The next message; raises TooSlow. Only the time until it comes counts, not ours."""
        if self._left_s is None:
            return await self._receive()
        now = asyncio.get_running_loop().time
        began = now()
        try:
            async with asyncio.timeout(self._left_s):
                message = await self._receive()
        except TimeoutError:
            raise TooSlow(
                f"expected {MIN_BYTES} bytes of the body, or its end, in {PERIOD_S:g} s, "
                f"got {self._came} bytes"
            ) from None
        self._left_s -= now() - began
        self._came += len(message.get("body", b""))
        if self._came >= MIN_BYTES:
            self._left_s, self._came = PERIOD_S, 0
        if not message.get("more_body"):
            self._left_s = None
        return message
