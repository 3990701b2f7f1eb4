"""Log lines on standard error, as text or JSON: ours, the libraries' and Python's warnings."""

import contextlib
import json
import logging
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from types import TracebackType
from typing import TextIO

from service.call import Call
from service.errors import StartError, VitrineError

MAX_PATH_LENGTH = 200

logger = logging.getLogger("vitrine")

# BentoML gives these loggers handlers of its own.
_BENTOML_LOGGERS = ("bentoml", "circus", "uvicorn.error")


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """The record's time, level and message, and the fields that it carries."""
        fields: dict[str, object] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "message": record.getMessage(),
        }
        fields |= _fields(record)
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields)


class TextFormatter(logging.Formatter):
    """One line with the message, and the fields as key=value; a traceback follows it."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        """The record's time, level, message and fields; escapes keep a line one line."""
        message = record.message
        if not message.isprintable():
            message = json.dumps(message)[1:-1]
        pairs = (f"{key}={_plain(value)}" for key, value in _fields(record).items())
        return " ".join([self.formatTime(record), record.levelname, message, *pairs])


def _fields(record: logging.LogRecord) -> dict[str, object]:
    """The fields of a record, with the logger's name where the record is a library's."""
    own = {} if record.name == logger.name else {"logger": record.name}
    fields: dict[str, object] = getattr(record, "fields", {})
    return own | fields


class _StderrHandler(logging.Handler):
    """Writes to standard error, also while file descriptor 2 leads into a pipe."""

    real_stderr: TextIO | None = None

    def emit(self, record: logging.LogRecord) -> None:
        try:
            stream = self.real_stderr or sys.stderr
            stream.write(self.format(record) + "\n")
            stream.flush()
        except Exception:
            self.handleError(record)


log_handler = _StderrHandler()


def configure_logging(log_format: str) -> None:
    """Send every logger's lines, Python's warnings and uncaught exceptions to standard error.

    To be called again after an import of BentoML, which configures logging itself.
    """
    log_handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [log_handler]
    root.setLevel(logging.WARNING)
    for known in [*root.manager.loggerDict.values()]:
        if isinstance(known, logging.Logger):
            known.disabled = False  # BentoML turns off the loggers that it finds
    for name in _BENTOML_LOGGERS:
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True
    logger.setLevel(logging.INFO)
    # The answer says what the form parser and uvicorn would warn of.
    for name in ("python_multipart", "uvicorn.error"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.showwarning = _log_warning  # type: ignore[assignment]  # `_` for two arguments
    sys.excepthook = _log_uncaught
    threading.excepthook = lambda raised: _log_uncaught(
        raised.exc_type, raised.exc_value, raised.exc_traceback
    )


def _log_warning(
    message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: object
) -> None:
    """Log a Python warning; the arguments are those of `warnings.showwarning`."""
    fields = {"category": category.__name__, "file": f"{filename}:{lineno}"}
    logging.getLogger("py.warnings").warning("%s", message, extra={"fields": fields})


def _log_uncaught(
    kind: type[BaseException], error: BaseException | None, traceback: TracebackType | None
) -> None:
    if not issubclass(kind, KeyboardInterrupt | SystemExit):
        logger.critical("uncaught exception", exc_info=(kind, error or kind(), traceback))


@contextlib.contextmanager
def stop_on_error(log_format: str) -> Iterator[None]:
    """End the process with status 1 and one line that says why, where StartError is raised."""
    try:
        yield
    except StartError as error:
        if log_format == "json":
            configure_logging(log_format)
            logger.critical("%s", error)
            raise SystemExit(1) from error
        raise SystemExit(f"error: {error}") from error


def log_call(call: Call, status: int, seconds: float, *, method: str = "", path: str = "") -> None:
    """Write the one line of a request, with its stage times in milliseconds."""
    fields: dict[str, object] = {
        "request_id": call.request_id,
        "protocol": call.protocol,
        "method": method,
        "path": path[:MAX_PATH_LENGTH],
        "status": status,
        "ms": _milliseconds(seconds),
        "token": call.token,
        "model": call.model,
        "version": call.version,
        "task": call.task,
    }
    if call.items:
        fields |= {"images": call.items, "batch_size": call.batch_size}
    fields |= {f"{stage}_ms": _milliseconds(s) for stage, s in call.stages_s().items()}
    known = {name: value for name, value in fields.items() if value != ""}
    logger.info("request", extra={"fields": known})


def unexpected_error(call: Call, error: Exception) -> VitrineError:
    """Log an exception that is a bug; returns the error to answer with."""
    fields = {"request_id": call.request_id}
    logger.error("unexpected error", exc_info=error, extra={"fields": fields})
    return VitrineError(f"unexpected error; the log has it under request id {call.request_id}")


def _milliseconds(seconds: float) -> float:
    return round(1000 * seconds, 3)


def _plain(value: object) -> str:
    text = str(value)
    return json.dumps(text) if not text.isprintable() or " " in text or '"' in text else text
