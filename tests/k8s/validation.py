"""Objects against schemas: Kubernetes' own, and ours of the custom resources that we use."""

import json
from functools import cache
from pathlib import Path

import jsonschema
import kubernetes_validate

from tests.k8s.manifests import Manifest

# The first with a native sleep before the stop, and the newest that the package knows.
VERSIONS = ("1.30", "1.37")
SCHEMAS = Path(__file__).parent / "schemas"


@cache
def custom_schemas() -> dict[tuple[str, str], Manifest]:
    """Our schemas by the API version and kind that they are for."""
    schemas = [json.loads(file.read_text()) for file in sorted(SCHEMAS.glob("*.json"))]
    return {
        (schema["properties"]["apiVersion"]["const"], schema["properties"]["kind"]["const"]): schema
        for schema in schemas
    }


def validate(manifest: Manifest, version: str) -> None:
    """Raise jsonschema.ValidationError for an object that a cluster would not take as it is."""
    schema = custom_schemas().get((manifest["apiVersion"], manifest["kind"]))
    if schema is None:
        kubernetes_validate.validate(manifest, version, strict=True)
    else:
        jsonschema.Draft202012Validator(schema).validate(manifest)
