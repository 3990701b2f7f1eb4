"""Artifacts on disk: found by folder, verified by checksum."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from service.artifacts.manifest import MANIFEST_FILE, Device, ExpectedImage, Manifest, read_manifest
from service.errors import ArtifactError


@dataclass(frozen=True)
class Artifact:
    """A folder `models/<name>/<version>/` and what its manifest says."""

    folder: Path
    manifest: Manifest

    def path(self, file: str) -> Path:
        """Where one of the artifact's files lies."""
        return self.folder / file


def find_artifacts(models_dir: Path, names: tuple[str, ...]) -> list[Artifact]:
    """Every version of the named models (none named: of all); raises ArtifactError.

    A folder without a manifest does not exist.
    """
    folders = sorted(path.parent for path in models_dir.glob(f"*/*/{MANIFEST_FILE}"))
    artifacts = [_read(folder) for folder in folders if not names or folder.parent.name in names]
    found = {artifact.manifest.name for artifact in artifacts}
    missing = sorted(set(names) - found)
    if missing or not artifacts:
        wanted = ", ".join(missing) if missing else "at least one model"
        there = ", ".join(sorted({folder.parent.name for folder in folders})) or "none"
        raise ArtifactError(
            f"VITRINE_MODELS_DIR, VITRINE_MODELS: expected {wanted} in {models_dir.absolute()}, "
            f"found {there}"
        )
    return artifacts


def _read(folder: Path) -> Artifact:
    manifest = read_manifest(folder)
    if (folder.parent.name, folder.name) != (manifest.name, manifest.version):
        raise ArtifactError(
            f"{folder}: expected the folder {manifest.name}/{manifest.version} of its manifest"
        )
    return Artifact(folder, manifest)


def verify(artifact: Artifact, device: Device | None = None) -> None:
    """Check every file's size and SHA-256; raises ArtifactError that names the file.

    For a device, only what serving on it takes has to be there: an image of the service for CPUs
    leaves out the networks for GPUs.
    """
    manifest = artifact.manifest
    engines = manifest.engines
    used = _sample_files(manifest)
    used |= {engine.file for engine in engines.values() if engine.file}
    unlisted = sorted(used - manifest.files.keys())
    if unlisted:
        raise ArtifactError(
            f"{artifact.folder}: {', '.join(unlisted)} is used but not listed under files"
        )
    needed = set(manifest.files)
    if device is not None and device in manifest.engine:
        needed = _sample_files(manifest) | {str(engines[manifest.engine[device]].file)}
    for name in manifest.files:
        if name in needed or artifact.path(name).exists():
            _check(artifact, name)


def _sample_files(manifest: Manifest) -> set[str]:
    expected = manifest.sample.expected
    answer = {expected.file} if isinstance(expected, ExpectedImage) else set()
    return {manifest.sample.file} | answer


def _check(artifact: Artifact, name: str) -> None:
    path, expected = artifact.path(name), artifact.manifest.files[name]
    if not path.is_file():
        raise ArtifactError(f"{path} is missing: expected a file of {expected.bytes} bytes")
    content = path.read_bytes()
    if len(content) != expected.bytes:
        raise ArtifactError(f"{path}: expected {expected.bytes} bytes, got {len(content)}")
    digest = hashlib.sha256(content).hexdigest()
    if digest != expected.sha256:
        raise ArtifactError(f"{path}: expected SHA-256 {expected.sha256}, got {digest}")
