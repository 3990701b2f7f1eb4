"""This checkout beside another commit of it, on the same models, in one run.

`python -m tests.bench.compare --base REV` checks REV out into a temporary folder, serves both with
this environment, loads them in turn, and prints ratios: above 1 is more than REV's. Files that are
not committed are measured, too. `--base HEAD` in a clean checkout shows the noise of the machine;
CPU time a request has the least of it.
"""

import argparse
import contextlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median

from tqdm import tqdm

from tests.bench.closed_loop import Load, measure, require_wrk
from tests.bench.documents import markdown
from tests.bench.servers import Running, started
from tests.bench.systems import VITRINE, VITRINE_FORM, VITRINE_PHOTO, System, cores
from tests.server import CHECKOUT

WARM_UP_S = 2
LOADS = (
    ("raw", VITRINE, 1),
    ("raw", VITRINE, 16),
    ("raw", VITRINE, 64),
    ("form", VITRINE_FORM, 16),
    ("VGG16, photo", VITRINE_PHOTO, 8),
)

FIGURES = {"rate": "requests/s", "p99_ms": "p99, ms", "cpu_ms": "CPU ms a request"}


@dataclass
class Runs:
    """What was measured of one of the two."""

    loads: list[list[Load]] = field(default_factory=lambda: [[] for _ in LOADS])
    """As LOADS; one a round."""
    start_s: list[float] = field(default_factory=list)
    memory_mb: list[float] = field(default_factory=list)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.compare", description=__doc__)
    parser.add_argument("--base", required=True, metavar="REV", help="commit to compare with")
    parser.add_argument("--rounds", type=int, default=8, help="(%(default)s)")
    parser.add_argument("--seconds", type=int, default=3, help="of each load (%(default)s)")
    parser.add_argument("--starts", type=int, default=7, help="of each of the two (%(default)s)")
    parser.add_argument("--models", type=Path, help="folder that both serve (REV's models)")
    arguments = parser.parse_args()
    require_wrk()
    with checked_out(arguments.base) as base:
        models = (arguments.models or base / "models").resolve()
        this_runs, base_runs = compare(
            (CHECKOUT, base), models, arguments.rounds, arguments.seconds, arguments.starts
        )
    print(
        f"{revision('HEAD')} (with what is not committed) beside {revision(arguments.base)}: "
        f"{arguments.rounds} rounds of {arguments.seconds} s, {arguments.starts} starts; "
        f"medians, and the ratio of each round's pair: median (lowest to highest)\n"
    )
    print(table(this_runs, base_runs))


def revision(name: str) -> str:
    """The short hash of a commit; ends the process with Git's message if there is none."""
    command = ["git", "rev-parse", "--short", "--verify", f"{name}^{{commit}}"]
    ran = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise SystemExit(f"error: {name}: {ran.stderr.strip()}")
    return ran.stdout.strip()


@contextlib.contextmanager
def checked_out(name: str) -> Iterator[Path]:
    """A commit in a temporary folder."""
    commit = revision(name)
    with tempfile.TemporaryDirectory(prefix="vitrine-compare-") as folder:
        checkout = Path(folder, commit)
        _git("worktree", "add", "--quiet", "--detach", str(checkout), commit)
        try:
            yield checkout
        finally:
            _git("worktree", "remove", "--force", str(checkout))


def _git(*arguments: str) -> None:
    git = shutil.which("git")
    assert git is not None
    subprocess.run([git, *arguments], cwd=CHECKOUT, check=True)


def compare(
    checkouts: tuple[Path, Path], models: Path, rounds: int, seconds: int, starts: int
) -> tuple[Runs, Runs]:
    """Starts and memory, one after the other; then loads in turn, the idle one paused."""
    both = Runs(), Runs()
    systems = [replace(VITRINE, checkout=checkout) for checkout in checkouts]
    sides = list(zip(systems, both, strict=True))
    for number in tqdm(range(starts + 1), desc="starts"):
        for system, runs in sides:
            with started(system, cores(), models_dir=models) as running:
                if number:  # the first start writes bytecode
                    runs.start_s.append(running.start_s)
                    runs.memory_mb.append(_memory_mb(running))
        sides.reverse()
    with contextlib.ExitStack() as until_measured:
        this, base = (
            until_measured.enter_context(started(system, cores(), models_dir=models))
            for system in systems
        )
        turns = [(this, base, both[0]), (base, this, both[1])]
        for number in tqdm(range(rounds + 1), desc="rounds"):
            for place, (_, asked, connections) in enumerate(LOADS):
                for loaded, idle, runs in turns:
                    with idle.paused():
                        load = measure(_asked(loaded, asked), connections, seconds)
                    if number:  # the first round warms up
                        runs.loads[place].append(load)
            turns.reverse()  # the first of two has no advantage over all rounds
    return both


def _memory_mb(running: Running) -> float:
    """After some load of both kinds, with nothing else of Vitrine running."""
    for asked, connections in ((VITRINE, 64), (VITRINE_PHOTO, 8)):
        measure(_asked(running, asked), connections, WARM_UP_S)
    return running.memory_bytes() / 1e6


def _asked(running: Running, asked: System) -> Running:
    """The same server, asked another way."""
    return replace(running, system=replace(asked, checkout=running.system.checkout))


def table(this: Runs, base: Runs) -> str:
    """Every figure of both and their ratio, as Markdown."""
    rows = [["", "this", "base", "this / base"]]
    for place, (what, _, connections) in enumerate(LOADS):
        for figure, unit in FIGURES.items():
            values = (
                [getattr(load, figure) for load in runs.loads[place]] for runs in (this, base)
            )
            rows.append(_row(f"{what}, {connections} connections, {unit}", *values))
    rows.append(_row("start to ready, s", this.start_s, base.start_s))
    rows.append(_row("memory (PSS) after load, MB", this.memory_mb, base.memory_mb))
    return markdown(rows)


def _row(name: str, this: Sequence[float], base: Sequence[float]) -> list[str]:
    ratios = [one / other for one, other in zip(this, base, strict=True)]
    spread = f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    return [name, _digits(median(this)), _digits(median(base)), spread]


def _digits(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


if __name__ == "__main__":
    main()
