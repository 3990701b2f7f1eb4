"""What can be read from the Dockerfile where no image is built."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.server import CHECKOUT

DOCKERFILE = CHECKOUT / "deploy/Dockerfile"
IGNORED = CHECKOUT / "deploy/Dockerfile.dockerignore"


def instructions() -> list[tuple[str, str]]:
    """Every instruction with its arguments, in order, without comments."""
    lines = [line for line in DOCKERFILE.read_text().splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    pairs = [line.split(maxsplit=1) for line in joined.splitlines() if line]
    return [(name, arguments.strip()) for name, arguments in pairs]


def stages() -> dict[str, tuple[str, list[tuple[str, str]]]]:
    """Stage -> what it is made from, and its instructions."""
    found: dict[str, tuple[str, list[tuple[str, str]]]] = {}
    for name, arguments in instructions():
        if name == "FROM":
            parent, _, stage = arguments.split()
            found[stage] = (parent, [])
        elif found:
            found[stage][1].append((name, arguments))
    return found


def ancestry(target: str) -> list[tuple[str, str]]:
    """The instructions of a stage and of those that it is made from, in order."""
    parent, own = stages()[target]
    return [*ancestry(parent), *own] if parent in stages() else own


def test_hadolint_finds_nothing() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, DOCKERFILE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_rules_are_ignored_with_a_reason() -> None:
    lines = DOCKERFILE.read_text().splitlines()
    ignored = [number for number, line in enumerate(lines) if "hadolint ignore" in line]
    assert all(re.match(r"# [A-Z].*\.$", lines[number - 1]) for number in ignored)


def test_base_is_an_argument_everywhere() -> None:
    assert instructions()[0] == ("ARG", "BASE=python:3.13-slim")
    parents = {parent for parent, _ in stages().values()}
    assert parents - stages().keys() == {"${BASE}"}


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_target_runs_as_a_user_with_an_init(target: str) -> None:
    last = dict(ancestry(target))  # of each instruction the last holds
    assert last["USER"] == "10001:10001"
    assert last["WORKDIR"] == "/app"
    assert last["ENTRYPOINT"] == '["tini", "--", "python", "-m", "service"]'
    assert 'CMD ["python", "-c"' in last["HEALTHCHECK"]
    copied = [arguments for name, arguments in ancestry(target) if name == "COPY"]
    assert all(arguments.startswith("--from=") for arguments in copied)


@pytest.mark.parametrize(("target", "lock"), [("cpu", "serve"), ("gpu", "gpu"), ("verify", "sign")])
def test_packages_come_from_the_hashed_lock(target: str, lock: str) -> None:
    steps = ancestry(f"packages-{target}")
    assert ("COPY", f"requirements/{lock}.lock ./") in steps
    assert any("PIP_REQUIRE_HASHES=1" in arguments for name, arguments in steps if name == "ENV")
    installs = [
        arguments
        for name, arguments in steps
        if name == "RUN" and "--python /opt/vitrine install" in arguments
    ]
    assert [arguments.split()[-2:] for arguments in installs] == [["-r", f"{lock}.lock"]]


def test_version_is_the_projects() -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    assert ("ARG", f"VERSION={project['version']}") in instructions()


def test_builder_gets_only_what_is_copied() -> None:
    sources = {
        arguments.split()[0]
        for name, arguments in instructions()
        if name == "COPY" and not arguments.startswith("--from=")
    }
    patterns = [line for line in IGNORED.read_text().splitlines() if not line.startswith("#")]
    assert patterns[0] == "*"
    assert {line.removeprefix("!") for line in patterns if line.startswith("!")} == sources
