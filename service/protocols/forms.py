"""Multipart forms: parts named `image`, and a few text fields; nothing in them is ever fetched."""

import contextlib
import json
from dataclasses import dataclass

from starlette.datastructures import FormData, Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from service.errors import BadInput, TooLarge, Unavailable, UnsupportedImage
from service.protocols.request import Request

MULTIPART = "multipart/form-data"
MAX_FILES = 1000
MAX_FIELDS = 16
MAX_FIELD_BYTES = 1024


@dataclass(frozen=True)
class Form:
    """The encoded images of a form, in order, and its text fields."""

    images: list[bytes]
    fields: dict[str, str]


async def read_form(
    request: Request, allowed: tuple[str, ...], max_images: int, max_bytes: int
) -> Form:
    """Read a form with 1 to `max_images` images and some of the `allowed` fields.

    Raises BadInput, TooLarge, Unavailable or UnsupportedImage.
    """
    came = request.content_type
    if came != MULTIPART:
        raise UnsupportedImage(f"expected Content-Type {MULTIPART}, got {came!r:.80}")
    parser = MultiPartParser(
        Headers(raw=request.raw_headers),
        request.stream(max_bytes),
        max_files=MAX_FILES,  # more than allowed are let in, so that the answer can say how many
        max_fields=MAX_FIELDS,
        max_part_size=MAX_FIELD_BYTES,
    )
    try:
        parsed = await parser.parse()
    except MultiPartException as error:
        if error.message.startswith("Too many files"):
            raise TooLarge(
                f"too many images: expected at most {max_images}, got more than {MAX_FILES}"
            ) from error
        raise BadInput(f"expected a well-formed {MULTIPART} body: {error.message}") from error
    except OSError as error:  # parts of more than 1 MB lie in a temporary file
        raise Unavailable(f"cannot store the form: {error.strerror}") from error
    try:
        return await _form(parsed, allowed, max_images)
    finally:
        await parsed.close()


async def _form(parsed: FormData, allowed: tuple[str, ...], max_images: int) -> Form:
    images: list[bytes] = []
    fields: dict[str, str | None] = {}
    for name, value in parsed.multi_items():
        if name == "image":
            images.append(await _file_bytes(value))
        elif name not in allowed:
            known = ", ".join(("image", *allowed))
            raise BadInput(f"unknown field {name!r:.80}; expected one of {known}")
        elif name in fields:
            raise BadInput(f"expected field {name} once, got it twice")
        else:
            fields[name] = _plain(await _text(name, value))
    if not images:
        raise BadInput("expected a part named image that holds a file, got none")
    if len(images) > max_images:
        raise TooLarge(f"too many images: expected at most {max_images}, got {len(images)}")
    return Form(images, {name: text for name, text in fields.items() if text is not None})


async def _file_bytes(value: UploadFile | str) -> bytes:
    if isinstance(value, str):
        raise BadInput("expected part image as a file (with a filename), got a text field")
    return await value.read()


async def _text(name: str, value: UploadFile | str) -> str:
    """A field's text; Swagger's page sends one whose type is application/json as a small file."""
    if isinstance(value, str):
        return value
    data = await value.read(MAX_FIELD_BYTES + 1)
    if len(data) > MAX_FIELD_BYTES:
        raise BadInput(
            f"expected field {name} as text of at most {MAX_FIELD_BYTES} bytes, got more"
        )
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise BadInput(f"expected field {name} as text in UTF-8, got other bytes") from error


def _plain(text: str) -> str | None:
    """A text field's value; BentoML's client sends JSON: strings in quotes, None as null."""
    if text.startswith('"'):
        with contextlib.suppress(ValueError):
            return str(json.loads(text))
    return None if text == "null" else text
