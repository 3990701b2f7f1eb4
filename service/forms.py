"""Multipart forms: parts named `image`, and a few text fields; nothing in them is ever fetched."""

from dataclasses import dataclass

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import Request

from service.errors import BadInput, TooLarge, UnsupportedImage

MULTIPART = "multipart/form-data"
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
        raise UnsupportedImage(f"expected Content-Type {MULTIPART}, got {came or 'none'!r:.80}")
    try:
        # One image more than allowed is let in, so that the answer can count them.
        parsed = await request.form(
            max_files=max_images + 1, max_fields=MAX_FIELDS, max_part_size=MAX_FIELD_BYTES
        )
    except (MultiPartException, HTTPException) as error:
        why = error.message if isinstance(error, MultiPartException) else error.detail
        raise BadInput(f"expected a well-formed {MULTIPART} body: {why}") from error
    images: list[bytes] = []
    fields: dict[str, str] = {}
    for name, value in parsed.multi_items():
        if name == "image":
            images.append(await _file_bytes(value))
        elif name not in allowed:
            raise BadInput(f"expected the fields image, {', '.join(allowed)}; got {name!r:.80}")
        elif isinstance(value, UploadFile):
            raise BadInput(f"expected field {name} as text, got a file")
        elif name in fields:
            raise BadInput(f"expected field {name} once, got it twice")
        else:
            fields[name] = value
    if not images:
        raise BadInput("expected a part named image that holds a file, got none")
    if len(images) > max_images:
        raise TooLarge(
            f"expected at most {max_images} parts named image, got {len(images)} or more"
        )
    return Form(images, fields)


def content_type(request: Request) -> str:
    """The media type of a request's body, without parameters, in lower case."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def _file_bytes(value: UploadFile | str) -> bytes:
    if isinstance(value, str):
        raise BadInput("expected part image as a file (with a filename), got a text field")
    return await value.read()
