"""Traces: which spans a send has, whatever happens to it, and that they cost nothing when off."""

import json
import logging
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from newsletter import tracing
from newsletter.accounts.audit import Actor
from newsletter.container import Container
from newsletter.db.engine import transaction
from newsletter.provider.events import made_mark, parse
from newsletter.provider.gateway import Refused, Unknown
from newsletter.sending.ledger import provider_backoff
from newsletter.sending.ledger.batch_store import BatchStore
from newsletter.sending.operations import lifecycle as send_lifecycle
from newsletter.sending.recovery import uncertain_batches
from newsletter.tracing import TracedSend
from tests.conftest import NOW
from tests.newsletter.provider.conftest import gateway, provider
from tests.newsletter.sending.conftest import (
    FakeGateway,
    batches,
    dispatcher,
    drain,
    five,
    make_plan,
    make_send,
    planned,
)
from tests.otlp_collector import Collector, Span, collector

__all__ = ["five"]

BY = Actor(None, "operator")
#: Any OTEL variable of the machine that runs the tests would change them.
VARIABLES = [name for name in os.environ if name.startswith("OTEL_")]


@pytest.fixture
def collected(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """A collector, which the variables name."""
    for name in VARIABLES:
        monkeypatch.delenv(name)
    with collector() as kept:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", kept.url)
        yield kept
        tracing.stop()


def by_name(collected: Collector) -> dict[str, list[Span]]:
    found: dict[str, list[Span]] = {}
    for span in collected.spans:
        found.setdefault(span.name, []).append(span)
    return found


def outcomes(spans: list[Span]) -> list[tuple[int, str, bool]]:
    """Attempt, outcome and whether it failed, of each."""
    return [
        (
            span.attributes["newsletter.attempt"],
            span.attributes["newsletter.outcome"],
            span.failed,
        )
        for span in spans
    ]


@pytest.mark.both_databases
def test_each_attempt_is_a_span_and_events_belong_to_the_one_that_was_accepted(
    container: Container, five: list[int], collected: Collector
) -> None:
    answers = [429, 202]

    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(answers.pop(0))
        request.send_header("Content-Length", "0")
        request.end_headers()

    database = container.database
    with container.writing_traces(), provider(answer) as host:
        send = planned(database, size=5)
        worker = dispatcher(database, gateway(host))
        assert worker.send_next()
        with transaction(database) as session:
            provider_backoff.lift(session)
        assert worker.send_next()
        worker.release()
        post = [
            {
                "event": kind,
                "email": "p1@example.org",
                "timestamp": int(time.time()),
                "sg_event_id": f"id-{kind}",
                "nl_issue": "1",
                "nl_send": str(send),
                "nl_batch": "1",
                "nl_subscriber": str(five[0]),
                "nl_made": str(made_mark(NOW)),
            }
            for kind in ("processed", "delivered", "delivered2")
        ]
        events = parse(json.dumps(post).encode())
        container.ingest(events)
        container.ingest(events)  # repeats are no events
    spans = by_name(collected)
    assert {name: len(found) for name, found in spans.items()} == {
        "create send": 1,
        "plan send": 1,
        "send batch": 2,
        "POST /v3/mail/send": 2,
        "send": 1,
        "receive events": 1,
    }
    first, second = spans["send batch"]
    assert outcomes([first, second]) == [(1, "requeued", True), (2, "accepted", False)]
    requests = spans["POST /v3/mail/send"]
    assert outcomes(requests) == [(1, "not_sent", True), (2, "accepted", False)]
    assert [span.parent for span in requests] == [first.id, second.id]
    [received] = spans["receive events"]
    assert received.parent == second.id
    counts = {k: v for k, v in received.attributes.items() if ".events." in k}
    assert counts == {
        "newsletter.events.all": 3,
        "newsletter.events.processed": 1,
        "newsletter.events.delivered": 1,
        "newsletter.events.other": 1,
    }
    [root] = spans["create send"]
    assert root.attributes["newsletter.origin"] == "command"
    assert root.begun == made_mark(NOW) * 1000
    assert len({span.trace for span in collected.spans}) == 1


def test_a_refusal_and_a_lost_answer_fail_without_the_provider_s_words(
    container: Container, five: list[int], collected: Collector
) -> None:
    refused = Refused(400, "p1@example.org is no address", recipient=0)
    with container.writing_traces():
        planned(container.database, size=5)
        drain(container.database, FakeGateway(refused, Unknown("timed out for p2@example.org")))
    assert outcomes(by_name(collected)["send batch"]) == [
        (1, "recipient rejected", True),
        (2, "uncertain", True),
    ]
    assert b"@example" not in collected.bytes
    assert b"timed out" not in collected.bytes


@pytest.mark.both_databases
def test_who_finds_the_batch_of_a_dead_worker_writes_its_span(
    container: Container, five: list[int], collected: Collector
) -> None:
    database = container.database
    with container.writing_traces():
        send = planned(database, size=5)
        left = datetime.now(UTC)
        with transaction(database) as session:
            batch = BatchStore("dead", lease=timedelta(minutes=1)).claim(session, now=left)
            assert batch is not None
            assert BatchStore("w", lease=timedelta(seconds=-1)).depart(session, batch, [], now=left)
        with transaction(database) as session:
            uncertain_batches.recover(session, now=left, grace=timedelta(minutes=30), policy="hold")
        assert batches(database, send)[0].state == "uncertain"
    [span] = by_name(collected)["send batch"]
    assert outcomes([span]) == [(1, "uncertain", True)]
    assert span.begun == made_mark(left) * 1000


def test_what_was_rolled_back_leaves_no_span(
    container: Container, five: list[int], collected: Collector
) -> None:
    database = container.database
    with container.writing_traces():
        send = make_send(database)
        with pytest.raises(ZeroDivisionError), transaction(database) as session:
            with session.begin_nested():
                send_lifecycle.cancel(session, send, by=BY, now=NOW)
            raise ZeroDivisionError
    assert [span.name for span in collected.spans] == ["create send"]


def test_a_send_that_is_cancelled_and_retried_has_a_span_for_each_end(
    container: Container, five: list[int], collected: Collector
) -> None:
    database, now = container.database, datetime.now(UTC)
    with container.writing_traces():
        send = make_send(database)
        make_plan(database, send, batch_size=5)
        with transaction(database) as session:
            send_lifecycle.cancel(session, send, by=BY, now=now)
        with transaction(database, snapshot=True) as session:
            send_lifecycle.retry(session, send, by=BY, now=now, batch_size=5)
        drain(database, FakeGateway())
    spans = by_name(collected)
    assert [one.attributes["newsletter.outcome"] for one in spans["send"]] == ["cancelled", "sent"]
    assert len(spans["plan send"]) == 2
    assert len({span.id for span in collected.spans}) == len(collected.spans)
    assert Counter(span.parent for span in collected.spans) == {
        "": 1,
        spans["create send"][0].id: 5,
    }


def test_another_process_and_a_restart_find_the_same_ids(collected: Collector) -> None:
    send = TracedSend(7, NOW, "first")
    for database in ("one", "one", "two"):
        tracing.start(database)
        tracing.write_root(send, "create send", begun=1, attributes={})
        tracing.BatchTrace(send, 1, 1, size=10).end("accepted")
        tracing.stop()
    tracing.start("one")
    tracing.write_root(TracedSend(7, NOW + timedelta(microseconds=1)), "r", begun=1, attributes={})
    tracing.stop()
    roots = [span for span in collected.spans if not span.parent]
    batches_ = [span for span in collected.spans if span.parent]
    assert [len({(span.trace, span.id) for span in roots}), len({s.id for s in batches_})] == [3, 2]
    assert {(span.trace, span.id) for span in roots} >= {(s.trace, s.parent) for s in batches_}


def test_a_sampler_keeps_a_trace_whole_or_leaves_it_out(
    collected: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.5")
    for begin in (0, 50):  # two processes
        tracing.start("database")
        for number in range(100):
            send = TracedSend(number, NOW)
            if not begin:
                tracing.write_root(send, "create send", begun=1, attributes={})
            tracing.BatchTrace(send, begin, 1, size=10).end("accepted")
        tracing.stop()
    sizes = Counter(span.trace for span in collected.spans)
    assert set(sizes.values()) == {3}
    assert 20 < len(sizes) < 80


def test_log_lines_find_the_trace_of_a_send_that_the_process_knows(
    container: Container, five: list[int], collected: Collector
) -> None:
    send = make_send(container.database)
    assert tracing.trace_id(send) is None
    with container.writing_traces():
        known = tracing.trace_id(send)
        planned_people = make_plan(container.database, send)
        assert tracing.trace_id(send + 1) is None
    assert tracing.trace_id(send) is None
    assert planned_people == 5
    assert [span.trace for span in collected.spans] == [known]


WRONG = {
    "OTEL_BSP_SCHEDULE_DELAY": "-1",
    "OTEL_BSP_MAX_QUEUE_SIZE": "many",
    "OTEL_EXPORTER_OTLP_TIMEOUT": "soon",
    "OTEL_EXPORTER_OTLP_ENDPOINT": "localhost:4318",
}


@pytest.mark.parametrize(("name", "value"), WRONG.items())
def test_a_variable_that_is_wrong_prevents_nothing_but_traces(
    name: str,
    value: str,
    collected: Collector,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv(name, value)
    tracing.start("database")
    tracing.BatchTrace(TracedSend(1, NOW), 1, 1, size=10).end("accepted")
    tracing.stop()
    said = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(said) == 1
    assert not any(record.exc_info for record in said)


def test_a_protocol_that_is_not_spoken_is_a_warning(
    collected: Collector, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    tracing.start("database")
    tracing.stop()
    assert "http/protobuf, and not by grpc" in caplog.text


def test_a_collector_that_fails_and_recovers_is_told_once_each(
    collected: Collector, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "newsletter.tracing")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collected.url.replace("//", "//me:pass@"))
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    collected.status = 400
    send = TracedSend(1, NOW)
    tracing.start("database")
    for number in range(3):
        tracing.BatchTrace(send, number, 1, size=10).end("accepted")
        _until(lambda number=number: len(collected.requests) > number)
    collected.status = 200
    tracing.BatchTrace(send, 4, 1, size=10).end("accepted")
    _until(lambda: "again" in caplog.text)
    tracing.stop()
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2
    assert collected.url.removeprefix("http://") in said[0]
    assert "pass" not in caplog.text


def _until(done) -> None:
    deadline = time.monotonic() + 30
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.01)


HEAVY = {"opentelemetry.sdk", "opentelemetry.exporter", "opentelemetry.proto", "google.protobuf"}


OFF: list[dict[str, str]] = [
    {},
    {"OTEL_EXPORTER_OTLP_ENDPOINT": ""},
    {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_SDK_DISABLED": "true"},
    {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_TRACES_EXPORTER": "none"},
]


@pytest.mark.slow
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_nothing_is_loaded_while_it_is_off(environment: dict[str, str]) -> None:
    program = f"""
import os, sys, threading
from newsletter import tracing
from newsletter.cli.processes import serve, worker
from newsletter.container import Container
from newsletter.settings.load import load
container = Container(load())
for variables in {OFF}:
    os.environ.update(variables)
    with container.writing_traces():
        container.ingest([])
        assert not tracing.is_on() and tracing.current_batch() is None
    for name in variables:
        del os.environ[name]
print(threading.active_count(), *sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**environment, "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=True,
    )
    threads, *modules = done.stdout.split()
    assert threads == "1"
    assert HEAVY & set(modules) == set()
    assert done.stderr == ""


@pytest.mark.slow
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("missing", ["google.protobuf", "opentelemetry.sdk"])
def test_without_the_extra_a_service_warns_and_runs(
    missing: str, environment: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(f"import sys\nsys.modules[{missing!r}] = None\n")
    log = tmp_path / "worker.log"
    with log.open("w") as file:
        worker = subprocess.Popen(
            [Path(sys.executable).with_name("newsletter"), "worker"],
            env={
                **environment,
                "PATH": os.environ["PATH"],
                "PYTHONPATH": str(tmp_path),
                "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:9/v1/traces",
            },
            stderr=file,
            cwd=tmp_path,
        )
    try:
        _until(lambda: "Ctrl-C stops it" in log.read_text())
        worker.terminate()
        assert worker.wait(30) == 0
    finally:
        worker.kill()
    assert (
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT is set, but OpenTelemetry is not installed. "
        "Install it: pip install 'newsletter[otel]'" in log.read_text()
    )
    assert "Traceback" not in log.read_text()
