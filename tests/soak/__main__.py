"""`make soak`: mixed traffic for half an hour while workers are killed; 1 if anything is amiss."""

import argparse
import sys
from pathlib import Path

from tests.server import CHECKOUT
from tests.soak.judge import judge
from tests.soak.picture import draw
from tests.soak.run import Plan, soak


def main() -> int:
    """Run, write JSON and a picture, and say what was found; gives the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=1800, help="of load (%(default)s)")
    parser.add_argument("--users", type=int, default=8, help="at once (%(default)s)")
    parser.add_argument("--think-time", type=float, default=0.2, help="mean, in s (%(default)s)")
    parser.add_argument("--kill-every-s", type=float, default=60, help="a worker (%(default)s)")
    parser.add_argument(
        "--max-growth",
        type=float,
        default=0.1,
        help="of memory, from the first quarter to the last (%(default)s)",
    )
    parser.add_argument("--out", type=Path, default=CHECKOUT / ".soak", help="(%(default)s)")
    asked = parser.parse_args()
    asked.out.mkdir(parents=True, exist_ok=True)
    plan = Plan(asked.seconds, asked.users, asked.think_time, asked.kill_every_s)
    record = soak(plan, asked.out.resolve())
    verdicts = judge(record, max_growth=asked.max_growth)
    record.write(asked.out / "soak.json", verdicts)
    draw(record, asked.out / "soak.png")
    for verdict in verdicts:
        print(f"{'ok  ' if verdict.is_kept else 'FAIL'} {verdict.what}: {verdict.came}")
    print(f"{asked.out / 'soak.json'}, {asked.out / 'soak.png'}")
    return 0 if all(verdict.is_kept for verdict in verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
