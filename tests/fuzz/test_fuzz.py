"""The fuzzer finds what is broken; and a bounded run of it over the service finds nothing."""

import subprocess
import sys
import zlib
from pathlib import Path
from random import Random

import pytest

from tests.drawing import encode, gradient
from tests.fuzz.mutations import MAX_BYTES, mutated
from tests.fuzz.targets import SERVED
from tests.fuzz.watch import fuzz
from tests.fuzz.worker import Corpus, Input, Work
from tests.server import CHECKOUT

NO_LIMIT_S = 600.0


def test_inputs_of_a_seed_are_always_the_same() -> None:
    seeds = [b"one seed" * 10, b"another"]
    made = [[mutated(seeds[0], seeds, Random(seed)) for seed in range(100)] for _ in range(2)]
    assert made[0] == made[1]
    assert len(set(made[0])) > 90
    assert all(0 < len(data) <= MAX_BYTES for data in made[0])


def test_damage_may_lie_behind_checks_of_it() -> None:
    image = encode(gradient(), "PNG")
    made = [mutated(image, [image], Random(seed)) for seed in range(300)]
    header = [data[8:33] for data in made if data[12:16] == b"IHDR" and data[8:33] != image[8:33]]
    right = [zlib.crc32(each[4:21]).to_bytes(4, "big") == each[21:25] for each in header]
    assert 0.5 < sum(right) / len(right) < 0.9
    request = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n" + b"x" * 500
    made = [mutated(request, [request], Random(seed)) for seed in range(300)]
    assert len([data for data in made if b"\r\n\r\n" in data and not _is_short(data)]) > 100


def _is_short(data: bytes) -> bool:
    head, _, body = data.partition(b"\r\n\r\n")
    return head.rpartition(b"Content-Length: ")[2] != str(len(body)).encode()


def test_input_is_made_again_from_its_number() -> None:
    one, other = Corpus(("forms", "manifests")), Corpus(("forms", "manifests"))
    assert [one.make(1, number) for number in range(50)] == [
        other.make(1, number) for number in range(50)
    ]
    assert one.make(1, 7) != one.make(2, 7)


@pytest.mark.slow
def test_everything_that_is_broken_is_found_and_saved(tmp_path: Path) -> None:
    work = Work(("broken",), seed=85, first=0, step=1, end=27, folder=tmp_path)
    tried, kinds, files = fuzz(work, 1, NO_LIMIT_S, hang_s=10)
    assert tried == 27
    assert {kind.partition(" ")[0] for kind in kinds} == {
        "error", "slow", "memory", "log", "crash", "hang",
    }  # fmt: skip
    assert "error in broken: ValueError: no such luck" in kinds
    assert "log in broken: TIFFReadDirectory: no such luck" in kinds
    for path in files:
        kind = path.name.partition("-")[0].encode()
        assert kind in Input.load(path).data
        assert path.with_suffix(".txt").stat().st_size
    assert not list(tmp_path.glob("input-*"))


def test_finding_is_tried_again_by_one_command(tmp_path: Path) -> None:
    path = tmp_path / "finding"
    Input("broken", b"an error").save(path)
    command = [sys.executable, "-m", "tests.fuzz", "--repeat", str(path)]
    ran = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert "ValueError: no such luck" in ran.stderr


@pytest.mark.parametrize("inputs", [300, pytest.param(6000, marks=pytest.mark.slow)])
def test_nothing_is_found_in_a_bounded_run(tmp_path: Path, inputs: int) -> None:
    work = Work(SERVED, seed=inputs, first=0, step=1, end=inputs, folder=tmp_path)
    tried, kinds, files = fuzz(work, 2 if inputs > 1000 else 1, NO_LIMIT_S)
    assert not kinds, [path.with_suffix(".txt").read_text() for path in files]
    assert tried == inputs
