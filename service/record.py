"""What is known of one request when it ends: for the log line and the metrics."""

import time
from dataclasses import dataclass, field


@dataclass
class Record:
    """One request; times in seconds, summed over its images."""

    request_id: str
    method: str
    path: str
    started: float = field(default_factory=time.perf_counter)
    protocol: str = "other"
    model: str = ""
    version: str = ""
    images: int = 0
    batch_size: int = 0
    answered: bool = False
    """Whether the response is ours, and not a page or an error of BentoML's."""
    stages_s: dict[str, float] = field(default_factory=dict)

    def add_stage(self, stage: str, seconds: float) -> None:
        """Add the time that one image spent in a stage."""
        self.stages_s[stage] = self.stages_s.get(stage, 0.0) + seconds
