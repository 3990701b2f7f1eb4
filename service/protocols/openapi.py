"""The OpenAPI document, made from the routes and from the tasks' options and answers."""

from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

from pydantic import TypeAdapter

from service.protocols.route import Context, Json
from service.tasks import TASKS
from service.tasks.task import JSON, Task

VERSION = "3.0.2"
_ERROR_STATUSES = (400, 401, 404, 405, 413, 415, 503, 504)
_REFERENCE = "#/components/schemas/{model}"
_IMAGE: Json = {"type": "string", "format": "binary"}
_TEXT: Json = {"type": "string"}
_ERROR: Json = {
    "type": "object",
    "required": ["error"],
    "properties": {"error": {"type": "string", "description": "What was expected, and what came"}},
}
_SECURITY: list[Json] = [{"bearer": []}, {}]
"""A token, or none where none is asked for."""

AnyTask = type[Task[Any, Any]]


def document(context: Context) -> Json:
    """The whole document, for the models that are served here."""
    paths: Json = {}
    for route in context.routes:
        if route.describe is not None:
            operation = route.describe(context)
            names = [part.partition("}")[0] for part in route.path.split("{")[1:]]
            parameters = [_path_parameter(name) for name in names]
            operation["parameters"] = [*parameters, *operation.get("parameters", ())]
            if not route.is_probe:
                operation["security"] = _SECURITY
            operation["tags"] = ["Models"] if not route.is_probe else ["Server"]
            operation["operationId"] = _operation_id(route.method, route.path)
            paths.setdefault(route.path, {})[route.method.lower()] = operation
    schemas = {"Error": _ERROR}
    for task in TASKS.values():
        schemas |= _answer_schema(task).get("$defs", {})
    bearer = {
        "type": "http",
        "scheme": "bearer",
        "description": "Needed where VITRINE_API_TOKENS_FILE is set.",
    }
    return {
        "openapi": VERSION,
        "info": {
            "title": "Vitrine",
            "version": "v1",
            "description": "Small vision models: POST an image, get an answer.",
        },
        "paths": paths,
        "components": {"schemas": schemas, "securitySchemes": {"bearer": bearer}},
    }


def form_operation(task: AnyTask, context: Context) -> Json:
    """A form route."""
    names = [name for name in context.registry.names() if _is_of(context, name, task)]
    model: Json = {"type": "string", "enum": names} if names else _TEXT
    fields = {"image": _IMAGE, "model": model, **_options(task)}
    form = {"type": "object", "required": ["image"], "properties": fields}
    return {
        "summary": task.summary,
        "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": form}}},
        "responses": _responses(_answered(task, {"model": _TEXT, "version": _TEXT})),
    }


def predict_operation(context: Context) -> Json:
    """`:predict`, for any model."""
    tasks = _served_tasks(context)
    form = {
        "type": "object",
        "required": ["image"],
        "properties": {"image": {"type": "array", "items": _IMAGE}},
    }
    parameters = {name: schema for task in tasks for name, schema in _options(task).items()}
    content: Json = {}
    answers = [_body_schema(task) for task in tasks if task.media_type == JSON]
    if answers:
        error = {"$ref": _REFERENCE.format(model="Error")}
        items = {"type": "array", "items": {"anyOf": [*answers, error]}}
        content[JSON] = {"schema": _object(model=_TEXT, version=_TEXT, predictions=items)}
    for task in tasks:
        if task.media_type != JSON:
            content[task.media_type] = {"schema": _IMAGE}
    return {
        "summary": "Answer an image with any model.",
        "description": (
            "The body is the image itself, or a form with parts named image; of several, one that "
            "cannot be used becomes an error in its place."
        ),
        "parameters": [
            {"name": name, "in": "query", "schema": schema} for name, schema in parameters.items()
        ],
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": {"schema": form},
                "image/*": {"schema": _IMAGE},
                "application/octet-stream": {"schema": _IMAGE},
            },
        },
        "responses": _responses(content),
    }


def list_operation(_: Context) -> Json:
    """GET /v1/models."""
    names = {"type": "array", "items": _TEXT}
    return {
        "summary": "List the names of all models.",
        "responses": _responses({JSON: {"schema": _object(models=names)}}),
    }


def model_operation(_: Context) -> Json:
    """GET /v1/models/{name}."""
    return {
        "summary": "Show a model: task, labels, versions, inputs, outputs, metrics, engine.",
        "responses": _responses({JSON: {"schema": {"type": "object"}}}),
    }


def live_operation(_: Context) -> Json:
    """GET /livez."""
    return _health("Tell whether the server is alive.")


def ready_operation(_: Context) -> Json:
    """GET /readyz."""
    return _health("Tell whether the server takes requests.")


def metrics_operation(_: Context) -> Json:
    """GET /metrics."""
    return {
        "summary": "Metrics in Prometheus's text format.",
        "responses": {"200": {"description": "OK", "content": {"text/plain": {"schema": _TEXT}}}},
    }


def _health(summary: str) -> Json:
    return {
        "summary": summary,
        "responses": {
            "200": {"description": "OK", "content": {JSON: {"schema": _object(status=_TEXT)}}},
            "503": _error_response(503),
        },
    }


def _served_tasks(context: Context) -> list[AnyTask]:
    registry = context.registry
    tasks = (type(registry.find(name).task) for name in registry.names())
    return list(dict.fromkeys(tasks))


def _is_of(context: Context, name: str, task: AnyTask) -> bool:
    return isinstance(context.registry.find(name).task, task)


def _options(task: AnyTask) -> Json:
    """The options' schemas by name, with their defaults."""
    properties: Json = task.options_type.model_json_schema().get("properties", {})
    return {
        name: {key: value for key, value in schema.items() if key != "title"}
        for name, schema in properties.items()
    }


def _answer_schema(task: AnyTask) -> Json:
    if task.media_type != JSON:
        return {}
    return TypeAdapter(task.answer_type).json_schema(ref_template=_REFERENCE, mode="serialization")


def _body_schema(task: AnyTask) -> Json:
    return {key: value for key, value in _answer_schema(task).items() if key != "$defs"}


def _answered(task: AnyTask, identity: Json) -> Json:
    if task.media_type != JSON:
        return {task.media_type: {"schema": _IMAGE}}
    schema = _body_schema(task)
    return {JSON: {"schema": schema | {"properties": identity | schema["properties"]}}}


def _responses(content: Json) -> Json:
    errors = {str(status): _error_response(status) for status in _ERROR_STATUSES}
    return {"200": {"description": "OK", "content": content}} | errors


def _error_response(status: int) -> Json:
    schema = {"$ref": _REFERENCE.format(model="Error")}
    return {"description": HTTPStatus(status).phrase, "content": {JSON: {"schema": schema}}}


def _object(**properties: Json) -> Json:
    return {"type": "object", "properties": properties}


def _path_parameter(name: str) -> Json:
    return {"name": name, "in": "path", "required": True, "schema": _TEXT}


def _operation_id(method: str, path: str) -> str:
    words: Iterable[str] = path.replace(":", "/").replace("{", "").replace("}", "").split("/")
    return "_".join([method.lower(), *(word.replace(".", "_") for word in words if word)])
