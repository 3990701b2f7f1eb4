"""What is freed goes back to the system."""

import ctypes
import subprocess
import sys

import pytest

from tests.server import CHECKOUT

pytestmark = pytest.mark.skipif(
    not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"), reason="only glibc keeps memory"
)
# Prints by how many MB a process has grown once it has freed all but little of what it had.
FREED = """
import ctypes, asyncio, sys
from pathlib import Path
from service import heap
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6

def grow_and_free(size, count, kept):
    blocks = [libc.malloc(size) for _ in range(count)]
    for block in blocks:
        ctypes.memset(block, 1, size)
    for number, block in enumerate(blocks):
        if number % kept != kept - 1:
            libc.free(block)

async def after_some_trims():
    heap.TRIM_PERIOD_S = 0.01
    heap.Trimmer().start()
    await asyncio.sleep(0.5)

before = resident()
"""
LARGE = "for _ in range(3): grow_and_free(16_000_000, 8, 8)\n"
SMALL = "grow_and_free(100_000, 2000, 50)\n"
PRINT = "print(resident() - before)"


def grown_mb(program: str) -> float:
    command = [sys.executable, "-c", FREED + program + PRINT]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=True)
    return float(done.stdout)


def test_large_blocks_go_back_as_soon_as_they_are_freed() -> None:
    kept_mb = 3 * 16
    assert grown_mb("heap.return_large_blocks()\n" + LARGE) < kept_mb + 10
    assert grown_mb(LARGE) > kept_mb + 20  # by default they do not


def test_small_blocks_go_back_in_the_seconds_after_a_load() -> None:
    kept_mb = 2000 / 50 * 0.1
    assert grown_mb(SMALL + "asyncio.run(after_some_trims())\n") < kept_mb + 10
    assert grown_mb(SMALL) > 100  # by default they do not


BUSY = """
async def busy():
    trims = []
    trimmer = heap.Trimmer()
    trimmer._libc = type("Counted", (), {"malloc_trim": lambda self, pad: trims.append(pad)})()
    for period in range(PERIODS):
        trimmer.start()
        trimmer._tick(asyncio.get_running_loop())
    print(len(trims))
    trimmer._tick(asyncio.get_running_loop())
    print(len(trims))
asyncio.run(busy())
"""


@pytest.mark.parametrize(
    ("periods", "during", "after"), [(1, 0, 1), (60, 0, 1), (61, 1, 2), (122, 2, 3)]
)
def test_load_that_goes_on_is_seldom_trimmed_and_its_end_soon(
    periods: int, during: int, after: int
) -> None:
    program = FREED + BUSY.replace("PERIODS", str(periods))
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(during), str(after)]
