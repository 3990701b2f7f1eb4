from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest
import yaml
from openapi_spec_validator import validate

from service.protocols import catalog, health, native, pages
from tests.asgi import in_process
from tests.k8s.routing import backends
from tests.server import CHECKOUT
from tests.service.protocols.test_native import DENOISE, DIGIT, PNG, PREDICT, SAMPLE, upload

Json = dict[str, Any]
ROUTES = (*native.routes(), *catalog.ROUTES, *health.ROUTES, *pages.ROUTES)


@pytest.fixture(scope="module")
def document(client: httpx.Client) -> Json:
    document: Json = client.get("/docs.json").json()
    return document


def document_of(**settings: object) -> Json:
    with in_process(**settings) as client:
        document: Json = client.get("/docs.json").json()
    return document


def form(document: Json, path: str) -> Json:
    content = document["paths"][path]["post"]["requestBody"]["content"]
    schema: Json = content["multipart/form-data"]["schema"]
    return schema


def parameters(operation: Json) -> dict[str, Json]:
    return {parameter["name"]: parameter for parameter in operation["parameters"]}


def operations(document: Json) -> Iterator[tuple[str, str, Json]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


@pytest.mark.parametrize("models", [(), ("denoiser",), ("hand-signs", "fashion-mnist-mlp")])
def test_document_is_valid_whatever_is_served(models: tuple[str, ...]) -> None:
    validate(document_of(models=models))


def test_document_holds_every_route_but_the_pages(document: Json) -> None:
    described = {(method, path) for method, path, _ in operations(document)}
    assert described == {
        (route.method, route.path) for route in ROUTES if route not in pages.ROUTES
    }
    assert ("POST", "/classify") in described


def test_operations_have_names_of_their_own_summaries_and_tags(document: Json) -> None:
    found = [operation for _, _, operation in operations(document)]
    names = [operation["operationId"] for operation in found]
    assert len(set(names)) == len(names)
    assert all(operation["summary"].endswith(".") for operation in found)
    assert {tag for operation in found for tag in operation["tags"]} == {"Models", "Server"}


def test_document_asks_for_a_token_where_the_server_does(document: Json, tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text("0" * 64)
    guarded = document_of(models=("fashion-mnist-mlp",), api_tokens_file=file)
    validate(guarded)
    assert guarded["components"]["securitySchemes"] == {
        "bearer": {"type": "http", "scheme": "bearer"}
    }
    free = set()
    for _, path, operation in operations(guarded):
        if "security" in operation:
            assert operation["security"] == [{"bearer": []}]
            assert {"401", "403"} <= operation["responses"].keys()
        else:
            free.add(path)
            assert not {"401", "403"} & operation["responses"].keys()
    assert free == {"/livez", "/healthz", "/readyz"}
    assert "securitySchemes" not in document["components"]
    for _, _, operation in operations(document):
        assert "security" not in operation
        assert not {"401", "403", "429"} & operation["responses"].keys()


def test_document_tells_of_a_limited_rate(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text("0" * 64)
    limited = document_of(models=("fashion-mnist-mlp",), api_tokens_file=file, rate_limit_per_s=2.0)
    paths = {path for _, path, asked in operations(limited) if "429" in asked["responses"]}
    assert paths == {route.path for route in ROUTES if route.is_inference}


def test_every_error_has_the_one_body(document: Json) -> None:
    error = document["components"]["schemas"]["Error"]
    assert list(error["properties"]) == error["required"] == ["error"]
    for method, path, operation in operations(document):
        for status, response in operation["responses"].items():
            if status != "200":
                schema = response["content"]["application/json"]["schema"]
                assert schema == {"$ref": "#/components/schemas/Error"}, (method, path)


def test_operation_tells_the_errors_that_it_may_answer(document: Json) -> None:
    inference = {route.path for route in ROUTES if route.is_inference}
    for _, path, operation in operations(document):
        errors = operation["responses"].keys() - {"200"}
        if path in inference:
            assert errors == {"400", "404", "405", "408", "413", "415", "503", "504"}
        elif path in {"/livez", "/healthz", "/readyz", "/metrics"}:
            assert errors == {"503"}
    assert inference


def test_form_offers_the_models_of_its_task_and_its_default(document: Json) -> None:
    classify, denoise = form(document, "/classify"), form(document, "/denoise")
    assert classify["required"] == denoise["required"] == ["image"]
    assert list(classify["properties"]) == ["image", "model", "top_k"]
    assert list(denoise["properties"]) == ["image", "model"]
    model = classify["properties"]["model"]
    assert model["default"] == "fashion-mnist"
    assert "hand-signs" in model["enum"]
    assert "denoiser" not in model["enum"]
    assert denoise["properties"]["model"]["enum"] == ["denoiser"]
    assert denoise["properties"]["model"]["default"] == "denoiser"


def test_form_tells_the_options_defaults_and_limits(document: Json) -> None:
    top_k = form(document, "/classify")["properties"]["top_k"]
    assert (top_k["type"], top_k["default"], top_k["minimum"]) == ("integer", 3, 1)
    assert top_k["description"]


@pytest.mark.parametrize(
    ("settings", "default"),
    [
        ({"models": ("hand-signs",)}, "hand-signs"),
        (
            {
                "models": ("hand-signs", "fashion-mnist"),
                "default_models": {"classify": "hand-signs"},
            },
            "hand-signs",
        ),
    ],
)
def test_default_in_the_document_is_the_one_that_answers(
    settings: dict[str, object], default: str
) -> None:
    schema = form(document_of(**settings), "/classify")
    assert schema["properties"]["model"]["default"] == default
    assert schema["required"] == ["image"]


def test_model_has_to_be_chosen_where_there_is_no_default() -> None:
    schema = form(document_of(models=("hand-signs", "fashion-mnist-mlp")), "/classify")
    assert schema["required"] == ["image", "model"]
    assert "default" not in schema["properties"]["model"]


def test_route_of_a_task_without_a_model_offers_none() -> None:
    schema = form(document_of(models=("hand-signs",)), "/denoise")
    assert schema["properties"]["model"] == {"type": "string", "nullable": True}


def test_path_of_a_model_offers_what_is_served(document: Json) -> None:
    operation = document["paths"]["/v1/models/{name}/versions/{version}:predict"]["post"]
    named = parameters(operation)
    assert named["name"]["schema"]["default"] == "fashion-mnist"
    assert {"denoiser", "hand-signs"} <= set(named["name"]["schema"]["enum"])
    assert named["version"]["schema"]["default"] == "1"


def test_predict_has_no_default_that_a_page_would_send_to_every_model(document: Json) -> None:
    top_k = parameters(document["paths"]["/v1/models/{name}:predict"]["post"])["top_k"]
    assert top_k["in"] == "query"
    assert "default" not in top_k["schema"]
    assert top_k["description"].endswith("; for classification only, 3 by default")


@pytest.mark.parametrize(
    ("path", "described"),
    [
        ("/v1/models", "/v1/models"),
        ("/v1/models/denoiser", "/v1/models/{name}"),
        ("/v1/models/hand-signs", "/v1/models/{name}"),
        ("/v1/models/hand-signs/versions/1", "/v1/models/{name}/versions/{version}"),
        ("/livez", "/livez"),
        ("/readyz", "/readyz"),
    ],
)
def test_page_is_as_described(
    client: httpx.Client, document: Json, path: str, described: str
) -> None:
    check_answer(client.get(path), schema_of(document, described, "GET"))


def test_prediction_is_as_described(client: httpx.Client, document: Json) -> None:
    answer = client.post("/classify", files=upload(SAMPLE))
    check_answer(answer, schema_of(document, "/classify", "POST"))
    answer = client.post(PREDICT, content=SAMPLE, headers=PNG)
    check_answer(answer, schema_of(document, "/v1/models/{name}:predict", "POST"))


def check_answer(answer: httpx.Response, schema: Json) -> None:
    """An answer has the described properties and no others."""
    assert answer.status_code == 200
    jsonschema.validate(answer.json(), schema)
    parts = schema.get("allOf", [schema])
    assert answer.json().keys() <= {name for part in parts for name in part["properties"]}


@pytest.mark.parametrize("path", ["/denoise", "/v1/models/{name}:predict"])
def test_image_is_described_as_one(client: httpx.Client, document: Json, path: str) -> None:
    content = document["paths"][path]["post"]["responses"]["200"]["content"]
    assert content["image/png"]["schema"] == {"type": "string", "format": "binary"}
    answer = client.post(DENOISE, content=DIGIT, headers=PNG)
    assert answer.headers["content-type"] == "image/png"


@pytest.mark.parametrize("body", [b"", b"no image"])
def test_error_is_as_described(client: httpx.Client, document: Json, body: bytes) -> None:
    answer = client.post(PREDICT, content=body, headers=PNG)
    operation = document["paths"]["/v1/models/{name}:predict"]["post"]
    assert str(answer.status_code) in operation["responses"]
    jsonschema.validate(answer.json(), document["components"]["schemas"]["Error"])


def schema_of(document: Json, path: str, method: str) -> Json:
    """The schema of a JSON answer, with what it refers to."""
    operation = document["paths"][path][method.lower()]
    schema: Json = operation["responses"]["200"]["content"]["application/json"]["schema"]
    return schema | {"components": document["components"]}


def test_example_is_as_described(document: Json) -> None:
    schema = schema_of(document, "/classify", "POST")
    responses = document["paths"]["/classify"]["post"]["responses"]
    example = responses["200"]["content"]["application/json"]["example"]
    jsonschema.validate(example, schema)
    assert example["model"] == "fashion-mnist"


def test_gateway_takes_what_clients_ask_and_nothing_else() -> None:
    file: Path = CHECKOUT / "k8s/base/http-route.yaml"
    gateway = yaml.safe_load(file.read_text())
    for route in ROUTES:
        path = route.path.replace("{name}", "fashion-mnist").replace("{version}", "1")
        is_for_clients = route.is_inference or route in catalog.ROUTES
        assert backends(gateway, path) == ({"vitrine": 1} if is_for_clients else {}), path
