import copy
from typing import Any

import jsonschema
import pytest

from tests.k8s.manifests import Manifests, named
from tests.k8s.validation import VERSIONS, custom_schemas, validate


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_is_valid(manifests: Manifests, version: str) -> None:
    for manifest in manifests:
        validate(manifest, version)


@pytest.mark.parametrize(
    "change",
    [
        ("cpu", "Deployment/vitrine", ["spec", "template", "spec", "strategy"], {}),
        ("cpu", "Deployment/vitrine", ["spec", "minReadySeconds"], "5"),
        ("cpu", "HorizontalPodAutoscaler/vitrine", ["spec", "minReplica"], 2),
        ("cpu", "HTTPRoute/vitrine", ["spec", "rules", 0, "matches", 0, "path", "type"], "Prefix"),
        ("cpu", "HTTPRoute/vitrine", ["spec", "rules", 0, "timeouts", "request"], "35"),
        ("cpu", "ServiceMonitor/vitrine", ["spec", "endpoints", 0, "targetport"], "http"),
        ("cpu", "PrometheusRule/vitrine", ["spec", "groups", 0, "rules", 0, "exp"], "up"),
        ("cpu", "PrometheusRule/vitrine", ["spec", "groups", 0, "rules", 0, "expr"], ""),
        ("cpu with keda", "ScaledObject/vitrine", ["spec", "minReplicas"], 2),
        (
            "cpu with keda",
            "ScaledObject/vitrine",
            ["spec", "triggers", 1, "metadata", "threshold"],
            32,
        ),
    ],
)
@pytest.mark.parametrize("version", VERSIONS)
def test_a_wrong_field_is_found(
    rendered: dict[str, Manifests],
    change: tuple[str, str, list[str | int], object],
    version: str,
) -> None:
    overlay, title, path, value = change
    manifest = copy.deepcopy(named(rendered[overlay], title))
    place: Any = manifest
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    with pytest.raises(jsonschema.ValidationError):
        validate(manifest, version)


def test_every_custom_schema_is_used(rendered: dict[str, Manifests]) -> None:
    used = {(one["apiVersion"], one["kind"]) for some in rendered.values() for one in some}
    assert custom_schemas().keys() <= used
    for schema in custom_schemas().values():
        jsonschema.Draft202012Validator.check_schema(schema)
