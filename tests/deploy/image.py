"""The image as buildah builds it, and run as it would be in production.

A container engine is not needed: buildah builds in a chroot, and the image runs in namespaces of
its own with its root mounted read-only, no capability, and nothing but /tmp to write to.
"""

import ast
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.server import CHECKOUT, START_TIMEOUT_S, STOP_TIMEOUT_S, free_port

WORK = CHECKOUT / ".image"  # the base and the layers, kept for the next time
SUITE = "trixie"
BASE = f"localhost/vitrine-base:{SUITE}"
SYSTEM_FOLDERS = ("proc", "sys", "dev", "tmp")

# What a container engine does with --read-only --tmpfs /tmp --cap-drop=ALL, by hand. The first
# argument is the root, the second the user.
ISOLATE = """
set -eu
root=$1 user=$2
shift 2
mount --make-rprivate /
mount --bind "$root" "$root"
mount -o remount,bind,ro "$root"
mount -t proc proc "$root/proc"
mount -t tmpfs -o mode=1777,size=128m,noexec,nosuid,nodev tmpfs "$root/tmp"
mount -t tmpfs -o mode=755,size=1m tmpfs "$root/dev"
for device in null zero random urandom; do
    touch "$root/dev/$device"
    mount --bind "/dev/$device" "$root/dev/$device"
done
mkdir -m 1777 "$root/dev/shm"
exec chroot "$root" setpriv --reuid "${user%:*}" --regid "${user#*:}" --clear-groups \
    --bounding-set=-all --inh-caps=-all --no-new-privs "$@"
"""


def run(*command: str | Path) -> str:
    """The standard output of a command; fails with the end of what it wrote to standard error."""
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command[0]}: {done.returncode}\n{done.stderr[-4000:]}"
    return done.stdout


def buildah(*arguments: str | Path) -> str:
    """buildah on a storage of the check's own."""
    return run("buildah", "--root", WORK / "storage", "--runroot", WORK / "run", *arguments)


@dataclass(frozen=True)
class Built:
    """The image: its configuration, and its files in a folder."""

    config: dict[str, Any]
    root: Path

    def entered(self, *command: str) -> list[str]:
        """A command in the image, with its environment, user and working folder."""
        inside = ["env", "-C", self.config["WorkingDir"], "-i", *self.config["Env"], *command]
        namespaces = ["unshare", "--mount", "--pid", "--fork", "--kill-child"]
        isolate = ["sh", "-c", ISOLATE, "sh", str(self.root), self.config["User"]]
        return [*namespaces, *isolate, *inside]

    def files(self) -> Iterator[Path]:
        """Every file and folder, but for those that the engine mounts."""
        for folder, folders, files in os.walk(self.root):
            if folder == str(self.root):
                folders[:] = sorted(set(folders) - set(SYSTEM_FOLDERS))
            yield from (Path(folder, name) for name in (*folders, *files))


@dataclass(frozen=True)
class Container:
    """The running image; `process_id` is that of its process 1."""

    client: httpx.Client
    url: str
    port: int
    process_id: int
    start_s: float


def make_base() -> None:
    """A base from Debian's packages: its smallest system with Python, without what nobody reads."""
    targets = ["$(REPO_URI) $(RELEASE)", "Created-By: Packages", "Origin: Debian"]
    mirrors = [
        line.split() for line in run("apt-get", "indextargets", "--format", *targets).splitlines()
    ]
    mirror = next((uri for uri, release in mirrors if "-" not in release), None)
    if mirror is None:
        pytest.skip("apt knows no mirror of Debian, which the base is made from")
    root = WORK / "base"
    shutil.rmtree(root, ignore_errors=True)
    run("debootstrap", "--variant=minbase", "--include=python3-venv", SUITE, root, mirror)
    for unread in ("usr/share/doc", "usr/share/man", "usr/share/locale", "var/lib/apt/lists"):
        shutil.rmtree(root / unread)
    shutil.rmtree(root / "var/cache/apt")
    container = buildah("from", "scratch").strip()
    buildah("add", container, root, "/")
    buildah("commit", "--rm", container, BASE)
    shutil.rmtree(root)


def pip_arguments(folder: Path) -> list[str]:
    """What gives a build this machine's configuration of pip: a secret, and the files it names."""
    lines = run(sys.executable, "-m", "pip", "config", "list").splitlines()
    named = re.compile(r"(?:global|install|:env:)\.([a-z-]+)=(.+)")
    options = {
        found[1]: str(ast.literal_eval(found[2])).split()
        for found in map(named.fullmatch, lines)
        if found
    }
    files: dict[str, str] = {}
    for name, words in options.items():
        local = {word for word in words if word.startswith(("/", "file:"))}
        # buildah leaves the mount points in the image: in /mnt none of them looks like pip.
        files |= {word: f"/mnt/{Path(word).name}" for word in local if Path(word).is_file()}
        kept = [word for word in words if word in files or word not in local]  # no local indexes
        options[name] = [files.get(word, word) for word in kept]
    lines = [f"{name} = {' '.join(words)}" for name, words in options.items() if words]
    (folder / "pip.conf").write_text("\n".join(["[global]", *lines, ""]))
    volumes = [part for file, there in files.items() for part in ("--volume", f"{file}:{there}:ro")]
    return ["--secret", f"id=pip.conf,src={folder / 'pip.conf'}", *volumes]


@contextlib.contextmanager
def built_image(target: str, tag: str, *arguments: str) -> Iterator[Built]:
    """One target of the Dockerfile, built and mounted until the end of the block."""
    options = ["--isolation", "chroot", "--layers", "--format", "docker"]
    options += ["--build-arg", f"BASE={BASE}", "--target", target, "--tag", tag]
    files = ["--file", "deploy/Dockerfile", "--ignorefile", "deploy/Dockerfile.dockerignore"]
    buildah("bud", *options, *files, *arguments, ".")
    config = json.loads(buildah("inspect", "--type", "image", tag))["Docker"]["config"]
    container = buildah("from", tag).strip()
    try:
        yield Built(config, Path(buildah("mount", container).strip()))
    finally:
        buildah("rm", container)


def size_mb(image: str) -> int:
    """The sum of an image's layers, unpacked."""
    number, unit = buildah("images", "--format", "{{.Size}}", image).split()
    assert unit == "MB", f"expected MB, got {number} {unit}"
    return round(float(number))


@contextlib.contextmanager
def serving(built: Built, log: Path) -> Iterator[Container]:
    """The image's entry point on a free port, until the end of the block."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = built.entered(*built.config["Entrypoint"], "--host", "127.0.0.1", "--port", str(port))
    started = time.perf_counter()
    with (
        log.open("wb") as output,
        subprocess.Popen(command, stdout=output, stderr=output) as process,
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        try:
            while not is_ready(client):
                assert process.poll() is None, log.read_text()
                assert time.perf_counter() - started < START_TIMEOUT_S, log.read_text()
                time.sleep(0.01)
            start_s = time.perf_counter() - started
            [process_1] = children(process.pid)
            yield Container(client, url, port, process_1, start_s)
            os.kill(process_1, signal.SIGTERM)
            assert process.wait(STOP_TIMEOUT_S) == 0, log.read_text()
        finally:
            process.kill()


def children(process_id: int) -> list[int]:
    """The processes that a process's main thread has started."""
    listed = Path(f"/proc/{process_id}/task/{process_id}/children").read_text()
    return [int(child) for child in listed.split()]


def is_ready(client: httpx.Client) -> bool:
    """Whether /readyz is 200."""
    with contextlib.suppress(httpx.TransportError):
        return client.get("/readyz").status_code == httpx.codes.OK
    return False
