"""Log lines: one a request, as text or JSON, never the image."""

import json
import logging
import sys
import time

from service.call import Call
from service.errors import VitrineError

MAX_PATH_LENGTH = 200

logger = logging.getLogger("vitrine")


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
        fields |= getattr(record, "fields", {})
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields)


class TextFormatter(logging.Formatter):
    """The message, and the fields as key=value; JSON strings keep a line one line."""

    def format(self, record: logging.LogRecord) -> str:
        """The record's time, level, message and fields."""
        line = super().format(record)
        fields = getattr(record, "fields", {})
        pairs = (f"{key}={_plain(value)}" for key, value in fields.items())
        return " ".join([line, *pairs])


def configure_logging(log_format: str) -> None:
    """Send Vitrine's log lines to standard error in the asked format."""
    handler = logging.StreamHandler(sys.stderr)
    text = TextFormatter("%(asctime)s %(levelname)s %(message)s")
    handler.setFormatter(JsonFormatter() if log_format == "json" else text)
    logger.handlers[:] = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.disabled = False  # BentoML configures logging and turns off the loggers it finds
    # The parser of forms warns of what the answer says already.
    logging.getLogger("python_multipart").setLevel(logging.ERROR)


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
    """Log an exception that nobody expected; what to answer instead."""
    fields = {"request_id": call.request_id}
    logger.error("unexpected error", exc_info=error, extra={"fields": fields})
    return VitrineError(f"unexpected error; the log has it under request id {call.request_id}")


def _milliseconds(seconds: float) -> float:
    return round(1000 * seconds, 3)


def _plain(value: object) -> str:
    text = str(value)
    return json.dumps(text) if not text.isprintable() or " " in text or '"' in text else text
