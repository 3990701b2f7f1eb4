"""Traces, as a collector gets them over OTLP."""

import gzip
import signal
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Queue

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.server import serve
from tests.service.protocols.test_native import PNG, PREDICT, SAMPLE

HANGS_S = 60
TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
PARENT_ID = "b7ad6b7169203331"


@pytest.fixture
def received(monkeypatch: pytest.MonkeyPatch) -> Iterator["Queue[ExportTraceServiceRequest]"]:
    """What a collector receives from the servers that a test starts."""
    received: Queue[ExportTraceServiceRequest] = Queue()

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            received.put(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Collector) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        endpoint = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        yield received
        server.shutdown()


def spans(export: ExportTraceServiceRequest) -> list[Span]:
    return [
        span
        for resource in export.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]


def test_request_is_a_span_of_the_callers_trace_with_its_stages(
    received: "Queue[ExportTraceServiceRequest]", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
    with serve(tmp_path, models="fashion-mnist", workers=1) as server:
        headers = PNG | {"traceparent": f"00-{TRACE_ID}-{PARENT_ID}-01", "X-Request-ID": "traced"}
        answer = httpx.post(f"{server.url}{PREDICT}", content=SAMPLE, headers=headers)
        assert answer.status_code == 200
        export = received.get(timeout=HANGS_S)
    *stages, span = spans(export)  # and none for the probes of the start
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE_ID, PARENT_ID)
    values = {attribute.key: attribute.value for attribute in span.attributes}
    assert values["vitrine.request_id"].string_value == "traced"
    assert values["vitrine.model"].string_value == "fashion-mnist"
    assert [stage.name for stage in stages] == ["decode", "queue", "predict", "encode"]
    times = [span.start_time_unix_nano]
    for stage in stages:
        assert (stage.trace_id, stage.parent_span_id) == (span.trace_id, span.span_id)
        times += [stage.start_time_unix_nano, stage.end_time_unix_nano]
    times.append(span.end_time_unix_nano)
    assert times == sorted(times)
    (resource,) = export.resource_spans
    names = {attribute.key: attribute.value for attribute in resource.resource.attributes}
    assert names["service.name"].string_value == "vitrine"


def test_buffered_spans_are_sent_when_the_server_stops(
    received: "Queue[ExportTraceServiceRequest]", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "3600000")
    with serve(tmp_path, models="fashion-mnist", workers=1) as server:
        assert httpx.post(f"{server.url}{PREDICT}", content=SAMPLE, headers=PNG).status_code == 200
        assert server.stop(signal.SIGTERM) == 0
    *_, span = spans(received.get(timeout=HANGS_S))
    assert span.name == f"POST {PREDICT}"


def test_unsupported_protocol_stops_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    expected = "error: OTEL_EXPORTER_OTLP_PROTOCOL: expected http/protobuf, got 'grpc'"
    with (
        pytest.raises(RuntimeError, match=expected),
        serve(tmp_path, models="fashion-mnist", workers=1),
    ):
        pass
