"""Log lines: one a request, as text or JSON, never the image."""

import json
import logging
import sys
import time

from service.protocols.request import Request

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


def log_request(request: Request, status: int, seconds: float) -> None:
    """Write the one line of a request, with its stage times in milliseconds."""
    fields: dict[str, object] = {
        "request_id": request.request_id,
        "method": request.method,
        "path": request.path[:MAX_PATH_LENGTH],
        "status": status,
        "ms": _milliseconds(seconds),
    }
    if request.model:
        fields |= {"model": request.model, "version": request.version}
    if request.images:
        fields |= {"images": request.images, "batch_size": request.batch_size}
    fields |= {f"{stage}_ms": _milliseconds(s) for stage, s in request.stages_s().items()}
    logger.info("request", extra={"fields": fields})


def _milliseconds(seconds: float) -> float:
    return round(1000 * seconds, 3)


def _plain(value: object) -> str:
    text = str(value)
    return json.dumps(text) if not text.isprintable() or " " in text or '"' in text else text
