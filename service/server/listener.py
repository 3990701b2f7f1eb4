"""The socket that a server listens on."""

import contextlib
import socket

from service.errors import StartError

BACKLOG = 2048


def bind(host: str, port: int) -> socket.socket:
    """Bind a non-blocking socket, which does not listen yet; raises StartError."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        with contextlib.ExitStack() as on_error:
            listener = on_error.enter_context(socket.socket(family, kind, protocol))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.setblocking(False)
            listener.bind(address)
            on_error.pop_all()
    except (OSError, UnicodeError) as error:  # UnicodeError: a name that DNS cannot have
        raise _cannot_listen(host, port, error) from error
    return listener


def listen(listener: socket.socket, scheme: str = "http") -> str:
    """Listen; return the URL; raises StartError."""
    host, port, *_ = listener.getsockname()
    try:
        listener.listen(BACKLOG)
    except OSError as error:  # another process listens there since `bind`
        raise _cannot_listen(host, port, error) from error
    return f"{scheme}://{_in_url(host)}:{port}"


def _cannot_listen(host: str, port: int, error: Exception) -> StartError:
    reason = (isinstance(error, OSError) and error.strerror) or error
    return StartError(f"cannot listen on {_in_url(host)}:{port}: {reason}")


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host
