"""Signs artifacts with a key on an elliptic curve, and verifies them: OpenSSF's model-signing.

What is signed is `manifest.json`. It has the SHA-256 of every other file, so the files that serving
takes are signed with it, and an image that leaves out some of them still verifies the rest. No
service on the network takes part.
"""

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType

from service.artifacts.files import Artifact, find_artifacts
from service.artifacts.files import verify as verify_files
from service.artifacts.manifest import MANIFEST_FILE, Device
from service.errors import ArtifactError
from service.tasks import TASKS
from training.errors import TrainingError

SIGNATURE_FILE = "model.sig"
INSTALL = "pip install -r requirements/sign.lock"


def artifact_folders(folders: Iterable[Path]) -> list[Path]:
    """The artifacts' folders, all in it for a folder of models; raises ArtifactError for none."""
    found = []
    for folder in folders:
        inside = [path.parent for path in sorted(folder.glob(f"*/*/{MANIFEST_FILE}"))]
        if not inside and not (folder / MANIFEST_FILE).is_file():
            raise ArtifactError(f"{folder}: expected an artifact, or a folder of models")
        found += inside or [folder]
    return found


def sign(folder: Path, key: Path) -> None:
    """Write `model.sig` with a private key in PEM, where the artifact's files are whole.

    Raises ArtifactError or TrainingError.
    """
    library = _library()
    artifact = _artifact(folder)
    for device in artifact.manifest.engine:
        verify_files(artifact, device)
    with _explained(
        f"expected a private key on an elliptic curve, in PEM, without password: {key}"
    ):
        signer = library.signing.Config().use_elliptic_key_signer(private_key=key)
        signer.sign(folder / MANIFEST_FILE, folder / SIGNATURE_FILE)


def verify(folder: Path, key: Path, device: Device | None = None) -> None:
    """Check the signature with a public key, then the files that serving on a device takes.

    Without a device, those of every device. Raises ArtifactError or TrainingError.
    """
    library = _library()
    signature = folder / SIGNATURE_FILE
    if not signature.is_file():
        raise ArtifactError(f"{signature} is missing: {folder} is not signed")
    with _explained(f"expected a public key on an elliptic curve, in PEM: {key}"):
        verifier = library.verifying.Config().use_elliptic_key_verifier(public_key=key)
    with _explained(f"{signature}: expected the signature of {MANIFEST_FILE} by {key}"):
        verifier.verify(folder / MANIFEST_FILE, signature)
    artifact = _artifact(folder)
    for each in [device] if device else artifact.manifest.engine:
        verify_files(artifact, each)


def _artifact(folder: Path) -> Artifact:
    """The artifact of a folder NAME/VERSION; another's signed manifest is refused there."""
    whole = folder.resolve()
    (artifact,) = find_artifacts(whole.parents[1], [f"{whole.parent.name}/{whole.name}"], TASKS)
    return artifact


def _library() -> ModuleType:
    """The package model_signing; raises TrainingError that says how to install it."""
    try:
        import model_signing
    except ImportError as error:
        raise TrainingError(f"{error}: the extra `sign` is not installed; {INSTALL}") from error
    return model_signing


@contextlib.contextmanager
def _explained(expected: str) -> Iterator[None]:
    """Make one error of the many types that the library and its parsers raise.

    Whatever they raise, nothing was signed or verified.
    """
    try:
        yield
    except Exception as error:
        why = str(error) or type(error).__name__
        raise TrainingError(f"{expected}; {why}") from error
