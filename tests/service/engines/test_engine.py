import subprocess
import sys

import pytest

from service.engines.engine import match_names
from service.errors import ArtifactError
from tests.server import CHECKOUT


def test_single_tensor_needs_no_name_in_common() -> None:
    assert match_names(["image"], ["serving_default_input_1:0"], "inputs") == {
        "image": "serving_default_input_1:0"
    }


@pytest.mark.parametrize("found", [["boxes", "scores"], ["scores", "boxes"]])
def test_several_tensors_are_matched_by_name(found: list[str]) -> None:
    names = match_names(["scores", "boxes"], found, "outputs")
    assert names == {"scores": "scores", "boxes": "boxes"}


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (["scores", "boxes"], ["scores", "masks"]),
        (["scores", "boxes"], ["scores"]),
        (["scores"], ["scores", "boxes"]),
        (["scores"], []),
    ],
)
def test_other_tensors_than_the_manifests_are_named(wanted: list[str], found: list[str]) -> None:
    with pytest.raises(ArtifactError) as caught:
        match_names(wanted, found, "outputs")
    assert str(caught.value) == (
        f"expected a network with the outputs {', '.join(wanted)}, got {', '.join(found)}"
    )


def test_import_loads_no_training_framework() -> None:
    ours = "service.engines.device, service.inference.registry, service.server.front"
    heavy = "{'tensorflow', 'keras', 'jax', 'torch', 'training', 'h5py', 'matplotlib'}"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys, {ours}; print({heavy} & set(sys.modules))"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "set()\n"
