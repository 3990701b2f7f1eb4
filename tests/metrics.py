"""Metrics for tests that load models without a server."""

from service.artifacts.manifest import Manifest
from service.server.app import all_protocols, all_routes, served_model
from service.telemetry.metrics import Metrics

ROUTES = all_routes()
PROTOCOLS = all_protocols(ROUTES)


def metrics_of(*manifests: Manifest) -> Metrics:
    """The metrics that a process has which serves these models, shared with no other."""
    return Metrics([served_model(manifest, ROUTES) for manifest in manifests], PROTOCOLS)
