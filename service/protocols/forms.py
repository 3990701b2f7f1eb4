"""Multipart forms: parts named `image`, and a few text fields; nothing in them is ever fetched."""

import contextlib
import json
from dataclasses import dataclass

from service.errors import BadInput, TooLarge, UnsupportedImage
from service.protocols.multipart import Head, PartReader
from service.protocols.request import Request

MULTIPART = "multipart/form-data"
MAX_FIELD_BYTES = 1024
# Of what is not in UTF-8, only ASCII is understood, which these have in common with it.
_CHARSETS = ("", "utf-8", "utf8", "us-ascii", "ascii", "iso-8859-1", "latin1", "windows-1252")


@dataclass(frozen=True)
class Form:
    """The encoded images of a form, in order, and its text fields."""

    images: list[bytes]
    fields: dict[str, str]


async def read_form(
    request: Request, allowed: tuple[str, ...], max_images: int, max_bytes: int
) -> Form:
    """Read a form with 1 to `max_images` images and some of the `allowed` fields.

    A part named image is an image, with or without a filename. Raises BadInput, TooLarge or
    UnsupportedImage.
    """
    came = request.content_type
    if came != MULTIPART:
        raise UnsupportedImage(f"expected Content-Type {MULTIPART}, got {came!r:.80}")
    images: list[bytes] = []
    fields: dict[str, str | None] = {}
    async with contextlib.aclosing(request.stream(max_bytes)) as pieces:
        parts = PartReader(pieces, request.headers[b"content-type"])
        while (head := await parts.next_part()) is not None:
            name = head.name
            if name == "image":
                if len(images) == max_images:
                    raise TooLarge(
                        f"too many images: expected at most {max_images}, got {max_images + 1} "
                        "or more"
                    )
                images.append(await parts.data())
            elif name not in allowed:
                known = ", ".join(("image", *allowed))
                raise BadInput(f"unknown field {name!r:.80}; expected one of {known}")
            elif name in fields:
                raise BadInput(f"expected field {name} once, got it twice")
            else:
                fields[name] = _plain(await _text(head, parts))
    if not images:
        raise BadInput("expected a part named image, got none")
    return Form(images, {name: text for name, text in fields.items() if text is not None})


async def _text(head: Head, parts: PartReader) -> str:
    """A field's text; Swagger's page sends one whose type is application/json as a small file."""
    expected = f"expected field {head.name} as text"
    if head.charset not in _CHARSETS:
        raise BadInput(f"{expected} in UTF-8, got charset {head.charset!r:.80}")
    too_long = f"{expected} of at most {MAX_FIELD_BYTES} bytes, got more"
    data = await parts.data(MAX_FIELD_BYTES, too_long)
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise BadInput(f"{expected} in UTF-8, got other bytes") from error


def _plain(text: str) -> str | None:
    """A text field's value; BentoML's client sends JSON: strings in quotes, None as null."""
    if text.startswith('"'):
        with contextlib.suppress(ValueError):
            return str(json.loads(text))
    return None if text == "null" else text
