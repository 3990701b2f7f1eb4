"""The documents are true: their blocks are run, their tables and links compared."""

import ast
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from service.artifacts.manifest import read_manifest
from service.settings import PREFIX, Settings
from service.tasks import TASKS
from tests.documents import (
    FROM,
    NOT_RUN,
    PART,
    Block,
    Example,
    anchors,
    blocks,
    code,
    examples,
    is_output,
    links,
    prose,
    read,
    rows,
    section,
)
from tests.server import CHECKOUT, START_TIMEOUT_S, environment, free_port

README, SERVICE = "README.md", "service/README.md"
DOCUMENTS = [
    README, SERVICE, "training/README.md", "tests/bench/README.md", "CONTRIBUTING.md",
    "SECURITY.md", "CHANGELOG.md",
]  # fmt: skip
MAX_WORDS, MAX_LINES = 1500, 160
KINDS = {"sh", "json", "python", "js", "mermaid", "text"}
# Why a shell block is not run, and what it has to contain for that.
REASONS = {
    "trains": r"^(make train ARGS=|\.venv/bin/python training/first_steps\.py)",
    "writes into models": r'^make train ARGS="upgrade ',
    "needs the extra sign": r"^\.venv/bin/python -m training sign ",
    "serves": r"^([A-Z_]+=\S+ )*make serve",
    "takes minutes": r"^make \w+",
    "needs Docker and a cluster": r"^(docker|kubectl) ",
}
RUNS_IT = re.compile(r"(tests/\S+\.py) runs it")

BLOCKS = [block for document in DOCUMENTS for block in blocks(document)]
EXAMPLES = [example for document in DOCUMENTS for example in examples(document)]
PROGRAMS = [block for block in BLOCKS if block.kind in ("python", "js") and not block.note]
NOT_RUN_BLOCKS = [block for block in BLOCKS if block.note.startswith(NOT_RUN)]
EXCERPTS = [block for block in BLOCKS if block.note.startswith(FROM)]


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


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that looks like the checkout and that commands may write into."""
    for path in CHECKOUT.iterdir():
        if path.name not in (".git", "tokens"):
            (tmp_path / path.name).symlink_to(path)
    return tmp_path


def run(command: list[str], folder: Path) -> str:
    ran = subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


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


def common(whole: object, part: object) -> object:
    """What of a JSON value stands in a part of it: the other fields are left out."""
    if isinstance(whole, dict) and isinstance(part, dict):
        return {key: common(whole[key], part[key]) for key in part if key in whole}
    return whole


def test_readme_is_short() -> None:
    text = read(README)
    assert len(text.replace("|", " ").split()) <= MAX_WORDS
    assert len(text.splitlines()) <= MAX_LINES


def test_readme_starts_with_the_command_that_serves() -> None:
    assert blocks(README)[0].text == "make serve\n"
    assert "`make test`" in read(README)


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.name)
def test_block_is_of_a_kind_that_is_checked(block: Block) -> None:
    assert block.kind in KINDS
    if block.kind == "sh":
        assert not block.note or block in NOT_RUN_BLOCKS
    if block.kind == "json":
        assert block in EXCERPTS or is_output(block)
    if block.kind == "text":
        assert not re.search(r"^(make|curl|docker|python|pip) ", block.text, re.MULTILINE)


def test_json_blocks_are_what_a_shell_block_prints() -> None:
    shown = [example.shown for example in EXAMPLES if example.shown]
    assert shown == [block for block in BLOCKS if is_output(block)]


@pytest.mark.parametrize(
    "example", [each for each in EXAMPLES if each.shell.text != "make serve\n"],
    ids=lambda example: example.shell.name,
)  # fmt: skip
def test_shell_block_prints_what_is_shown(make_serve: str, example: Example, folder: Path) -> None:
    text, shown = example.shell.text, example.shown
    if text.startswith("curl") and shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    printed = run(["sh", "-euc", text.replace("localhost:3000", make_serve)], folder)
    if shown is not None:
        came, expected = rounded(json.loads(printed)), rounded(json.loads(shown.text))
        assert (common(came, expected) if shown.note == PART else came) == expected
    for file in re.findall(r"--output (\S+)", text):
        assert (folder / file).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("block", PROGRAMS, ids=lambda block: block.name)
def test_program_prints_what_its_comments_say(make_serve: str, block: Block, folder: Path) -> None:
    interpreter, file = {"python": (sys.executable, "a.py"), "js": ("node", "a.mjs")}[block.kind]
    if shutil.which(interpreter) is None:
        pytest.skip(f"{interpreter} is not installed")
    (folder / file).write_text(block.text.replace("localhost:3000", make_serve))
    assert run([interpreter, file], folder).splitlines() == block.printed()


@pytest.mark.parametrize("block", NOT_RUN_BLOCKS, ids=lambda block: block.name)
def test_block_that_is_not_run_says_why(block: Block) -> None:
    reason = block.note.removeprefix(NOT_RUN).strip()
    elsewhere = RUNS_IT.fullmatch(reason)
    if elsewhere:
        command = block.text.split()[-1]
        assert command in read("tests/server.py") + read(elsewhere[1])
    else:
        assert re.search(REASONS[reason], block.text, re.MULTILINE)


@pytest.mark.parametrize("block", NOT_RUN_BLOCKS, ids=lambda block: block.name)
def test_recipe_takes_the_options_that_are_shown(block: Block) -> None:
    from training.__main__ import parse
    from training.declarations import recipe_files
    from training.knobs import read_comparison

    for line in re.findall(r"^make train (ARGS=.*)$", block.text, re.MULTILINE):
        (arguments,) = shlex.split(line.partition("=")[2])
        name, *options = shlex.split(arguments)
        if name == "upgrade":
            assert all((CHECKOUT / folder / "manifest.json").exists() for folder in options)
        elif name == "compare":
            assert read_comparison(options).knobs
        else:
            assert parse(name, recipe_files()[name], options).recipe == name


@pytest.mark.parametrize("block", EXCERPTS, ids=lambda block: block.name)
def test_excerpt_stands_in_its_file(block: Block) -> None:
    source = read(block.note.removeprefix(FROM))
    if block.kind == "json":
        whole, part = json.loads(source), json.loads(block.text)
        assert common(whole, part) == part
    else:
        ast.parse(block.text)
        assert block.text in source


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document: str) -> None:
    for link in links(document):
        path, _, anchor = link.partition("#")
        target = (CHECKOUT / document).parent / path if path else CHECKOUT / document
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("document", DOCUMENTS)
def test_named_settings_exist(document: str) -> None:
    named = set(re.findall(rf"\b{PREFIX}[A-Z_]+\b", read(document)))
    assert named <= {PREFIX + field.upper() for field in Settings.model_fields}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_named_make_targets_exist(document: str) -> None:
    inline = code(prose(read(document)))
    shown = "\n".join([*inline, *(block.text for block in blocks(document))])
    named = set(re.findall(r"^(?:[A-Z_]+=\S+ )*make ((?:[a-z][\w-]* ?)+)", shown, re.MULTILINE))
    targets = set(re.findall(r"^([a-z0-9-]+):.*## ", read("Makefile"), re.MULTILINE))
    assert {target for names in named for target in names.split()} <= targets


def test_model_table_shows_what_the_manifests_say() -> None:
    table = list(rows(section(README, "Models")))
    assert len(table) == len([*CHECKOUT.glob("models/*/*/manifest.json")])
    for model, _, size, quality in table:
        (card,) = re.findall(r"\]\((.*)/README\.md\)", model)
        manifest = read_manifest(CHECKOUT / card, TASKS)
        assert code(model) == [manifest.name]
        height, width, _ = manifest.input.shape
        color = "grey" if manifest.input.color == "grey" else "colour"
        assert size == ("any size" if height is None else f"{height}x{width} {color}")
        metrics = manifest.metrics
        assert quality == (
            f"accuracy {metrics['accuracy']:.4f}"
            if "accuracy" in metrics
            else f"PSNR {metrics['psnr_db_sigma_0.3']:.1f} dB at sigma 0.3"
        )


def test_metrics_table_shows_what_a_server_exposes(make_serve: str) -> None:
    text = httpx.get(f"http://{make_serve}/metrics").text
    exposed = set(re.findall(r"^# TYPE (\w+) ", text, re.MULTILINE))
    labels: dict[str, set[str]] = {name: set() for name in exposed}
    for sample, pairs in re.findall(r"^(\w+)\{(.*)\} ", text, re.MULTILINE):
        name = sample if sample in exposed else re.sub(r"_(bucket|sum|count)$", "", sample)
        labels[name] |= set(re.findall(r'(\w+)="', pairs)) - {"le"}
    table = {
        code(name)[0]: set(re.findall(r"\w+", cell))
        for name, cell, _ in rows(section(SERVICE, "Metrics"))
    }
    assert "gpu" in table.pop("vitrine_gpu_memory_bytes")
    assert table == labels
