"""What must hold between objects: each policy looks at rendered objects and says what is wrong."""

from collections.abc import Iterator

import yaml

from service.protocols import health, pages
from tests.k8s.manifests import (
    K8S,
    Manifest,
    Manifests,
    containers,
    of_kind,
    pods,
    selects,
    title,
)
from tests.k8s.routing import backends

INSIDE = [route.path for route in (*health.ROUTES, *pages.ROUTES)]
# Made by hand before the first `kubectl apply`: tokens are in no repository.
SECRETS = {
    "vitrine-api-tokens": {"tokens"},
    "vitrine-metrics-token": {"token"},
    "vitrine-load-test-token": {"token"},
    "vitrine-tls": {"tls.crt", "tls.key", "ca.crt"},
}


def selectors_match_pods(manifests: Manifests) -> list[str]:
    """A selector that takes nothing fails silently in a cluster."""
    labels = [pod.labels for pod in pods(manifests)]
    services = [service["metadata"].get("labels", {}) for service in of_kind(manifests, "Service")]
    found = []
    for manifest in manifests:
        spec = manifest.get("spec", {})
        match manifest["kind"]:
            case "Service":
                selector, candidates = {"matchLabels": spec["selector"]}, labels
            case "PodDisruptionBudget":
                selector, candidates = spec["selector"], labels
            case "NetworkPolicy":
                selector, candidates = spec["podSelector"], labels
            case "ServiceMonitor":
                selector, candidates = spec["selector"], services
            case "Deployment":
                selector = spec["selector"]
                candidates = [spec["template"]["metadata"]["labels"]]
            case _:
                continue
        if not any(selects(selector, candidate) for candidate in candidates):
            found.append(f"{title(manifest)} selects nothing")
    return found


def pods_have_one_owner(manifests: Manifests) -> list[str]:
    """Two Deployments, or two budgets, that select one pod work against each other."""
    return [
        f"{pod.name}: its pods are taken by more than one {kind}"
        for pod in pods(manifests, "Deployment")
        for kind in ("Deployment", "PodDisruptionBudget")
        if sum(selects(one["spec"]["selector"], pod.labels) for one in of_kind(manifests, kind)) > 1
    ]


def references_exist(manifests: Manifests) -> list[str]:
    """Every ConfigMap, Secret, key, ServiceAccount, Service and port that something names."""
    return [
        f"{who} names {kind} {name}, which is not there"
        for who, kind, name in _references(manifests)
        if (kind, name) not in _known(manifests)
    ]


def _known(manifests: Manifests) -> set[tuple[str, str]]:
    known = {(one["kind"], one["metadata"]["name"]) for one in manifests}
    known |= {("Secret", name) for name in SECRETS}
    known |= {("Secret key", f"{name}/{key}") for name in SECRETS for key in SECRETS[name]}
    for service in of_kind(manifests, "Service"):
        for port in service["spec"]["ports"]:
            known.add(("Service port", f"{service['metadata']['name']}:{port['port']}"))
            known.add(("Service port", port["name"]))
    for _, container in containers(manifests):
        for port in container.get("ports", []):
            known |= {("port", port["name"]), ("port", str(port["containerPort"]))}
    return known


def _references(manifests: Manifests) -> Iterator[tuple[str, str, str]]:
    """Who names what: a title, a kind, a name."""
    for pod in pods(manifests):
        if "serviceAccountName" in pod.spec:
            yield pod.name, "ServiceAccount", pod.spec["serviceAccountName"]
        for volume in pod.spec.get("volumes", []):
            if "secret" in volume:
                yield pod.name, "Secret", volume["secret"]["secretName"]
    for pod, container in containers(manifests):
        for kind, name in _container_references(container):
            yield pod.name, kind, name
    for manifest in manifests:
        for kind, name in _traffic_references(manifest):
            yield title(manifest), kind, name


def _container_references(container: Manifest) -> Iterator[tuple[str, str]]:
    for source in container.get("envFrom", []):
        yield "ConfigMap", source["configMapRef"]["name"]
    for variable in container.get("env", []):
        if "secretKeyRef" in variable.get("valueFrom", {}):
            source = variable["valueFrom"]["secretKeyRef"]
            yield "Secret key", f"{source['name']}/{source['key']}"
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        if probe in container:
            yield "port", container[probe]["httpGet"]["port"]


def _traffic_references(manifest: Manifest) -> Iterator[tuple[str, str]]:
    spec = manifest.get("spec", {})
    match manifest["kind"]:
        case "Service":
            yield from (("port", str(port["targetPort"])) for port in spec["ports"])
        case "ServiceMonitor":
            for endpoint in spec["endpoints"]:
                yield "Service port", endpoint["port"]
                credentials = endpoint["authorization"]["credentials"]
                yield "Secret key", f"{credentials['name']}/{credentials['key']}"
        case "HTTPRoute":
            for rule in spec["rules"]:
                for backend in rule["backendRefs"]:
                    yield "Service port", f"{backend['name']}:{backend['port']}"
        case "NetworkPolicy":
            for rule in spec.get("ingress", []):
                yield from (("port", str(port["port"])) for port in rule["ports"])


def scale_targets_exist(manifests: Manifests) -> list[str]:
    """Each Deployment has at most one autoscaler, and then no number of its own."""
    deployments = {one["metadata"]["name"]: one for one in of_kind(manifests, "Deployment")}
    found = []
    targets = []
    for scaler in of_kind(manifests, "HorizontalPodAutoscaler", "ScaledObject"):
        target = scaler["spec"]["scaleTargetRef"]["name"]
        if target not in deployments:
            found.append(f"{title(scaler)} scales {target}, which is not there")
        elif target in targets:
            found.append(f"{title(scaler)}: {target} has another autoscaler")
        elif "replicas" in deployments[target]["spec"]:
            found.append(f"{title(scaler)}: applying {target} would reset its replicas")
        targets.append(target)
    return found


def metrics_are_served(manifests: Manifests) -> list[str]:
    """What an autoscaler asks of pods is what the adapter's rules call it."""
    served = {rule["name"]["as"] for rule in adapter_rules()}
    return [
        f"{title(scaler)} asks for {metric['pods']['metric']['name']}, which no rule serves"
        for scaler in of_kind(manifests, "HorizontalPodAutoscaler")
        for metric in scaler["spec"]["metrics"]
        if metric["type"] == "Pods" and metric["pods"]["metric"]["name"] not in served
    ]


def adapter_rules() -> Manifests:
    """The rules that prometheus-adapter is installed with."""
    values = (K8S / "components" / "hpa" / "prometheus-adapter-values.yaml").read_text()
    rules: Manifests = yaml.safe_load(values)["rules"]["custom"]
    return rules


def traffic_is_denied_by_default(manifests: Manifests) -> list[str]:
    """One policy takes every pod, both ways, and allows nothing; each rule says who and where."""
    policies = of_kind(manifests, "NetworkPolicy")
    found = []
    if not any(_denies_all(policy["spec"]) for policy in policies):
        found.append("no NetworkPolicy denies everything by default")
    for policy in policies:
        for peers, rule in (
            *(("from", rule) for rule in policy["spec"].get("ingress", [])),
            *(("to", rule) for rule in policy["spec"].get("egress", [])),
        ):
            open_peer = any(not any(peer.values()) for peer in rule.get(peers, [{}]))
            if open_peer or not rule.get("ports"):
                found.append(f"{title(policy)} has a rule for everybody or every port")
    return found


def _denies_all(spec: Manifest) -> bool:
    return spec == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}


def eviction_is_possible(manifests: Manifests) -> list[str]:
    """A budget that forbids every eviction blocks the upgrade of its nodes."""
    return [
        f"{title(budget)} lets no pod go"
        for budget in of_kind(manifests, "PodDisruptionBudget")
        if not budget["spec"].get("maxUnavailable")
    ]


def only_clients_routes_are_public(manifests: Manifests) -> list[str]:
    """Probes, metrics and the page are for those inside: probes and page need no token."""
    return [
        f"{title(route)} publishes {path}"
        for route in of_kind(manifests, "HTTPRoute")
        for path in INSIDE
        if backends(route, path)
    ]


def namespace_is_restricted(manifests: Manifests) -> list[str]:
    """All objects are in one namespace, and that takes restricted pods only."""
    [namespace] = of_kind(manifests, "Namespace")
    name, labels = namespace["metadata"]["name"], namespace["metadata"].get("labels", {})
    found = [
        f"{title(one)} is not in namespace {name}"
        for one in manifests
        if one is not namespace and one["metadata"].get("namespace") != name
    ]
    return found + [
        f"namespace {name}: expected pod security {mode}: restricted"
        for mode in ("enforce", "audit", "warn")
        if labels.get(f"pod-security.kubernetes.io/{mode}") != "restricted"
    ]
