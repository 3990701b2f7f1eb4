"""What the service logs, as records."""

import contextlib
import logging
from collections.abc import Iterator
from typing import Any

from service.telemetry.log import logger


class Log(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def fields(self, message: str) -> list[dict[str, Any]]:
        """The fields of every record with this message."""
        return [record.__dict__["fields"] for record in self.records if record.msg == message]


@contextlib.contextmanager
def kept_log() -> Iterator[Log]:
    """Keep what is logged from now on."""
    log, level = Log(), logger.level
    logger.addHandler(log)
    logger.setLevel(logging.INFO)
    yield log
    logger.removeHandler(log)
    logger.setLevel(level)
