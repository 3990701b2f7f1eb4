"""What kustomize renders, and ways into it."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from tests.programs import program
from tests.server import CHECKOUT

Manifest: TypeAlias = dict[str, Any]
Manifests: TypeAlias = list[Manifest]

K8S = CHECKOUT / "k8s"
OVERLAYS = ("dev", "cpu", "gpu", "split")
_UNITS = {"": 1.0, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9} | {
    f"{prefix}i": 1024.0**power for power, prefix in enumerate("KMG", start=1)
}


@dataclass(frozen=True)
class Pod:
    """The pods of one Deployment or Job."""

    owner: Manifest
    labels: dict[str, str]
    spec: Manifest

    @property
    def name(self) -> str:
        return title(self.owner)

    @property
    def containers(self) -> Manifests:
        return [*self.spec.get("initContainers", []), *self.spec["containers"]]


def render(folder: Path) -> Manifests:
    """What `kubectl apply -k` would send."""
    ran = subprocess.run(
        [program("kubectl"), "kustomize", str(folder)], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert not ran.stderr, ran.stderr  # a warning, of a deprecated field for one
    return list(yaml.safe_load_all(ran.stdout))


def render_text(kustomization: str, folder: Path) -> Manifests:
    """An overlay `overlays/mine` with this text, beside the real ones; `folder` takes a copy."""
    shutil.copytree(K8S, folder / "k8s", dirs_exist_ok=True)
    mine = folder / "k8s" / "overlays" / "mine"
    mine.mkdir(exist_ok=True)
    (mine / "kustomization.yaml").write_text(kustomization)
    return render(mine)


def title(manifest: Manifest) -> str:
    """Kind and name, without the hash of a generated one."""
    name = re.sub(r"-[a-z0-9]{10}$", "", manifest["metadata"]["name"])
    return f"{manifest['kind']}/{name}"


def of_kind(manifests: Manifests, *kinds: str) -> Manifests:
    return [manifest for manifest in manifests if manifest["kind"] in kinds]


def named(manifests: Manifests, wanted: str) -> Manifest:
    """The one object with this kind and name."""
    [found] = [manifest for manifest in manifests if title(manifest) == wanted]
    return found


def pods(manifests: Manifests, *owners: str) -> Iterator[Pod]:
    """The pods of every Deployment and Job, or of these kinds of owners."""
    for owner in of_kind(manifests, *(owners or ("Deployment", "Job"))):
        template = owner["spec"]["template"]
        yield Pod(owner, template["metadata"]["labels"], template["spec"])


def containers(manifests: Manifests, *owners: str) -> Iterator[tuple[Pod, Manifest]]:
    """Every container, with its pod."""
    for pod in pods(manifests, *owners):
        for container in pod.containers:
            yield pod, container


def environment(container: Manifest, manifests: Manifests) -> dict[str, str]:
    """A container's variables that are written in the manifests: not those from Secrets."""
    config = {item["metadata"]["name"]: item for item in of_kind(manifests, "ConfigMap")}
    variables: dict[str, str] = {}
    for source in container.get("envFrom", []):
        variables |= config[source["configMapRef"]["name"]]["data"]
    return variables | {
        variable["name"]: variable["value"]
        for variable in container.get("env", [])
        if "value" in variable
    }


def quantity(text: str | int) -> float:
    """A Kubernetes quantity as a number: bytes, CPUs or GPUs."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(m|k|M|G|Ki|Mi|Gi)?", str(text))
    assert match, f"expected a quantity such as 500m or 1280Mi, got {text!r}"
    return float(match[1]) * _UNITS[match[2] or ""]


def selects(selector: Manifest, labels: dict[str, str]) -> bool:
    """Whether a label selector without expressions, or an empty one, takes these labels."""
    assert "matchExpressions" not in selector
    wanted: dict[str, str] = selector.get("matchLabels", {})
    return wanted.items() <= labels.items()
