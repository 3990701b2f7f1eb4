"""One run of Locust as a process of its own, and what came of it."""

import csv
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.server import CHECKOUT, free_port

LOCUSTFILE = CHECKOUT / "tests" / "load" / "locustfile.py"
END_TIMEOUT_S = 90  # beyond the run itself: start, last answers, reports


@dataclass(frozen=True)
class Result:
    """What a run came to; `failure_texts` are its errors, each with where and how often."""

    exit_code: int
    requests: int
    failures: int
    failure_texts: list[str]
    names: list[str]
    """What was counted: a model and a way to ask it, or a kind of bad input."""
    output: str
    """What Locust printed; empty where it was shown."""
    report: Path
    """The HTML report; CSV files lie beside it."""


def run_locust(
    host: str,
    *,
    users: int,
    time_s: float,
    folder: Path,
    shape: str = "ramp",
    processes: int = 1,
    arguments: tuple[str, ...] = (),
    show: bool = False,
) -> Result:
    """Load a running service and wait for the end; `arguments` are further options of Locust.

    Raises subprocess.TimeoutExpired if Locust does not end.
    """
    folder.mkdir(parents=True, exist_ok=True)
    report, log = folder / "report.html", folder / "locust.log"
    for old in (report, *folder.glob("load_*.csv")):
        old.unlink(missing_ok=True)
    command = [
        *(sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--headless", "--only-summary"),
        *("--host", host, "--users", str(users), "--run-time", f"{time_s:g}s", "--shape", shape),
        *("--html", str(report), "--csv", str(folder / "load")),
        *(_distributed(processes) if processes > 1 else ()),
        *arguments,
    ]
    with log.open("wb") as output:
        to = None if show else output
        process = subprocess.Popen(command, cwd=CHECKOUT, stdout=to, stderr=to)
        exit_code = _wait(process, time_s + END_TIMEOUT_S)
    failed = _rows(folder / "load_failures.csv")
    stats = _rows(folder / "load_stats.csv")
    total = stats[-1] if stats else {"Request Count": "0", "Failure Count": "0"}
    return Result(
        exit_code,
        int(total["Request Count"]),
        int(total["Failure Count"]),
        [f"{row['Name']}: {row['Error']} ({row['Occurrences']} times)" for row in failed],
        [row["Name"] for row in stats[:-1]],
        log.read_text(),
        report,
    )


def _distributed(processes: int) -> list[str]:
    """Options for workers on this machine; on a port of their own, which no other run uses."""
    port = str(free_port())
    return [
        *("--processes", str(processes), "--master-port", port),
        *("--master-bind-host", "127.0.0.1", "--master-bind-port", port),
    ]


def _wait(process: subprocess.Popen[bytes], timeout_s: float) -> int:
    """Wait; Ctrl-C reaches Locust, too, which then writes its reports and ends."""
    try:
        return process.wait(timeout_s)
    except KeyboardInterrupt:
        return process.wait(END_TIMEOUT_S)
    finally:
        if process.poll() is None:
            process.terminate()  # it ends its workers
            process.wait(END_TIMEOUT_S)


def _rows(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file; none where Locust ended before it wrote it."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
