"""What is served: the names of all models, and all that is known of one."""

from collections.abc import Mapping

from service.inference.model import Model
from service.inference.registry import Registry
from service.protocols import openapi
from service.protocols.request import Request
from service.protocols.response import Response, json_response
from service.protocols.route import Context, Json, Route


async def list_models(context: Context, _: Request, __: Mapping[str, str]) -> Response:
    """GET /v1/models."""
    return json_response({"models": context.registry.names()})


async def show_model(context: Context, _: Request, params: Mapping[str, str]) -> Response:
    """GET /v1/models/{name}[/versions/{version}]; raises UnknownModel."""
    model = context.registry.find(params["name"], params.get("version"))
    asked = [model] if "version" in params else context.registry.versions(params["name"])
    return json_response(describe(model, asked, context.registry))


def describe(model: Model, versions: list[Model], registry: Registry) -> Json:
    """A model's metadata; `model_version_status` has the form of TensorFlow Serving's."""
    manifest, engine = model.manifest, model.engine
    file = str(manifest.engines[engine.name].file)
    status = {"error_code": "OK", "error_message": ""}
    return {
        "name": manifest.name,
        "version": manifest.version,
        "versions": [each.manifest.version for each in registry.versions(manifest.name)],
        "ready": True,  # a process listens only when every model has proven its sample
        "model_version_status": [
            {"version": each.manifest.version, "state": "AVAILABLE", "status": status}
            for each in versions
        ],
        "task": manifest.task.type,
        "labels": list(model.task.labels),
        "default": registry.is_default(model),
        "inputs": {name: tensor.model_dump() for name, tensor in manifest.inputs.items()},
        "outputs": {name: tensor.model_dump() for name, tensor in manifest.outputs.items()},
        "input": manifest.input.model_dump(),
        "parameters": manifest.parameters,
        "metrics": manifest.metrics,
        "engine": engine.name,
        "device": engine.device,
        "sha256": manifest.files[file].sha256,
    }


ROUTES = (
    Route("GET", "/v1/models", "page", list_models, openapi.list_operation),
    Route("GET", "/v1/models/{name}", "page", show_model, openapi.model_operation),
    Route(
        "GET", "/v1/models/{name}/versions/{version}", "page", show_model, openapi.model_operation
    ),
)
