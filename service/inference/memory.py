"""How the memory for decoding is divided: a part for request bodies, the rest for images."""

from collections.abc import Iterator
from pathlib import Path

from prometheus_client.metrics_core import GaugeMetricFamily, Metric

from service.heap import Trimmer
from service.inference.budget import Budget, Share
from service.settings import Settings
from service.shared import shared_doubles

# Bodies that wait for images to be decoded must not hold what decoding needs: each has its own.
_BODIES_DIVISOR = 4
# Large bodies may hold half of that, so that some that do not end leave memory to small ones.
_LARGE_BODY_BYTES = 1_000_000
_LARGE_DIVISOR = 2
# A model may hold half of what images have, in all workers together.
_MODEL_DIVISOR = 2


class Memory:
    """The budgets of one worker's server."""

    def __init__(self, settings: Settings, folder: Path | None, worker: int) -> None:
        """`folder` is what the workers share; None for a process alone. Raises OSError."""
        workers = 1 if folder is None else settings.workers
        total = settings.decode_memory_bytes
        limits = {"bodies": total // _BODIES_DIVISOR, "images": total - total // _BODIES_DIVISOR}
        parts = {"bodies": "a quarter", "images": "three quarters"}
        self._budgets = {
            part: Budget(
                limit,
                f"{parts[part]} of VITRINE_DECODE_MEMORY_BYTES",
                shared_doubles(folder, f"memory-{part}-{workers}", 2 * workers),
                worker % workers,
            )
            for part, limit in limits.items()
        }
        trimmer = Trimmer()
        for budget in self._budgets.values():
            budget.on_given_back = trimmer.start
        self._model_limit = limits["images"] // _MODEL_DIVISOR // workers
        self._large_bodies, self._bodies = (
            Share(self._budgets["bodies"], limits["bodies"] // _LARGE_DIVISOR // workers),
            Share(self._budgets["bodies"], limits["bodies"]),
        )

    def share_of_body(self, size: int | None) -> Share:
        """What a body of that size may hold; of None where it was not declared."""
        is_large = size is None or size > _LARGE_BODY_BYTES
        return self._large_bodies if is_large else self._bodies

    def share_of_model(self) -> Share:
        """What a model may hold in this worker."""
        return Share(self._budgets["images"], self._model_limit)

    def metrics(self) -> Iterator[Metric]:
        """What all workers hold, and the limits."""
        used = GaugeMetricFamily(
            "vitrine_decode_memory_bytes",
            "Memory that request bodies, or images from decoding to answer, hold in all workers",
            labels=("part",),
        )
        limit = GaugeMetricFamily(
            "vitrine_decode_memory_limit_bytes", "The most of it", labels=("part",)
        )
        for part, budget in self._budgets.items():
            used.add_metric((part,), budget.used())
            limit.add_metric((part,), budget.limit)
        yield used
        yield limit
