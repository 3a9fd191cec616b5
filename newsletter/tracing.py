"""Adapter for OpenTelemetry: one trace for each send, written by all processes that work on it.

The ids of a trace and of the spans that have children are hashes of the database's id, the send,
the batch and the attempt. So every process knows them, also after a restart, and nothing is
stored. A span is written when its work has ended. Until ``start``, nothing is written and the
library is not loaded.

No span has an address, a name or a subject line.
"""

from __future__ import annotations

import hashlib
import logging
import os
import platform
import random
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from typing import TYPE_CHECKING, Final, Literal, cast
from urllib.parse import urlsplit

from sqlalchemy import event

from newsletter.db.orm import Session

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
    from opentelemetry.sdk.trace.id_generator import IdGenerator
    from opentelemetry.trace import Tracer

_log = logging.getLogger(__name__)

#: Any of these variables turns tracing on. The SDK reads them, and all others that begin with OTEL.
_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
#: Seconds that the end of a process waits for the collector.
_FLUSH_LIMIT: Final = 3.0
#: The most sends whose trace ids are kept for log lines.
_MAX_KNOWN: Final = 1000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
#: The key of the first span of a trace, the parent of all others but those of batches.
_ROOT: Final = "send"

Value = str | int | bool
Kind = Literal["internal", "client", "consumer"]
_NONE: Final[Mapping[str, Value]] = {}


@dataclass(frozen=True, slots=True)
class TracedSend:
    """The send of a trace."""

    id: int
    #: When it was created. In a restored database another send may have the same id.
    made_at: datetime
    #: The slug of its issue; empty if it is not known.
    issue: str = ""


def is_wanted() -> bool:
    """Whether the standard variables of OpenTelemetry ask for traces."""
    return (
        bool(_endpoint()[1])
        and _variable("OTEL_SDK_DISABLED").lower() != "true"
        and _variable("OTEL_TRACES_EXPORTER").lower() != "none"
    )


def is_on() -> bool:
    """Whether spans are written."""
    return _running is not None


def now() -> int:
    """The time in nanoseconds, as spans have it."""
    return time.time_ns()


def at(moment: datetime) -> int:
    """A moment in nanoseconds, as spans have it."""
    return (moment - _EPOCH) // _MICROSECOND * 1000


def start(database: str) -> None:
    """Write spans from now on, to the collector that the variables name.

    ``database`` is the id of the database. What prevents traces is a warning and no error.
    """
    global _running  # noqa: PLW0603 (the state of this process, as in logging)
    if _running is not None:
        return
    if not _log.isEnabledFor(logging.WARNING):
        # Commands show errors only, but whoever has set the variables wants to know.
        _log.setLevel(logging.WARNING)
    name, endpoint = _endpoint()
    if not endpoint.startswith(("http://", "https://")):
        _log.warning(
            "no traces are written: %s must begin with http:// or https://, as in "
            "http://localhost:4318",
            name,
        )
        return
    try:
        _running = _Running(database)
    except ImportError:
        _log.warning(
            "no traces are written: %s is set, but OpenTelemetry is not installed. Install it: "
            "pip install 'newsletter[otel]'",
            name,
        )
        return
    except Exception as error:  # noqa: BLE001 (a wrong variable must not stop a service)
        _log.warning("no traces are written: %s: %s", type(error).__name__, error)
        return
    protocol = _variable("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or _variable(
        "OTEL_EXPORTER_OTLP_PROTOCOL"
    )
    if protocol not in {"", "http/protobuf"}:
        _log.warning(
            "traces are sent by http/protobuf, and not by %s: %s must be the collector's address "
            "for that, often with port 4318",
            protocol,
            name,
        )


def stop() -> None:
    """Stop writing spans; wait a few seconds at most for the collector to take the last ones."""
    global _running
    running, _running = _running, None
    if running is not None:
        running.stop()
    with _lock:
        _known.clear()


def on_commit(session: Session, write_spans: Callable[[], None]) -> None:
    """Call ``write_spans`` when the transaction of the session is committed."""
    if _running is None:
        return

    def committed(session: Session) -> None:
        # The release of a savepoint is no commit.
        if not session.in_nested_transaction():
            write_spans()

    event.listen(session, "after_commit", committed)


def write(
    send: TracedSend,
    name: str,
    *,
    begun: int,
    ended: int | None = None,
    key: str = "",
    parent: str = _ROOT,
    kind: Kind = "internal",
    failed: bool = False,
    attributes: Mapping[str, Value],
    standard: Mapping[str, Value] = _NONE,
) -> None:
    """Write a span of this send, which ends now unless ``ended`` tells when.

    ``key`` is for a span that may have children, which name it as their ``parent``. The names of
    ``attributes`` get the prefix ``newsletter.``; those of ``standard`` are OpenTelemetry's own.
    """
    if (running := _running) is None:
        return
    remember([send])
    own = {"send": send.id, **({"issue": send.issue} if send.issue else {}), **attributes}
    try:
        running.write(
            running.trace(send),
            name,
            begun=begun,
            # The machine's clock may have been set back meanwhile.
            ended=max(begun, ended or now()),
            key=key,
            parent=parent,
            kind=kind,
            failed=failed,
            attributes={**{f"newsletter.{name}": value for name, value in own.items()}, **standard},
        )
    except Exception as error:  # noqa: BLE001 (no trace is worth a failed send)
        _log.warning("a span could not be written: %s", type(error).__name__)


def write_root(send: TracedSend, name: str, *, begun: int, attributes: Mapping[str, Value]) -> None:
    """Write the first span of a send."""
    write(send, name, begun=begun, key=_ROOT, parent="", attributes=attributes)


def remember(sends: Iterable[TracedSend]) -> None:
    """Keep these sends for ``trace_id``."""
    with _lock:
        for send in sends:
            _known.pop(send.id, None)
            _known[send.id] = send
        while len(_known) > _MAX_KNOWN:
            del _known[next(iter(_known))]


def trace_id(send_id: object) -> str | None:
    """The trace of a send that this process has worked on, in hex; None when tracing is off."""
    send = _known.get(send_id) if isinstance(send_id, int) else None
    if _running is None or send is None:
        return None
    return f"{_running.trace(send):032x}"


def batch_key(number: int, attempt: int) -> str:
    """The key of the span of a batch's attempt."""
    return f"batch {number} attempt {attempt}"


class BatchTrace:
    """The span of an attempt to send a batch, from its claim on, or from ``begun``.

    In a ``with`` block, requests to the provider become its children.
    """

    def __init__(
        self,
        send: TracedSend,
        number: int,
        attempt: int,
        *,
        size: int,
        begun: int | None = None,
    ) -> None:
        self._send, self._number, self._attempt, self._size = send, number, attempt, size
        self._begun = now() if begun is None else begun
        #: The slug of the issue, once it is known.
        self.issue = send.issue
        remember([send] if _running else [])

    def __enter__(self) -> None:
        self._token = _current.set(self)

    def __exit__(self, *_error: object) -> None:
        _current.reset(self._token)

    def end(self, outcome: str, *, failed: bool = False) -> None:
        """Write the span."""
        write(
            replace(self._send, issue=self.issue),
            "send batch",
            begun=self._begun,
            key=batch_key(self._number, self._attempt),
            failed=failed,
            attributes={**self._attributes(outcome), "recipients": self._size},
        )

    def write_request(self, host: str, outcome: str, *, begun: int, status: int | None) -> None:
        """Write the span of a request to the provider at this URL."""
        server = urlsplit(host)
        standard: dict[str, Value] = {
            "http.request.method": "POST",
            "server.address": server.hostname or "",
        }
        if server.port is not None:
            standard["server.port"] = server.port
        if status is not None:
            standard["http.response.status_code"] = status
        write(
            replace(self._send, issue=self.issue),
            "POST /v3/mail/send",
            begun=begun,
            parent=batch_key(self._number, self._attempt),
            kind="client",
            failed=outcome != "accepted",
            attributes=self._attributes(outcome),
            standard=standard,
        )

    def _attributes(self, outcome: str) -> dict[str, Value]:
        return {"batch": self._number, "attempt": self._attempt, "outcome": outcome}


def current_batch() -> BatchTrace | None:
    """The batch that this thread sends; None if it sends none, or tracing is off."""
    return _current.get() if _running is not None else None


class _Running:
    """The tracing of this process, from ``start`` to ``stop``."""

    def __init__(self, database: str) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415
            OTLPSpanExporter,
        )
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

        # Until the end of this method, it may warn of variables that are wrong.
        logging.getLogger("opentelemetry").setLevel(logging.WARNING)
        # It would write the headers, which may have a password, when they are not valid.
        logging.getLogger("opentelemetry.util.re").setLevel(logging.CRITICAL)
        # It explains a wrong variable by a traceback.
        logging.getLogger("opentelemetry.sdk.trace.export").addFilter(_without_traceback)
        self._database = database
        self._ids = _Ids()
        self._exporter = _Exporter(OTLPSpanExporter())
        self._provider: TracerProvider = TracerProvider(
            resource=Resource.create(_resource()),
            id_generator=cast("IdGenerator", self._ids),
            # It would wait half a minute.
            shutdown_on_exit=False,
        )
        self._processor: BatchSpanProcessor = BatchSpanProcessor(
            cast("SpanExporter", self._exporter)
        )
        self._provider.add_span_processor(self._processor)
        # Not the global provider, which libraries would fill with spans that contain anything.
        self._tracer: Tracer = self._provider.get_tracer("newsletter", version("newsletter"))
        # _Exporter says it once; the library says it for each try, with tracebacks.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)

    def trace(self, send: TracedSend) -> int:
        """The id of the send's trace."""
        made = (send.made_at - _EPOCH) // _MICROSECOND
        return _hashed(16, "trace", self._database, str(send.id), str(made))

    def write(
        self,
        trace: int,
        name: str,
        *,
        begun: int,
        ended: int,
        key: str,
        parent: str,
        kind: Kind,
        failed: bool,
        attributes: Mapping[str, Value],
    ) -> None:
        """Write one span."""
        from opentelemetry import trace as api  # noqa: PLC0415
        from opentelemetry.sdk.trace.sampling import Decision  # noqa: PLC0415

        context = api.set_span_in_context(api.INVALID_SPAN)
        if parent:
            # Another process may write the parent, or has written it. What the sampler decides
            # depends on the trace alone, so it is the same in all processes.
            sampled = self._provider.sampler.should_sample(context, trace, name).decision
            of_parent = api.SpanContext(
                trace,
                _span_id(trace, parent),
                is_remote=True,
                trace_flags=api.TraceFlags(int(sampled is Decision.RECORD_AND_SAMPLE)),
            )
            context = api.set_span_in_context(api.NonRecordingSpan(of_parent))
        self._ids.set_next(trace, _span_id(trace, key) if key else None)
        span = self._tracer.start_span(
            name, context, api.SpanKind[kind.upper()], attributes, start_time=begun
        )
        if failed:
            span.set_status(api.StatusCode.ERROR)
        span.end(ended)

    def stop(self) -> None:
        """Hand over the last spans, for a few seconds at most."""
        # The library would wait longer than service managers do.
        last = threading.Thread(target=self._processor.shutdown, name="last spans", daemon=True)
        last.start()
        last.join(_FLUSH_LIMIT)
        self._exporter.shutdown()


class _Ids:
    """Gives the next span of a thread the ids that were set for it."""

    def __init__(self) -> None:
        self._of_thread = threading.local()

    def set_next(self, trace: int, span: int | None) -> None:
        """Set the ids of the next span of this thread; None for a random one."""
        self._of_thread.ids = trace, span

    def generate_trace_id(self) -> int:
        """The id of the next span's trace."""
        trace: int = self._of_thread.ids[0]
        return trace

    def generate_span_id(self) -> int:
        """The id of the next span."""
        span: int | None = self._of_thread.ids[1]
        return span if span is not None else random.getrandbits(64) or 1

    def is_trace_id_random(self) -> bool:
        """A hash is as evenly distributed as a random id, which samplers need."""
        return True


class _Exporter:
    """Hands spans to the collector, and says once when it does not take them."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._fails = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Export the spans; called in the processor's thread."""
        result = self._exporter.export(spans)
        fails = result.value != 0
        if fails != self._fails:
            self._fails = fails
            if fails:
                _log.warning(
                    "the OpenTelemetry collector at %s does not take traces, which are lost until "
                    "it does; sending goes on",
                    _collector(),
                )
            else:
                _log.info("the OpenTelemetry collector takes traces again")
        return result

    def shutdown(self) -> None:
        """End what is under way."""
        self._exporter.shutdown()

    def force_flush(self, _timeout_millis: int = 0) -> bool:
        """Nothing is kept here."""
        return True


def _without_traceback(record: logging.LogRecord) -> bool:
    record.exc_info = None
    return True


def _variable(name: str) -> str:
    return os.environ.get(name, "").strip()


def _endpoint() -> tuple[str, str]:
    """The variable with the collector's address, and the address; empty if there is none."""
    for name in _ENDPOINTS:
        if value := _variable(name):
            return name, value
    return "", ""


def _collector() -> str:
    """The collector's address, without a password or a path."""
    try:
        url = urlsplit(_endpoint()[1])
        port = f":{url.port}" if url.port else ""
    except ValueError:
        return "its address"
    return f"{url.hostname}{port}"


def _resource() -> dict[str, Value]:
    """What the collector learns of this process, but for what the variables say."""
    pairs = _variable("OTEL_RESOURCE_ATTRIBUTES").split(",")
    given = {pair.partition("=")[0].strip() for pair in pairs}
    if _variable("OTEL_SERVICE_NAME"):
        given.add("service.name")
    own: dict[str, Value] = {
        "service.name": "newsletter",
        "service.version": version("newsletter"),
        "host.name": platform.node(),
        "process.pid": os.getpid(),
    }
    return {name: value for name, value in own.items() if name not in given}


def _hashed(size: int, *parts: str) -> int:
    digest = hashlib.sha256("\0".join(("newsletter", *parts)).encode()).digest()
    return int.from_bytes(digest[:size]) or 1


def _span_id(trace: int, key: str) -> int:
    return _hashed(8, "span", str(trace), key)


_running: _Running | None = None
_lock = threading.Lock()
#: Id → send, for log lines, which have only the id.
_known: dict[int, TracedSend] = {}
_current: ContextVar[BatchTrace | None] = ContextVar("current_batch", default=None)
