from collections.abc import Mapping

import pytest

from service.errors import UnknownRoute, WrongMethod
from service.protocols import catalog, health, native, pages
from service.protocols.request import Request
from service.protocols.response import Response
from service.protocols.route import CACHED_PATHS, MAX_CACHED_PATH, Context, Route, Router
from service.tasks import TASKS

ROUTES = (*native.routes(), *catalog.ROUTES, *health.ROUTES, *pages.ROUTES)
NAME = "/v1/models/{name}"
VERSION = f"{NAME}/versions/{{version}}"


async def handler(_: Context, __: Request, ___: Mapping[str, str]) -> Response:
    return Response(b"")


@pytest.fixture
def router() -> Router:
    return Router(ROUTES)


@pytest.mark.parametrize(
    ("method", "path", "route", "params"),
    [
        ("POST", "/classify", "/classify", {}),
        ("GET", "/", "/", {}),
        ("HEAD", "/livez", "/livez", {}),
        ("GET", "/v1/models", "/v1/models", {}),
        ("GET", "/v1/models/bags", NAME, {"name": "bags"}),
        ("GET", "/v1/models/versions", NAME, {"name": "versions"}),
        ("GET", "/v1/models/bags/versions/2", VERSION, {"name": "bags", "version": "2"}),
        ("POST", "/v1/models/bags:predict", f"{NAME}:predict", {"name": "bags"}),
        ("POST", "/v1/models/a.b-c_d:predict", f"{NAME}:predict", {"name": "a.b-c_d"}),
        (
            "POST",
            "/v1/models/bags/versions/2:predict",
            f"{VERSION}:predict",
            {"name": "bags", "version": "2"},
        ),
        ("GET", "/static_content/a.b.js", "/static_content/{file}", {"file": "a.b.js"}),
    ],
)
def test_path_finds_its_route(
    router: Router, method: str, path: str, route: str, params: dict[str, str]
) -> None:
    found = router.find(method, path)
    assert found.route.path == route
    assert found.route.method == ("GET" if method == "HEAD" else method)
    assert found.params == params


@pytest.mark.parametrize("method", ["GET", "POST", "NOPE"])
@pytest.mark.parametrize(
    "path",
    [
        "",
        "//",
        "/nope",
        "/classify/",
        "/Classify",
        "/v1/models/",
        "/v1/models/:predict",
        "/v1/models/a/b:predict",
        "/v1/models/a:b:predict",
        "/v1/models/a:predict/",
        "/v1/models/a/versions/:predict",
        "/v1/models/a/versions/1/labels/b:predict",
        "/static_content/a/b",
    ],
)
def test_any_other_path_is_unknown(router: Router, method: str, path: str) -> None:
    with pytest.raises(UnknownRoute) as caught:
        router.find(method, path)
    message = str(caught.value)
    assert message.startswith(f"no route {path!r}: expected one of /classify, /denoise, ")
    assert message.endswith("; /docs describes them")


def test_endless_path_makes_no_endless_message(router: Router) -> None:
    lengths = []
    for path in ("/" + "x" * 300, "/" + "x" * 9000):
        with pytest.raises(UnknownRoute) as caught:
            router.find("GET", path)
        lengths.append(len(str(caught.value)))
    assert len(set(lengths)) == 1


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/classify", ["POST"]),
        ("HEAD", "/v1/models/bags:predict", ["POST"]),
        ("POST", "/v1/models", ["GET", "HEAD"]),
        ("post", "/classify", ["POST"]),
        ("OPTIONS", "/", ["GET", "HEAD"]),
    ],
)
def test_wrong_method_is_told_the_right_ones(
    router: Router, method: str, path: str, allowed: list[str]
) -> None:
    with pytest.raises(WrongMethod, match=f"expected {allowed[0]}, got {method}") as caught:
        router.find(method, path)
    assert caught.value.headers == {"Allow": ", ".join(allowed)}


def test_path_may_have_a_route_for_each_method() -> None:
    get, post = (Route(method, "/a", "page", handler, None) for method in ("GET", "POST"))
    router = Router([get, post])
    assert router.find("GET", "/a").route is get
    assert router.find("POST", "/a").route is post
    with pytest.raises(WrongMethod) as caught:
        router.find("PUT", "/a")
    assert caught.value.headers == {"Allow": "GET, HEAD, POST"}


def test_paths_that_callers_invent_do_not_fill_the_memory(router: Router) -> None:
    for number in range(2 * CACHED_PATHS):
        router.find("POST", f"/v1/models/{number}:predict")
    assert router.cached.cache_info().currsize <= CACHED_PATHS


def test_long_paths_are_found_but_not_kept(router: Router) -> None:
    for length in (MAX_CACHED_PATH, 60_000):
        name = "a" * (length - len("/v1/models/"))
        assert router.find("GET", f"/v1/models/{name}").params == {"name": name}
    assert router.cached.cache_info().currsize == 1


def test_every_task_with_a_verb_has_its_form_route() -> None:
    forms = {route.path: route.protocol for route in native.routes() if "/v1/" not in route.path}
    assert forms == {f"/{task.verb}": task.verb for task in TASKS.values() if task.verb}


def test_a_token_is_asked_for_by_default_and_the_page_and_the_probes_are_open() -> None:
    scopes: dict[str | None, set[str]] = {}
    for route in ROUTES:
        scopes.setdefault(route.scope, set()).add(route.path)
    assert scopes[None] == {"/livez", "/healthz", "/readyz"} | {r.path for r in pages.ROUTES}
    assert scopes["metrics"] == {"/metrics"}
    assert scopes.keys() == {None, "metrics", "predict"}
    assert Route("GET", "/new", "page", handler, None).scope == "predict"


def test_inference_is_posted_and_everything_else_is_a_page() -> None:
    for route in ROUTES:
        assert (route.method == "POST") == route.is_inference == (route.protocol != "page")
