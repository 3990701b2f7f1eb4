"""Metrics for tests that load models without a server."""

from service.artifacts.manifest import Manifest
from service.protocols import native
from service.server.app import served_model
from service.telemetry.metrics import Metrics

PROTOCOLS = tuple(dict.fromkeys(route.protocol for route in native.routes()))


def metrics_of(*manifests: Manifest) -> Metrics:
    """The metrics of a process that serves these models, shared with no other."""
    return Metrics([served_model(manifest) for manifest in manifests], PROTOCOLS)
