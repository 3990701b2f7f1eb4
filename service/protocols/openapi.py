"""The OpenAPI document, made from the routes and from the tasks' options and answers."""

from collections.abc import Iterable, Sequence
from http import HTTPStatus
from typing import Any

from pydantic import TypeAdapter

from service.errors import RequestError
from service.protocols.route import Context, Json, Route
from service.tasks import TASKS
from service.tasks.task import JSON, Task

VERSION = "3.0.2"
_INFERENCE_ERRORS = (400, 404, 405, 408, 413, 415, 503, 504)
_REFERENCE = "#/components/schemas/{model}"
_ERROR_REFERENCE: Json = {"$ref": _REFERENCE.format(model="Error")}
_IMAGE: Json = {"type": "string", "format": "binary"}
_TEXT: Json = {"type": "string"}
_ERROR: Json = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "string",
            "description": "What was expected, and what came",
            "example": "expected top_k as a whole number of at least 1, got '0'",
        }
    },
}
_TEXTS: Json = {"type": "array", "items": _TEXT}
_OBJECT: Json = {"type": "object"}
_MODEL: Json = {
    "name": _TEXT,
    "version": {"type": "string", "description": "The one described here"},
    "versions": _TEXTS,
    "ready": {"type": "boolean"},
    "model_version_status": {"type": "array", "items": _OBJECT},
    "task": _TEXT,
    "labels": _TEXTS,
    "default": {"type": "boolean", "description": "Whether it answers where no model is named"},
    "inputs": {"type": "object", "description": "Shape, dtype and meaning of each tensor"},
    "outputs": {"type": "object", "description": "Shape, dtype and meaning of each tensor"},
    "input": {"type": "object", "description": "How an image becomes the network's input"},
    "parameters": {"type": "integer"},
    "metrics": {"type": "object", "description": "Measured on the test split"},
    "engine": _TEXT,
    "device": _TEXT,
    "sha256": {"type": "string", "description": "Of the file that the engine runs"},
}
_BEARER: Json = {"type": "http", "scheme": "bearer"}

AnyTask = type[Task[Any, Any]]


def document(context: Context) -> Json:
    """The whole document, for the models that are served here."""
    paths: Json = {}
    for route in context.routes:
        if route.describe is not None:
            operation = route.describe(context)
            names = [part.partition("}")[0] for part in route.path.split("{")[1:]]
            parameters = [_path_parameter(name, context) for name in names]
            operation["parameters"] = [*parameters, *operation.get("parameters", ())]
            _guard(operation, route, context)
            operation["tags"] = ["Models"] if not route.is_probe else ["Server"]
            operation["operationId"] = _operation_id(route.method, route.path)
            paths.setdefault(route.path, {})[route.method.lower()] = operation
    schemas = {"Error": _ERROR}
    for task in TASKS.values():
        schemas |= _answer_schema(task).get("$defs", {})
    components = {"schemas": schemas}
    if _needs_tokens(context):
        components["securitySchemes"] = {"bearer": _BEARER}
    return {
        "openapi": VERSION,
        "info": {
            "title": "Vitrine",
            "version": "v1",
            "description": "Small vision models: POST an image, get an answer.",
        },
        "paths": paths,
        "components": components,
    }


def _needs_tokens(context: Context) -> bool:
    return context.settings.api_tokens_file is not None


def _guard(operation: Json, route: Route, context: Context) -> None:
    """Add what is asked of a caller where tokens are needed."""
    if route.scope is None or not _needs_tokens(context):
        return
    operation["security"] = [{"bearer": []}]
    is_limited = route.is_inference and context.settings.rate_limit_per_s is not None
    errors = (401, 403, 429) if is_limited else (401, 403)
    operation["responses"] |= {str(status): _error_response(status) for status in errors}


def form_operation(task: AnyTask, context: Context) -> Json:
    """A form route; the field `model` has to be chosen where no model is the task's default."""
    names = [name for name in context.registry.names() if _is_of(context, name, task)]
    default = _default_model(task, context)
    required = ["image"] if default or not names else ["image", "model"]
    texts = {"model": _choice(names, default), **_options(task)}
    fields = {"image": _IMAGE} | {
        # BentoML's client sends null for what is left out.
        name: schema if name in required else {**schema, "nullable": True}
        for name, schema in texts.items()
    }
    form = _form(fields, required)
    return {
        "summary": task.summary,
        "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": form}}},
        "responses": _responses(_answered(task, context), _INFERENCE_ERRORS),
    }


def predict_operation(context: Context) -> Json:
    """`:predict`, for any model."""
    tasks = _served_tasks(context)
    several = {"type": "array", "items": _IMAGE, "minItems": 1}
    several["maxItems"] = context.settings.max_images_per_request
    form = _form({"image": several}, ["image"])
    parameters: dict[str, Json] = {}
    for task in tasks:
        for name, schema in _options(task).items():
            parameters.setdefault(name, _query_parameter(name, schema, task))
    content: Json = {}
    answers = [_body_schema(task) for task in tasks if task.media_type == JSON]
    if answers:
        items = {"type": "array", "items": {"anyOf": [*answers, _ERROR_REFERENCE]}}
        content[JSON] = {"schema": _object(model=_TEXT, version=_TEXT, predictions=items)}
    for task in tasks:
        if task.media_type != JSON:
            content[task.media_type] = {"schema": _IMAGE}
    return {
        "summary": "Answer an image with any model.",
        "description": (
            "The body is the image itself, or a form with parts named image. In a form of several, "
            "an image that cannot be used becomes an error in its place."
        ),
        "parameters": list(parameters.values()),
        "requestBody": {
            "required": True,
            "content": {
                "application/octet-stream": {"schema": _IMAGE},
                "image/*": {"schema": _IMAGE},
                "multipart/form-data": {"schema": form},
            },
        },
        "responses": _responses(content, _INFERENCE_ERRORS),
    }


def list_operation(context: Context) -> Json:
    """GET /v1/models."""
    names = {"type": "array", "items": _TEXT, "example": context.registry.names()}
    return {
        "summary": "List the names of all models.",
        "responses": _responses({JSON: {"schema": _object(models=names)}}, (405,)),
    }


def model_operation(_: Context) -> Json:
    """GET /v1/models/{name}."""
    return {
        "summary": "Show a model: task, labels, versions, inputs, outputs, metrics, engine.",
        "responses": _responses({JSON: {"schema": _object(**_MODEL)}}, (404, 405)),
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
        "responses": _responses({"text/plain": {"schema": _TEXT}}, (503,)),
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


def _answered(task: AnyTask, context: Context) -> Json:
    """What a form route answers: the model, and the task's answer."""
    if task.media_type != JSON:
        return {task.media_type: {"schema": _IMAGE}}
    schema = {"allOf": [_object(model=_TEXT, version=_TEXT), _body_schema(task)]}
    if task.example is None:
        return {JSON: {"schema": schema}}
    identity = {"model": _default_model(task, context) or "NAME", "version": "1"}
    return {JSON: {"schema": schema, "example": identity | dict(task.example)}}


def _default_model(task: AnyTask, context: Context) -> str | None:
    try:
        return context.registry.default(task)
    except RequestError:
        return None


def _choice(names: Sequence[str], default: str | None) -> Json:
    """One of the names; Swagger's page preselects the default."""
    schema = _TEXT | ({"enum": names} if names else {})
    return schema if default is None else schema | {"default": default}


def _responses(content: Json, errors: Iterable[int]) -> Json:
    answers = {"200": {"description": "OK", "content": content}}
    return answers | {str(status): _error_response(status) for status in errors}


def _error_response(status: int) -> Json:
    content = {JSON: {"schema": _ERROR_REFERENCE}}
    return {"description": HTTPStatus(status).phrase, "content": content}


def _form(fields: Json, required: Sequence[str]) -> Json:
    """A form with these fields and no others."""
    return {
        "type": "object",
        "required": required,
        "properties": fields,
        "additionalProperties": False,
    }


def _object(**properties: Json) -> Json:
    return {"type": "object", "properties": properties}


def _path_parameter(name: str, context: Context) -> Json:
    registry = context.registry
    defaults = [_default_model(task, context) for task in _served_tasks(context)]
    first = next((found for found in defaults if found), registry.names()[0])
    version = registry.find(first).manifest.version
    schema = _choice(registry.names(), first) if name == "name" else _TEXT | {"default": version}
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _query_parameter(name: str, schema: Json, task: AnyTask) -> Json:
    """An option of one task, as a query parameter of any model's route."""
    schema = dict(schema)
    # Only described: Swagger's page would send a default in the schema to models of other tasks.
    default = schema.pop("default")
    about = f"{schema.pop('description', name)}; for {task.name} only, {default} by default"
    return {"name": name, "in": "query", "description": about, "schema": schema}


def _operation_id(method: str, path: str) -> str:
    words: Iterable[str] = path.replace(":", "/").replace("{", "").replace("}", "").split("/")
    return "_".join([method.lower(), *(word.replace(".", "_") for word in words if word)])
