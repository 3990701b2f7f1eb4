import base64
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from service.errors import Unauthorized
from service.protocols.tokens import read_tokens
from tests.k8s import policies, relations
from tests.k8s.manifests import K8S, Manifests, environment, named, render_text
from tests.k8s.routing import backends
from tests.k8s.validation import VERSIONS, validate
from tests.programs import program
from tests.server import CHECKOUT

README = (K8S / "README.md").read_text()
OVERLAYS = re.findall(r"^```yaml\n# k8s/overlays/(.*?)^```$", README, re.MULTILINE | re.DOTALL)
SHELL = re.findall(r"^```(?:sh)?\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def overlay(heading: str, number: int = 0) -> str:
    """An overlay that a section of README shows."""
    [section] = re.findall(rf"^## {heading}\n(.*?)(?=^## |\Z)", README, re.MULTILINE | re.DOTALL)
    found: str = re.findall(r"^```yaml\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)[number]
    return found


@pytest.mark.parametrize("text", OVERLAYS, ids=range(len(OVERLAYS)))
def test_shown_overlay_is_valid(text: str, tmp_path: Path) -> None:
    manifests = render_text(f"# k8s/overlays/{text}", tmp_path)
    for manifest in manifests:
        validate(manifest, VERSIONS[0])
    assert policies.images_are_pinned(manifests) == []
    assert policies.settings_are_usable(manifests) == []
    assert relations.selectors_match_pods(manifests) == []
    assert relations.only_clients_routes_are_public(manifests) == []


def test_own_overlay_names_image_and_gateway(tmp_path: Path) -> None:
    manifests = render_text(overlay("From an empty cluster to an answer"), tmp_path)
    pod = named(manifests, "Deployment/vitrine")["spec"]["template"]["spec"]
    assert pod["containers"][0]["image"] == "registry.example.com/vitrine:0.1.0-cpu"
    assert relations.references_exist(manifests) == []
    policy = named(manifests, "NetworkPolicy/vitrine")["spec"]["ingress"][0]["from"]
    namespaces = [peer["namespaceSelector"]["matchLabels"] for peer in policy]
    route = named(manifests, "HTTPRoute/vitrine")["spec"]["parentRefs"][0]
    assert {"kubernetes.io/metadata.name": route["namespace"]} in namespaces


def test_split_overlay_keeps_an_image_for_each_device(tmp_path: Path) -> None:
    manifests = render_text(overlay("Split"), tmp_path)
    pods = {
        name: named(manifests, f"Deployment/vitrine-{name}")["spec"]["template"]["spec"]
        for name in ("small", "vgg16")
    }
    assert {name: pod["containers"][0]["image"] for name, pod in pods.items()} == {
        "small": "registry.example.com/vitrine:0.1.0-cpu",
        "vgg16": "registry.example.com/vitrine:0.1.0-gpu",
    }


def with_canary(number: int, folder: Path) -> Manifests:
    canary = render_text(overlay("Canary"), folder / "canary")
    return [*render_text(overlay("Canary", number), folder / "stable"), *canary]


def test_canary_gets_its_share_by_weight(tmp_path: Path) -> None:
    manifests = with_canary(1, tmp_path)
    for policy in (relations.references_exist, relations.pods_have_one_owner):
        assert policy(manifests) == []
    route = named(manifests, "HTTPRoute/vitrine")
    assert backends(route, "/classify") == {"vitrine": 95, "vitrine-canary": 5}


def test_canary_gets_those_that_ask_for_it(tmp_path: Path) -> None:
    manifests = with_canary(2, tmp_path)
    assert relations.references_exist(manifests) == []
    first, second = named(manifests, "HTTPRoute/vitrine")["spec"]["rules"]
    assert first["matches"][0]["headers"] == [{"name": "X-Canary", "value": "true"}]
    assert first["backendRefs"][0]["name"] == "vitrine-canary"
    assert second["backendRefs"][0]["name"] == "vitrine"


def test_scaling_to_zero_has_a_trigger_outside_of_the_pods(tmp_path: Path) -> None:
    manifests = render_text(overlay("Scale with KEDA, and to zero"), tmp_path)
    spec = named(manifests, "ScaledObject/vitrine")["spec"]
    assert spec["minReplicaCount"] == 0
    assert relations.scale_targets_exist(manifests) == []
    queries = [trigger["metadata"].get("query", "vitrine_") for trigger in spec["triggers"]]
    assert any("vitrine_" not in query for query in queries)


def test_signed_models_are_verified_before_the_pod_serves_them(tmp_path: Path) -> None:
    manifests = render_text(overlay("Signed models"), tmp_path)
    pod = named(manifests, "Deployment/vitrine")["spec"]["template"]["spec"]
    [verify] = pod["initContainers"]
    models, _, key, *_ = verify["args"]
    assert environment(pod["containers"][0], manifests)["VITRINE_MODELS_DIR"] == models
    mounted = {mount["name"]: mount["mountPath"] for mount in verify["volumeMounts"]}
    assert mounted["models"] == models
    [file] = named(manifests, "ConfigMap/vitrine-signing-key")["data"]
    assert key == f"{mounted['signing-key']}/{file}"
    assert all(mount.get("readOnly") for mount in verify["volumeMounts"] if mount["name"] != "tmp")
    for policy in (policies.has_no_privileges, policies.root_is_read_only):
        assert policy(manifests) == []


def test_tokens_of_the_secrets_are_what_the_service_reads(tmp_path: Path) -> None:
    kubectl = program("kubectl")
    [block] = [text for text in SHELL if "vitrine-api-tokens" in text]
    # Of the commands that need a cluster, `create` can be tried without one.
    shim = (
        f'kubectl() {{ [ "$1" = apply ] || {kubectl} "$@" --dry-run=client -o yaml; echo ---; }}\n'
        "trap 'printf %s \"$TOKEN\" > token' EXIT\n"
    )
    ran = subprocess.run(
        ["sh", "-euc", shim + block], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    secrets = {one["metadata"]["name"]: one for one in yaml.safe_load_all(ran.stdout) if one}
    assert secrets.keys() == {"vitrine-api-tokens", "vitrine-metrics-token"}
    assert {one["metadata"]["namespace"] for one in secrets.values()} == {"vitrine"}
    digests = tmp_path / "mounted"
    digests.write_bytes(base64.b64decode(secrets["vitrine-api-tokens"]["data"]["tokens"]))
    scraper = base64.b64decode(secrets["vitrine-metrics-token"]["data"]["token"])
    client = (tmp_path / "token").read_bytes()
    tokens = read_tokens(digests)
    for token, name, scope in ((client, "shop", "predict"), (scraper, "prometheus", "metrics")):
        found = tokens.identify([(b"authorization", b"Bearer " + token)])
        assert (found.name, found.scopes) == (name, (scope,))
        assert token not in digests.read_bytes()
    with pytest.raises(Unauthorized):
        tokens.identify([])


def test_named_folders_and_files_are_there() -> None:
    shown = {"k8s/overlays/mine", "k8s/overlays/canary"}
    named_paths = set(re.findall(r"(?<!# )\bk8s/[\w/.-]+\w", " ".join(SHELL))) - shown
    assert named_paths
    for path in named_paths | set(re.findall(r"\]\((?:\.\./)+([^)#]+)\)", README)):
        assert (CHECKOUT / path).exists(), path
