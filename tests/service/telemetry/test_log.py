import json
import logging
import logging.config
import socket
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.call import Call
from service.errors import StartError
from service.telemetry.log import (
    MAX_MESSAGE_LENGTH,
    MAX_TRACEBACK_LENGTH,
    configure_logging,
    log_call,
    logger,
    stop_on_error,
)
from service.telemetry.repeats import MAX_LINES
from tests.drawing import encode, gradient
from tests.server import Server, serve
from tests.service.telemetry.test_quiet import odd_tiff

LIBRARIES = ("uvicorn.error", "asyncio", "bentoml", "circus", "websockets")


@pytest.fixture(autouse=True)
def _logging_as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    # Undone after the test, whatever it sets them to.
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    with warnings.catch_warnings():
        yield
    root.handlers[:], root.level = before


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
def _far_from_utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "FAR-5")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("_far_from_utc")
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


def test_request_without_a_model_has_no_fields_of_models(
    capsys: pytest.CaptureFixture[str],
) -> None:
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
def test_path_is_unchanged_in_json(capsys: pytest.CaptureFixture[str], path: str) -> None:
    configure_logging("json")
    log_page(path)
    assert as_json(capsys)["path"] == path


@pytest.mark.parametrize(
    ("path", "quoted"),
    [("/a b", '"/a b"'), ('/a"b', r'"/a\"b"'), ("/a\nb", r'"/a\nb"'), ("/a=b", "/a=b")],
)
def test_text_quotes_ambiguous_values(
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


def test_exception_is_written_as_text_with_its_request_id(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure_logging("text")
    fail_and_log()
    text = written(capsys)
    assert "ValueError: no such luck" in text
    assert "request_id=abc" in text


def fail_with(message: str) -> None:
    try:
        raise ValueError(message)
    except ValueError:
        logger.exception("unexpected error")


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_what_an_error_says_looks_like_no_log_line(
    capsys: pytest.CaptureFixture[str], log_format: str
) -> None:
    configure_logging(log_format)
    fail_with("no\n2026-01-01 12:00:00,000 INFO forged\r2026\x1b[31m\u2028" + "x" * 1_000_000)
    text = written(capsys)
    assert len(text) < MAX_TRACEBACK_LENGTH + 500
    first, *traceback = text.split("\n")
    assert "unexpected error" in first
    assert all(line.isprintable() for line in text.split("\n"))
    assert all(line.startswith("  ") for line in traceback)
    assert len(traceback) == (0 if log_format == "json" else 5)


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_endless_message_is_cut(capsys: pytest.CaptureFixture[str], log_format: str) -> None:
    configure_logging(log_format)
    logging.getLogger("some.library").warning("a%sz", "\n" * 1_000_000)
    text = written(capsys)
    assert len(text) < 3 * MAX_MESSAGE_LENGTH
    assert text.isprintable()


def test_flood_is_a_few_lines(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("json")
    for number in range(1000):
        logging.getLogger("asyncio").warning("socket.send() raised exception %d.", number)
    assert len(written(capsys).splitlines()) == MAX_LINES


def test_configuring_again_does_not_write_lines_twice(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("text")
    configure_logging("json")
    logger.info("once")
    assert as_json(capsys)["message"] == "once"


@pytest.mark.parametrize("name", LIBRARIES)
def test_lines_of_libraries_are_json_with_their_loggers_name(
    capsys: pytest.CaptureFixture[str], name: str
) -> None:
    configure_logging("json")
    logging.getLogger(name).error("invalid request of %d bytes", 7)
    fields = as_json(capsys)
    assert (fields["level"], fields["logger"]) == ("error", name)
    assert fields["message"] == "invalid request of 7 bytes"


def test_what_bentoml_has_configured_is_replaced(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # dictConfig closes every handler that there is, and absl's then closes pytest's own stderr.
    monkeypatch.setattr(logging, "_handlerList", [])
    plain = {"class": "logging.StreamHandler"}
    library = logging.getLogger("some.library")
    bentoml = {"handlers": ["plain"], "level": "INFO", "propagate": False}
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": True,
            "handlers": {"plain": plain},
            "loggers": {"bentoml": bentoml, "uvicorn.error": bentoml},
            "root": {"handlers": ["plain"], "level": "WARNING"},
        }
    )
    configure_logging("json")
    for known in (library, *map(logging.getLogger, LIBRARIES)):
        known.error("heard once")
        assert as_json(capsys)["message"] == "heard once"


def test_what_uvicorn_says_of_a_request_is_not_logged(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("json")
    logging.getLogger("uvicorn.error").warning("Invalid HTTP request received.")
    assert capsys.readouterr().err == ""


def test_details_of_libraries_are_not_logged(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("json")
    logging.getLogger("asyncio").info("a detail")
    assert capsys.readouterr().err == ""


@pytest.mark.filterwarnings("default")
def test_python_warning_is_one_line_of_text(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("text")
    warnings.warn("Corrupt data.\nExpecting more", UserWarning, stacklevel=1)
    line = written(capsys)
    assert r" WARNING Corrupt data.\nExpecting more logger=py.warnings" in line
    assert " category=UserWarning" in line
    assert line.isprintable()


@pytest.mark.filterwarnings("default")
def test_python_warning_is_one_object_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("json")
    warnings.warn("Corrupt data.\nExpecting more", UserWarning, stacklevel=1)
    fields = as_json(capsys)
    assert (fields["level"], fields["category"]) == ("warning", "UserWarning")
    assert fields["message"] == "Corrupt data.\nExpecting more"
    assert fields["file"].startswith(__file__)


def test_uncaught_exception_of_a_thread_is_one_object_of_json(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail() -> None:
        raise ValueError("no such luck")

    configure_logging("json")
    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()
    fields = as_json(capsys)
    assert (fields["level"], fields["message"]) == ("critical", "uncaught exception")
    assert fields["exception"].endswith("ValueError: no such luck")


def test_start_error_is_one_line_of_text() -> None:
    with pytest.raises(SystemExit) as ended, stop_on_error("text"):
        raise StartError("port 3000 is taken")
    assert ended.value.code == "error: port 3000 is taken"  # Python prints it and exits with 1


def test_start_error_is_one_object_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended, stop_on_error("json"):
        raise StartError("port 3000 is taken")
    assert ended.value.code == 1
    fields = as_json(capsys)
    assert (fields["level"], fields["message"]) == ("critical", "port 3000 is taken")


DAMAGED = encode(gradient(), "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\xff")
"""Pillow warns of it."""
TIFF = odd_tiff()
"""libtiff and Pillow write of it."""


def send_garbage(server: Server) -> None:
    url = httpx.URL(server.url)
    with socket.create_connection((url.host, url.port)) as connection:
        connection.sendall(b"no HTTP\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 400 ")


def test_every_line_of_a_server_is_json(tmp_path: Path) -> None:
    """Of LiteRT, which writes when it loads a model, of uvicorn, and our own."""
    long = "/" + "%0aERROR%1b%e2%80%ae" * 2000
    with serve(tmp_path, workers=1, log_format="json", log_requests=True) as server:
        with server.client() as client:
            assert client.get("/docs.json").status_code == 200  # it imports BentoML
            assert client.post("/classify", files={"image": DAMAGED}).status_code == 200
            assert client.post("/classify", files={"image": TIFF}).status_code == 400
            assert client.get(long).status_code == 404
        for _ in range(100):
            send_garbage(server)
        assert server.stop() == 0
        lines = [json.loads(line) for line in server.log.read_text().splitlines()]
    by_logger = {line.get("logger", "vitrine"): line["message"] for line in lines}
    assert by_logger["vitrine"] in ("request", "shutting down")
    assert not by_logger.keys() & {"py.warnings", "stderr"}  # a client would control them
    assert len([line for line in lines if line["message"] != "request"]) < 30
    assert max(len(json.dumps(line)) for line in lines) < 2000
