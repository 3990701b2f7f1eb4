"""One inference request as the service sees it, whatever protocol it arrived by."""

import math
import time
from collections.abc import Callable


class Call:
    """The state and the record of one request: decode, queue, engine, encode.

    Times are in seconds of time.perf_counter. Model, queue, log, metrics and tracing know nothing
    else of a request.
    """

    __slots__ = (
        "batch_size", "deadline", "is_gone", "items", "model", "protocol", "request_id", "stages",
        "started", "task", "token", "version",
    )  # fmt: skip

    def __init__(
        self,
        protocol: str,
        request_id: str = "",
        *,
        timeout_s: float = math.inf,
        is_gone: Callable[[], bool] = lambda: False,
    ) -> None:
        self.started = time.perf_counter()
        self.deadline = self.started + timeout_s
        """An item that is not computed by then is dropped."""
        self.protocol = protocol
        self.request_id = request_id
        self.is_gone = is_gone
        """Whether nobody waits for the answer any more."""
        self.token = ""
        """The name of the caller's token; empty where no token is needed."""
        self.model = ""
        self.version = ""
        self.task = ""
        self.items = 0
        self.batch_size = 0
        """The size of the largest batch that contained an item of this call."""
        self.stages: list[tuple[str, float, float]] = []
        """For each stage of each item: its name, when it began, and its seconds."""

    def stages_s(self) -> dict[str, float]:
        """The seconds that all items together spent in each stage."""
        totals: dict[str, float] = {}
        for stage, _, seconds in self.stages:
            totals[stage] = totals.get(stage, 0.0) + seconds
        return totals
