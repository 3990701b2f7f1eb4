"""Whether a soak went as it should: no failure but those of killed workers, nothing that grows."""

from statistics import median

from tests.soak.record import Record, Verdict

ENDED = "connection ended without an answer"
"""The cause of failures that killing a worker explains."""
MAX_NEW_DESCRIPTORS = 4


def judge(record: Record, *, max_growth: float) -> list[Verdict]:
    """What was looked at; memory may grow by that share from the first quarter to the last."""
    ended = record.failures[ENDED]
    # Each client has one connection for its requests, and one may have just been opened.
    explained = len(record.killed_at_s) * (record.users + 1)
    others = {cause: count for cause, count in record.failures.items() if cause != ENDED}
    growth = memory_growth(record)
    before, after = record.idle_descriptors
    return [
        Verdict("requests", str(record.requests), record.requests > 0),
        Verdict(
            f"failures that {len(record.killed_at_s)} killed workers explain",
            f"{ended} (limit {explained})",
            ended <= explained,
        ),
        Verdict("other failures", str(others or "none"), not others),
        Verdict(
            "growth of memory", f"{growth:+.1%} (limit {max_growth:.0%})", growth <= max_growth
        ),
        Verdict(
            "file descriptors before and after",
            f"{before}, {after}",
            after <= before + MAX_NEW_DESCRIPTORS,
        ),
        Verdict("exit status", str(record.exit_status), record.exit_status == 0),
    ]


def memory_growth(record: Record) -> float:
    """Median memory of the last quarter over that of the first one, less 1."""
    quarter_s = record.seconds / 4
    first = [each.memory_bytes for each in record.usage if each.at_s < quarter_s]
    last = [each.memory_bytes for each in record.usage if each.at_s >= 3 * quarter_s]
    return median(last) / median(first) - 1
