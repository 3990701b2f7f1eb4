"""The routes: from a request to a response, through a model; and errors to HTTP, in one place."""

import asyncio
from collections.abc import Awaitable

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from service.encode import Prediction
from service.errors import (
    BadInput,
    DeadlinePassed,
    RequestError,
    TooLarge,
    UnsupportedImage,
    VitrineError,
)
from service.forms import MULTIPART, content_type, read_form
from service.log import logger
from service.model import Model
from service.models import Models
from service.record import Record
from service.settings import Settings

CLASSIFIER = "fashion-mnist"
DENOISER = "denoiser"
TOP_K = 3
PNG = "image/png"
CLIENT_CLOSED_REQUEST = 499


class Handlers:
    """The routes of one worker."""

    def __init__(self, models: Models, settings: Settings) -> None:
        self._models = models
        self._settings = settings

    async def classify(self, request: Request, record: Record) -> Response:
        """POST /classify: a form with one image; model and top_k if not the defaults."""
        check_query(request, ())
        form = await read_form(request, ("model", "top_k"), max_images=1)
        model = self._find(form.fields.get("model", CLASSIFIER), None, record)
        top_k = parse_top_k(form.fields.get("top_k"))
        prediction = await model.classify(form.images[0], top_k, record)
        return JSONResponse(_identity(model) | prediction)

    async def denoise(self, request: Request, record: Record) -> Response:
        """POST /denoise: a form with one image; model if not the default."""
        check_query(request, ())
        form = await read_form(request, ("model",), max_images=1)
        model = self._find(form.fields.get("model", DENOISER), None, record)
        return Response(await model.denoise(form.images[0], record), media_type=PNG)

    async def predict(
        self, request: Request, record: Record, name: str, version: str | None
    ) -> Response:
        """POST /v1/models/{name}[/versions/{version}]:predict: an image, or a form of images."""
        model = self._find(name, version, record)
        check_query(request, ("top_k",))
        top_k = parse_top_k(request.query_params.get("top_k"))
        denoises = model.manifest.task == "denoising"
        images = await self._images(request, 1 if denoises else None)
        if denoises:
            return Response(await model.denoise(images[0], record), media_type=PNG)
        if len(images) == 1:
            predictions: list[Prediction | dict[str, str]]
            predictions = [await model.classify(images[0], top_k, record)]
        else:
            attempts = (_or_error(model.classify(data, top_k, record)) for data in images)
            predictions = list(await asyncio.gather(*attempts))
        return JSONResponse(_identity(model) | {"predictions": predictions})

    async def list_models(self) -> Response:
        """GET /v1/models."""
        return JSONResponse({"models": self._models.names()})

    def _find(self, name: str, version: str | None, record: Record) -> Model:
        model = self._models.find(name, version)
        record.model, record.version = model.manifest.name, model.manifest.version
        return model

    async def _images(self, request: Request, max_images: int | None) -> list[bytes]:
        came = content_type(request)
        if came == MULTIPART:
            limit = max_images or self._settings.max_images_per_request
            return (await read_form(request, (), limit)).images
        if came and not came.startswith("image/") and came != "application/octet-stream":
            raise UnsupportedImage(
                f"expected Content-Type image/*, application/octet-stream or {MULTIPART}, "
                f"got {came!r:.80}"
            )
        return [await read_body(request, self._settings.max_image_bytes)]


async def read_body(request: Request, max_bytes: int) -> bytes:
    """A whole body; raises TooLarge as soon as it is known to exceed `max_bytes`."""
    declared = request.headers.get("content-length", "0")
    if declared.isdecimal() and int(declared) > max_bytes:
        raise TooLarge(f"expected an image of at most {max_bytes} bytes, got {declared} bytes")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > max_bytes:
            raise TooLarge(f"expected an image of at most {max_bytes} bytes, got more")
    return bytes(body)


def check_query(request: Request, allowed: tuple[str, ...]) -> None:
    """Raise BadInput for a query parameter that is unknown or repeated."""
    names = [name for name, _ in request.query_params.multi_items()]
    if len(set(names)) < len(names) or not set(names) <= set(allowed):
        known = f"at most {', '.join(allowed)} once" if allowed else "none"
        raise BadInput(f"expected of query parameters {known}, got {', '.join(names):.80}")


def parse_top_k(text: str | None) -> int:
    """How many classes to return; raises BadInput for what is not a whole number from 1."""
    if text is None:
        return TOP_K
    digits = text.lstrip("0")
    if not text.isascii() or not text.isdecimal() or not digits:
        raise BadInput(f"expected top_k as a whole number of at least 1, got {text!r:.80}")
    return int(digits[:9])  # more than any network has classes, however many digits follow


async def answer(work: Awaitable[Response], record: Record, timeout_s: float) -> Response:
    """Await a handler's response; every error becomes its HTTP status and `{"error": …}` here."""
    record.answered = True
    try:
        async with asyncio.timeout(timeout_s):
            return await work
    except TimeoutError:
        return error_response(
            DeadlinePassed(f"expected an answer within {timeout_s} s, took longer")
        )
    except VitrineError as error:
        return error_response(error)
    except ClientDisconnect:
        return Response(status_code=CLIENT_CLOSED_REQUEST)
    except Exception:
        logger.exception("unexpected error", extra={"fields": {"request_id": record.request_id}})
        return error_response(
            VitrineError(f"unexpected error; the log has it under request id {record.request_id}")
        )


def error_response(error: VitrineError) -> Response:
    """`{"error": …}` with the error's status and headers."""
    return JSONResponse({"error": str(error)}, error.status, error.headers)


async def _or_error(work: Awaitable[Prediction]) -> Prediction | dict[str, str]:
    try:
        return await work
    except RequestError as error:
        return {"error": str(error)}


def _identity(model: Model) -> dict[str, object]:
    return {"model": model.manifest.name, "version": model.manifest.version}
