"""`make fuzz`: damaged images, forms, requests and manifests, until the time is over.

Each finding is a file in .fuzz/; `python -m tests.fuzz --repeat FILE` tries it again.
"""

import argparse
import os
import sys
from pathlib import Path

from tqdm import tqdm

from tests.fuzz.targets import SERVED, TARGETS
from tests.fuzz.watch import fuzz
from tests.fuzz.worker import Input, Work
from tests.server import CHECKOUT

FOLDER = CHECKOUT / ".fuzz"
NO_END = 2**62


def main() -> int:
    """Returns 1 where something was found."""
    parser = argparse.ArgumentParser(prog="make fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="default: %(default)g")
    parser.add_argument("--inputs", type=int, default=NO_END, help="stop after so many")
    parser.add_argument("--seed", type=int, default=0, help="other seed, other inputs")
    parser.add_argument("--target", choices=[*TARGETS], action="append", help="by default all")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--repeat", type=Path, metavar="FILE", help="try a saved input again")
    arguments = parser.parse_args()
    if arguments.repeat is not None:
        given = Input.load(arguments.repeat)
        with TARGETS[given.target].open() as attempt:
            attempt(given.data)
        print("nothing was raised")
        return 0
    FOLDER.mkdir(exist_ok=True)
    targets = tuple(arguments.target or SERVED)
    work = Work(targets, arguments.seed, 0, 1, arguments.inputs, FOLDER)
    with tqdm(
        unit=" inputs", total=None if arguments.inputs == NO_END else arguments.inputs
    ) as bar:
        tried, kinds, files = fuzz(work, arguments.processes, arguments.seconds, bar.update)
    print(f"{tried} inputs, seed {arguments.seed}: {sum(kinds.values())} findings")
    for kind, count in kinds.most_common():
        print(f"  {count} times {kind}")
    for path in files:
        print(f"  {path.relative_to(CHECKOUT)}")
    return 1 if kinds else 0


if __name__ == "__main__":
    sys.exit(main())
