import copy
import inspect
from collections.abc import Callable
from typing import Any

import pytest

from tests.k8s import policies, relations
from tests.k8s.conftest import NAMES
from tests.k8s.manifests import Manifests, named, of_kind

Policy = Callable[[Manifests], list[str]]
GONE = object()
"""In place of a value: the field is removed."""

POD = "spec.template.spec"
CONTAINER = f"{POD}.containers.0"
DEPLOYMENT = "Deployment/vitrine"
SETTINGS = "ConfigMap/vitrine-settings"
POLICIES = [
    function
    for module in (policies, relations)
    for name, function in inspect.getmembers(module, inspect.isfunction)
    if function.__module__ == module.__name__
    and not name.startswith("_")
    and list(inspect.signature(function).parameters) == ["manifests"]
]

# One change to the overlay `cpu` each, and the policy that must object.
BREAKS: list[tuple[Policy, str, str, object]] = [
    (policies.images_are_pinned, DEPLOYMENT, f"{CONTAINER}.image", "vitrine:latest"),
    (policies.images_are_pinned, DEPLOYMENT, f"{CONTAINER}.image", "vitrine"),
    (policies.runs_as_non_root, DEPLOYMENT, f"{POD}.securityContext.runAsNonRoot", GONE),
    (policies.runs_as_non_root, DEPLOYMENT, f"{POD}.securityContext.runAsUser", 0),
    (
        policies.root_is_read_only,
        DEPLOYMENT,
        f"{CONTAINER}.securityContext.readOnlyRootFilesystem",
        False,
    ),
    (policies.scratch_is_bounded, DEPLOYMENT, f"{POD}.volumes.0.emptyDir.sizeLimit", GONE),
    (policies.has_no_privileges, DEPLOYMENT, f"{POD}.securityContext.seccompProfile", GONE),
    (policies.has_no_privileges, DEPLOYMENT, f"{CONTAINER}.securityContext.capabilities", GONE),
    (
        policies.has_no_privileges,
        DEPLOYMENT,
        f"{CONTAINER}.securityContext.allowPrivilegeEscalation",
        GONE,
    ),
    (
        policies.probes_speak_what_is_served,
        DEPLOYMENT,
        f"{CONTAINER}.livenessProbe.httpGet.scheme",
        "HTTPS",
    ),
    (policies.probes_speak_what_is_served, SETTINGS, "data.VITRINE_TLS_CERT_FILE", "/tls.crt"),
    (
        policies.memory_limit_equals_request,
        DEPLOYMENT,
        f"{CONTAINER}.resources.requests.memory",
        "512Mi",
    ),
    (
        policies.memory_limit_equals_request,
        DEPLOYMENT,
        f"{CONTAINER}.resources.limits.memory",
        GONE,
    ),
    (policies.has_all_three_probes, DEPLOYMENT, f"{CONTAINER}.startupProbe", GONE),
    (
        policies.has_all_three_probes,
        DEPLOYMENT,
        f"{CONTAINER}.livenessProbe.httpGet.path",
        "/readyz",
    ),
    (policies.has_no_service_links, DEPLOYMENT, f"{POD}.enableServiceLinks", GONE),
    (policies.mounts_no_api_token, DEPLOYMENT, f"{POD}.automountServiceAccountToken", GONE),
    (policies.grace_period_covers_drain, DEPLOYMENT, f"{POD}.terminationGracePeriodSeconds", 50),
    (
        policies.grace_period_covers_drain,
        DEPLOYMENT,
        f"{CONTAINER}.lifecycle.preStop.sleep.seconds",
        15,
    ),
    (policies.grace_period_covers_drain, SETTINGS, "data.VITRINE_DRAIN_S", "20"),
    (policies.rollout_loses_nothing, DEPLOYMENT, "spec.strategy.rollingUpdate.maxUnavailable", 1),
    (policies.settings_are_usable, SETTINGS, "data.VITRINE_THREADS", "2"),
    (policies.settings_are_usable, SETTINGS, "data.VITRINE_DRAIN_S", "-1"),
    (policies.memory_covers_workers, DEPLOYMENT, f"{CONTAINER}.resources.limits.memory", "1Gi"),
    (policies.memory_covers_workers, DEPLOYMENT, f"{CONTAINER}.resources.limits.cpu", "3"),
    (policies.memory_covers_workers, DEPLOYMENT, f"{POD}.volumes.0.emptyDir.sizeLimit", "512Mi"),
    (policies.memory_covers_workers, SETTINGS, "data.VITRINE_WORKERS", "4"),
    (
        policies.memory_covers_workers,
        SETTINGS,
        "data.VITRINE_DECODE_MEMORY_BYTES",
        "1073741824",
    ),
    (relations.selectors_match_pods, "Service/vitrine", "spec.selector", {"app": "vitrine"}),
    (relations.selectors_match_pods, DEPLOYMENT, "spec.template.metadata.labels", {}),
    (
        relations.selectors_match_pods,
        "ServiceMonitor/vitrine",
        "spec.selector.matchLabels",
        {"a": "b"},
    ),
    (
        relations.selectors_match_pods,
        "PodDisruptionBudget/vitrine",
        "spec.selector.matchLabels",
        {"app": "vitrine"},
    ),
    (
        relations.selectors_match_pods,
        "NetworkPolicy/vitrine",
        "spec.podSelector.matchLabels",
        {"app": "vitrine"},
    ),
    (relations.references_exist, DEPLOYMENT, f"{POD}.serviceAccountName", "default-of-ours"),
    (relations.references_exist, DEPLOYMENT, f"{POD}.volumes.1.secret.secretName", "tokens"),
    (
        relations.references_exist,
        DEPLOYMENT,
        f"{CONTAINER}.envFrom.0.configMapRef.name",
        "settings",
    ),
    (relations.references_exist, DEPLOYMENT, f"{CONTAINER}.livenessProbe.httpGet.port", "web"),
    (relations.references_exist, "Service/vitrine", "spec.ports.0.targetPort", 8080),
    (relations.references_exist, "ServiceMonitor/vitrine", "spec.endpoints.0.port", "metrics"),
    (
        relations.references_exist,
        "ServiceMonitor/vitrine",
        "spec.endpoints.0.authorization.credentials.key",
        "tokens",
    ),
    (relations.references_exist, "HTTPRoute/vitrine", "spec.rules.0.backendRefs.0.port", 3000),
    (relations.references_exist, "NetworkPolicy/vitrine", "spec.ingress.0.ports.0.port", 8080),
    (
        relations.scale_targets_exist,
        "HorizontalPodAutoscaler/vitrine",
        "spec.scaleTargetRef.name",
        "vitrine-cpu",
    ),
    (relations.scale_targets_exist, DEPLOYMENT, "spec.replicas", 2),
    (
        relations.metrics_are_served,
        "HorizontalPodAutoscaler/vitrine",
        "spec.metrics.1.pods.metric.name",
        "vitrine_queue",
    ),
    (
        relations.traffic_is_denied_by_default,
        "NetworkPolicy/vitrine-default-deny",
        "spec.policyTypes",
        ["Ingress"],
    ),
    (relations.traffic_is_denied_by_default, "NetworkPolicy/vitrine", "spec.ingress.0.from", GONE),
    (
        relations.traffic_is_denied_by_default,
        "NetworkPolicy/vitrine-dns",
        "spec.egress.0.ports",
        GONE,
    ),
    (
        relations.traffic_is_denied_by_default,
        "NetworkPolicy/vitrine",
        "spec.ingress.0.from.0.namespaceSelector",
        {},
    ),
    (relations.eviction_is_possible, "PodDisruptionBudget/vitrine", "spec.maxUnavailable", 0),
    (
        relations.only_clients_routes_are_public,
        "HTTPRoute/vitrine",
        "spec.rules.0.matches.0.path",
        {"type": "PathPrefix", "value": "/"},
    ),
    (relations.namespace_is_restricted, "Service/vitrine", "metadata.namespace", "default"),
    (
        relations.namespace_is_restricted,
        "Namespace/vitrine",
        "metadata.labels",
        {"pod-security.kubernetes.io/enforce": "baseline"},
    ),
]


def changed(manifests: Manifests, title: str, path: str, value: object) -> Manifests:
    """A copy with one value replaced."""
    copies = copy.deepcopy(manifests)
    place: Any = named(copies, title)
    *steps, last = (int(step) if step.isdigit() else step for step in path.split("."))
    for step in steps:
        place = place[step]
    if value is GONE:
        del place[last]
    else:
        place[last] = value
    return copies


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.__name__)
@pytest.mark.parametrize("overlay", NAMES)
def test_policy_holds(rendered: dict[str, Manifests], overlay: str, policy: Policy) -> None:
    if overlay == "dev" and policy is relations.traffic_is_denied_by_default:
        assert of_kind(rendered[overlay], "NetworkPolicy") == []  # the base alone has none
    else:
        assert policy(rendered[overlay]) == []


@pytest.mark.parametrize(
    ("policy", "title", "path", "value"),
    BREAKS,
    ids=lambda part: part.__name__ if callable(part) else None,
)
def test_policy_objects(
    rendered: dict[str, Manifests], policy: Policy, title: str, path: str, value: object
) -> None:
    broken = changed(rendered["cpu"], title, path, value)
    assert policy(broken) != []


def test_pods_of_two_deployments_are_noticed(rendered: dict[str, Manifests]) -> None:
    twin = changed(rendered["cpu"], DEPLOYMENT, "metadata.name", "vitrine-canary")
    both = [*rendered["cpu"], named(twin, "Deployment/vitrine-canary")]
    assert relations.pods_have_one_owner(both) != []


def test_memory_for_the_worker_of_a_gpu_is_noticed(rendered: dict[str, Manifests]) -> None:
    path = f"{CONTAINER}.resources.limits.memory"
    broken = changed(rendered["gpu"], DEPLOYMENT, path, "4Gi")
    assert policies.memory_covers_workers(broken) != []


def test_missing_key_of_a_secret_is_noticed(rendered: dict[str, Manifests]) -> None:
    path = f"{CONTAINER}.env.0.valueFrom.secretKeyRef.key"
    broken = changed(rendered["cpu with load-test"], "Job/vitrine-load-test", path, "tokens")
    assert relations.references_exist(broken) != []


def test_every_policy_is_known_to_object() -> None:
    proven = {policy for policy, *_ in BREAKS} | {relations.pods_have_one_owner}
    assert set(POLICIES) == proven
