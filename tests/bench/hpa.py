"""Kubernetes's HorizontalPodAutoscaler: its settings, and how it decides, as in its own source.

The rules are those of kubernetes.io, "Horizontal Pod Autoscaling", section "Algorithm details".
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import yaml

from tests.server import CHECKOUT

HPA_FILE = CHECKOUT / "k8s" / "components" / "hpa" / "hpa.yaml"
CPU, QUEUE, REQUESTS = "cpu", "vitrine_queue_depth", "vitrine_requests_per_second"
TOLERANCE = 0.1


@dataclass(frozen=True)
class Policy:
    """By how much the number of pods may change within a period."""

    kind: str
    """Pods or Percent."""
    value: int
    period_s: int


@dataclass(frozen=True)
class Direction:
    """How fast it goes up, or down."""

    window_s: int
    policies: tuple[Policy, ...]


@dataclass(frozen=True)
class Hpa:
    """A HorizontalPodAutoscaler's settings."""

    min_pods: int
    max_pods: int
    targets: Mapping[str, float]
    """By metric, a pod; of CPU the share that is requested."""
    up: Direction
    down: Direction


def read_hpa(path: Path = HPA_FILE) -> Hpa:
    """What is shipped; raises ValueError for what the simulation does not know."""
    spec = yaml.safe_load(path.read_text())["spec"]
    rules = spec["behavior"]["scaleUp"], spec["behavior"]["scaleDown"]
    if any(rule.get("selectPolicy", "Max") != "Max" for rule in rules):
        raise ValueError(f"{path}: expected the selectPolicy Max")
    targets: dict[str, float] = {}
    for metric in spec["metrics"]:
        if metric["type"] == "Resource":
            target = metric["resource"]["target"]["averageUtilization"] / 100
            targets[metric["resource"]["name"]] = target
        else:
            pods = metric["pods"]
            targets[pods["metric"]["name"]] = float(pods["target"]["averageValue"])
    if unknown := targets.keys() - {CPU, QUEUE, REQUESTS}:
        raise ValueError(f"{path}: expected the metrics {CPU}, {QUEUE}, {REQUESTS}, got {unknown}")
    up, down = (
        Direction(
            rule["stabilizationWindowSeconds"],
            tuple(Policy(p["type"], p["value"], p["periodSeconds"]) for p in rule["policies"]),
        )
        for rule in rules
    )
    return Hpa(spec["minReplicas"], spec["maxReplicas"], targets, up, down)


def wanted(
    current: int, samples: Sequence[float], unready: int, missing: int, target: float
) -> int:
    """Pods that one metric asks for, from its values of ready pods.

    Pods without a value count as zero where more are wanted, and as the target where fewer are;
    those that are not ready yet count as zero where more are wanted.
    """
    if not samples:
        return current
    ratio = fmean(samples) / target
    counted = list(samples)
    if ratio > 1:
        counted += [0.0] * (unready + missing)
    elif ratio < 1:
        counted += [target] * missing
    new_ratio = fmean(counted) / target
    if abs(new_ratio - 1) <= TOLERANCE or (ratio > 1) != (new_ratio > 1):
        return current
    pods = math.ceil(new_ratio * len(counted))
    with_more = len(counted) > len(samples)
    if with_more and (pods < current if new_ratio > 1 else pods > current):
        return current
    return pods


class Autoscaler:
    """What becomes of the pods that the metrics ask for: windows, policies, bounds."""

    def __init__(self, hpa: Hpa) -> None:
        self._hpa = hpa
        self._recommended: list[tuple[float, int]] = []
        self._changes: list[tuple[float, int]] = []

    def decide(self, now_s: float, current: int, recommended: int) -> int:
        """The number of pods from now on."""
        up, down = self._hpa.up, self._hpa.down
        self._recommended.append((now_s, recommended))
        up_to = min(self._within(up.window_s, now_s))
        down_to = max(self._within(down.window_s, now_s))
        pods = min(max(current, up_to), down_to)
        if pods > current:
            limit = max(self._limit(policy, now_s, current, 1) for policy in up.policies)
            pods = min(pods, max(limit, current), self._hpa.max_pods)
        elif pods < current:
            limit = min(self._limit(policy, now_s, current, -1) for policy in down.policies)
            pods = max(pods, min(limit, current), self._hpa.min_pods)
        self._changes.append((now_s, pods - current))
        return pods

    def _within(self, window_s: int, now_s: float) -> list[int]:
        *earlier, (_, latest) = self._recommended
        return [latest, *(pods for at_s, pods in earlier if at_s > now_s - window_s)]

    def _limit(self, policy: Policy, now_s: float, current: int, sign: int) -> int:
        changes = (change for at_s, change in self._changes if at_s > now_s - policy.period_s)
        at_start = current - sum(changes)
        if policy.kind == "Pods":
            return at_start + sign * policy.value
        share = at_start * (1 + sign * policy.value / 100)
        return math.ceil(share) if sign > 0 else int(share)
