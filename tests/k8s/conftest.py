from pathlib import Path

import pytest

from tests.k8s.manifests import K8S, OVERLAYS, Manifests, render, render_text

CPU = (K8S / "overlays" / "cpu" / "kustomization.yaml").read_text()
HPA = "  - ../../components/hpa\n"
# What an overlay becomes with one line more, or another line.
VARIANTS = {
    "cpu with keda": CPU.replace(HPA, "  - ../../components/keda\n"),
    "cpu with tls": CPU + "  - ../../components/tls\n",
    "cpu with load-test": CPU + "  - ../../components/load-test\n",
}


@pytest.fixture(scope="session")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Manifests]:
    """The objects of every overlay and of the variants, by name; not to be changed."""
    folder: Path = tmp_path_factory.mktemp("variants")
    overlays = {name: render(K8S / "overlays" / name) for name in OVERLAYS}
    return overlays | {name: render_text(text, folder) for name, text in VARIANTS.items()}


NAMES = (*OVERLAYS, *VARIANTS)


@pytest.fixture(scope="session", params=NAMES)
def manifests(request: pytest.FixtureRequest, rendered: dict[str, Manifests]) -> Manifests:
    """The objects of each in turn."""
    return rendered[request.param]
