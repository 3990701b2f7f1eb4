"""Artifacts on disk: found by folder, verified by checksum."""

import contextlib
import hashlib
import logging
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from service.artifacts.manifest import MANIFEST_FILE, Device, Manifest, Tasks, read_manifest
from service.errors import ArtifactError

NETWORK_SUFFIXES = (".keras", ".tflite")

logger = logging.getLogger("vitrine")


@dataclass(frozen=True)
class Artifact:
    """A folder `models/<name>/<version>/` and what its manifest says."""

    folder: Path
    manifest: Manifest

    def path(self, file: str) -> Path:
        """Where one of the artifact's files lies."""
        return self.folder / file


def find_artifacts(models_dir: Path, wanted: Iterable[str], tasks: Tasks) -> list[Artifact]:
    """Every artifact that is wanted, by `name` or `name/version` (none: all of them).

    Raises ArtifactError. A folder with a network but no manifest is named in the log.
    """
    wanted = tuple(wanted)
    _warn_of_unfinished(models_dir)
    there = sorted(path.parent for path in models_dir.glob(f"*/*/{MANIFEST_FILE}"))
    folders = [folder for folder in there if not wanted or set(wanted) & set(_names(folder))]
    missing = sorted(set(wanted) - {name for folder in folders for name in _names(folder)})
    if missing or not folders:
        expected = ", ".join(missing) if missing else "at least one model"
        found = ", ".join(sorted({folder.parent.name for folder in there})) or "none"
        raise ArtifactError(
            f"VITRINE_MODELS_DIR, VITRINE_MODELS: expected {expected} in {models_dir.absolute()}, "
            f"found {found}"
        )
    return [_read(folder, tasks) for folder in folders]


def _names(folder: Path) -> tuple[str, str]:
    return folder.parent.name, f"{folder.parent.name}/{folder.name}"


def _warn_of_unfinished(models_dir: Path) -> None:
    networks = (
        path.parent
        for suffix in NETWORK_SUFFIXES
        for depth in ("*/*", "*/*/*")
        for path in models_dir.glob(f"{depth}{suffix}")
    )
    for folder in sorted(set(networks)):
        if folder.parent == models_dir:
            logger.warning("%s is not served: expected its files in %s/1", folder, folder)
        elif not (folder / MANIFEST_FILE).exists():
            logger.warning("%s is not served: it has no %s", folder, MANIFEST_FILE)


def _read(folder: Path, tasks: Tasks) -> Artifact:
    manifest = read_manifest(folder, tasks)
    if (folder.parent.name, folder.name) != (manifest.name, manifest.version):
        raise ArtifactError(
            f"{folder}: expected the folder {manifest.name}/{manifest.version} of its manifest"
        )
    return Artifact(folder, manifest)


def verify(artifact: Artifact, device: Device | None = None) -> None:
    """Check the size and SHA-256 of files; raises ArtifactError that names the file.

    For a device only what serving on it takes is checked: a card may be edited, and an image of
    the service for CPUs leaves out the networks for GPUs. Without one, every file is.
    """
    manifest = artifact.manifest
    used = manifest.sample_files()
    used |= {engine.file for engine in manifest.engines.values() if engine.file}
    unlisted = sorted(used - manifest.files.keys())
    if unlisted:
        raise ArtifactError(
            f"{artifact.folder}: {', '.join(unlisted)} is used but not listed under files"
        )
    needed = set(manifest.files)
    if device is not None and device in manifest.engine:
        network = manifest.engines[manifest.engine[device]].file
        needed = manifest.sample_files() | {str(network)}
    for name in sorted(needed):
        _checked(artifact, name)


def shared_copy(artifact: Artifact, name: str, folder: Path) -> Path:
    """A copy of a file for all processes that share the folder; nobody changes it.

    It can be mapped into memory: the file itself may be shortened by somebody, which would end
    every process that has mapped it. Raises ArtifactError, or OSError where the folder is full.
    """
    copy = folder / artifact.manifest.files[name].sha256
    if not copy.exists():
        unfinished = folder / f"{copy.name}.{secrets.token_hex(8)}"
        unfinished.write_bytes(_checked(artifact, name))
        with contextlib.suppress(FileExistsError):  # another process was first: all map its copy
            copy.hardlink_to(unfinished)
        unfinished.unlink()
    return copy


def _checked(artifact: Artifact, name: str) -> bytes:
    """The content of a file; raises ArtifactError where it is not as the manifest says."""
    path, expected = artifact.path(name), artifact.manifest.files[name]
    if not path.is_file():
        raise ArtifactError(f"{path} is missing: expected a file of {expected.bytes} bytes")
    content = path.read_bytes()
    if len(content) != expected.bytes:
        raise ArtifactError(f"{path}: expected {expected.bytes} bytes, got {len(content)}")
    digest = hashlib.sha256(content).hexdigest()
    if digest != expected.sha256:
        raise ArtifactError(f"{path}: expected SHA-256 {expected.sha256}, got {digest}")
    return content
