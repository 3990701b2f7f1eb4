"""Keep what decoders would write about a caller's image out of the log, where nobody reads it."""

import contextlib
import ctypes
import logging
import warnings

from PIL import _imaging


def quiet_decoders() -> None:
    """Drop what Pillow and libtiff have to say of an image, for the whole process.

    A client would decide how many lines there are and what they say. libtiff writes its own to file
    descriptor 2, and Python keeps each warning that it has shown.
    """
    warnings.filterwarnings("ignore", module=r"PIL\.")
    logging.getLogger("PIL").setLevel(logging.CRITICAL)
    decoders = ctypes.CDLL(_imaging.__file__)  # libtiff's names are found through what links it
    with contextlib.suppress(AttributeError):  # Pillow was built without libtiff
        set_handler = decoders.TIFFSetErrorHandler
        set_handler.argtypes = [ctypes.c_void_p]
        set_handler.restype = ctypes.c_void_p
        set_handler(None)
