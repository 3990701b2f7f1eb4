import json
import logging
import time
from collections.abc import Iterator
from typing import Any

import pytest

from service.call import Call
from service.telemetry.log import configure_logging, log_call, logger


@pytest.fixture(autouse=True)
def _logger_as_before() -> Iterator[None]:
    before = logger.handlers[:], logger.level, logger.propagate
    yield
    logger.handlers[:], logger.level, logger.propagate = before


def log_page(path: str) -> None:
    log_call(Call("page", "abc"), 404, 0.001, method="GET", path=path)


def log_classified() -> None:
    call = Call("classify", "abc")
    call.token, call.model, call.version, call.task = "shop", "bags", "2", "classification"
    call.items, call.batch_size = 2, 4
    for stage, seconds in (("decode", 0.001), ("queue", 0.002), ("decode", 0.0005)):
        call.stages.append((stage, 0.0, seconds))
    log_call(call, 200, 0.0123456, method="POST", path="/classify")


def written(capsys: pytest.CaptureFixture[str]) -> str:
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.endswith("\n")
    return captured.err[:-1]


def as_json(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads(written(capsys))
    return fields


def test_request_is_one_line_of_text(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("text")
    log_classified()
    assert written(capsys).partition(" INFO ")[2] == (
        "request request_id=abc protocol=classify method=POST path=/classify status=200 ms=12.346 "
        "token=shop model=bags version=2 task=classification images=2 batch_size=4 "
        "decode_ms=1.5 queue_ms=2.0"
    )


def test_request_is_one_object_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("json")
    log_classified()
    fields = as_json(capsys)
    moment = fields.pop("time")
    assert fields == {
        "level": "info",
        "message": "request",
        "request_id": "abc",
        "protocol": "classify",
        "method": "POST",
        "path": "/classify",
        "status": 200,
        "ms": 12.346,
        "token": "shop",
        "model": "bags",
        "version": "2",
        "task": "classification",
        "images": 2,
        "batch_size": 4,
        "decode_ms": 1.5,
        "queue_ms": 2.0,
    }
    assert len(moment) == len("2026-01-31T12:00:00.000Z")


@pytest.fixture
def _far_from_greenwich(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "FAR-5")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("_far_from_greenwich")
@pytest.mark.parametrize(
    ("created", "text"),
    [(0.0, "1970-01-01T00:00:00.000Z"), (1_000_000_000.25, "2001-09-09T01:46:40.250Z")],
)
def test_time_of_json_is_utc_with_milliseconds(
    capsys: pytest.CaptureFixture[str], created: float, text: str
) -> None:
    configure_logging("json")
    times = {"created": created, "msecs": created % 1 * 1000}
    logger.handle(logging.makeLogRecord({"levelno": logging.INFO, "msg": "then"} | times))
    assert as_json(capsys)["time"] == text


def test_request_without_a_model_says_nothing_of_models(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("json")
    log_page("/nowhere")
    expected = {"time", "level", "message", "request_id", "protocol", "method", "path", "status"}
    assert set(as_json(capsys)) == expected | {"ms"}


@pytest.mark.parametrize("log_format", ["text", "json"])
@pytest.mark.parametrize(
    "path", ["/a\nb", "/a\r\nINFO request status=200", "/a b", '/a"b', "/\x1b[31m", "/é", ""]
)
def test_hostile_path_stays_in_its_line(
    capsys: pytest.CaptureFixture[str], log_format: str, path: str
) -> None:
    configure_logging(log_format)
    log_page(path)
    assert written(capsys).isprintable()


@pytest.mark.parametrize("path", ["/a\nb", "/a b", '/a"b', "/é"])
def test_path_is_unharmed_in_json(capsys: pytest.CaptureFixture[str], path: str) -> None:
    configure_logging("json")
    log_page(path)
    assert as_json(capsys)["path"] == path


@pytest.mark.parametrize(
    ("path", "quoted"),
    [("/a b", '"/a b"'), ('/a"b', r'"/a\"b"'), ("/a\nb", r'"/a\nb"'), ("/a=b", "/a=b")],
)
def test_text_quotes_what_would_be_misread(
    capsys: pytest.CaptureFixture[str], path: str, quoted: str
) -> None:
    configure_logging("text")
    log_page(path)
    assert f"path={quoted} status=404" in written(capsys)


def fail_and_log() -> None:
    try:
        raise ValueError("no such luck")
    except ValueError:
        logger.exception("unexpected error", extra={"fields": {"request_id": "abc"}})


def test_exception_is_a_field_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("json")
    fail_and_log()
    fields = as_json(capsys)
    assert (fields["level"], fields["message"]) == ("error", "unexpected error")
    assert fields["request_id"] == "abc"
    assert fields["exception"].startswith("Traceback")
    assert fields["exception"].endswith("ValueError: no such luck")


def test_exception_is_written_as_text_with_the_request_that_it_belongs_to(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure_logging("text")
    fail_and_log()
    text = written(capsys)
    assert "ValueError: no such luck" in text
    assert "request_id=abc" in text


def test_configuring_again_does_not_write_lines_twice(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("text")
    configure_logging("json")
    logger.info("once")
    assert as_json(capsys)["message"] == "once"


def test_logger_that_was_turned_off_is_turned_on(capsys: pytest.CaptureFixture[str]) -> None:
    logger.disabled = True
    configure_logging("json")
    logger.info("heard")
    assert as_json(capsys)["message"] == "heard"
