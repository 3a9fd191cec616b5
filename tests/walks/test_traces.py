"""The trace of a send by processes that an operator starts: a service and a worker."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx2 as httpx
import pytest
from sqlalchemy import Engine, text

from newsletter.container import Container
from newsletter.db.engine import transaction
from newsletter.sandbox.server import RunningSandbox, SandboxConfig, start_sandbox
from newsletter.settings.load import load
from subscribers.segments import store as segment_store
from tests.conftest import add_person
from tests.newsletter.scheduling.conftest import approve, make_schedule
from tests.otlp_collector import Span, collector

ROOT = Path(__file__).parents[2]
NEWSLETTER = Path(sys.executable).with_name("newsletter")
PEOPLE, BATCH_SIZE = 120, 10
#: Kinds of spans in OTLP.
CLIENT, CONSUMER = 3, 5


@pytest.fixture
def sandbox() -> Iterator[RunningSandbox]:
    """Takes its time, so that both processes send."""
    with start_sandbox(SandboxConfig(api_keys=frozenset({"SG.test"}), event_delay=0.05)) as running:
        running.set_faults(slow={"probability": 1, "seconds": 0.3})
        yield running


@pytest.fixture
def traced(environment: dict[str, str], sandbox: RunningSandbox) -> dict[str, str]:
    """The environment of processes that write traces, but for the collector's address."""
    return {
        **environment,
        "PATH": os.environ["PATH"],
        "NEWSLETTER_LOGGING__FORMAT": "json",
        "NEWSLETTER_SENDGRID__HOST": sandbox.url,
        "NEWSLETTER_SENDGRID__WEBHOOK_PUBLIC_KEYS": sandbox.public_key,
        "NEWSLETTER_SENDING__BATCH_SIZE": str(BATCH_SIZE),
        "NEWSLETTER_SENDING__CONCURRENCY": "1",
        "OTEL_BSP_SCHEDULE_DELAY": "200",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "1",
    }


@pytest.fixture
def parts(traced: dict[str, str]) -> Iterator[Container]:
    """What the test looks into the database with."""
    container = Container(load(traced))
    yield container
    container.database.dispose()


class Running:
    """A command of the newsletter as a process."""

    def __init__(self, folder: Path, environment: dict[str, str], *words: str) -> None:
        self._log = folder / f"{words[0]}.log"
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                [NEWSLETTER, *words], env=environment, stderr=log, cwd=folder
            )

    @property
    def said(self) -> str:
        return self._log.read_text()

    @property
    def lines(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.said.splitlines()]

    def until(self, done: Callable[[], object], seconds: float = 90) -> None:
        deadline = time.monotonic() + seconds
        while not done():
            assert self.process.poll() is None, self.said
            assert time.monotonic() < deadline, self.said
            time.sleep(0.05)

    def end(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(timeout=60) == 0, self.said

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


def is_sent(database: Engine) -> bool:
    with database.connect() as connection:
        return connection.scalar(text("SELECT state FROM send")) == "sent"


def send_by_schedule(parts: Container) -> None:
    """A schedule that is due, with an issue and readers."""
    now = datetime.now(UTC)
    with transaction(parts.database) as session:
        for n in range(PEOPLE):
            add_person(session, f"reader{n}@example.org", name=f"Zebulon{n}")
        segment_store.save(session, "everybody", "", now=now)
    approve(parts.database, "first", now=now)
    due = (now - timedelta(minutes=2)).replace(second=0, microsecond=0)
    make_schedule(parts.database, rule=f"{due:%Y-%m-%d %H:%M}", now=now - timedelta(hours=1))


def of_name(spans: list[Span], name: str) -> list[Span]:
    return [span for span in spans if span.name == name]


def contains(outer: Span, inner: Span) -> bool:
    return outer.begun <= inner.begun <= inner.ended <= outer.ended


@pytest.mark.slow
@pytest.mark.both_databases
def test_one_trace_tells_a_send_from_its_schedule_to_its_events(
    traced: dict[str, str], parts: Container, sandbox: RunningSandbox, tmp_path: Path
) -> None:
    started = time.time_ns()
    with collector() as collected, ExitStack() as ends:
        traced["OTEL_EXPORTER_OTLP_ENDPOINT"] = collected.url
        traced["OTEL_EXPORTER_OTLP_HEADERS"] = "x-key=secret"
        # FastAPI would then write spans of its own.
        traced["FASTAPI_OTEL_AUTO_CONFIGURE"] = "true"
        serve = Running(tmp_path, traced, "serve", "--port", "0")
        ends.callback(serve.kill)
        serve.until(lambda: "newsletter is at" in serve.said)
        address = re.search(r"newsletter is at (\S+)", serve.said)
        assert address
        sandbox.set_webhook_url(f"{address[1]}/webhooks/sendgrid/events")
        httpx.get(f"{address[1]}/unsubscribe/some-token?email=a@example.org")
        worker = Running(tmp_path, {**traced, "OTEL_SERVICE_NAME": "mailer"}, "worker")
        ends.callback(worker.kill)
        worker.until(lambda: "Ctrl-C stops it" in worker.said)
        send_by_schedule(parts)
        worker.until(lambda: is_sent(parts.database))
        serve.until(
            lambda: not httpx.get(f"{sandbox.url}/sandbox/summary").json()["pending_events"]
        )
        worker.end()
        serve.end()
    finished = time.time_ns()

    spans = collected.spans
    [root] = of_name(spans, "create send")
    assert {span.trace for span in spans} == {root.trace}
    assert len({span.id for span in spans}) == len(spans)
    assert root.parent == ""
    assert root.attributes["newsletter.origin"] == "schedule"
    assert all(span.attributes["newsletter.issue"] == "first" for span in spans)
    assert all(span.attributes["newsletter.send"] == 1 for span in spans)
    assert not any(span.failed for span in spans)

    [plan], [whole] = of_name(spans, "plan send"), of_name(spans, "send")
    batches = of_name(spans, "send batch")
    assert {span.parent for span in (plan, whole, *batches)} == {root.id}
    assert plan.attributes["newsletter.recipients"] == PEOPLE
    assert whole.attributes["newsletter.outcome"] == "sent"
    assert whole.attributes["newsletter.accepted"] == PEOPLE
    numbers = [span.attributes["newsletter.batch"] for span in batches]
    assert sorted(numbers) == list(range(1, PEOPLE // BATCH_SIZE + 1))
    assert {span.resource["service.name"] for span in batches} == {"newsletter", "mailer"}
    assert len({span.resource["process.pid"] for span in batches}) == 2

    by_id = {span.id: span for span in batches}
    requests = of_name(spans, "POST /v3/mail/send")
    assert sorted(span.parent for span in requests) == sorted(by_id)
    for request in requests:
        batch = by_id[request.parent]
        assert contains(batch, request)
        assert request.kind == CLIENT
        assert request.attributes["newsletter.batch"] == batch.attributes["newsletter.batch"]
        assert request.attributes["newsletter.attempt"] == 1
        assert request.attributes["newsletter.outcome"] == "accepted"
        assert request.attributes["server.address"] == "127.0.0.1"
        assert request.resource["process.pid"] == batch.resource["process.pid"]
        assert request.ended - request.begun >= 0.3e9  # the sandbox takes that long

    received = of_name(spans, "receive events")
    assert {span.parent for span in received} == set(by_id)
    events = Counter[str]()
    for span in received:
        assert span.kind == CONSUMER
        assert span.begun > by_id[span.parent].begun
        events.update({k: v for k, v in span.attributes.items() if ".events." in k})
    with parts.database.connect() as connection:
        stored = connection.execute(text("SELECT kind, count(*) FROM event GROUP BY kind")).all()
    assert {k.removeprefix("newsletter.events."): n for k, n in events.items()} == {
        **{row[0]: row[1] for row in stored},
        "all": sum(row[1] for row in stored),
    }

    assert started < root.begun <= root.ended <= plan.ended
    assert plan.begun <= min(span.begun for span in batches)
    assert whole.begun <= plan.ended
    assert whole.ended <= finished
    assert whole.ended >= max(span.ended for span in requests)

    said = serve.lines + worker.lines
    about = [line for line in said if "send" in line]
    assert about
    assert {line.get("trace_id") for line in about} == {root.trace}
    assert all("trace_id" not in line for line in said if "send" not in line)

    paths = {path for path, _, _ in collected.requests}
    assert paths == {"/v1/traces"}
    assert {headers["x-key"] for _, headers, _ in collected.requests} == {"secret"}
    # A single @ may also be a byte of an id.
    assert not any("@" in str([span.name, span.attributes, span.resource]) for span in spans)
    page = (ROOT / "docs" / "reference" / "traces.md").read_text()
    for span in spans:
        assert f"`{span.name}`" in page
        assert all(f"`{name}`" in page for name in span.attributes if ".events." not in name)
    for secret in (
        b"some-token",
        b"@example",
        b"example.org",
        b"Zebulon",
        b"Number first",
        b"weekly",
    ):
        assert secret not in collected.bytes, secret


@pytest.mark.slow
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize(("status", "answers"), [(500, True), (200, False)])
def test_a_collector_that_fails_or_hangs_delays_neither_a_send_nor_a_stop(
    status: int,
    answers: bool,
    traced: dict[str, str],
    parts: Container,
    tmp_path: Path,
) -> None:
    with collector(status, answers=answers) as failing, ExitStack() as ends:
        traced["OTEL_EXPORTER_OTLP_ENDPOINT"] = failing.url
        worker = Running(tmp_path, traced, "worker")
        ends.callback(worker.kill)
        worker.until(lambda: "Ctrl-C stops it" in worker.said)
        send_by_schedule(parts)
        worker.until(lambda: failing.requests)
        worker.until(lambda: is_sent(parts.database))
        worker.until(lambda: "does not take traces" in worker.said)
        # It still neither answers nor takes anything.
        worker.end()
    assert "Traceback" not in worker.said
    warnings = [line for line in worker.lines if line["level"] != "info"]
    assert len(warnings) == 1
    assert "sending goes on" in str(warnings[0]["message"])


@pytest.mark.slow
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_without_a_collector_a_send_ends_as_ever(
    traced: dict[str, str], parts: Container, tmp_path: Path
) -> None:
    with collector() as gone:
        pass
    traced["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"] = f"{gone.url}/v1/traces"
    with ExitStack() as ends:
        worker = Running(tmp_path, traced, "worker")
        ends.callback(worker.kill)
        worker.until(lambda: "Ctrl-C stops it" in worker.said)
        send_by_schedule(parts)
        worker.until(lambda: is_sent(parts.database))
        worker.end()
    assert "Traceback" not in worker.said
