"""OpenTelemetry: a span per request and one per stage, where an exporter is configured.

The OpenTelemetry SDK reads its own variables, such as OTEL_EXPORTER_OTLP_ENDPOINT,
OTEL_SERVICE_NAME and OTEL_TRACES_SAMPLER (opentelemetry.io, "Environment Variable Specification").
"""

import os
import time
from collections.abc import Mapping
from typing import Any

from service.call import Call
from service.errors import SettingsError

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL")
HTTP = "http/protobuf"


def is_configured(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether an OTLP endpoint is set."""
    return any(environment.get(name) for name in ENDPOINTS)


def start() -> Any:
    """Make this process's TracerProvider; raises SettingsError for an unsupported protocol."""
    for name in PROTOCOLS:
        if os.environ.get(name, HTTP) != HTTP:
            raise SettingsError(f"{name}: expected {HTTP}, got {os.environ[name]!r:.80}")
    # Imported only here: tracing that is off costs no memory and no start time.
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.trace import set_tracer_provider

    resource = Resource({SERVICE_NAME: "vitrine"}).merge(OTELResourceDetector().detect())
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    set_tracer_provider(provider)
    return provider


def close() -> None:
    """Send the spans that are still buffered."""
    if is_configured():
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.trace import get_tracer_provider

        provider = get_tracer_provider()
        if isinstance(provider, TracerProvider):
            provider.shutdown()


def annotate_span(call: Call) -> None:
    """Set the attributes of a request's span, and add a span per stage of each image."""
    from opentelemetry.trace import get_current_span, get_tracer

    get_current_span().set_attributes(
        {
            "vitrine.request_id": call.request_id,
            "vitrine.model": call.model,
            "vitrine.version": call.version,
            "vitrine.images": call.items,
            "vitrine.batch_size": call.batch_size,
        }
    )
    tracer = get_tracer("vitrine")
    offset_ns = time.time_ns() - time.perf_counter_ns()
    for stage, started, seconds in call.stages:
        started_ns = offset_ns + int(started * 1e9)
        span = tracer.start_span(stage, start_time=started_ns)
        span.end(started_ns + int(seconds * 1e9))
