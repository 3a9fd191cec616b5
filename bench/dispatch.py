"""Planning and dispatching to a bare sink, against what the SDK alone can do.

Prints recipients a second, peak memory and the ratios to two limits, measured in the
same run with the same requests at the same concurrency:

- the SDK alone: ready-made request objects through ``SendGridAPIClient.send``;
- the SDK with ready-made JSON text, which spares it the encoding (docs/adr/0003);
- the same bytes over bare keep-alive connections (for information).
"""

import argparse
import http.client
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import orjson
import sendgrid
from sqlalchemy import insert, literal, select

from bench.report import peak_memory, table
from bench.sink import sink
from newsletter.assembly import Assembly
from newsletter.cli.issues import read_and_render
from newsletter.database import reading, transaction
from newsletter.provider.gateway import Accepted, MailRequest, Outcome
from newsletter.provider.payload import encoded
from newsletter.scheduling.jobs import start_due
from newsletter.sending import control, standing
from newsletter.sending.dispatch import Dispatcher
from newsletter.settings import load, resource
from subscribers import segments
from subscribers.address import hash_address, parse
from subscribers.models import Subscriber, Subscription, Topic
from subscribers.schema import table_of

_CHUNK = 10_000


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.dispatch", description=__doc__)
    parser.add_argument("--people", type=int, default=100_000)
    parser.add_argument("--concurrency", type=int, default=4)
    parser.add_argument("--database", help="a database URL; a new SQLite file unless given")
    options = parser.parse_args()
    run(options.people, options.concurrency, options.database)


def run(people: int = 100_000, concurrency: int = 4, database_url: str | None = None) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as folder, sink() as host:
        url = database_url or f"sqlite:///{Path(folder) / 'bench.db'}"
        assembly = _assembly(url, host, concurrency)
        _fill(assembly, people)
        before = peak_memory()
        planning, dispatching = _send(assembly)
        peak = peak_memory()
        requests = _requests(assembly, people)
        limits = _limits(host, requests, concurrency)
        kind = assembly.database.dialect.name
        assembly.database.dispose()
    whole = planning + dispatching
    size = sum(len(request) for request in requests) / len(requests) / 1000
    table(
        f"{people:,} recipients, {kind}, {concurrency} threads, requests of {size:,.0f} kB",
        ["", "seconds", "recipients/s", "plan+dispatch ÷ this", "dispatch ÷ this"],
        [
            ["plan", planning, people / planning, "", ""],
            ["dispatch", dispatching, people / dispatching, "", ""],
            ["plan and dispatch", whole, people / whole, "", ""],
            *(
                [name, seconds, people / seconds, seconds / whole, seconds / dispatching]
                for name, seconds in limits
            ),
        ],
    )
    table("Memory, MB", ["", "MB"], [["before the send", before], ["peak with the send", peak]])


def _assembly(url: str, host: str, concurrency: int) -> Assembly:
    key = "a benchmark's key is no secret at all"
    return Assembly(
        load(
            {
                "NEWSLETTER_DATABASE_URL": url,
                "NEWSLETTER_SENDGRID__HOST": host,
                "NEWSLETTER_SENDGRID__API_KEY": "SG.bench",
                "NEWSLETTER_LINKS__KEYS": key,
                "NEWSLETTER_SUBSCRIBERS__ADDRESS_KEY": key,
                "NEWSLETTER_SENDING__CONCURRENCY": str(concurrency),
                "NEWSLETTER_SITE__BASE_URL": "https://news.example.com",
            }
        )
    )


def _fill(assembly: Assembly, people: int) -> None:
    now = datetime.now(UTC)
    for begin in range(0, people, _CHUNK):
        rows = []
        for n in range(begin, min(begin + _CHUNK, people)):
            address = parse(f"reader{n}@example{n % 50}.com")
            rows.append(
                {
                    "email": address.email,
                    "address_hash": hash_address(assembly.address_key, address),
                    "name": f"Reader {n}",
                    "attributes": {"plan": "pro"},
                    "source": "bench",
                    "created_at": now,
                    "confirmed_at": now,
                }
            )
        with transaction(assembly.database) as session:
            session.connection().execute(insert(table_of(Subscriber)), rows)
    with transaction(assembly.database) as session:
        segments.save(session, "everybody", "", now=now)
        topic = Topic(slug="engineering", name="Engineering")
        session.add(topic)
        session.flush()
        person = table_of(Subscriber)
        everybody = select(person.c.id, literal(topic.id), person.c.created_at)
        columns = ["subscriber_id", "topic_id", "since"]
        session.execute(insert(table_of(Subscription)).from_select(columns, everybody))


def _send(assembly: Assembly) -> tuple[float, float]:
    """Seconds to plan, seconds to dispatch."""
    now = datetime.now(UTC)
    draft, rendered = read_and_render(assembly, resource("issues") / "letter-2026-03-28.md")
    with transaction(assembly.database) as session:
        send_id = control.create(session, draft, rendered, ["everybody"], at=now, now=now).id
    assert send_id is not None
    began = time.perf_counter()
    start_due(assembly.desk)
    planned = time.perf_counter()
    workers = assembly.workers()
    workers.start()
    while True:
        with reading(assembly.database) as session:
            if standing.find(session, send_id).state == "sent":
                break
        time.sleep(0.01)
    done = time.perf_counter()
    workers.stop()
    return planned - began, done - planned


class _Recorder:
    """A gateway that keeps each request's bytes."""

    def __init__(self) -> None:
        self.requests: list[bytes] = []

    def send(self, request: MailRequest) -> Outcome:
        self.requests.append(encoded(request).encode())
        return Accepted("recorded")


def _requests(assembly: Assembly, people: int) -> list[bytes]:
    """The very requests of the send, made again."""
    now = datetime.now(UTC)
    recorder = _Recorder()
    draft, rendered = read_and_render(assembly, resource("issues") / "letter-2026-03-28.md")
    again = type(draft)(**{**_fields(draft), "slug": "again"})
    with transaction(assembly.database) as session:
        control.create(session, again, rendered, ["everybody"], at=now, now=now)
    start_due(assembly.desk)
    dispatcher = Dispatcher(
        assembly.database,
        recorder,
        assembly.links,
        worker="recorder",
        base_url=assembly.settings.site.base_url,
        sender_email=assembly.settings.sender.email,
        sender_name=assembly.settings.sender.name,
        request_timeout=assembly.settings.sendgrid.timeout,
    )
    while dispatcher.send_next():
        pass
    assert len(recorder.requests) == -(-people // 1000)
    return recorder.requests


def _fields(draft: object) -> dict[str, object]:
    return {name: getattr(draft, name) for name in draft.__slots__}  # type: ignore[attr-defined]


def _limits(host: str, requests: list[bytes], concurrency: int) -> list[tuple[str, float]]:
    # Ready-made means decoded too; in slices, so that memory holds.
    return [
        (
            "limit: SDK, ready-made objects",
            _replay(requests, concurrency, _by_sdk(host), orjson.loads),
        ),
        (
            "limit: SDK, ready-made text",
            _replay(requests, concurrency, _by_sdk_text(host), bytes.decode),
        ),
        ("limit: bare keep-alive", _replay(requests, concurrency, _by_keep_alive(host), bytes)),
    ]


def _replay(
    requests: list[bytes],
    concurrency: int,
    post: Callable[[object], None],
    prepare: Callable[[bytes], object],
) -> float:
    seconds = 0.0
    with ThreadPoolExecutor(concurrency) as pool:
        for begin in range(0, len(requests), 100):
            ready = [prepare(request) for request in requests[begin : begin + 100]]
            began = time.perf_counter()
            for _ in pool.map(post, ready):
                pass
            seconds += time.perf_counter() - began
    return seconds


def _by_sdk(host: str) -> Callable[[object], None]:
    local = threading.local()

    def post(body: object) -> None:
        if not hasattr(local, "client"):
            local.client = sendgrid.SendGridAPIClient("SG.bench", host=host)
            local.client.client.timeout = 30
        assert local.client.send(body).status_code == 202

    return post


def _by_sdk_text(host: str) -> Callable[[object], None]:
    local = threading.local()

    def post(body: object) -> None:
        if not hasattr(local, "client"):
            local.client = sendgrid.SendGridAPIClient("SG.bench", host=host).client
            local.client.timeout = 30
            local.client.request_headers["Content-Type"] = "application/json; charset=utf-8"
        assert local.client.mail.send.post(request_body=body).status_code == 202

    return post


def _by_keep_alive(host: str) -> Callable[[object], None]:
    local = threading.local()
    address = urlsplit(host)

    def post(body: object) -> None:
        if not hasattr(local, "connection"):
            local.connection = http.client.HTTPConnection(address.hostname or "", address.port)
        local.connection.request("POST", "/v3/mail/send", body)  # type: ignore[arg-type]
        answer = local.connection.getresponse()
        answer.read()
        assert answer.status == 202

    return post


if __name__ == "__main__":
    main()
