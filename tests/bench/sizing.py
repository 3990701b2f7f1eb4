"""From what a pod answers to pods, nodes, cost and bytes of a load: arithmetic and assumptions."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from tests.bench.pod import JPEG, POD_CPUS, SAMPLE, Measured

# Assumptions: of these the documents say that they are none of ours.
MIN_PODS = 2  # of the HPA
UTILISATION = 0.7  # of a pod's CPUs, on average
NODE_CPUS, NODE_CPUS_RESERVED = 16, 1  # kubelet, log and metrics agents, network
NODE_USD_AN_HOUR = 0.80
NODES_A_CLUSTER = 1000  # a fifth of what Kubernetes is tested with
HEAD_BYTES = 400  # request line or status, headers, TCP and IP: of a request, and of an answer
POD_START_S = 10  # scheduled, created, ready, known to every node; the image is there
MIN_READY_S = 5  # of the Deployment: until a rollout goes on
CONNTRACK_S = 120  # that a node remembers a closed connection
RATES = (1_000, 100_000, 10_000_000)
MIXES = {
    "small PNGs to fashion-mnist": {("fashion-mnist", SAMPLE): 1.0},
    "photos to cats-vs-dogs": {("cats-vs-dogs", JPEG): 1.0},
    "9 small PNGs to 1 photo": {("fashion-mnist", SAMPLE): 0.9, ("cats-vs-dogs", JPEG): 0.1},
}


@dataclass(frozen=True)
class Size:
    """What some requests/s take."""

    pods: int
    nodes: int
    clusters: int
    usd_an_hour: float
    usd_a_million: float
    """For a million images."""
    gbit_in: float
    gbit_out: float
    """Gbit/s to and from the pods."""
    rollout_h: float
    """Hours to replace all pods one by one (maxSurge: 1)."""
    conntrack: float
    """Connections that a node remembers if no client keeps one alive."""
    series: int


def images_per_s(measured: Measured, mix: Mapping[tuple[str, str], float]) -> float:
    """Of one pod that serves a mix: the pod's seconds add up, its images/s do not."""
    return 1 / sum(share / measured.of(*of).images_per_s for of, share in mix.items())


def pods(rate: float, images_per_s: float) -> int:
    """Pods for a rate, at the average utilisation that is aimed at; two, so that one may go."""
    return max(MIN_PODS, math.ceil(rate / (UTILISATION * images_per_s)))


def size(measured: Measured, mix: Mapping[tuple[str, str], float], rate: float) -> Size:
    """Pods, nodes, clusters, cost and network of a mix at some requests/s, an image each."""
    count = pods(rate, images_per_s(measured, mix))
    nodes = math.ceil(count / ((NODE_CPUS - NODE_CPUS_RESERVED) // POD_CPUS))
    usd_an_hour = nodes * NODE_USD_AN_HOUR
    bytes_in = sum(share * measured.of(*of).request_bytes for of, share in mix.items())
    bytes_out = sum(share * measured.of(*of).answer_bytes for of, share in mix.items())
    return Size(
        count,
        nodes,
        math.ceil(nodes / NODES_A_CLUSTER),
        usd_an_hour,
        usd_an_hour / (rate * 3600) * 1e6,
        rate * (bytes_in + HEAD_BYTES) * 8 / 1e9,
        rate * (bytes_out + HEAD_BYTES) * 8 / 1e9,
        count * (POD_START_S + MIN_READY_S) / 3600,
        rate * CONNTRACK_S / nodes,
        count * measured.series,
    )
