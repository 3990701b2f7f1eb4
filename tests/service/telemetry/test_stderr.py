"""What native code writes to file descriptor 2, as log records."""

import json
import subprocess
import sys

import pytest

from service.telemetry.log import MAX_MESSAGE_LENGTH
from service.telemetry.repeats import MAX_LINES
from tests.server import CHECKOUT


def logged(body: str, log_format: str = "json") -> list[str]:
    """The lines on standard error of a Python process that runs `body`."""
    prelude = (
        "import os, sys\n"
        "from service.telemetry.log import configure_logging, logger\n"
        "from service.telemetry.stderr import logged_stderr\n"
        f"configure_logging({log_format!r})\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", prelude + body],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert ran.stdout == ""
    return ran.stderr.splitlines()


def logged_native(*lines: str) -> list[tuple[str, str]]:
    """The level and the message of each record that native lines give."""
    body = f"with logged_stderr():\n    os.write(2, {''.join(lines).encode()!r})"
    records = [json.loads(line) for line in logged(body)]
    assert all(record["logger"] == "stderr" for record in records)
    return [(record["level"], record["message"]) for record in records]


@pytest.mark.parametrize(
    ("line", "level"),
    [
        ("WARNING: Attempting to use a delegate", "warning"),
        ("ERROR: cannot allocate", "error"),
        ("FATAL: no way on", "critical"),
        ("W0000 00:00:1764090000.1 42 cpu.cc:12] slow", "warning"),
        ("E0000 00:00:1764090000.1 42 cuda.cc:12] no driver", "error"),
        ("free(): invalid pointer", "warning"),
        ("I am not a level", "warning"),
    ],
)
def test_line_of_native_code_is_a_record_with_its_level(line: str, level: str) -> None:
    assert logged_native(f"{line}\n") == [(level, line)]


def test_details_of_native_code_are_not_logged() -> None:
    assert (
        logged_native(
            "INFO: Created TensorFlow Lite XNNPACK delegate for CPU.\n",
            "I0000 00:00:1764090000.1 42 cpu.cc:12] optimized\n",
        )
        == []
    )


def test_lines_stay_apart_and_the_last_needs_no_end() -> None:
    lines = logged_native("one\r\n", "\n", "zwei ü\n", "three")
    assert [message for _, message in lines] == ["one", "zwei ü", "three"]


def test_line_that_is_written_in_pieces_is_one_record() -> None:
    body = (
        "import time\n"
        "with logged_stderr():\n"
        "    for piece in (b'ERROR: ', b'a long ', b'story', b'\\n'):\n"
        "        os.write(2, piece)\n"
        "        time.sleep(0.02)\n"
    )
    (record,) = map(json.loads, logged(body))
    assert (record["level"], record["message"]) == ("error", "ERROR: a long story")


def test_log_lines_and_standard_error_are_as_before_outside_the_block() -> None:
    body = (
        "with logged_stderr():\n"
        "    logger.info('inside')\n"
        "    print('printed', file=sys.stderr)\n"
        "logger.info('outside')\n"
        "print('plain', file=sys.stderr)\n"
    )
    *records, plain = logged(body)
    assert {json.loads(record)["message"] for record in records} == {"inside", "printed", "outside"}
    assert plain == "plain"


def test_line_of_native_code_is_one_line_of_text() -> None:
    (line,) = logged("with logged_stderr():\n    os.write(2, b'ERROR: no\\x1b[31m way\\n')", "text")
    assert line.endswith(r" ERROR ERROR: no\u001b[31m way logger=stderr")


def test_output_without_an_end_of_line_is_a_few_bounded_lines() -> None:
    body = "with logged_stderr():\n    sys.stderr.write('x' * 10_000_000)"
    messages = [json.loads(line)["message"] for line in logged(body)]
    assert 1 <= len(messages) <= MAX_LINES
    assert all(len(message) < MAX_MESSAGE_LENGTH + 10 for message in messages)


def test_flood_of_native_code_is_a_few_lines() -> None:
    body = (
        "with logged_stderr():\n"
        "    for number in range(10_000):\n"
        "        os.write(2, b'TIFFReadDirectory: Warning, unknown tag %d.\\n' % number)\n"
    )
    messages = [json.loads(line)["message"] for line in logged(body)]
    assert messages == [
        f"TIFFReadDirectory: Warning, unknown tag {number}." for number in range(MAX_LINES)
    ]
