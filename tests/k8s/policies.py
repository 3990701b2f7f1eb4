"""What every pod must be: each policy looks at rendered objects and says what is wrong."""

from service.errors import SettingsError
from service.machine import decode_memory_bytes
from service.protocols import health
from service.server.worker import STOP_MARGIN_S
from service.settings import read_settings
from tests.k8s.manifests import Manifest, Manifests, containers, environment, pods, quantity

# Measured with all nine models, each of which has computed its largest batch.
FIRST_WORKER_BYTES = 327e6
FURTHER_WORKER_BYTES = 221e6
# An estimate of TensorFlow with CUDA and all models.
GPU_WORKER_BYTES = 4e9
# Beside the budget, in each worker: what has come of bodies that wait (up to 320 KB for each
# connection), strips of images, a body that is put together from its parts.
MARGIN_BYTES = 67e6


def images_are_pinned(manifests: Manifests) -> list[str]:
    """By a digest, or a tag other than latest."""
    return [
        f"{pod.name}: image {container['image']} is not pinned"
        for pod, container in containers(manifests)
        if "@sha256:" not in container["image"]
        and container["image"].rpartition(":")[2] in ("latest", container["image"])
    ]


def runs_as_non_root(manifests: Manifests) -> list[str]:
    return [
        f"{pod.name} may run as root"
        for pod in pods(manifests)
        if not pod.spec.get("securityContext", {}).get("runAsNonRoot")
        or not pod.spec["securityContext"].get("runAsUser")
    ]


def root_is_read_only(manifests: Manifests) -> list[str]:
    return [
        f"{pod.name}: container {container['name']} can write to its image"
        for pod, container in containers(manifests)
        if not container.get("securityContext", {}).get("readOnlyRootFilesystem")
    ]


def scratch_is_bounded(manifests: Manifests) -> list[str]:
    """An emptyDir without a limit fills the node."""
    return [
        f"{pod.name}: emptyDir {volume['name']} has no sizeLimit"
        for pod in pods(manifests)
        for volume in pod.spec.get("volumes", [])
        if "emptyDir" in volume and "sizeLimit" not in volume["emptyDir"]
    ]


def has_no_privileges(manifests: Manifests) -> list[str]:
    """What the restricted pod security standard asks for beyond the user."""
    found = [
        f"{pod.name}: no seccomp profile"
        for pod in pods(manifests)
        if pod.spec.get("securityContext", {}).get("seccompProfile") != {"type": "RuntimeDefault"}
    ]
    for pod, container in containers(manifests):
        context = container.get("securityContext", {})
        if context.get("allowPrivilegeEscalation") is not False:
            found.append(f"{pod.name}: {container['name']} may gain privileges")
        if context.get("capabilities") != {"drop": ["ALL"]}:
            found.append(f"{pod.name}: {container['name']} keeps capabilities")
    return found


def memory_limit_equals_request(manifests: Manifests) -> list[str]:
    """Memory cannot be taken back: what is not requested may be gone when it is needed."""
    return [
        f"{pod.name}: {container['name']} requests other memory than its limit"
        for pod, container in containers(manifests)
        if "memory" not in container["resources"]["limits"]
        or container["resources"]["requests"].get("memory")
        != container["resources"]["limits"]["memory"]
    ]


def has_all_three_probes(manifests: Manifests) -> list[str]:
    """Startup and readiness ask for readiness, liveness for nothing that load can fail."""
    wanted = {"startupProbe": "/readyz", "readinessProbe": "/readyz", "livenessProbe": "/livez"}
    assert set(wanted.values()) <= {route.path for route in health.ROUTES}
    return [
        f"{pod.name}: expected a {probe} on {path}"
        for pod, container in containers(manifests, "Deployment")
        for probe, path in wanted.items()
        if container.get(probe, {}).get("httpGet", {}).get("path") != path
    ]


def probes_speak_what_is_served(manifests: Manifests) -> list[str]:
    """A probe over HTTP never succeeds on a port of TLS, nor the other way round."""
    return [
        f"{pod.name}: expected a {probe} with scheme {scheme}"
        for pod, container in containers(manifests, "Deployment")
        for scheme in [
            "HTTPS" if "VITRINE_TLS_CERT_FILE" in environment(container, manifests) else "HTTP"
        ]
        for probe in ("startupProbe", "readinessProbe", "livenessProbe")
        if container.get(probe, {}).get("httpGet", {}).get("scheme", "HTTP") != scheme
    ]


def has_no_service_links(manifests: Manifests) -> list[str]:
    """Kubernetes would put the addresses of all Services into the environment."""
    return [
        f"{pod.name} gets service links"
        for pod in pods(manifests)
        if pod.spec.get("enableServiceLinks") is not False
    ]


def mounts_no_api_token(manifests: Manifests) -> list[str]:
    return [
        f"{pod.name} gets a token of the Kubernetes API"
        for pod in pods(manifests)
        if pod.spec.get("automountServiceAccountToken") is not False
    ]


def grace_period_covers_drain(manifests: Manifests) -> list[str]:
    """Before it is killed a pod can wait, drain and answer its longest request."""
    found = []
    for pod, container in containers(manifests, "Deployment"):
        settings = environment(container, manifests)
        needed_s = (
            container["lifecycle"]["preStop"]["sleep"]["seconds"]
            + float(settings.get("VITRINE_DRAIN_S", 0))
            + float(settings["VITRINE_REQUEST_TIMEOUT_S"])
            + STOP_MARGIN_S
        )
        grace_s = pod.spec["terminationGracePeriodSeconds"]
        if grace_s <= needed_s:
            found.append(f"{pod.name}: expected more than {needed_s} s of grace, got {grace_s} s")
    return found


def rollout_loses_nothing(manifests: Manifests) -> list[str]:
    return [
        f"{pod.name}: a rollout takes a pod away before another is ready"
        for pod in pods(manifests, "Deployment")
        if pod.owner["spec"]["strategy"]["rollingUpdate"] != {"maxUnavailable": 0, "maxSurge": 1}
    ]


def settings_are_usable(manifests: Manifests) -> list[str]:
    """The service itself reads them: every name is known, every value is in its range."""
    found = []
    for pod, container in containers(manifests):
        try:
            read_settings(environment(container, manifests))
        except SettingsError as error:
            found.append(f"{pod.name}: {error}")
    return found


def memory_covers_workers(manifests: Manifests) -> list[str]:
    """The workers that the CPU limit (or the GPUs) implies, the budget for decoding, and /tmp."""
    found = []
    for pod, container in containers(manifests, "Deployment"):
        limits = container["resources"]["limits"]
        settings = environment(container, manifests)
        gpus = int(limits.get("nvidia.com/gpu", 0))
        workers = int(settings.get("VITRINE_WORKERS", gpus or max(1, int(quantity(limits["cpu"])))))
        limit_bytes = quantity(limits["memory"])
        asked = settings.get("VITRINE_DECODE_MEMORY_BYTES")
        needed_bytes = (
            (
                GPU_WORKER_BYTES * workers
                if gpus
                else FIRST_WORKER_BYTES + FURTHER_WORKER_BYTES * (workers - 1)
            )
            + workers * MARGIN_BYTES
            + int(asked or decode_memory_bytes(int(limit_bytes)))
            + sum(map(_memory_bytes, pod.spec.get("volumes", [])))
        )
        if limit_bytes < needed_bytes:
            found.append(
                f"{pod.name}: expected at least {needed_bytes / 1e6:.0f} MB of memory for "
                f"{workers} workers, got {limit_bytes / 1e6:.0f} MB"
            )
    return found


def _memory_bytes(volume: Manifest) -> float:
    """What of a volume counts as the pod's memory."""
    folder = volume.get("emptyDir", {})
    return quantity(folder["sizeLimit"]) if folder.get("medium") == "Memory" else 0
