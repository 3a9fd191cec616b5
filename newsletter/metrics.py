"""Adapter for prometheus_client: the metrics that this process counts, and the page of all metrics.

Counters and histograms count in this process from ``enable`` on; before that they do nothing and
the library is not loaded. Gauges have no memory: whoever makes the page reads their values.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import GaugeMetricFamily

#: All metrics, in the order of the documentation.
ALL: Final[list[Metric]] = []
#: The values of a label combination, in the order of the metric's labels → its value.
Values = Mapping[tuple[str, ...], float]

_FAST: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_SLOW: Final = (1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3600.0, 21600.0, 86400.0)


class Metric:
    """The name, labels and meaning of one metric."""

    kind: ClassVar[str]

    def __init__(self, name: str, meaning: str, **labels: Sequence[str]) -> None:
        self.name, self.meaning = name, meaning
        #: Label → its known values; empty where the program does not list them.
        self.labels = labels
        #: The library's object, once ``enable`` was called.
        self._made: Any = None
        ALL.append(self)

    def make(self, _registry: CollectorRegistry) -> None:
        """Create the library's object, which counts from now on."""

    def _add_known(self) -> None:
        """Begin with 0 for each known value of its only label, so that the first one is a rise."""
        if len(self.labels) == 1:
            for name, values in self.labels.items():
                for value in values:
                    self._made.labels(**{name: value})

    def _of(self, labels: Mapping[str, str]) -> Any:  # noqa: ANN401 (the library has no types for it)
        return self._made.labels(**labels) if labels else self._made


class Counter(Metric):
    """A number that only grows, until the process ends."""

    kind = "counter"

    def make(self, registry: CollectorRegistry) -> None:
        """Create it."""
        from prometheus_client import Counter as Made  # noqa: PLC0415 (see the module)

        self._made = Made(self.name, self.meaning, tuple(self.labels), registry=registry)
        self._add_known()

    def add(self, amount: float = 1, **labels: str) -> None:
        """Add to it."""
        if self._made is not None and amount:
            self._of(labels).inc(amount)


class Histogram(Metric):
    """How many measured values are at most as large as each of some limits."""

    kind = "histogram"

    def __init__(
        self, name: str, meaning: str, limits: Sequence[float], **labels: Sequence[str]
    ) -> None:
        super().__init__(name, meaning, **labels)
        self._limits = limits

    def make(self, registry: CollectorRegistry) -> None:
        """Create it."""
        from prometheus_client import Histogram as Made  # noqa: PLC0415 (see the module)

        self._made = Made(
            self.name, self.meaning, tuple(self.labels), registry=registry, buckets=self._limits
        )
        self._add_known()

    def observe(self, value: float, **labels: str) -> None:
        """Count one measured value."""
        if self._made is not None:
            self._of(labels).observe(value)


class Gauge(Metric):
    """A value that rises and falls, read when the page is made."""

    kind = "gauge"


RECIPIENTS: Final = Counter(
    "newsletter_recipients_total",
    "Recipients of batches that this process settled, by outcome.",
    outcome=("accepted", "rejected", "uncertain", "skipped"),
)
PROVIDER_REQUESTS: Final = Histogram(
    "newsletter_provider_request_duration_seconds",
    "Duration of a mail send request to SendGrid, by outcome.",
    _FAST,
    outcome=("accepted", "refused", "not_sent", "unknown"),
)
WEBHOOK_POSTS: Final = Counter(
    "newsletter_webhook_posts_total",
    "Posts of events from SendGrid: accepted, refused for the signature, or not a list of events.",
    result=("accepted", "bad_signature", "not_events"),
)
WEBHOOK_EVENTS: Final = Counter(
    "newsletter_webhook_events_total",
    "New events that SendGrid reported, by kind. Repeated events do not count.",
    kind=(),
)
WEBHOOK_LAG: Final = Histogram(
    "newsletter_webhook_lag_seconds",
    "Time from an event, by SendGrid's clock, to the commit that stored it.",
    _SLOW,
)
BREAKER_TRIPS: Final = Counter(
    "newsletter_circuit_breaker_trips_total",
    "Sends that the circuit breaker paused, in the process that ran the clock.",
)
SCHEDULE_RUNS: Final = Counter(
    "newsletter_schedule_runs_total",
    "Runs of schedules by result, in the process that ran the clock.",
    result=("sent", "nothing", "skipped", "missed", "failed", "error"),
)
HTTP_REQUESTS: Final = Counter(
    "newsletter_http_requests_total",
    "Requests to the service, by method, route and status. Paths without a route are `none`.",
    method=(),
    route=(),
    status=(),
)
HTTP_DURATION: Final = Histogram(
    "newsletter_http_request_duration_seconds",
    "Time from the head of a request to the head of its answer, by route.",
    _FAST,
    route=(),
)

DATABASE_UP: Final = Gauge(
    "newsletter_database_up",
    "1 if the database answered. Otherwise 0, and the gauges that come from it are missing.",
)
SENDS: Final = Gauge("newsletter_sends", "Sends by state.", state=())
SENDS_PAUSED: Final = Gauge(
    "newsletter_sends_paused", "Paused sends by what paused them.", cause=()
)
BATCHES: Final = Gauge(
    "newsletter_batches", "Batches by state, of sends that are in progress or paused.", state=()
)
UNCERTAIN_BATCHES: Final = Gauge(
    "newsletter_uncertain_batches", "Batches without an answer, of all sends."
)
OLDEST_DUE_BATCH: Final = Gauge(
    "newsletter_oldest_due_batch_age_seconds",
    "How long the oldest due batch of the sends in progress has been due. 0 if none is due. It "
    "also rises while a large send leaves as fast as possible.",
)
OUTBOX: Final = Gauge("newsletter_outbox_emails", "Single emails that wait to be sent.")
OUTBOX_AGE: Final = Gauge(
    "newsletter_outbox_oldest_age_seconds",
    "Age of the oldest single email that waits to be sent. 0 if none waits.",
)
BACKOFF: Final = Gauge(
    "newsletter_provider_backoff", "1 while sending waits after errors of the provider, else 0."
)
CLOCK_HELD: Final = Gauge("newsletter_clock_held", "1 if a process runs the clock, else 0.")

CLOCK_LEADER: Final = Gauge("newsletter_clock_leader", "1 if this process runs the clock, else 0.")
CONNECTIONS: Final = Gauge(
    "newsletter_database_connections",
    "Connections of this process to the database: in use, or idle in the pool.",
    state=("in_use", "idle"),
)
CONNECTIONS_MAX: Final = Gauge(
    "newsletter_database_connections_max", "The most connections that this process may open."
)
BUILD_INFO: Final = Gauge(
    "newsletter_build_info", "Always 1; the labels tell the versions.", version=(), python=()
)

_lock = threading.Lock()
_registry: list[CollectorRegistry] = []


def enable() -> None:
    """Count from now on in this process."""
    from prometheus_client import (  # noqa: PLC0415
        CollectorRegistry,
        ProcessCollector,
        disable_created_metrics,
    )

    with _lock:
        if _registry:
            return
        # Prometheus has the time of the first sample itself.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        registry = CollectorRegistry()
        # CPU seconds, memory, open files and the start of the process.
        ProcessCollector(registry=registry)
        for metric in ALL:
            metric.make(registry)
        _registry.append(registry)


def page(gauges: Mapping[Gauge, Values]) -> bytes:
    """All metrics in Prometheus's text format; ``gauges`` has the values of the gauges."""
    from prometheus_client import CollectorRegistry, generate_latest  # noqa: PLC0415

    registry = CollectorRegistry()
    registry.register(_Read(gauges))
    return generate_latest(registry) + b"".join(map(generate_latest, _registry))


class _Read:
    """The gauges with values, as the library collects them."""

    def __init__(self, gauges: Mapping[Gauge, Values]) -> None:
        self._gauges = gauges

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield each gauge with its values."""
        from prometheus_client.core import GaugeMetricFamily as Family  # noqa: PLC0415

        for gauge, values in self._gauges.items():
            family = Family(gauge.name, gauge.meaning, labels=tuple(gauge.labels))
            for labels, value in values.items():
                family.add_metric(labels, value)
            yield family


#: The content type of the page.
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
