"""Look at a server again and again while something else is done to it."""

import contextlib
import threading
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def watching(look: Callable[[], None], every_s: float) -> Iterator[None]:
    """Look every so many seconds, in a thread, until the end of the block."""
    ended = threading.Event()

    def repeat() -> None:
        while not ended.wait(every_s):
            look()

    thread = threading.Thread(target=repeat)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
