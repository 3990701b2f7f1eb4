"""Multipart forms: parts named `image`, and a few text fields; nothing in them is ever fetched."""

import contextlib
import json
from dataclasses import dataclass

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import Request

from service.errors import BadInput, TooLarge, UnsupportedImage

MULTIPART = "multipart/form-data"
MAX_FILES = 1000
MAX_FIELDS = 16
MAX_FIELD_BYTES = 1024


@dataclass(frozen=True)
class Form:
    """The encoded images of a form, in order, and its text fields."""

    images: list[bytes]
    fields: dict[str, str]


async def read_form(request: Request, allowed: tuple[str, ...], max_images: int) -> Form:
    """Read a form with 1 to `max_images` images and some of the `allowed` fields.

    Raises BadInput, TooLarge or UnsupportedImage.
    """
    came = content_type(request)
    if came != MULTIPART:
        raise UnsupportedImage(f"expected Content-Type {MULTIPART}, got {came!r:.80}")
    try:
        # More files than allowed are let in, so that the answer can say how many came.
        parsed = await request.form(
            max_files=MAX_FILES, max_fields=MAX_FIELDS, max_part_size=MAX_FIELD_BYTES
        )
    except (MultiPartException, HTTPException) as error:
        why = error.message if isinstance(error, MultiPartException) else error.detail
        if why.startswith("Too many files"):
            raise TooLarge(
                f"expected at most {max_images} images, got more than {MAX_FILES}"
            ) from error
        raise BadInput(f"expected a well-formed {MULTIPART} body: {why}") from error
    images: list[bytes] = []
    fields: dict[str, str] = {}
    for name, value in parsed.multi_items():
        if name == "image":
            images.append(await _file_bytes(value))
        elif name not in allowed:
            known = ", ".join(("image", *allowed))
            raise BadInput(f"expected the fields {known}; got {name!r:.80}")
        elif isinstance(value, UploadFile):
            raise BadInput(f"expected field {name} as text, got a file")
        elif name in fields:
            raise BadInput(f"expected field {name} once, got it twice")
        else:
            fields[name] = _plain(value)
    if not images:
        raise BadInput("expected a part named image that holds a file, got none")
    if len(images) > max_images:
        raise TooLarge(f"expected at most {max_images} images, got {len(images)}")
    return Form(images, fields)


def content_type(request: Request) -> str:
    """The media type of a request's body, without parameters, in lower case."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def _file_bytes(value: UploadFile | str) -> bytes:
    if isinstance(value, str):
        raise BadInput("expected part image as a file (with a filename), got a text field")
    return await value.read()


def _plain(text: str) -> str:
    """A text field's value; BentoML's client sends strings as JSON, in quotes."""
    if text.startswith('"'):
        with contextlib.suppress(ValueError):
            return str(json.loads(text))
    return text
