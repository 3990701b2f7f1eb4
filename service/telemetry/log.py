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
from typing import TextIO, TypeAlias

from service.call import Call
from service.errors import StartError, VitrineError
from service.telemetry.quiet import quiet_decoders
from service.telemetry.repeats import Repeats

MAX_PATH_LENGTH = 200
MAX_MESSAGE_LENGTH = 2000
MAX_TRACEBACK_LENGTH = 8000

logger = logging.getLogger("vitrine")

# BentoML gives these loggers handlers of its own.
_BENTOML_LOGGERS = ("bentoml", "circus", "uvicorn.error")


ExceptionInfo: TypeAlias = (
    tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]
)


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """The record's time, level and message, and the fields that it carries."""
        fields: dict[str, object] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "message": _shortened(record.getMessage(), MAX_MESSAGE_LENGTH),
        }
        fields |= _fields(record)
        if record.exc_info:
            text = self.formatException(record.exc_info)
            fields["exception"] = _shortened(text, MAX_TRACEBACK_LENGTH)
        return json.dumps(fields)


class TextFormatter(logging.Formatter):
    """One line with the message, and the fields as key=value; an indented traceback follows it."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        """The record's time, level, message and fields; escapes keep a line one line."""
        message = _printable(_shortened(record.message, MAX_MESSAGE_LENGTH))
        pairs = (f"{key}={_plain(value)}" for key, value in _fields(record).items())
        return " ".join([self.formatTime(record), record.levelname, message, *pairs])

    def formatException(self, ei: ExceptionInfo) -> str:  # noqa: N802
        """The traceback; none of its lines looks like a log line, whatever is in the error."""
        text = _shortened(super().formatException(ei), MAX_TRACEBACK_LENGTH)
        return "\n".join(f"  {_printable(line)}" for line in text.split("\n"))


def _fields(record: logging.LogRecord) -> dict[str, object]:
    """The fields of a record, with the logger's name where the record is a library's."""
    own = {} if record.name == logger.name else {"logger": record.name}
    fields: dict[str, object] = getattr(record, "fields", {})
    return own | fields


class _StderrHandler(logging.Handler):
    """Writes to standard error, also while file descriptor 2 leads into a pipe."""

    real_stderr: TextIO | None = None
    repeats = Repeats()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            stream = self.real_stderr or sys.stderr
            for each in self.repeats.admit(record):
                stream.write(self.format(each) + "\n")
            stream.flush()
        except Exception:
            self.handleError(record)


log_handler = _StderrHandler()


def configure_logging(log_format: str) -> None:
    """Send every logger's lines, Python's warnings and uncaught exceptions to standard error.

    What decoders say of a caller's image is not logged. To be called again after an import of
    BentoML, which configures logging itself.
    """
    quiet_decoders()
    log_handler.repeats = Repeats()
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
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)  # the answer says it: a 400, a 501
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


def _shortened(text: str, limit: int) -> str:
    """The beginning and the end of a text that is too long."""
    half = limit // 2
    return text if len(text) <= limit else f"{text[:half]} … {text[-half:]}"


def _printable(text: str) -> str:
    return text if text.isprintable() else json.dumps(text)[1:-1]


def _plain(value: object) -> str:
    text = str(value)
    return json.dumps(text) if not text.isprintable() or " " in text or '"' in text else text
