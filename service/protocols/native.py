"""Vitrine's own protocol: a form route for each task, and `:predict` for every model."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from service.errors import BadInput, RequestError, UnsupportedImage
from service.inference.model import Model
from service.protocols import openapi
from service.protocols.forms import MULTIPART, read_form
from service.protocols.request import Request
from service.protocols.response import Response, json_response
from service.protocols.route import Context, Route
from service.tasks import TASKS
from service.tasks.task import JSON, Answer, Task
from service.telemetry.log import unexpected_error

IMAGE_TYPES = "image/*, application/octet-stream"


async def answer_form(
    task: type[Task[Any, Any]],
    fields: tuple[str, ...],
    context: Context,
    request: Request,
    _: Mapping[str, str],
) -> Response:
    """A form with one image, the model if not the default, and the task's options."""
    if request.query_params():
        raise BadInput(f"{request.path} takes form fields, not query parameters")
    form = await read_form(request, fields, 1, context.settings.max_request_bytes)
    asked = form.fields.pop("model", None)
    model = context.registry.select_for(task, asked, request.call)
    answer = await context.registry.infer(
        model.manifest.name,
        model.manifest.version,
        form.images[0],
        request.call,
        model.task.parse_options(form.fields),
    )
    return _one(model, answer)


async def answer_predict(context: Context, request: Request, params: Mapping[str, str]) -> Response:
    """An image as the body, or a form of images; options are query parameters."""
    model = context.registry.select(params["name"], params.get("version"), request.call)
    options = model.task.parse_options(request.query_params())
    images = await _images(context, request, model)
    name, version = model.manifest.name, model.manifest.version
    if len(images) == 1:
        answer = await context.registry.infer(name, version, images[0], request.call, options)
        if answer.media_type != JSON:
            return _one(model, answer)
        predictions = [answer.content]
    else:
        answers = await context.registry.infer_each(name, version, images, request.call, options)
        predictions = [_prediction(each, request) for each in answers]
    return json_response({**_identity(model), "predictions": predictions})


async def _images(context: Context, request: Request, model: Model) -> list[bytes]:
    settings, came = context.settings, request.content_type
    if came == MULTIPART:
        # The answers of several images have to fit into one JSON object.
        limit = settings.max_images_per_request if model.task.media_type == JSON else 1
        images = (await read_form(request, (), limit, settings.max_request_bytes)).images
    elif not came or came.startswith("image/") or came == "application/octet-stream":
        images = [await request.body(settings.max_image_bytes)]
    else:
        raise UnsupportedImage(
            f"expected Content-Type {IMAGE_TYPES} or {MULTIPART}, got {came!r:.80}"
        )
    return images


def _one(model: Model, answer: Answer) -> Response:
    if isinstance(answer.content, bytes):
        return Response(answer.content, answer.media_type)
    return json_response({**_identity(model), **answer.content})


def _prediction(answer: Answer | Exception, request: Request) -> Any:
    if isinstance(answer, Answer):
        return answer.content
    if isinstance(answer, RequestError):
        return {"error": str(answer)}
    return {"error": str(unexpected_error(request.call, answer))}


def _identity(model: Model) -> dict[str, object]:
    return {"model": model.manifest.name, "version": model.manifest.version}


def routes() -> tuple[Route, ...]:
    """`:predict`, and the form routes of the tasks that are known by now."""
    forms = (
        Route(
            "POST",
            f"/{task.verb}",
            str(task.verb),
            partial(answer_form, task, ("model", *task.options_type.model_fields)),
            partial(openapi.form_operation, task),
            is_inference=True,
            task=task.name,
        )
        for task in TASKS.values()
        if task.verb is not None
    )
    predict = (
        Route(
            "POST",
            f"/v1/models/{{name}}{version}:predict",
            "v1",
            answer_predict,
            openapi.predict_operation,
            is_inference=True,
        )
        for version in ("", "/versions/{version}")
    )
    return (*forms, *predict)
