"""What a process tells about itself: that it is alive, whether it is ready, and its metrics."""

import hmac
import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from importlib.metadata import version
from typing import Final, Protocol

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import QueuePool

from newsletter import metrics
from newsletter.container import Container
from newsletter.db.engine import responds
from newsletter.doctor import host, service
from newsletter.doctor.account import DoctorFinding, Verdict
from newsletter.metrics import Gauge, Values
from newsletter.monitoring import database_gauges
from newsletter.monitoring.cached_reading import CachedReading
from newsletter.scheduling.leadership import is_held

#: Seconds for which the readiness and the gauges are valid, and for which a client waits for them.
_KEEP, _KEEP_GAUGES, _WAIT = 1.0, 5.0, 3.0
#: Seconds in which another process takes over the clock, and in which a new process starts it.
_TAKE_OVER: Final = 20.0
#: Answers a client that has no right to the metrics.
_CHALLENGE: Final = {"WWW-Authenticate": 'Bearer realm="metrics"'}


class WorkingThreads(Protocol):
    """The sending threads of this process."""

    @property
    def is_working(self) -> bool:
        """Whether all of them run."""
        ...


class LeaderClock(Protocol):
    """The clock of this process."""

    @property
    def is_leader(self) -> bool:
        """Whether it runs the jobs."""
        ...


@dataclass(frozen=True, slots=True)
class Check:
    """One check of the readiness. The text has no secrets, addresses or paths."""

    name: str
    ok: bool
    text: str


@dataclass(frozen=True, slots=True)
class MetricsAnswer:
    """An HTTP answer with the metrics, or with the reason why there are none."""

    status: HTTPStatus
    body: bytes
    headers: dict[str, str]


class ProcessMonitor:
    """Answers the questions of monitoring about this process. Nothing runs until somebody asks."""

    def __init__(self, container: Container, *, has_metrics: bool | None = None) -> None:
        self._container = container
        self._workers: WorkingThreads | None = None
        self._clock: LeaderClock | None = None
        self._clock_held_at = time.monotonic()
        self._readiness = CachedReading(lambda: list(self._checks()), keep=_KEEP, wait=_WAIT)
        self._gauges = CachedReading(self._read_gauges, keep=_KEEP_GAUGES, wait=_WAIT)
        settings = container.settings.metrics
        self._token = settings.token.get_secret_value()
        #: Whether this process has metrics at all.
        self.has_metrics = (
            bool(self._token or settings.port) if has_metrics is None else has_metrics
        )
        if self.has_metrics:
            metrics.enable()

    def watch(self, workers: WorkingThreads, clock: LeaderClock) -> None:
        """Include the threads of this process from now on."""
        self._workers, self._clock = workers, clock

    def readiness(self) -> tuple[HTTPStatus, dict[str, object]]:
        """Whether this process can do its work: 200 or 503, and each check for people."""
        checks = self._readiness.get() or [
            Check("database", ok=False, text=f"no answer within {_WAIT:.0f} seconds")
        ]
        ready = all(check.ok for check in checks)
        return (
            HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE,
            {
                "status": "ready" if ready else "not ready",
                "checks": [
                    {"name": check.name, "ok": check.ok, "text": check.text} for check in checks
                ],
            },
        )

    def metrics(self, authorization: str, *, token_required: bool) -> MetricsAnswer:
        """The metrics in Prometheus's text format.

        A token of the settings has to be in the Authorization header. Without one,
        ``token_required`` says that there is no such page.
        """
        if not self.has_metrics or (token_required and not self._token):
            return MetricsAnswer(HTTPStatus.NOT_FOUND, b"", {})
        scheme, _, given = authorization.partition(" ")
        given, token = given.strip() if scheme.lower() == "bearer" else "", self._token
        if token and not hmac.compare_digest(given.encode(errors="replace"), token.encode()):
            return MetricsAnswer(HTTPStatus.UNAUTHORIZED, b"", _CHALLENGE)
        gauges = self._gauges.get() or {metrics.DATABASE_UP: {(): 0}}
        body = metrics.page({**gauges, **self._of_process()})
        return MetricsAnswer(HTTPStatus.OK, body, {"Content-Type": metrics.CONTENT_TYPE})

    def _checks(self) -> Iterator[Check]:
        database, settings = self._container.database, self._container.settings
        if self._workers is not None:
            working = self._workers.is_working
            text = "all threads run" if working else "a sending thread has ended; restart it"
            yield Check("this process", working, text)
        yield from self._of_disks()
        if not responds(database):
            yield Check("database", ok=False, text="does not answer; the log says why")
            return
        try:
            yield _check(host.of_database(database))
            if settings.subscribers.address_key.get_secret_value():
                key = self._container.address_key
                yield _check(host.of_address_key(database, key))
            yield self._of_clock()
            yield _check(service.of_sending(database, now=datetime.now(UTC)))
        except SQLAlchemyError:
            yield Check("database", ok=False, text="failed while it was asked")

    def _of_disks(self) -> Iterator[Check]:
        for name, folder in service.written_folders(self._container.settings):
            yield _check(service.of_disk_space(name, folder))

    def _of_clock(self) -> Check:
        """Whether a process runs the clock; a change from one to the next is no fault."""
        now, held = time.monotonic(), is_held(self._container.database)
        if held:
            self._clock_held_at = now
        elif now - self._clock_held_at < _TAKE_OVER:
            return Check("clock", ok=True, text="a process is about to take it over")
        return _check(service.of_clock(held=held, otherwise=Verdict.PROBLEM))

    def _read_gauges(self) -> dict[Gauge, Values]:
        return database_gauges.read(self._container.database, now=datetime.now(UTC))

    def _of_process(self) -> dict[Gauge, Values]:
        """The gauges of this process."""
        pool = self._container.database.pool
        assert isinstance(pool, QueuePool)
        leads = self._clock is not None and self._clock.is_leader
        return {
            metrics.CLOCK_LEADER: {(): int(leads)},
            metrics.CONNECTIONS: {("in_use",): pool.checkedout(), ("idle",): pool.checkedin()},
            metrics.CONNECTIONS_MAX: {(): pool.size() + pool._max_overflow},
            metrics.BUILD_INFO: {(version("newsletter"), platform.python_version()): 1},
        }


def _check(finding: DoctorFinding) -> Check:
    ok = finding.verdict in {Verdict.OK, Verdict.WARNING, Verdict.UNKNOWN}
    return Check(finding.subject, ok, finding.message)
