"""What builds of images share: a base, and how they reach packages."""

import os
from collections.abc import Iterator

import pytest

from tests.deploy.image import BASE, buildah, make_base, pip_arguments
from tests.programs import program


@pytest.fixture(scope="session")
def base() -> Iterator[str]:
    """The base image: made once, then found in the storage."""
    for name in ("buildah", "debootstrap", "unshare", "nsenter"):
        program(name)
    if os.geteuid() != 0:
        give_up = pytest.fail if os.environ.get("CI") else pytest.skip
        give_up("debootstrap and the isolation need root")
    buildah("rm", "--all")  # what a run that was cut off has left
    if BASE not in buildah("images", "--format", "{{.Name}}:{{.Tag}}").split():
        make_base()
    yield BASE
    buildah("rmi", "--prune")  # layers that no tag holds any more


@pytest.fixture(scope="session")
def pip(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return pip_arguments(tmp_path_factory.mktemp("pip"))
