"""What the shipped HorizontalPodAutoscaler makes of a day and of a flash crowd, simulated.

`python -m tests.bench.autoscaling` prints it beside other settings, from the images/s that
capacity.json has; `--write` puts the table into deploy/CAPACITY.md and draws autoscaling.png.
"""

import argparse
import math
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.ticker import LogLocator

from tests.bench.documents import fill, markdown
from tests.bench.hpa import CPU, QUEUE, REQUESTS, Hpa, Policy, read_hpa
from tests.bench.pod import JPEG, POD_CPUS, read
from tests.bench.simulation import Outcome, Scenario, Service, Simulation
from tests.bench.sizing import UTILISATION, images_per_s
from tests.server import CHECKOUT

DOCUMENT = CHECKOUT / "deploy" / "CAPACITY.md"
PICTURE = Path(__file__).with_suffix(".png")
MIX = {("cats-vs-dogs", JPEG): 1.0}
OBJECTIVE_S = 1.0
ORACLE_UTILISATION = 0.9


def day(now_s: float) -> float:
    """A day in two hours: from half a pod's work at night to that of five."""
    return 0.5 + 4.5 * (1 - math.cos(2 * math.pi * now_s / DAY.seconds)) / 2


def crowd(now_s: float) -> float:
    """Five times as much within a minute, for five minutes; and once more four minutes later."""
    times_s = 300, 360, 660, 720, 960, 1020, 1320, 1380
    return float(np.interp(now_s, times_s, (1.5, 7.5, 7.5, 1.5) * 2))


DAY = Scenario("day", 7200, day)
CROWD = Scenario("flash crowd", 2100, crowd, runs=4)


def alternatives(hpa: Hpa, service: Service) -> dict[str, tuple[Hpa | None, Service]]:
    """What is compared: the shipped settings, and these with one thing changed."""

    def without(*names: str) -> Hpa:
        targets = {name: target for name, target in hpa.targets.items() if name not in names}
        return replace(hpa, targets=targets)

    def aiming(name: str, target: float, of: Hpa = hpa) -> Hpa:
        return replace(of, targets={**of.targets, name: target})

    def down_after(window_s: int) -> Hpa:
        return replace(hpa, down=replace(hpa.down, window_s=window_s))

    def up_by(policy: Policy) -> Hpa:
        return replace(hpa, up=replace(hpa.up, policies=(policy,)))

    for_objective = math.floor(OBJECTIVE_S * service.images_per_s / POD_CPUS)
    requests = float(f"{UTILISATION * service.images_per_s:.2g}")
    hpas: dict[str, Hpa | None] = {
        **{f"CPU {percent} %": aiming(CPU, percent / 100) for percent in (50, 60, 70, 80, 90)},
        **{f"queue depth {depth}": aiming(QUEUE, depth) for depth in (8, 16, 32, 64)},
        "no queue depth": without(QUEUE),
        f"no queue depth, requests {requests:g}/s": aiming(REQUESTS, requests, without(QUEUE)),
        f"requests {requests:g}/s": aiming(REQUESTS, requests),
        "up by 200 % in 15 s": up_by(Policy("Percent", 200, 15)),
        "up by 4 pods in 15 s": up_by(Policy("Pods", 4, 15)),
        **{f"down after {window_s} s": down_after(window_s) for window_s in (60, 300, 600)},
        **{f"at least {pods} pods": replace(hpa, min_pods=pods) for pods in (2, 3, 5)},
        "no autoscaler": None,
    }
    return {
        "**as shipped**": (hpa, service),
        **{name: (changed, service) for name, changed in hpas.items() if changed != hpa},
        f"{for_objective} may wait in a worker": (
            hpa,
            replace(service, queue_limit=for_objective * POD_CPUS),
        ),
        "a pod takes 90 s to start": (hpa, replace(service, start_s=90)),
    }


def simulate(scenario: Scenario, hpa: Hpa | None, service: Service, shipped: Hpa) -> Outcome:
    """All runs, each from the pods that the load at the start wants."""
    first = hpa or shipped
    pods = max(first.min_pods, math.ceil(scenario.load(0) / first.targets[CPU]))
    outcome, *others = (
        Simulation(scenario, service, hpa, pods, seed).run() for seed in range(scenario.runs)
    )
    for other in others:
        outcome.add(other)
    return outcome


def oracle(scenario: Scenario, now_s: float) -> int:
    """Pods of one who knows the load beforehand: the fewest that are at most 90 % busy."""
    return math.ceil(scenario.load(now_s) / ORACLE_UTILISATION)


def cells(scenario: Scenario, outcome: Outcome) -> list[str]:
    """One setting's part of the table."""
    oracle_s = sum(oracle(scenario, now_s) for now_s in range(scenario.seconds))
    return [
        f"{outcome.p99_ms():,.0f}",
        f"{outcome.late(OBJECTIVE_S):.2%}",
        f"{outcome.refused / outcome.offered:.2%}",
        f"{outcome.pod_s / oracle_s / scenario.runs:.2f}",
    ]


def described(hpa: Hpa, service: Service) -> str:
    """What was simulated, in one sentence."""
    targets = ", ".join(f"{name} {target:g}" for name, target in hpa.targets.items())
    steps = " or ".join(f"{p.value} {p.kind} in {p.period_s} s" for p in hpa.down.policies)
    return (
        f"Shipped: {targets}; {hpa.min_pods} to {hpa.max_pods} pods; up after {hpa.up.window_s} s, "
        f"down after {hpa.down.window_s} s by {steps}. "
        f"A pod answers {service.images_per_s:g} images/s and starts in {service.start_s:g} s."
    )


def table(outcomes: Mapping[str, Sequence[Outcome]], head: str) -> str:
    """All settings, a day and a flash crowd beside each other."""
    figures = ("p99, ms", f"later than {OBJECTIVE_S:g} s", "503", "pod-hours, oracle 1")
    titles = [f"{s.name}: {figure}" for s in (DAY, CROWD) for figure in figures]
    rows = [["", *titles]]
    for name, (of_day, of_crowd) in outcomes.items():
        rows.append([name, *cells(DAY, of_day), *cells(CROWD, of_crowd)])
    return f"{head}\n\n{markdown(rows)}"


def draw(of_scenarios: Sequence[tuple[Scenario, Outcome]], service: Service) -> None:
    """Load, pods and p99 over time, with the shipped settings."""
    mpl.use("agg")
    figure, axes = plt.subplots(3, 2, figsize=(10, 7), sharex="col", layout="constrained")
    for (load, pods, p99), (scenario, outcome) in zip(axes.T, of_scenarios, strict=True):
        now_s, offered, refused, all_pods, ready = np.array(outcome.rows).T
        minutes, first_s = now_s / 60, outcome.latencies_s[: len(now_s)]
        load.set_title(scenario.name)
        load.plot(minutes, offered, label="requests/s")
        load.plot(minutes, ready * service.images_per_s, label="capacity of the ready pods")
        load.fill_between(minutes, refused, color="tab:red", label="503")
        pods.step(minutes, all_pods, where="pre", label="pods")
        pods.step(minutes, [oracle(scenario, at_s) for at_s in now_s], label="an oracle's")
        p99.plot(minutes, [np.percentile(some, 99) for some in first_s], label="p99, s")
        p99.axhline(OBJECTIVE_S, color="gray", linestyle=":", label="objective")
        p99.set(yscale="log", xlabel="minutes")
        p99.yaxis.set_minor_locator(LogLocator(subs=(2, 5)))
        p99.yaxis.set_major_formatter("{x:g}")
        p99.yaxis.set_minor_formatter("{x:g}")
        for axis in (load, pods, p99):
            axis.grid(visible=True, alpha=0.2)
            axis.legend(fontsize=8)
    figure.savefig(PICTURE, dpi=100)
    plt.close(figure)


def main() -> None:
    """Simulate all of it on all CPUs."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.autoscaling", description=__doc__)
    parser.add_argument("--write", action="store_true", help="into the document, with a picture")
    arguments = parser.parse_args()
    hpa, service = read_hpa(), measured_service()
    compared = alternatives(hpa, service)
    with ProcessPoolExecutor() as processes:
        futures = {
            name: [
                processes.submit(simulate, scenario, *settings, hpa) for scenario in (DAY, CROWD)
            ]
            for name, settings in compared.items()
        }
        outcomes = {name: [future.result() for future in pair] for name, pair in futures.items()}
    result = table(outcomes, described(hpa, service))
    print(result)
    if arguments.write:
        fill(DOCUMENT, "autoscaling", result)
        draw(list(zip((DAY, CROWD), outcomes["**as shipped**"], strict=True)), service)


def measured_service() -> Service:
    """A pod that answers photos to VGG16, as it was measured, to three digits."""
    return Service(float(f"{images_per_s(read(), MIX):.3g}"))


if __name__ == "__main__":
    main()
