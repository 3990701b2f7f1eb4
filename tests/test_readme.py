import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from service.artifacts.manifest import read_manifest
from service.settings import PREFIX, Settings
from tests.server import CHECKOUT, START_TIMEOUT_S, environment, free_port
from tests.service.test_errors import CONTRACT

README = (CHECKOUT / "README.md").read_text()
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Example(NamedTuple):
    """A shell block, and the JSON block that shows its output, if one follows."""

    shell: str
    shown: str | None


def examples() -> list[Example]:
    blocks = [(match[1], match[2].strip()) for match in FENCE.finditer(README)]
    following = [*blocks[1:], ("", "")]
    return [
        Example(text, after if kind_after == "json" else None)
        for (kind, text), (kind_after, after) in zip(blocks, following, strict=True)
        if kind == "sh"
    ]


CURLS = [example for example in examples() if example.shell.startswith("curl")]
OTHERS = [example for example in examples() if not example.shell.startswith("curl")]


@pytest.fixture(scope="module")
def make_serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of what README's first command starts, with PORT overridden."""
    port = free_port()
    log = tmp_path_factory.mktemp("readme") / "serve.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["make", "serve", f"PORT={port}"],
            cwd=CHECKOUT,
            env=environment(),
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            wait_for(f"http://localhost:{port}/readyz", process, log)
            yield f"localhost:{port}"
        finally:
            os.killpg(process.pid, signal.SIGINT)  # what Ctrl-C sends, to make and the server
            process.wait(60)


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    # The first run installs what is locked.
    for _ in range(20 * START_TIMEOUT_S):
        if process.poll() is not None:
            break
        try:
            if httpx.get(url).status_code == httpx.codes.OK:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    pytest.fail(f"make serve is not ready: {log.read_text()}")


def shell(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-c", command],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )


def rounded(value: object) -> object:
    """A JSON value with its numbers to 3 places: the last ones depend on the processor."""
    match value:
        case dict():
            return {key: rounded(part) for key, part in value.items()}
        case list():
            return [rounded(part) for part in value]
        case float():
            return round(value, 3)
        case _:
            return value


def test_readme_starts_with_the_two_commands() -> None:
    assert [example.shell for example in OTHERS[:2]] == ["make serve", "make test"]


@pytest.mark.parametrize("example", CURLS, ids=lambda example: example.shell.split()[-1])
def test_curl_gives_the_answer_that_readme_shows(
    make_serve: str, example: Example, tmp_path: Path
) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    for name in ("models", "LICENSE"):
        (tmp_path / name).symlink_to(CHECKOUT / name)
    command = example.shell.replace("localhost:3000", make_serve)
    ran = shell(command, tmp_path)
    assert ran.returncode == 0, ran.stderr
    if example.shown is not None:
        assert rounded(json.loads(ran.stdout)) == rounded(json.loads(example.shown))
    else:
        assert (tmp_path / "denoised.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("example", OTHERS[2:], ids=lambda example: example.shell)
def test_other_commands_work(example: Example) -> None:
    ran = shell(example.shell, CHECKOUT)
    assert ran.returncode == 0, ran.stderr


def test_model_table_shows_the_measured_numbers() -> None:
    row = re.compile(r"^\| \[`([\w-]+)`\]\((models/.*?)/README\.md\) \|(.*)$", re.MULTILINE)
    rows = row.findall(README)
    assert len(rows) >= 3
    for name, folder, rest in rows:
        manifest = read_manifest(CHECKOUT / folder)
        assert manifest.name == name
        assert f"{manifest.parameters:,} parameters" in rest
        if manifest.task == "classification":
            assert f"accuracy {manifest.metrics['accuracy']:.4f}" in rest
        else:
            assert f"{manifest.metrics['psnr_db_sigma_0.3']:.1f} dB at sigma 0.3" in rest


def test_settings_table_names_every_setting() -> None:
    documented = set(re.findall(rf"^\| `({PREFIX}\w+)`", README, re.MULTILINE))
    assert documented == {PREFIX + field.upper() for field in Settings.model_fields}


def test_errors_table_names_every_status() -> None:
    documented = set(map(int, re.findall(r"^\| (\d{3}) \|", README, re.MULTILINE)))
    assert documented == set(CONTRACT.values())


@pytest.mark.parametrize("link", re.findall(r"\]\((?!http)([^)#]+)\)", README))
def test_links_lead_somewhere(link: str) -> None:
    assert (CHECKOUT / link).exists()
