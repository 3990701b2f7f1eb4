"""An engine that raises on every call."""

import signal
from pathlib import Path

import pytest

from tests.exposition import value
from tests.faults.load import Load, running_load
from tests.server import come_true, serve
from tests.service.server.test_supervisor import MODEL, ask, metrics

FAILS_WHILE = "FAILS_WHILE"  # as the plug-in says, which must not be imported here
REQUESTS = 300
MAX_LOG_BYTES = 100_000  # 300 tracebacks have ten times as many


def test_engine_that_raises_is_500_then_not_alive_and_does_not_flood_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    switch = tmp_path / "fails"
    monkeypatch.setenv(FAILS_WHILE, str(switch))
    settings = {"models": MODEL, "workers": 1, "plugins": "tests.faults.failing_engine"}
    with serve(tmp_path, **settings) as server:
        assert ask(server) == 200
        switch.touch()
        with running_load(Load([server.url], pause_s=0), 4) as load:
            assert come_true(lambda: len(load.outcomes) > REQUESTS)
        assert {each.status for each in load.outcomes} == {500}
        assert all("the log has it under request id" in each.text for each in load.outcomes)
        assert server.get("/livez").status_code == 503
        assert server.get("/readyz").json()["error"].startswith(f"the engine of {MODEL} is failing")
        assert value(metrics(server), "vitrine_engine_failing", model=MODEL) == 1
        log = server.log.read_text()
        assert "RuntimeError: the device is gone" in log
        assert len(log) < MAX_LOG_BYTES
        switch.unlink()
        assert ask(server) == 200
        assert server.get("/livez").status_code == 200
        assert server.stop(signal.SIGTERM) == 0
