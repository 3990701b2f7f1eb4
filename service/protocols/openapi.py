"""What the OpenAPI page says of the routes beside BentoML's APIs, and of answers and errors."""

from http import HTTPStatus
from typing import Any

Json = dict[str, Any]

_ERROR_STATUSES = (400, 401, 404, 405, 413, 415, 503, 504)

_SCORE: Json = {
    "label": {"type": "string", "example": "Ankle boot"},
    "index": {"type": "integer", "example": 9},
    "probability": {"type": "number", "format": "float", "example": 0.998},
}

_IMAGE: Json = {"type": "string", "format": "binary"}


def _form(**fields: Json) -> Json:
    return {"type": "object", "required": ["image"], "properties": {"image": _IMAGE} | fields}


SECURITY_SCHEMES: Json = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "Needed where VITRINE_API_TOKENS_FILE is set.",
    }
}

SECURITY: list[Json] = [{"bearer": []}, {}]
"""Of every operation but health and metrics: a token, or none where none is asked for."""

SCHEMAS: Json = {
    "ClassifyForm": _form(
        model={"type": "string", "default": "fashion-mnist"},
        top_k={"type": "integer", "minimum": 1, "default": 3},
    ),
    "DenoiseForm": _form(model={"type": "string", "default": "denoiser"}),
    "Error": {
        "type": "object",
        "required": ["error"],
        "properties": {
            "error": {"type": "string", "description": "What was expected, what came, the limit."}
        },
    },
    "Score": {"type": "object", "properties": _SCORE},
    "Prediction": {
        "type": "object",
        "properties": {
            **_SCORE,
            "top": {"type": "array", "items": {"$ref": "#/components/schemas/Score"}},
        },
    },
}

_IDENTITY: Json = {
    "model": {"type": "string", "example": "fashion-mnist"},
    "version": {"type": "string", "example": "1"},
}
_PNG: Json = {"image/png": {"schema": {"type": "string", "format": "binary"}}}


def _json(properties: Json) -> Json:
    return {"application/json": {"schema": {"type": "object", "properties": properties}}}


def _responses(content: Json) -> Json:
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    errors = {
        str(status): {"description": HTTPStatus(status).phrase, "content": error}
        for status in _ERROR_STATUSES
    }
    return {"200": {"description": "OK", "content": content}} | errors


_PREDICTIONS = _json(
    {
        **_IDENTITY,
        "predictions": {
            "type": "array",
            "items": {
                "oneOf": [
                    {"$ref": "#/components/schemas/Prediction"},
                    {"$ref": "#/components/schemas/Error"},
                ]
            },
        },
    }
)

_CLASSIFIED = _json(_IDENTITY | SCHEMAS["Prediction"]["properties"])

RESPONSES: Json = {"/classify": _responses(_CLASSIFIED), "/denoise": _responses(_PNG)}
"""The responses of the routes that BentoML describes itself."""


def _predict(*, version: bool) -> Json:
    names = ("name", "version") if version else ("name",)
    parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in names
    ]
    top_k = {"type": "integer", "minimum": 1, "default": 3}
    form = {
        "type": "object",
        "required": ["image"],
        "properties": {"image": {"type": "array", "items": _IMAGE}},
    }
    return {
        "tags": ["Service APIs"],
        "operationId": "predict_version" if version else "predict",
        "description": (
            "Classify or denoise an image, by what the model is for. The body is the image itself, "
            "or a form with parts named image; of several, one that cannot be used becomes an "
            "error in its place."
        ),
        "parameters": [*parameters, {"name": "top_k", "in": "query", "schema": top_k}],
        "requestBody": {
            "required": True,
            "content": {
                "image/*": {"schema": _IMAGE},
                "application/octet-stream": {"schema": _IMAGE},
                "multipart/form-data": {"schema": form},
            },
        },
        "security": SECURITY,
        "responses": _responses(_PREDICTIONS | _PNG),
    }


PATHS: Json = {
    "/v1/models/{name}:predict": {"post": _predict(version=False)},
    "/v1/models/{name}/versions/{version}:predict": {"post": _predict(version=True)},
    "/v1/models": {
        "get": {
            "tags": ["Service APIs"],
            "operationId": "list_models",
            "description": "The names of all models.",
            "security": SECURITY,
            "responses": {
                "200": {
                    "description": "OK",
                    "content": _json({"models": {"type": "array", "items": {"type": "string"}}}),
                }
            },
        }
    },
}
"""The routes that BentoML does not know."""

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Vitrine</title>
<link rel="stylesheet" href="./static_content/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="./static_content/swagger-ui-bundle.js"></script>
<script src="./static_content/swagger-ui-standalone-preset.js"></script>
<script src="./static_content/swagger-initializer.js"></script>
</body>
</html>
"""
"""The page at `/`: as BentoML's, from the files that come with it, but it loads nothing else."""
