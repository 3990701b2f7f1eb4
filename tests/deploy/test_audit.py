"""The bill of materials lists what is locked, and nothing counts as audited that was not."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from deploy.audit import audit, verdict, write_bill
from tests.extras import needs_extra
from tests.server import CHECKOUT

LOCK = CHECKOUT / "requirements/serve.lock"
FINE = {"name": "numpy", "version": "2.4.0", "vulns": []}
WEAK = {"name": "jinja2", "version": "2.4.1", "vulns": [{"id": "PYSEC-2014-8"}]}
UNKNOWN = {"name": "tornado", "skip_reason": "Dependency not found"}


def test_bill_lists_every_pin_of_what_serves(tmp_path: Path) -> None:
    needs_extra("cyclonedx_py", "audit")
    bill = tmp_path / "serve.cdx.json"
    write_bill(LOCK, bill)
    document = json.loads(bill.read_text())
    assert document["bomFormat"] == "CycloneDX"
    listed = {(part["name"], part["version"]) for part in document["components"]}
    pins = re.findall(r"^([\w.-]+)==([^ ;\\]+)", LOCK.read_text(), re.MULTILINE)
    assert listed == set(pins)


def test_database_that_cannot_be_reached_is_said_and_fails_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needs_extra("pip_audit", "audit")
    for name in ("HTTPS_PROXY", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nothing listens there
    status, text = audit(LOCK, tmp_path / "report.json")
    assert status == 0
    assert text == "NOT AUDITED, the database of weaknesses was not reached"


def test_lock_that_cannot_be_read_fails(tmp_path: Path) -> None:
    needs_extra("pip_audit", "audit")
    status, text = audit(tmp_path / "none.lock", tmp_path / "report.json")
    assert status != 0
    assert "pip-audit failed" in text


@pytest.mark.parametrize(
    ("packages", "status", "said"),
    [
        ([FINE], 0, "no known weakness in 1 packages"),
        ([FINE, UNKNOWN], 0, "no known weakness in 1 packages; not in the database: tornado"),
        ([FINE, WEAK], 1, "known weaknesses: jinja2 2.4.1: PYSEC-2014-8"),
        ([WEAK, UNKNOWN], 1, "jinja2 2.4.1: PYSEC-2014-8; not in the database: tornado"),
        ([UNKNOWN, UNKNOWN], 0, "NOT AUDITED"),
    ],
)
def test_weakness_fails_and_ignorance_is_named(
    packages: list[dict[str, Any]], status: int, said: str
) -> None:
    came, text = verdict({"dependencies": packages})
    assert came == status
    assert said in text
