"""The Makefile, asked without running what it would run."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.programs import program
from tests.server import CHECKOUT, environment

MAKEFILE = (CHECKOUT / "Makefile").read_text()
PHONY = re.search(r"^\.PHONY: ((?:.*\\\n)*.*)$", MAKEFILE, re.MULTILINE)


def make(*arguments: str) -> str:
    """What make writes; raises CalledProcessError if it fails."""
    variables = {k: v for k, v in environment().items() if k not in ("HOST", "PORT")}
    ran = subprocess.run(
        [program("make"), *arguments],
        cwd=CHECKOUT,
        env=variables,
        capture_output=True,
        text=True,
        check=True,
    )
    return ran.stdout


def targets() -> list[str]:
    """The targets that the Makefile offers."""
    assert PHONY is not None
    return PHONY[1].replace("\\\n", " ").split()


def installed(target: str) -> set[str]:
    """The lock files that a target installs into a new environment."""
    dry_run = make("--dry-run", "VENV=.no-environment", target)
    return set(re.findall(r"-r requirements/(\w+)\.lock", dry_run))


def test_help_lists_every_target_with_its_purpose() -> None:
    listed = dict(re.findall(r"^([\w-]+) {2,}(\S.*)$", make("help"), re.MULTILINE))
    assert sorted(listed) == sorted(targets())


@pytest.mark.parametrize(
    ("target", "locks"),
    [
        ("serve", {"serve"}),
        ("bento", {"serve"}),
        ("load", {"serve", "load"}),
        ("k8s-check", {"serve", "k8s"}),
        ("audit", {"audit"}),
        ("train", {"train"}),
        ("test", {"test"}),
        ("test-all", {"test", "sign", "audit"}),
        ("help", set()),
        ("clean", set()),
    ],
)
def test_target_installs_only_what_it_needs(target: str, locks: set[str]) -> None:
    assert installed(target) == locks


def test_host_and_port_of_the_service_can_be_set() -> None:
    assert "--host 0.0.0.0 --port 3000" in make("--dry-run", "serve")
    chosen = make("--dry-run", "serve", "HOST=127.0.0.1", "PORT=8080")
    assert "-m service --host 127.0.0.1 --port 8080" in chosen


@pytest.mark.parametrize(
    "lock", sorted((CHECKOUT / "requirements").glob("*.lock")), ids=lambda lock: lock.name
)
def test_lock_has_hashes_and_no_address(lock: Path) -> None:
    text = lock.read_text()
    assert "--hash=sha256:" in text
    assert "://" not in text


def test_every_lock_is_made_by_the_makefile() -> None:
    dry_run = make("--dry-run", "VENV=.no-environment", "lock")
    names = {lock.stem for lock in (CHECKOUT / "requirements").glob("*.lock")}
    assert set(re.findall(r'"(\w+) (?:pyproject\.toml|--group)', dry_run)) == names


@pytest.mark.parametrize("name", ["sign", "audit"])
def test_lock_for_the_tests_environment_pins_what_is_there_already(name: str) -> None:
    pins = {
        lock: dict(
            re.findall(
                r"^([\w.-]+)==([^ ;\\]+)",
                (CHECKOUT / f"requirements/{lock}.lock").read_text(),
                re.MULTILINE,
            )
        )
        for lock in (name, "test")
    }
    shared = pins[name].keys() & pins["test"].keys()
    assert shared
    assert {each: pins[name][each] for each in shared} == {
        each: pins["test"][each] for each in shared
    }
