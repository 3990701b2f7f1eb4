"""`make image-check`: the image for CPUs, built for real and run as it would be in production.

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
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image, ImageChops

from service.manifest import ExpectedImage, Manifest, read_manifest
from tests.programs import program
from tests.server import CHECKOUT, START_TIMEOUT_S, STOP_TIMEOUT_S, free_port

WORK = CHECKOUT / ".image"  # the base and the layers, kept for the next time
SUITE = "trixie"
BASE = f"localhost/vitrine-base:{SUITE}"
TAG = "localhost/vitrine:check-cpu"
REVISION = "0123456789abcdef"
MAX_MB = 350  # of all layers, unpacked, the base's among them
MAX_START_S = 2
COMPILERS = {"as", "c++", "c89", "c99", "cc", "clang", "g++", "gcc", "ld", "make", "strip", "tcc"}
UNCHECKED_HASH = (1).to_bytes(4, "little")  # PEP 552's flags of a .pyc
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
mount -t tmpfs -o mode=1777,size=64m,noexec,nosuid,nodev tmpfs "$root/tmp"
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
        return [
            *namespaces,
            "sh",
            "-c",
            ISOLATE,
            "sh",
            str(self.root),
            self.config["User"],
            *inside,
        ]

    def files(self) -> Iterator[Path]:
        """Every file and folder, but for those that the engine mounts."""
        for folder, folders, files in os.walk(self.root):
            if folder == str(self.root):
                folders[:] = sorted(set(folders) - set(SYSTEM_FOLDERS))
            yield from (Path(folder, name) for name in (*folders, *files))


@dataclass(frozen=True)
class Container:
    """The running image; `process_id` is that of its process 1.

    `start_s` is the time until it was ready, `waited_s` how much of it others had the processors.
    """

    client: httpx.Client
    port: int
    process_id: int
    start_s: float
    waited_s: float


def make_base() -> None:
    """A base from Debian's packages: its smallest system with Python, without what nobody reads."""
    targets = ["$(REPO_URI) $(RELEASE)", "Created-By: Packages", "Origin: Debian"]
    mirrors = [
        line.split() for line in run("apt-get", "indextargets", "--format", *targets).splitlines()
    ]
    mirror = next(uri for uri, release in mirrors if "-" not in release)
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
    files = set()
    for name, words in options.items():
        local = {word for word in words if word.startswith(("/", "file:"))}
        files |= {word for word in local if Path(word).is_file()}
        options[name] = [word for word in words if word not in local - files]  # no local indexes
    lines = [f"{name} = {' '.join(words)}" for name, words in options.items() if words]
    (folder / "pip.conf").write_text("\n".join(["[global]", *lines, ""]))
    volumes = [part for file in sorted(files) for part in ("--volume", f"{file}:{file}:ro")]
    return ["--secret", f"id=pip.conf,src={folder / 'pip.conf'}", *volumes]


def build(target: str, tag: str, *arguments: str) -> None:
    """Build one target of the Dockerfile."""
    dockerfile = ["--file", "deploy/Dockerfile", "--ignorefile", "deploy/Dockerfile.dockerignore"]
    options = [
        "--isolation",
        "chroot",
        "--layers",
        "--format",
        "docker",
        "--build-arg",
        f"BASE={BASE}",
    ]
    buildah("bud", *options, *dockerfile, "--target", target, "--tag", tag, *arguments, ".")


def size_mb(image: str) -> int:
    """The sum of an image's layers, unpacked."""
    number, unit = buildah("images", "--format", "{{.Size}}", image).split()
    assert unit == "MB", f"expected MB, got {number} {unit}"
    return round(float(number))


@pytest.fixture(scope="module")
def base() -> str:
    """The base image: made once, then found in the storage."""
    for name in ("buildah", "debootstrap", "unshare", "nsenter"):
        program(name)
    if os.geteuid() != 0:
        give_up = pytest.fail if os.environ.get("CI") else pytest.skip
        give_up("debootstrap and the isolation need root")
    buildah("rm", "--all")  # what a run that was cut off has left
    if BASE not in buildah("images", "--format", "{{.Name}}:{{.Tag}}").split():
        make_base()
    return BASE


@pytest.fixture(scope="module")
def built(base: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Built]:
    """The image for CPUs, mounted."""
    labels = ["--build-arg", f"REVISION={REVISION}"]
    build("cpu", TAG, *pip_arguments(tmp_path_factory.mktemp("pip")), *labels)
    config = json.loads(buildah("inspect", "--type", "image", TAG))["Docker"]["config"]
    container = buildah("from", TAG).strip()
    try:
        yield Built(config, Path(buildah("mount", container).strip()))
    finally:
        buildah("rm", container)
        buildah("rmi", "--prune")


@contextlib.contextmanager
def serving(built: Built, log: Path) -> Iterator[Container]:
    """The image's entry point on a free port, until the end of the block."""
    port = free_port()
    command = built.entered(*built.config["Entrypoint"], "--host", "127.0.0.1", "--port", str(port))
    started = time.perf_counter()
    with (
        log.open("wb") as output,
        subprocess.Popen(command, stdout=output, stderr=output) as process,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client,
    ):
        try:
            while not is_ready(client):
                assert process.poll() is None, log.read_text()
                assert time.perf_counter() - started < START_TIMEOUT_S, log.read_text()
                time.sleep(0.01)
            start_s = time.perf_counter() - started
            [process_1] = children(process.pid)
            yield Container(client, port, process_1, start_s, waited_s(process_1))
            os.kill(process_1, signal.SIGTERM)
            assert process.wait(STOP_TIMEOUT_S) == 0, log.read_text()
        finally:
            process.kill()


def children(process_id: int) -> list[int]:
    """The processes that a process's main thread has started."""
    listed = Path(f"/proc/{process_id}/task/{process_id}/children").read_text()
    return [int(child) for child in listed.split()]


def waited_s(process_id: int) -> float:
    """How long a process lacked a processor, and then the child that lacked one the longest."""
    waited_ns = int(Path(f"/proc/{process_id}/schedstat").read_text().split()[1])
    return waited_ns / 1e9 + max(map(waited_s, children(process_id)), default=0.0)


def is_ready(client: httpx.Client) -> bool:
    """Whether /readyz is 200."""
    with contextlib.suppress(httpx.TransportError):
        return client.get("/readyz").status_code == httpx.codes.OK
    return False


@pytest.fixture(scope="module")
def container(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Container]:
    with serving(built, tmp_path_factory.mktemp("container") / "log") as served:
        yield served


def test_image_is_small(built: Built, capsys: pytest.CaptureFixture[str]) -> None:
    base_mb, total_mb = size_mb(BASE), size_mb(TAG)
    with capsys.disabled():
        sys.stdout.write(f"\nimage: {total_mb} MB unpacked, {base_mb} MB of it the base\n")
    assert total_mb < MAX_MB


def test_configuration(built: Built) -> None:
    assert built.config["User"] == "10001:10001"
    assert built.config["WorkingDir"] == "/app"
    assert built.config["Entrypoint"] == ["tini", "--", "python", "-m", "service"]
    assert built.config["Cmd"] in (None, [])
    assert built.config["ExposedPorts"] == {"3000/tcp": {}}
    assert built.config["Healthcheck"]["Test"][0] == "CMD"  # not CMD-SHELL
    label = "org.opencontainers.image."
    labels = {name.removeprefix(label): text for name, text in built.config["Labels"].items()}
    assert labels["title"] == "Vitrine"
    assert labels["licenses"] == "Apache-2.0"
    assert labels["revision"] == REVISION
    assert {"description", "version", "created", "source"} <= labels.keys()


def test_no_pip_no_compiler_no_build_stage(built: Built) -> None:
    pip = re.compile(r"pip[0-9.]*|pip-.*\.(whl|dist-info)|ensurepip")
    found = [
        path
        for path in built.files()
        if pip.fullmatch(path.name) or (path.parent.name == "bin" and path.name in COMPILERS)
    ]
    assert found == []
    assert not (built.root / "build").exists()
    assert not any(built.root.glob("opt/vitrine/lib/python3*/site-packages/tensorflow"))


def test_nothing_is_writable_for_the_user(built: Built) -> None:
    user = int(built.config["User"].split(":")[0])
    writable = []
    for path in built.files():
        status = path.lstat()
        sticky_folder = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX
        world = status.st_mode & stat.S_IWOTH and not stat.S_ISLNK(status.st_mode)
        if status.st_uid == user or (world and not sticky_folder):
            writable.append(path)
    assert writable == []


def test_models_without_what_only_gpus_need(built: Built) -> None:
    shipped = {path.relative_to(CHECKOUT) for path in CHECKOUT.glob("models/*/*/*.tflite")}
    models = built.root / "app/models"
    assert {path.relative_to(models.parent) for path in models.glob("*/*/*.tflite")} == shipped
    assert not list(models.glob("*/*/*.keras"))


def test_everything_imported_is_compiled(built: Built) -> None:
    modules = "service.__main__, service.supervisor, service.worker, service.service, bentoml"
    done = subprocess.run(
        built.entered("python", "-v", "-c", f"import {modules}"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    origins = re.findall(r"^# code object from '?(.+?)'?$", done.stderr, re.MULTILINE)
    assert len(origins) > 500
    assert [origin for origin in origins if not origin.endswith(".pyc")] == []


def test_bytecode_is_not_checked_against_its_source(built: Built) -> None:
    checked = []
    for folder in ("opt/vitrine", "app/service"):
        compiled = list((built.root / folder).rglob("*.pyc"))
        assert compiled
        checked += [path for path in compiled if path.read_bytes()[4:8] != UNCHECKED_HASH]
    assert checked == []


def test_start_and_end(built: Built, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    starts_s = []
    for attempt in range(3):
        with serving(built, tmp_path / f"{attempt}.log") as served:
            starts_s.append((served.start_s, served.waited_s))
            process_1 = Path(f"/proc/{served.process_id}/cmdline").read_bytes().split(b"\0")[0]
            assert process_1 == b"tini"
    with capsys.disabled():
        times = ", ".join(f"{start_s:.2f} ({waited_s:.2f})" for start_s, waited_s in starts_s)
        sys.stdout.write(f"\nimage: ready after {times} s (of it the processors were others')\n")
    assert min(start_s - waited_s for start_s, waited_s in starts_s) < MAX_START_S


@pytest.mark.parametrize("name", sorted(path.name for path in (CHECKOUT / "models").iterdir()))
def test_every_model_answers_its_sample(container: Container, name: str) -> None:
    folder = max((CHECKOUT / "models" / name).iterdir(), key=lambda path: int(path.name))
    manifest = read_manifest(folder)
    answer = container.client.post(
        f"/v1/models/{name}:predict",
        params={} if isinstance(manifest.sample.expected, ExpectedImage) else {"top_k": 1000},
        content=(folder / manifest.sample.file).read_bytes(),
        headers={"Content-Type": "image/png"},
    )
    assert answer.status_code == httpx.codes.OK, answer.text
    assert difference(manifest, folder, answer) <= manifest.sample.expected.tolerance


def difference(manifest: Manifest, folder: Path, answer: httpx.Response) -> float:
    """How far an answer is from the recorded one, in probability or levels."""
    expected = manifest.sample.expected
    if isinstance(expected, ExpectedImage):
        with (
            Image.open(BytesIO(answer.content)) as came,
            Image.open(folder / expected.file) as there,
        ):
            return float(np.asarray(ImageChops.difference(came, there)).max())
    top = answer.json()["predictions"][0]["top"]
    probability = next(score["probability"] for score in top if score["label"] == expected.label)
    return abs(float(probability) - expected.probability)


def test_pages_and_metrics(container: Container) -> None:
    page = container.client.get("/")
    assert page.status_code == httpx.codes.OK
    assert "swagger" in page.text.lower()
    assert "/classify" in container.client.get("/docs.json").json()["paths"]
    models = re.findall(
        r'^vitrine_model_info\{.*model="([^"]+)"', container.client.get("/metrics").text, re.M
    )
    assert set(models) == {path.name for path in (CHECKOUT / "models").iterdir()}


def test_health_check(built: Built, container: Container) -> None:
    inside = ["nsenter", "--target", str(container.process_id), "--mount", "--root"]
    environment = ["env", "-i", *built.config["Env"]]
    _, *check = built.config["Healthcheck"]["Test"]
    healthy = [word.replace(":3000/", f":{container.port}/") for word in check]
    unhealthy = [word.replace(":3000/", f":{free_port()}/") for word in check]
    assert healthy != check
    assert subprocess.run([*inside, *environment, *healthy], check=False).returncode == 0
    failed = subprocess.run([*inside, *environment, *unhealthy], check=False, capture_output=True)
    assert failed.returncode == 1


def test_gpu_image_but_for_its_packages(base: str) -> None:
    """What needs no download of several GB: TensorFlow and CUDA are not installed here."""
    build("app-gpu", "localhost/vitrine:check-gpu-app")
    container = buildah("from", "localhost/vitrine:check-gpu-app").strip()
    try:
        root = Path(buildah("mount", container).strip())
        shipped = {path.relative_to(CHECKOUT) for path in CHECKOUT.glob("models/*/*/*")}
        assert {path.relative_to(root / "app") for path in root.glob("app/models/*/*/*")} == shipped
    finally:
        buildah("rm", container)
