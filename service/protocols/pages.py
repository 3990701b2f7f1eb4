"""The page to try every route, and the documents behind it."""

import asyncio
import importlib.util
import mimetypes
from collections.abc import Mapping
from functools import cache, partial
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
<script src="static_content/vitrine.js"></script>
</body>
</html>
"""
# BentoML's own would show the document to validator.swagger.io.
SCRIPT = b"""window.onload = () => {
  SwaggerUIBundle({
    url: "./docs.json",
    dom_id: "#swagger-ui",
    deepLinking: true,
    validatorUrl: null,
    presets: [SwaggerUIBundle.presets.apis, SwaggerUIStandalonePreset],
    layout: "StandaloneLayout",
  });
};
"""
_POLICY = (
    "default-src 'none'",
    "script-src 'self'",
    # Swagger writes styles into its elements, draws icons from data, and shows an answer's image.
    "style-src 'self' 'unsafe-inline'",
    "img-src 'self' data: blob:",
    "connect-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
)
PAGE_HEADERS = {
    "Content-Security-Policy": "; ".join(_POLICY),
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
}
STATIC_HEADERS = {"Cache-Control": "max-age=3600"}


async def page(_: Context, __: Request, ___: Mapping[str, str]) -> Response:
    """GET / and /docs: Swagger's page, which loads only the files that come with BentoML."""
    return Response(PAGE, "text/html; charset=utf-8", headers=PAGE_HEADERS)


async def script(_: Context, __: Request, ___: Mapping[str, str]) -> Response:
    """GET /static_content/vitrine.js: what starts Swagger on the page."""
    return Response(SCRIPT, "text/javascript", headers=STATIC_HEADERS)


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
    body = await asyncio.to_thread(file.read_bytes)
    return Response(body, kind or "application/octet-stream", headers=STATIC_HEADERS)


@cache
def _static_files() -> dict[str, Path]:
    """The files by name; BentoML is found, not imported: that takes longer than a whole start."""
    found = importlib.util.find_spec("bentoml")
    assert found is not None
    assert found.submodule_search_locations is not None
    # Private, but the only place of the files, and a test opens the page.
    folder = Path(found.submodule_search_locations[0]) / "_internal/server/static_content"
    return {path.name: path for path in folder.iterdir()}


# Open: who has a token enters it on the page, which reads the document first.
_page = partial(Route, "GET", protocol="page", describe=None, scope=None)
ROUTES = (
    _page(path="/", handler=page),
    _page(path="/docs", handler=page),
    _page(path="/docs.json", handler=document),
    _page(path="/schema.json", handler=schema),
    _page(path="/static_content/vitrine.js", handler=script),
    _page(path="/static_content/{file}", handler=static),
)
