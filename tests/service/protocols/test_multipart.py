import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator, Sequence

import pytest

from service.errors import BadInput, RequestError, UnsupportedImage
from service.protocols.multipart import MAX_BOUNDARY_BYTES, MAX_HEAD_BYTES, Head, PartReader

TYPE = b"multipart/form-data; boundary=xyz"
DATA = b"\r\n--xy\r\n\r\n-\r\r\n--\x00\xff\r\n"
"""Nearly a boundary, several times."""
PATIENCE_S = 5.0
NAMED = b'Content-Disposition: form-data; name="image"'


def part(data: bytes = DATA, *headers: bytes) -> bytes:
    head = b"".join(line + b"\r\n" for line in headers or (NAMED,))
    return b"--xyz\r\n%b\r\n%b\r\n" % (head, data)


def read(*pieces: bytes, content_type: bytes = TYPE) -> list[tuple[Head, bytes]]:
    async def come() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    async def read_all() -> list[tuple[Head, bytes]]:
        parts = PartReader(come(), content_type)
        found = []
        while (head := await parts.next_part()) is not None:
            found.append((head, await parts.data()))
        return found

    return asyncio.run(read_all())


def error_of(*pieces: bytes, content_type: bytes = TYPE) -> str:
    with pytest.raises(BadInput) as raised:
        read(*pieces, content_type=content_type)
    return str(raised.value)


WHOLE = part() + part(b"", NAMED) + part(b"-", NAMED) + b"--xyz--"


def test_data_come_as_they_are() -> None:
    assert [data for _, data in read(WHOLE)] == [DATA, b"", b"-"]


@pytest.mark.parametrize("ending", [b"", b"\r\n", b"\r\nepilogue --xyz\r\n--xyz"])
def test_parts_are_the_same_however_the_body_is_cut(ending: bytes) -> None:
    body = WHOLE + ending
    whole = read(body)
    for at in range(len(body)):
        assert read(body[:at], body[at:]) == whole
    assert read(*(bytes([each]) for each in body)) == whole


@pytest.mark.parametrize("before", [b"", b"\r\n", b"preamble\r\n", b"--xy\r\n--xy-\r\n"])
def test_what_stands_before_the_first_part_means_nothing(before: bytes) -> None:
    assert read(before + WHOLE) == read(WHOLE)


def test_white_space_after_a_boundary_is_allowed() -> None:
    assert read(WHOLE.replace(b"--xyz\r\n", b"--xyz \t\r\n")) == read(WHOLE)


def test_form_without_parts_has_none() -> None:
    assert read(b"--xyz--\r\n") == []


def test_form_that_is_cut_anywhere_says_so() -> None:
    for end in range(len(WHOLE) - 1):
        assert re.search(
            "ends before its closing boundary|begins with its bound", error_of(WHOLE[:end])
        )
    assert "ends before its closing boundary" in error_of(WHOLE[:-2])
    assert "ends before its closing boundary" in error_of(part())


@pytest.mark.parametrize("body", [b"", b"junk", WHOLE.replace(b"\r\n", b"\n"), bytes(100_000)])
def test_body_of_something_else_says_so(body: bytes) -> None:
    assert error_of(body, content_type=b"multipart/form-data; boundary=other") == (
        "expected a form that begins with its boundary, got none"
    )


def test_line_inside_a_part_that_begins_with_the_boundary_is_refused() -> None:
    # Whether it ends the part is a matter of opinion, so another reader may see another form.
    assert "inside a part" in error_of(part(b"\r\n--xyzzy\r\n") + b"--xyz--")
    assert "inside a part" in error_of(part(b"\r\n--xyz" + b" " * 1000 + b"\r\n") + b"--xyz--")


@pytest.mark.parametrize(
    "content_type",
    [
        b"multipart/form-data",
        b"multipart/form-data; boundary=",
        b'multipart/form-data; boundary=""',
        b"multipart/form-data; boundary=" + b"x" * (MAX_BOUNDARY_BYTES + 1),
    ],
)
def test_boundary_that_is_missing_or_too_long_is_refused(content_type: bytes) -> None:
    assert "a boundary of 1 to 256 bytes" in error_of(WHOLE, content_type=content_type)


@pytest.mark.parametrize("boundary", ["x" * MAX_BOUNDARY_BYTES, '"a b;c"', "'", "-", "--"])
def test_odd_boundary_is_taken(boundary: str) -> None:
    body = WHOLE.replace(b"xyz", boundary.strip('"').encode())
    content_type = f"multipart/form-data; charset=utf-8; boundary={boundary}"
    assert len(read(body, content_type=content_type.encode())) == 3


@pytest.mark.parametrize(
    ("headers", "head"),
    [
        ([NAMED], Head("image", "")),
        ([b'content-disposition:form-data;name=image;filename="a\\"b;c.png"'], Head("image", "")),
        ([NAMED + b'; filename="; name=other"'], Head("image", "")),
        ([NAMED + b"; filename*=UTF-8''name%3Dother; name*=UTF-8''other"], Head("image", "")),
        ([NAMED + b'; filename="../../etc/passwd\x00"'], Head("image", "")),
        ([b"Content-Disposition: form-data;", b"\tname=image"], Head("image", "")),
        ([b'Content-Disposition: form-data; name="bl\xc3\xa4"'], Head("blä", "")),
        ([b'Content-Disposition: form-data; name="bl\xe4"'], Head("bl�", "")),
        ([b'Content-Disposition: form-data; name=""'], Head("", "")),
        ([NAMED, b"Content-Type: text/plain; charset=UTF-8"], Head("image", "utf-8")),
        ([NAMED, b"Content-Transfer-Encoding: 8BIT"], Head("image", "")),
        ([b"X-Other: 1"] * 100 + [NAMED], Head("image", "")),
    ],
)
def test_headers_of_a_part_are_read(headers: Sequence[bytes], head: Head) -> None:
    assert read(part(DATA, *headers) + b"--xyz--") == [(head, DATA)]


@pytest.mark.parametrize(
    "headers", [[b"X-Other: 1"], [b"Content-Disposition: form-data"], [b": 1"]]
)
def test_part_without_a_name_is_refused(headers: Sequence[bytes]) -> None:
    assert "Content-Disposition: form-data; name=" in error_of(part(DATA, *headers) + b"--xyz--")


def test_line_that_is_no_header_is_quoted() -> None:
    assert "got b'no header'" in error_of(part(DATA, b"no header") + b"--xyz--")
    assert len(error_of(part(DATA, b"x" * 5000) + b"--xyz--")) < 200


@pytest.mark.parametrize("line", [b"X: " + b"x" * MAX_HEAD_BYTES, b"x" * 100_000])
def test_endless_headers_of_a_part_are_not_read_on(line: bytes) -> None:
    expected = f"expected at most {MAX_HEAD_BYTES} bytes of headers in a part, got more"
    assert error_of(part(DATA, line)) == expected
    assert error_of(b"--xyz\r\n", *[line[:1000]] * 20, b"never read") == expected


@pytest.mark.parametrize("coding", [b"base64", b"quoted-printable", b"x-other"])
def test_transfer_encoding_of_a_part_is_refused_by_name(coding: bytes) -> None:
    with pytest.raises(UnsupportedImage, match=coding.decode()):
        read(part(DATA, NAMED, b"Content-Transfer-Encoding: " + coding) + b"--xyz--")


@pytest.mark.parametrize(
    "body",
    [
        part(bytes(2_000_000)) + b"--xyz--",
        part(b"\r\n--xyzzy" * 200_000),
        part(b"\r\n--xy" * 400_000) + b"--xyz--",
        b"\r" * 2_000_000,
        part() + b"-" * 2_000_000,
        part(b"", NAMED + b'; a=";' * 1000) + b"--xyz--",
        part(b"", NAMED) * 20_000 + b"--xyz--",
    ],
)
def test_no_body_makes_reading_slow(body: bytes) -> None:
    pieces = [body[at : at + 100] for at in range(0, len(body), 100)]
    began = time.process_time()
    with contextlib.suppress(RequestError):
        read(*pieces)
    assert time.process_time() - began < PATIENCE_S


def test_lines_that_end_in_lf_alone_are_named() -> None:
    lines = part() + b"--xyz--\r\n"
    assert error_of(lines.replace(b"\r\n", b"\n")) == (
        "expected lines of a form that end in CR LF, got LF alone"
    )
