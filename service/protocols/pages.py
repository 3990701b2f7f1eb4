"""The page to try every route, and the documents behind it."""

import asyncio
import importlib.util
import mimetypes
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from service.errors import UnknownRoute
from service.protocols import openapi
from service.protocols.request import Request
from service.protocols.response import Response, json_response
from service.protocols.route import Context, Route

PAGE = b"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>Vitrine</title>
<link rel="icon" href="static_content/favicon-light-32x32.png">
<link rel="stylesheet" href="static_content/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="static_content/swagger-ui-bundle.js"></script>
<script src="static_content/swagger-ui-standalone-preset.js"></script>
<script src="static_content/swagger-initializer.js"></script>
</body>
</html>
"""


async def page(_: Context, __: Request, ___: Mapping[str, str]) -> Response:
    """GET / and /docs: Swagger's page, which loads only the files that come with BentoML."""
    return Response(PAGE, "text/html; charset=utf-8")


async def document(context: Context, _: Request, __: Mapping[str, str]) -> Response:
    """GET /docs.json: the OpenAPI document."""
    return json_response(openapi.document(context))


async def schema(context: Context, _: Request, __: Mapping[str, str]) -> Response:
    """GET /schema.json: what BentoML's client reads before its first call.

    The first one imports BentoML, which takes a second or two.
    """
    return json_response(await asyncio.to_thread(context.bentoml_schema))


async def static(_: Context, __: Request, params: Mapping[str, str]) -> Response:
    """GET /static_content/{file}: one of Swagger's files."""
    file = _static_files().get(params["file"])
    if file is None:
        raise UnknownRoute(f"no file {params['file']!r:.80} among those of the page")
    kind, _encoding = mimetypes.guess_type(file.name)
    return Response(await asyncio.to_thread(file.read_bytes), kind or "application/octet-stream")


@cache
def _static_files() -> dict[str, Path]:
    """The files by name; BentoML is found, not imported: that takes longer than a whole start."""
    found = importlib.util.find_spec("bentoml")
    assert found is not None
    assert found.submodule_search_locations is not None
    # Private, but the only place of the files, and a test opens the page.
    folder = Path(found.submodule_search_locations[0]) / "_internal/server/static_content"
    return {path.name: path for path in folder.iterdir()}


ROUTES = (
    Route("GET", "/", "page", page, None),
    Route("GET", "/docs", "page", page, None),
    Route("GET", "/docs.json", "page", document, None),
    Route("GET", "/schema.json", "page", schema, None),
    Route("GET", "/static_content/{file}", "page", static, None),
)
