"""A stand-in for an OpenTelemetry collector: keeps what it is sent over OTLP, or misbehaves."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)


@dataclass(frozen=True)
class Span:
    """A span as it arrived; ids in hex, times in nanoseconds."""

    name: str
    kind: int
    trace: str
    id: str
    parent: str
    begun: int
    ended: int
    failed: bool
    attributes: Mapping[str, Any]
    #: The attributes of the process.
    resource: Mapping[str, Any]


@dataclass
class Collector:
    """What arrived, and how requests are answered."""

    url: str = ""
    status: int = 200
    #: Set, unless requests are left without an answer.
    answers: threading.Event = field(default_factory=threading.Event)
    requests: list[tuple[str, Mapping[str, str], bytes]] = field(default_factory=list)

    @property
    def spans(self) -> list[Span]:
        """All spans that arrived, by their beginning."""
        found = [
            _span(one, _values(of_process.resource.attributes))
            for _, _, body in self.requests
            for of_process in ExportTraceServiceRequest.FromString(body).resource_spans
            for scope in of_process.scope_spans
            for one in scope.spans
        ]
        return sorted(found, key=lambda span: span.begun)

    @property
    def bytes(self) -> bytes:
        """All that arrived."""
        return b"".join(body for _, _, body in self.requests)


def _span(one: Any, resource: Mapping[str, Any]) -> Span:
    return Span(
        one.name,
        one.kind,
        one.trace_id.hex(),
        one.span_id.hex(),
        one.parent_span_id.hex(),
        one.start_time_unix_nano,
        one.end_time_unix_nano,
        one.status.code == one.status.STATUS_CODE_ERROR,
        _values(one.attributes),
        resource,
    )


def _values(attributes: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}


@contextmanager
def collector(status: int = 200, *, answers: bool = True) -> Iterator[Collector]:
    """A collector on a free port."""
    kept = Collector(status=status)
    if answers:
        kept.answers.set()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            kept.requests.append((self.path, dict(self.headers), body))
            kept.answers.wait()
            answer = ExportTraceServiceResponse().SerializeToString()
            self.send_response(kept.status)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: Any) -> None:
            """Requests are not logged."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None:
            """A client that has gone is part of the tests."""

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    kept.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield kept
    finally:
        kept.answers.set()
        server.shutdown()
        server.server_close()
        thread.join()
