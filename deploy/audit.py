"""`make audit`: what is in each image, and which of it has known weaknesses.

`.audit/NAME.cdx.json` is the bill of materials (CycloneDX) of requirements/NAME.lock. pip-audit
asks a database on the network. Where it reaches none, this says so and fails nothing; it fails for
each weakness that is known.
"""

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parents[1]
OUT = CHECKOUT / ".audit"
LOCKS = ("serve", "gpu", "load")  # of the images that deploy/Dockerfile builds
TIMEOUT_S = 10
# How Python's HTTP client calls what happens where there is no way to the database.
_UNREACHABLE = re.compile(r"(Connection|Proxy|SSL|Timeout)Error|Timeout|Could not connect")


def write_bill(lock: Path, bill: Path) -> None:
    """Write the bill of materials of a lock file; raises CalledProcessError."""
    command = ["cyclonedx_py", "requirements", str(lock), "--output-reproducible"]
    subprocess.run(
        [sys.executable, "-m", *command, "--output-format", "JSON", "--output-file", str(bill)],
        check=True,
    )


def audit(lock: Path, report: Path) -> tuple[int, str]:
    """Ask for the weaknesses of what a lock file pins; the exit status, and what to say."""
    report.unlink(missing_ok=True)
    command = ["pip_audit", "--requirement", str(lock), "--require-hashes", "--disable-pip"]
    command += ["--progress-spinner", "off", "--timeout", str(TIMEOUT_S)]
    ran = subprocess.run(
        [sys.executable, "-m", *command, "--format", "json", "--output", str(report)],
        capture_output=True,
        text=True,
        check=False,
    )
    if report.exists():
        return verdict(json.loads(report.read_text()))
    last = ran.stderr.strip().rpartition("\n")[2]
    if _UNREACHABLE.search(last):
        return 0, "NOT AUDITED, the database of weaknesses was not reached"
    return ran.returncode or 1, f"pip-audit failed: {last}"


def verdict(report: Mapping[str, Any]) -> tuple[int, str]:
    """What a report of pip-audit means; pip-audit itself finds nothing where it knew nothing."""
    packages = report["dependencies"]
    unknown = [each["name"] for each in packages if "skip_reason" in each]
    found = [
        f"{each['name']} {each['version']}: {weakness['id']}"
        for each in packages
        for weakness in each.get("vulns", ())
    ]
    beside = f"; not in the database: {', '.join(unknown)}" if unknown else ""
    if found:
        return 1, f"known weaknesses: {', '.join(found)}{beside}"
    if len(unknown) == len(packages):
        return 0, "NOT AUDITED, the database of weaknesses knows none of the packages"
    return 0, f"no known weakness in {len(packages) - len(unknown)} packages{beside}"


def main() -> int:
    """Write every bill, audit every lock file; returns the exit status."""
    OUT.mkdir(exist_ok=True)
    worst = 0
    for name in LOCKS:
        lock, bill = CHECKOUT / f"requirements/{name}.lock", OUT / f"{name}.cdx.json"
        write_bill(lock, bill)
        status, text = audit(lock, OUT / f"{name}.audit.json")
        print(f"{bill.relative_to(CHECKOUT)}: {text}")
        worst = max(worst, status)
    return worst


if __name__ == "__main__":
    sys.exit(main())
