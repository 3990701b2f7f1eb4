"""The routes: from a request to a response, through a model; and errors to HTTP, in one place."""

import asyncio
from collections.abc import Awaitable, Coroutine
from typing import Any

from service.errors import BadInput, DeadlinePassed, RequestError, UnsupportedImage, VitrineError
from service.inference.model import Model
from service.inference.registry import Models
from service.pixels.encode import Prediction
from service.protocols.forms import MULTIPART, Form, read_form
from service.protocols.request import Request
from service.protocols.response import Response, error_response, json_response
from service.settings import Settings
from service.telemetry.log import logger

CLASSIFIER = "fashion-mnist"
DENOISER = "denoiser"
TOP_K = 3
PNG = "image/png"


class Handlers:
    """The routes of one worker."""

    def __init__(self, models: Models, settings: Settings) -> None:
        self._models = models
        self._settings = settings

    async def classify(self, request: Request) -> Response:
        """POST /classify: a form with one image; model and top_k if not the defaults."""
        request.query_params()
        form = await self._form(request, ("model", "top_k"), max_images=1)
        model = self._find(form.fields.get("model", CLASSIFIER), None, request)
        top_k = parse_top_k(form.fields.get("top_k"))
        prediction = await model.classify(form.images[0], top_k, request)
        return json_response(_identity(model) | prediction)

    async def denoise(self, request: Request) -> Response:
        """POST /denoise: a form with one image; model if not the default."""
        request.query_params()
        form = await self._form(request, ("model",), max_images=1)
        model = self._find(form.fields.get("model", DENOISER), None, request)
        return Response(await model.denoise(form.images[0], request), PNG)

    async def predict(self, request: Request, name: str, version: str | None) -> Response:
        """POST /v1/models/{name}[/versions/{version}]:predict: an image, or a form of images."""
        model = self._find(name, version, request)
        top_k = parse_top_k(request.query_params("top_k").get("top_k"))
        denoises = model.manifest.task == "denoising"
        images = await self._images(request, 1 if denoises else None)
        if denoises:
            return Response(await model.denoise(images[0], request), PNG)
        if len(images) == 1:
            predictions: list[Prediction | dict[str, str]]
            predictions = [await model.classify(images[0], top_k, request)]
        else:
            predictions = await _classify_all(model, images, top_k, request)
        return json_response(_identity(model) | {"predictions": predictions})

    def list_models(self) -> Response:
        """GET /v1/models."""
        return json_response({"models": self._models.names()})

    def _find(self, name: str, version: str | None, request: Request) -> Model:
        model = self._models.find(name, version)
        request.model, request.version = model.manifest.name, model.manifest.version
        return model

    async def _images(self, request: Request, max_images: int | None) -> list[bytes]:
        came = request.content_type
        if came == MULTIPART:
            limit = max_images or self._settings.max_images_per_request
            return (await self._form(request, (), limit)).images
        if came and not came.startswith("image/") and came != "application/octet-stream":
            raise UnsupportedImage(
                f"expected Content-Type image/*, application/octet-stream or {MULTIPART}, "
                f"got {came!r:.80}"
            )
        return [await request.body(self._settings.max_image_bytes)]

    async def _form(self, request: Request, allowed: tuple[str, ...], max_images: int) -> Form:
        return await read_form(request, allowed, max_images, self._settings.max_request_bytes)


async def _classify_all(
    model: Model, images: list[bytes], top_k: int, request: Request
) -> list[Prediction | dict[str, str]]:
    """Answer every image in its place; what fails all of them ends the others, too."""
    model.check_room(len(images))
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(_or_error(model.classify(data, top_k, request), request))
                for data in images
            ]
    except ExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks]


def parse_top_k(text: str | None) -> int:
    """How many classes to return; raises BadInput for what is not a whole number from 1."""
    if text is None:
        return TOP_K
    digits = text.lstrip("0")
    if not text.isascii() or not text.isdecimal() or not digits:
        raise BadInput(f"expected top_k as a whole number of at least 1, got {text!r:.80}")
    return int(digits[:9])  # more than any network has classes, however many digits follow


async def answer(work: Coroutine[Any, Any, Response], request: Request, limit_s: float) -> Response:
    """Await a handler's response; every error becomes its HTTP status and `{"error": …}` here."""
    timeout_s = limit_s
    try:
        timeout_s = request.set_timeout(limit_s)
        async with asyncio.timeout(timeout_s):
            return await work
    except (TimeoutError, DeadlinePassed):
        return error_response(
            DeadlinePassed(f"expected an answer within {timeout_s:g} s, took longer")
        )
    except VitrineError as error:
        return error_response(error)
    except Exception:
        return error_response(unexpected_error(request))
    finally:
        work.close()  # where the timeout was refused, it has not begun


def unexpected_error(request: Request) -> VitrineError:
    """Log the exception that is being handled; what to answer instead."""
    logger.exception("unexpected error", extra={"fields": {"request_id": request.request_id}})
    return VitrineError(f"unexpected error; the log has it under request id {request.request_id}")


async def _or_error(work: Awaitable[Prediction], request: Request) -> Prediction | dict[str, str]:
    try:
        return await work
    except RequestError as error:
        return {"error": str(error)}
    except VitrineError:  # overload, deadline, a client that has gone: of the whole request
        raise
    except Exception:
        return {"error": str(unexpected_error(request))}


def _identity(model: Model) -> dict[str, object]:
    return {"model": model.manifest.name, "version": model.manifest.version}
